"""Layers that nflows lacks: rotations, and rational-quadratic splines (1906.04032) without data-dependent shapes.

nflows' own spline selects the inputs inside its interval by a boolean mask, which `torch.func.vmap` cannot map. This
one computes every element and picks with `where`; the function is the same.
"""

import math
from typing import Any

import torch
from nflows.transforms.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressiveTransform
from nflows.transforms.base import Transform
from torch.nn import functional as F

from raypipe.models import native

MIN_BIN = 1e-3  # Least width and height of a bin in units of the interval, as in nflows
MIN_SLOPE = 1e-3
_EDGE = math.log(math.expm1(1 - MIN_SLOPE))  # Unnormalised slope whose derivative is one


def rational_quadratic(
    x: torch.Tensor, widths: torch.Tensor, heights: torch.Tensor, slopes: torch.Tensor, *, bound: float, inverse: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Element-wise spline on [-bound, bound], the identity outside: outputs (...) and log |derivative| (...).

    ``widths``, ``heights``: (..., K) unnormalised bin sizes; ``slopes``: (..., K - 1) unnormalised inner derivatives.
    The derivative is one at both ends.
    """
    inside = (x > -bound) & (x < bound)
    clamped = x.clamp(-bound, bound)
    knots_x, knots_y = _knots(widths, bound), _knots(heights, bound)
    derivatives = MIN_SLOPE + F.softplus(F.pad(slopes, (1, 1), value=_EDGE))
    searched = knots_y if inverse else knots_x
    index = (clamped[..., None] >= searched[..., 1:-1]).sum(-1, keepdim=True)

    def at(values: torch.Tensor, shift: int = 0) -> torch.Tensor:
        return values.gather(-1, index + shift)[..., 0]

    x0, y0 = at(knots_x), at(knots_y)
    width, height = at(knots_x, 1) - x0, at(knots_y, 1) - y0
    d0, d1 = at(derivatives), at(derivatives, 1)
    slope = height / width
    curve = d0 + d1 - 2 * slope
    if inverse:
        rise = clamped - y0
        a = rise * curve + height * (slope - d0)
        b = height * d0 - rise * curve
        c = -slope * rise
        # Rounding can push a vanishing discriminant below zero; float64 and the round-trip check guard the result.
        root = 2 * c / (-b - (b * b - 4 * a * c).clamp(min=0).sqrt())
        out = root * width + x0
    else:
        root = (clamped - x0) / width
        out = y0 + height * (slope * root**2 + d0 * root * (1 - root)) / (slope + curve * root * (1 - root))
    denominator = slope + curve * root * (1 - root)
    derivative = slope**2 * (d1 * root**2 + 2 * slope * root * (1 - root) + d0 * (1 - root) ** 2)
    log_slope = derivative.log() - 2 * denominator.log()
    log_slope = -log_slope if inverse else log_slope
    return torch.where(inside, out, x), torch.where(inside, log_slope, torch.zeros_like(log_slope))


def _knots(sizes: torch.Tensor, bound: float) -> torch.Tensor:
    """Knot positions (..., K + 1) from unnormalised bin sizes (..., K)."""
    bins = sizes.shape[-1]
    share = MIN_BIN + (1 - MIN_BIN * bins) * sizes.softmax(-1)
    inner = 2 * bound * share.cumsum(-1)[..., :-1] - bound
    return F.pad(F.pad(inner, (1, 0), value=-bound), (0, 1), value=bound)


class SplineAutoregressive(MaskedPiecewiseRationalQuadraticAutoregressiveTransform):
    """nflows' masked autoregressive spline layer with linear tails, mappable by `torch.func.vmap`."""

    def _elementwise(
        self, inputs: torch.Tensor, autoregressive_params: torch.Tensor, inverse: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        params = autoregressive_params.view(*inputs.shape, self._output_dim_multiplier())
        widths, heights, slopes = params.split([self.num_bins, self.num_bins, self.num_bins - 1], dim=-1)
        scale = math.sqrt(self.autoregressive_net.initial_layer.out_features)
        out, logs = rational_quadratic(
            inputs, widths / scale, heights / scale, slopes, bound=self.tail_bound, inverse=inverse
        )
        return out, logs.sum(-1)


class Rotation(Transform):
    """Turns (n, features) by a random orthogonal matrix, uniform over all (Haar); drawn once and never trained."""

    def __init__(self, features: int) -> None:
        super().__init__()
        q, r = torch.linalg.qr(torch.randn(features, features, dtype=torch.float64))
        self.register_buffer("matrix", (q * r.diagonal().sign()).to(torch.get_default_dtype()))

    def forward(self, inputs: torch.Tensor, context: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        return inputs @ self.matrix.mT, inputs.new_zeros(len(inputs))

    def inverse(self, inputs: torch.Tensor, context: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        return inputs @ self.matrix, inputs.new_zeros(len(inputs))


def apply_rows(
    x: torch.Tensor, params: torch.Tensor, *, bins: int, bound: float, scale: float, inverse: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """The spline on rows of events: compiled where possible, else `rational_quadratic`.

    ``x``: (m, d, n); ``params``: (m, d * (3 bins - 1), n), of every dimension widths, heights (both divided by
    ``scale``) and slopes. Returns outputs (m, d, n) and log-derivatives summed over the dimensions (m, n).
    """
    kernels = _kernels(x, bins)
    if kernels is None:
        return _plain(x, params, bins, bound, scale, inverse)
    x, params = x.contiguous(), params.contiguous()
    y, logs = torch.empty_like(x), x.new_empty(x.shape[0], x.shape[2])
    kernels.spline_apply(
        x.data_ptr(), params.data_ptr(), y.data_ptr(), logs.data_ptr(), *_sizes(x, bins, bound, scale), inverse
    )
    return y, logs


def gradient_rows(
    x: torch.Tensor, params: torch.Tensor, gy: torch.Tensor, gl: torch.Tensor, *, bins: int, bound: float, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x and params from those of both outputs of `apply_rows`: (m, d, n) and (m, n)."""
    kernels = _kernels(x, bins)
    if kernels is None:
        with torch.enable_grad():
            leaves = x.detach().requires_grad_(), params.detach().requires_grad_()
            outputs = _plain(*leaves, bins, bound, scale, False)
            return torch.autograd.grad(outputs, leaves, (gy, gl))
    x, params, gy, gl = x.contiguous(), params.contiguous(), gy.contiguous(), gl.contiguous()
    gx, gp = torch.empty_like(x), torch.empty_like(params)
    pointers = [tensor.data_ptr() for tensor in (x, params, gy, gl, gx, gp)]
    kernels.spline_gradient(*pointers, *_sizes(x, bins, bound, scale))
    return gx, gp


def _kernels(x: torch.Tensor, bins: int) -> Any:
    if x.device.type != "cpu" or bins > native.MAX_BINS:
        return None
    native.tell_if_missing()
    return native.spline(x.dtype)


def _sizes(x: torch.Tensor, bins: int, bound: float, scale: float) -> tuple:
    m, d, n = x.shape
    return m * d, d, n, bins, bound, scale, MIN_BIN, MIN_SLOPE, _EDGE


def _plain(x: torch.Tensor, params: torch.Tensor, bins: int, bound: float, scale: float, inverse: bool) -> Any:
    widths, heights, slopes = params.unflatten(1, (x.shape[1], -1)).movedim(2, -1).split([bins, bins, bins - 1], dim=-1)
    y, logs = rational_quadratic(x, widths / scale, heights / scale, slopes, bound=bound, inverse=inverse)
    return y, logs.sum(1)
