"""Flow fits against densities that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raypipe.config import Flow
from raypipe.errors import UserError
from raypipe.fit.flows import ConditionalFlow
from raypipe.models.flow import FlowEnsemble
from tests.fit.fits import fit_flows

WINDOW = (105.0, 160.0)
CONFIG = Flow(members=5, leave_out=1, layers=2, hidden=16, blocks=1, epochs=15, batch_size=256, learning_rate=5e-3)


def toy(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two correlated latents whose mean moves with the mass."""
    rng = np.random.default_rng(seed)
    mass = rng.uniform(*WINDOW, n)
    mass = np.where((mass > 120) & (mass < 130), mass - 15, mass)  # the signal region is blind
    first = 0.04 * (mass - 130) + rng.normal(0, 1, n)
    return np.stack([first, 0.5 * first + rng.normal(0, 0.5, n)], 1).astype(np.float32), mass


@pytest.fixture(scope="module")
def fitted() -> ConditionalFlow:
    return fit_flows(*toy(12_000), WINDOW, CONFIG, seed=1)


def test_likelihood_reaches_the_true_one(fitted):
    x, mass = toy(4000, 1)
    residual = np.stack([x[:, 0] - 0.04 * (mass - 130), (x[:, 1] - 0.5 * x[:, 0]) / 0.5], 1)
    truth = -0.5 * (residual**2).sum(1) - np.log(2 * np.pi) - np.log(0.5)
    found = fitted.log_prob(x, mass)
    assert found.mean() == pytest.approx(truth.mean(), abs=0.03)  # nats
    assert np.corrcoef(found, truth)[0, 1] > 0.97


def test_samples_interpolate_a_gap_in_mass(fitted):
    masses = np.full(20_000, 125.0)
    x = fitted.sample(masses, np.random.default_rng(3))
    assert x.dtype == np.float32
    assert x.mean(0) == pytest.approx([-0.2, -0.1], abs=0.08)
    assert x.std(0) == pytest.approx([1.0, np.hypot(0.5, 0.5)], rel=0.05)
    assert np.corrcoef(x.T)[0, 1] == pytest.approx(np.sqrt(0.5), abs=0.03)
    same = [fitted.sample(masses[:100], np.random.default_rng(3)) for _ in range(2)]
    assert (same[0] == same[1]).all()
    assert (fitted.sample(masses[:100].astype(np.float32), np.random.default_rng(3)) == same[0]).all()


def test_what_single_precision_cannot_invert_is_drawn_in_double():
    """The same noise, to the last bit of the result: nothing is thrown away where a spline is steep."""
    shape = {"layers": 3, "hidden": 16, "blocks": 1, "bins": 6, "mixing": "rotate"}
    ensemble = FlowEnsemble(features=3, seeds=[1, 2], **shape)
    with torch.no_grad():
        for name, value in ensemble.named_parameters():
            value.mul_(8.0 if "final_layer" in name else 1.0)
    flow = ConditionalFlow(ensemble, shape, np.zeros(3), np.ones(3), 100.0, 160.0)
    found = flow.sample(np.full(8192, 130.0), np.random.default_rng(0))
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((8192, 3))).view(2, -1, 3)
    context = torch.zeros(2, 4096, 1, dtype=torch.float64)
    with torch.no_grad():
        single = ensemble.float().noise(ensemble.inverse(noise.float(), context.float()), context.float())
        double = ensemble.double().inverse(noise, context)
    assert 0 < ((single - noise).abs().amax(-1) > 1e-3).float().mean() < 0.2
    assert np.array_equal(found, double.reshape(-1, 3).numpy().astype(np.float32))


def test_a_member_does_not_depend_on_the_others():
    x, mass = toy(1000)
    short = CONFIG.model_copy(update={"epochs": 2})
    five = fit_flows(x, mass, WINDOW, short.model_copy(update={"members": 5}), seed=5)
    ten = fit_flows(x, mass, WINDOW, short.model_copy(update={"members": 10}), seed=5)
    for name, value in five.ensemble.named_parameters():
        torch.testing.assert_close(dict(ten.ensemble.named_parameters())[name][0], value[0], rtol=1e-4, atol=1e-5)


def test_every_part_is_left_out_by_as_many_members():
    assert Flow(members=5, leave_out=1).left_out(5) == [(0,), (1,), (2,), (3,), (4,)]
    pairs = Flow(members=10, leave_out=2).left_out(5)
    assert len(set(pairs)) == 10 == len(pairs)  # all there are
    assert all(sum(part in pair for pair in pairs) == 4 for part in range(5))  # paper C pools four
    for members, leave_out, folds in ((4, 1, 5), (5, 5, 5), (18, 3, 6)):
        with pytest.raises(ValueError, match="every part must be left out by as many flows"):
            Flow(members=members, leave_out=leave_out).left_out(folds)


def test_members_know_nothing_of_the_parts_they_leave_out():
    """Latents of one part are dealt out anew among its masses: only members trained on that part may change."""
    x, mass = toy(1500)
    config = CONFIG.model_copy(update={"epochs": 1, "leave_out": 2})
    first = fit_flows(x, mass, WINDOW, config, seed=6)
    rows = np.flatnonzero(first.part == 3)
    other = x.copy()
    other[rows] = x[np.random.default_rng(1).permutation(rows)]
    second = fit_flows(other, mass, WINDOW, config, seed=6)
    assert (second.part == first.part).all()
    at, masses = x[:200], mass[:200]
    for part in range(5):
        change = np.abs(first.without(part).log_prob(at, masses) - second.without(part).log_prob(at, masses)).max()
        assert (change < 1e-3) == (part == 3), (part, change)


def test_state_is_plain_and_complete(fitted, tmp_path):
    torch.save(fitted.state(), tmp_path / "flow.pt")
    again = ConditionalFlow.from_state(torch.load(tmp_path / "flow.pt", weights_only=True))
    x, mass = toy(50, 2)
    assert again.log_prob(x, mass) == pytest.approx(fitted.log_prob(x, mass), abs=1e-9)
    assert (again.part == fitted.part).all()
    assert again.left_out == fitted.left_out


def test_bad_input():
    x, mass = toy(1000)
    with pytest.raises(UserError, match="the sidebands hold 100 events"):
        fit_flows(x[:100], mass[:100], WINDOW, CONFIG, seed=1)
    x[17, 1] = np.nan
    with pytest.raises(UserError, match="latents, row 17, dimension 1: nan is not finite"):
        fit_flows(x, mass, WINDOW, CONFIG, seed=1)


def test_mass_scale_bounds_what_the_mass_can_do():
    """Its range is the window stretched about its middle; at zero the density is the same at every mass."""
    assert Flow(mass_scale=0.25).mass_range(*WINDOW) == (132.5 - 110, 132.5 + 110)
    assert Flow().mass_range(*WINDOW) == WINDOW
    x, mass = toy(2000)
    short = CONFIG.model_copy(update={"epochs": 4})
    blind = fit_flows(x, mass, Flow(mass_scale=0).mass_range(*WINDOW), short, seed=2)
    seeing = fit_flows(x, mass, WINDOW, short, seed=2)
    change = [np.abs(f.log_prob(x, mass) - f.log_prob(x, mass[::-1])).max() for f in (blind, seeing)]
    assert change[0] < 1e-4 < 0.1 < change[1]


def test_redrawn_latents_teach_the_same_density_better():
    """Few events, each a wide Gaussian: fresh draws come closer to the true density than one draw does."""
    rng = np.random.default_rng(8)
    centre, sigma = rng.normal(size=(600, 2)), np.full((600, 2), 0.8)
    x = (centre + sigma * rng.normal(size=(600, 2))).astype(np.float32)
    mass = rng.uniform(*WINDOW, 600)
    fresh = rng.normal(size=(20_000, 2)) * np.hypot(1, 0.8)
    config = CONFIG.model_copy(update={"epochs": 40, "patience": 40})
    posterior = np.stack([centre, sigma], axis=1).astype(np.float32)
    far = []
    for given in (None, posterior):
        flow = fit_flows(x, mass, WINDOW, config, seed=9, posterior=given)
        density = flow.log_prob(fresh.astype(np.float32), rng.uniform(*WINDOW, len(fresh)))
        true = -0.5 * (fresh**2).sum(1) / (1 + 0.8**2) - np.log(2 * np.pi * (1 + 0.8**2))
        far.append(float((true - density).mean()))  # the divergence from the truth, nats
    assert 0 < far[1] < 0.6 * far[0], far
    points = np.stack([x, np.zeros_like(x)], axis=1)
    short = config.model_copy(update={"epochs": 2})
    still, plain = (fit_flows(x, mass, WINDOW, short, seed=9, posterior=p) for p in (points, None))
    assert still.log_prob(x, mass) == pytest.approx(plain.log_prob(x, mass), abs=1e-3)
