"""Flows written out by hand against nflows' own modules: densities, gradients, inverse, threads, compiled kernels."""

from __future__ import annotations

import pytest
import torch
from nflows.transforms.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressiveTransform
from nflows.transforms.base import CompositeTransform

from raypipe.models import maf_stack, native
from raypipe.models.flow import TAIL_BOUND, FlowEnsemble, build_maf

SHAPES = {
    "spline": {"layers": 3, "hidden": 17, "blocks": 2, "bins": 5},
    "turned": {"layers": 3, "hidden": 17, "blocks": 2, "bins": 5, "mixing": "rotate"},
    "two bins": {"layers": 1, "hidden": 8, "blocks": 1, "bins": 2},
}


def ensemble(shape: dict, features: int = 4, members: int = 3) -> FlowEnsemble:
    """Members away from their start, at which the blocks all but vanish."""
    flows = FlowEnsemble(features=features, seeds=list(range(members)), **shape).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in flows.parameters():
            p.add_(0.15 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
        for matrix in flows._turns() or []:  # made in single precision; here as orthogonal as doubles can be
            q, r = torch.linalg.qr(matrix)
            matrix.copy_(q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None])
    return flows


def events(flows: FlowEnsemble, n: int = 150) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    size = flows.members, n, flows.features
    x = 2 * torch.randn(size, generator=generator, dtype=torch.float64)
    x[:, :9] *= 5  # beyond the splines' interval
    return x, torch.rand(*size[:2], 1, generator=generator, dtype=torch.float64)


@pytest.fixture(params=["compiled", "torch"])
def kernels(request, monkeypatch):
    """With the compiled layers and without them."""
    if request.param == "torch":
        monkeypatch.setattr(native, "spline", lambda dtype: None)
    elif native.spline(torch.float64) is None:
        pytest.skip("the spline kernel is not built")


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("features", [1, 2, 4])
def test_density_and_gradients_equal_the_mapped_modules(kernels, name, features):
    flows = ensemble(SHAPES[name], features)
    x, c = events(flows)
    x.requires_grad_()
    weight = torch.linspace(-1, 2, x.shape[1], dtype=x.dtype)
    found = []
    for flows.plain in (False, True):
        logs, noise = flows.log_prob(x, c), flows.noise(x, c)
        loss = (logs * weight).mean() + (noise * weight[:, None]).mean()
        found.append((logs, noise, *torch.autograd.grad(loss, [x, *flows.parameters()])))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    single = flows.float()
    single.plain = False
    torch.testing.assert_close(single.log_prob(x.float(), c.float()).double(), found[1][0], rtol=1e-5, atol=1e-5)


def test_spline_layers_equal_those_of_nflows():
    # nflows divides widths and heights by the root of `hidden_features` where the network tells it; MADE forgets to.
    shape = SHAPES["spline"]
    flows = ensemble(shape)
    flow = build_maf(4, **shape).double()
    theirs = []
    for transform in flow._transform._transforms:
        if hasattr(transform, "autoregressive_net"):
            transform = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                features=4,
                hidden_features=17,
                context_features=1,
                num_blocks=2,
                num_bins=5,
                tails="linear",
                tail_bound=TAIL_BOUND,
            ).double()
            transform.autoregressive_net.hidden_features = 17
        theirs.append(transform)
    flow._transform = CompositeTransform(theirs)
    x, c = events(flows)
    state = flows.state_dict()
    for m in range(flows.members):
        flow.load_state_dict({name.replace("/", "."): value[m] for name, value in state.items()}, strict=False)
        torch.testing.assert_close(flows.log_prob(x, c)[m], flow.log_prob(x[m], context=c[m]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("features", [1, 2, 4])
@torch.no_grad()
def test_inverse_in_one_sweep_equals_a_pass_for_each_dimension(kernels, name, features):
    flows = ensemble(SHAPES[name], features)
    noise, c = events(flows, maf_stack.TILE + 7)  # two tiles
    ours = flows.inverse(noise, c)
    flows.plain = True
    torch.testing.assert_close(ours, flows.inverse(noise, c), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("features", [1, 2, 4])
@torch.no_grad()
def test_noise_without_gradient_is_that_with_it_and_what_the_inverse_takes_back(kernels, name, features):
    flows = ensemble(SHAPES[name], features)
    x, c = events(flows, 2 * 32 + 5)  # tiles of the compiled kernel, the last one short
    noise = flows.noise(x, c)
    with torch.enable_grad():
        torch.testing.assert_close(noise, flows.noise(x, c).detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(flows.inverse(noise, c), x, rtol=1e-6, atol=1e-6)
    single = flows.float()
    torch.testing.assert_close(single.noise(x.float(), c.float()).double(), noise, rtol=1e-4, atol=1e-4)


def test_members_are_turned_by_rotations_of_their_own():
    flows = ensemble(SHAPES["turned"])
    turns = flows._turns()
    assert [t.shape for t in turns] == [(3, 4, 4)] * 2  # between three layers
    every = torch.cat(turns)
    torch.testing.assert_close(every @ every.mT, torch.eye(4, dtype=torch.float64).expand(6, 4, 4), rtol=0, atol=1e-12)
    assert torch.cdist(every.flatten(1), every.flatten(1)).add(9 * torch.eye(6)).min() > 0.1
    assert ensemble(SHAPES["spline"])._turns() is None


@pytest.mark.parametrize("name", ["spline", "turned"])
def test_threads_change_no_bit(monkeypatch, name):
    monkeypatch.setattr(maf_stack, "GROUP", 1)  # a group a member
    flows = ensemble(SHAPES[name])
    x, c = events(flows)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            logs = flows.log_prob(x, c)
            with torch.no_grad():
                drawn = flows.inverse(x, c)
                noise = flows.noise(x, c)
            found.append((logs, drawn, noise, *torch.autograd.grad(logs.mean(), list(flows.parameters()))))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", ["spline", "turned"])
def test_kernels_keep_what_is_not_a_number(name):
    flows = ensemble(SHAPES[name])
    x, c = events(flows, 70)
    x[1, 3, 2] = torch.nan
    with torch.no_grad():
        for lost in (~torch.isfinite(way(x, c)).all(-1) for way in (flows.noise, flows.inverse)):
            assert lost.sum() == 1
            assert lost[1, 3]
    lost = ~torch.isfinite(flows.log_prob(x, c))
    assert lost.sum() == 1
    assert lost[1, 3]
