"""Stacked flows against single ones, Jacobians against autograd, the spline against nflows."""

from __future__ import annotations

import pytest
import torch

from raypipe.models.flow import FlowEnsemble, build_maf

SHAPES = [
    {"layers": 2, "hidden": 12, "blocks": 1, "bins": 4},
    {"layers": 2, "hidden": 12, "blocks": 1, "bins": 4, "mixing": "rotate"},
]


def ensemble(shape: dict, members: int = 3) -> FlowEnsemble:
    return FlowEnsemble(features=3, seeds=list(range(10, 10 + members)), **shape).double()


@pytest.mark.parametrize("shape", SHAPES, ids=["spline", "turned"])
def test_stacked_equals_single_members(shape):
    flows = ensemble(shape)
    x, c = torch.randn(3, 50, 3, dtype=torch.float64), torch.randn(3, 50, 1, dtype=torch.float64)
    together = flows.log_prob(x, c)
    for m in range(3):
        torch.manual_seed(10 + m)
        single = build_maf(3, **shape).double()
        torch.testing.assert_close(together[m], single.log_prob(x[m], context=c[m]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES, ids=["spline", "turned"])
def test_inverse_and_log_determinant(shape):
    flows = ensemble(shape, 1)
    context = torch.full((1, 20, 1), 0.3, dtype=torch.float64)
    noise = torch.randn(1, 20, 3, dtype=torch.float64)
    x = flows.inverse(noise, context)
    torch.testing.assert_close(flows.noise(x, context), noise, rtol=1e-6, atol=1e-6)
    normal = torch.distributions.Normal(torch.zeros((), dtype=x.dtype), 1.0)
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(
            lambda v: flows.noise(v[None, None], context[:, :1])[0, 0], x[0, i].detach()
        )
        expected = normal.log_prob(noise[0, i]).sum() + torch.linalg.slogdet(jacobian).logabsdet
        assert float(flows.log_prob(x[:, i : i + 1], context[:, :1])) == pytest.approx(float(expected), rel=1e-6)


def test_spline_is_nflows_own_function():
    from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline

    from raypipe.models.spline import rational_quadratic

    torch.manual_seed(0)
    x = 3 * torch.randn(400, 6, dtype=torch.float64)
    widths, heights = 2 * torch.randn(2, 400, 6, 8, dtype=torch.float64)
    slopes = torch.randn(400, 6, 7, dtype=torch.float64)
    assert (x.abs() > 5).any()  # the tails are exercised
    for inverse in (False, True):
        ours = rational_quadratic(x, widths, heights, slopes, bound=5.0, inverse=inverse)
        theirs = unconstrained_rational_quadratic_spline(
            x, widths, heights, slopes, inverse=inverse, tails="linear", tail_bound=5.0
        )
        torch.testing.assert_close(ours, tuple(theirs), rtol=1e-9, atol=1e-9)


def test_state_dict_round_trip():
    flows, other = ensemble(SHAPES[1]), ensemble(SHAPES[1])
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.1)
    x, c = torch.randn(3, 5, 3, dtype=torch.float64), torch.zeros(3, 5, 1, dtype=torch.float64)
    assert not torch.allclose(flows.log_prob(x, c), other.log_prob(x, c))
    other.load_state_dict(flows.state_dict())
    torch.testing.assert_close(flows.log_prob(x, c), other.log_prob(x, c))


def test_flows_that_hold_other_weights_are_those_flows():
    """A pool of members built once has the densities of the members themselves, and leaves them as they were."""
    shape = {"layers": 2, "hidden": 8, "blocks": 1, "mixing": "rotate"}
    every = FlowEnsemble(features=2, seeds=[1, 2, 3], **shape)
    x, context = torch.randn(3, 20, 2), torch.randn(3, 20, 1)
    before = every.log_prob(x, context).detach().clone()
    some = every.holding({name: value[[2, 0]] for name, value in every.state_dict().items()})
    assert some.members == 2
    assert torch.equal(some.log_prob(x[[2, 0]], context[[2, 0]]), before[[2, 0]])
    some.double()
    assert torch.equal(every.log_prob(x, context), before)
    with pytest.raises(ValueError, match="another shape"):
        every.holding(FlowEnsemble(features=2, seeds=[1], **shape | {"layers": 3}).state_dict())
