"""What a peak fit found, written up as one JSON-ready row."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats import massfit
from raypipe.stats.choice import Choice
from raypipe.stats.floating import Floated
from raypipe.stats.likelihood import Component
from raypipe.stats.lookelsewhere import quotable, report
from raypipe.stats.peaks import Peak
from raypipe.stats.shape import Shape
from raypipe.stats.significance import asimov_significance, counting_significance
from raypipe.stats.spectrum import Bins


@dataclass(frozen=True)
class PeakFit:
    """Result of `fit_peak`; `row` is what the command line prints."""

    signal: massfit.SignalFit | None
    background: massfit.Minimum
    """The fit whose background is quoted: with the signal, or of the background (sidebands) alone."""
    shape: Shape
    bins: Bins
    expected: np.ndarray
    """(B,) fitted total."""
    peak: Peak | None
    region: tuple[float, float] | None
    row: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Fitted:
    """What came out of one fit, before it is written up."""

    shape: Shape
    best: massfit.Minimum
    signal: massfit.SignalFit | None
    bins: Bins
    total: np.ndarray
    unbinned: bool
    components: tuple[Component, ...]
    floated: Floated | None = None


def write_up(
    data: Masses | Spectrum,
    fitted: Fitted,
    region_row: dict[str, Any] | None,
    peak: Peak | None,
    region: tuple[float, float] | None,
    choice: Choice | None,
    level: float | None,
    full: Bins,
) -> PeakFit:
    """Write up the result as one JSON-ready row."""
    shape, best, signal, bins = fitted.shape, fitted.best, fitted.signal, fitted.bins
    size = shape.size
    physical = shape.transform @ best.theta[:size]
    errors = np.sqrt(np.maximum(np.diag(shape.transform @ best.covariance[:size, :size] @ shape.transform.T), 0))
    yields = shape.expected(best.theta[None, :size])[0]
    jacobian = shape.jacobian(best.theta[:size]).sum(0)
    b, b_err = float(yields.sum()), math.sqrt(max(0.0, jacobian @ best.covariance[:size, :size] @ jacobian))
    free = size + sum(c.error > 0 for c in fitted.components) + (signal is not None)
    if fitted.floated is not None:
        free += sum(e is not None for e in (fitted.floated.mass_err, fitted.floated.width_err))
    chi2, ndf = massfit.goodness(bins, fitted.total, free, merge=10.0 if fitted.unbinned else 0.0)
    merged, merged_ndf = massfit.goodness(bins, fitted.total, free, merge=5.0)
    spread = bins.errors if bins.errors is not None else np.sqrt(np.maximum(fitted.total * bins.scale, 1e-300))
    pulls = (bins.counts - fitted.total) / spread
    minima = [m for m in (best, signal.null if signal else None) if m is not None]
    valid = all(m.valid for m in minima)
    valid = valid and (fitted.floated is None or fitted.floated.valid)
    status = "converged" if valid else "not converged"
    notes = list(bins.notes)
    if any(m.valid and m.status != "converged" for m in minima):
        notes.append("a parameter is at a boundary; errors from the expected information")
    row: dict[str, Any] = {"status": status, "valid": valid}
    if signal is not None:
        if signal.at_boundary:
            notes.append("the yield stopped where it would make the expectation negative; its error is the upper one")
        limit = signal.limit
        row |= {
            "s": signal.s,
            "s_err": signal.s_err,
            "s_interval": [None if math.isnan(v) else v for v in signal.interval],
            "q0": signal.q0,
            "z": signal.z,
            "p0": signal.p0,
            "z_signed": signal.r,
            "upper_limit": None if limit is None else _finite(limit.observed),
            "expected_limit": None if limit is None else _finite(limit.expected),
            "expected_limit_bands": None if limit is None else [_finite(v) for v in limit.bands],
            "limit_level": level,
            "yield": "unconstrained" if not signal.at_boundary else "at its lower boundary",
        }
    else:
        row |= {"s": None, "s_err": None, "q0": None, "z": None, "p0": None}
    if region_row is not None and peak is None:
        row |= {"b": region_row["b"], "b_err": region_row["b_err"]}
    else:
        row |= {"b": b, "b_err": b_err}
    gof_p = float(stats.chi2.sf(merged, merged_ndf)) if merged_ndf > 0 else None
    if ndf == 0:
        notes.append("as many parameters as bins: nothing is left to test the fit with")
    if gof_p is not None and gof_p < 1e-3:
        notes.append(f"the model describes the data badly (goodness of fit p = {gof_p:.2g}): mistrust yield and error")
    if peak is not None and signal is not None and signal.inflation > 10:
        notes.append(
            f"the background can nearly take the shape of the signal: it makes the yield's error "
            f"{signal.inflation:.0f} times larger than over a known background"
        )
    row |= {
        "chi2": chi2 if ndf > 0 else None,
        "ndf": max(ndf, 0),
        "chi2_ndf": chi2 / ndf if ndf > 0 else None,
        "gof_p": gof_p,
        "likelihood": "unbinned" if fitted.unbinned else bins.likelihood,
        "window": list(bins.window),
        "bins": len(bins),
        "n_events": float(full.counts.sum()),
        "background_in_window": b,
        "background": {
            "family": shape.family.name,
            "parameters": {
                name: [float(v), float(e)] for name, v, e in zip(shape.family.labels, physical, errors, strict=True)
            },
        },
        "components": {
            c.name: [float(best.theta[size + k]), float(best.errors[size + k])] for k, c in enumerate(fitted.components)
        },
        "largest_pulls": _largest(bins, pulls),
    }
    if peak is not None:
        row |= {
            "peak": {
                "mass": peak.mass,
                "width": peak.width,
                "share_in_window": float(peak.integral(bins.low, bins.high).sum()),
            },
            "counting": _window_count(fitted, peak, yields),
        }
    if region_row is not None:
        row["signal_region"] = region_row
    if choice is not None:
        row["background"] |= {"chosen_by": choice.by, "compared": choice.record}
        if choice.by == "spurious signal" and not any(step["passed"] for step in choice.record):
            notes.append(
                "no background keeps its spurious signal below 20 % of the error: the least biased one was taken"
            )
    if fitted.floated is not None:
        notes += _floating(row, fitted.floated)
    row["quote"] = None if signal is None else _quote(row, fitted.floated is not None, peak is None)
    row["data"] = data.source
    row["notes"] = notes
    return PeakFit(signal, best, shape, bins, fitted.total, peak, region, row)


def _window_count(fitted: Fitted, peak: Peak, background: np.ndarray) -> dict[str, Any] | None:
    """Counting cross-check in the bins within 1.5 widths of the peak (1007.1727, equation 97)."""
    bins = fitted.bins
    centres = (bins.low + bins.high) / 2
    near = np.abs(centres - peak.mass) <= 1.5 * peak.width
    if not near.any():
        near = np.arange(len(bins)) == np.argmax(peak.integral(bins.low, bins.high))
    others = sum(
        (fitted.best.theta[fitted.shape.size + k] * c.template for k, c in enumerate(fitted.components)),
        np.zeros(len(bins)),
    )
    b, n = float((background + others)[near].sum()), float(bins.counts[near].sum())
    share = float(peak.integral(bins.low[near], bins.high[near]).sum())
    s = float(fitted.best.theta[-1]) * share
    row = {"window": [float(bins.low[near].min()), float(bins.high[near].max())], "n": n, "b": b, "s": s}
    c = float(bins.variance[near].sum()) / n if bins.squares is not None and n > 0 else float(bins.scale[near].mean())
    if b > 0 and n >= 0 and bins.errors is None:
        row |= {
            "z": counting_significance(n / c, b / c),
            "z_asimov": asimov_significance(s / c, b / c) if s > 0 else None,
        }
    return row


def _floating(row: dict[str, Any], floated: Floated) -> list[str]:
    """Mass, width and global p-value of a peak that floats, written into the row; what to say about them."""
    row["peak"] |= {"mass_err": floated.mass_err, "width_err": floated.width_err}
    row["s_err_fixed_peak"], row["s_err"] = row["s_err"], floated.s_err
    notes = ["z and p0 are local, at the best mass: judge a discovery by the global p-value"]
    if floated.at_limit:
        notes.append("the mass or width stopped at an end of its range")
    row["global"] = None
    if floated.global_p is not None:
        row["global"] = report(floated.global_p)
    return notes


def _quote(row: dict[str, Any], floating: bool, counted: bool) -> dict[str, Any] | None:
    """Which of the significances of the row is the one to quote."""
    if not floating:
        which = "profile likelihood of sidebands and count" if counted else "profile likelihood of the peak"
        return quotable({"p": row["p0"], "z": row["z"]}, which, "z")
    return quotable(row["global"], "global, toys; z is local, at the best mass", "global") if row["global"] else None


def _largest(bins: Bins, pulls: np.ndarray, number: int = 3) -> list[dict[str, float]]:
    order = np.argsort(-np.abs(pulls))[:number]
    return [{"low": float(bins.low[k]), "high": float(bins.high[k]), "pull": float(pulls[k])} for k in order]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
