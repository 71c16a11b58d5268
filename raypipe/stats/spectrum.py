"""Masses and published histograms as the fits see them: bins, and which likelihood they follow."""

import math
from dataclasses import replace

import numpy as np
from scipy import stats

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats.bins import Bins
from raypipe.stats.weighted import of_events, weigh

_CENTRAL = math.erf(1 / math.sqrt(2))
_FEW = 50  # Counts below which printed digits tell a whole number from others
_TABLE = np.geomspace(0.25, 1e9, 2000)


def garwood(n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper error of counts: the central 68.27 % interval of Garwood (1936), through chi-square quantiles."""
    n = np.asarray(n, float)
    tail = (1 - _CENTRAL) / 2
    low = np.where(n > 0, stats.chi2.ppf(tail, 2 * np.maximum(n, 1e-9)) / 2, 0.0)
    return n - low, stats.chi2.isf(tail, 2 * (n + 1)) / 2 - n


def counting_errors(y: np.ndarray, errors: np.ndarray) -> bool:
    """Whether errors are those of counts: sqrt(n) to Garwood's upper one in 95 % of bins, or one convention in all."""
    filled = y > 0
    n, e = y[filled], errors[filled]
    low, high = garwood(n)
    followed = [np.abs(e - usual) <= 0.03 * usual + 0.01 for usual in (np.sqrt(n), (low + high) / 2, high)]
    best = max(followed, key=np.mean)
    if best.mean() >= 0.5:
        return bool(best.all())
    near = (e >= 0.9 * np.sqrt(n) - 0.01) & (e <= 1.05 * high + 0.01)
    _, group, size = np.unique(n, return_inverse=True, return_counts=True)
    usual = e[np.lexsort((e, n))][(np.cumsum(size) - size + size // 2)[group]]
    same = np.abs(e - usual) <= 0.03 * usual + 0.01
    return bool(near.mean() >= 0.95 and same.mean() >= 0.95)


def rate_scale(y: np.ndarray, errors: np.ndarray, upper: np.ndarray | None = None) -> tuple[np.ndarray, str] | None:
    """Content of one event in every bin (B,) and the convention of the errors, or None where they are not of counts.

    The relative error of a rate gives its count n: 1/sqrt(n), or that of `garwood` (mean, or ``upper``); in 95 % of the
    sparse bins (n below 50, at least four) that must be a whole number, and the factor smooth.
    """
    filled = (y > 0) & (errors > 0)
    if filled.sum() < 4 or (filled != (y > 0)).any():
        return None
    relative = errors[filled] / y[filled]
    low, high = garwood(_TABLE)
    tried = [("sqrt(n)", relative**-2), ("Garwood", _invert(relative, (low + high) / 2))]
    if upper is not None and (upper[filled] > 0).all():
        tried.append(("Garwood", _invert(upper[filled] / y[filled], high)))
    for convention, n in tried:
        few = (n < _FEW) & (n > 0.5)
        off = np.abs(n[few] - np.round(n[few]))
        if few.sum() < 4 or (n <= 0.5).any() or (off < 0.03 + 1e-3 * n[few]).mean() < 0.95:
            continue
        if np.median(np.abs(np.diff(np.log(y[filled] / n), 2))) > 0.2:
            continue
        scale = np.empty(len(y))
        scale[filled] = y[filled] / np.where(few, np.round(n), n)
        if (~filled).any():  # empty bins: the factor of the nearest filled ones
            index = np.flatnonzero(filled)
            scale[~filled] = np.interp(np.flatnonzero(~filled), index, scale[filled])
        return scale, convention
    return None


def _invert(relative: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Counts whose relative error is the given one; ``error`` (table,) of `_TABLE`."""
    ratio = error / _TABLE  # falls with n
    return np.exp(np.interp(np.log(relative), np.log(ratio[::-1]), np.log(_TABLE[::-1])))


EVENTS = "errors are those of weighted events: weighted likelihood (1911.01303)"


def check_window(window: tuple[float, float], region: tuple[float, float] | None = None) -> None:
    """Raise a `UserError` unless low < high and the signal region lies inside with room on at least one side."""
    low, high = window
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"window {low:g}-{high:g}: must be two finite masses, low before high")
    if region is None:
        return
    if not (low <= region[0] < region[1] <= high):
        raise UserError(f"signal region {region[0]:g}-{region[1]:g} must lie inside the window {low:g}-{high:g}")
    if region == (low, high):
        raise UserError("the signal region fills the window: no sideband is left to learn the background from")


def bin_masses(masses: Masses, window: tuple[float, float], edges: np.ndarray) -> Bins:
    """Histogram event masses. Raises `UserError`: nothing in the window, weights that sum to nothing."""
    values, weights = in_window(masses, window)
    counts = np.histogram(values, edges, weights=weights)[0].astype(float)
    notes = (f"{masses.missing} events without a finite mass or weight left out",) if masses.missing else ()
    bins = Bins(edges[:-1], edges[1:], counts, np.ones(len(counts)), None, window, notes)
    if weights is None:
        return bins
    squares, _ = np.histogram(values, edges, weights=weights**2)
    return weigh(bins, squares, "weighted events: weighted likelihood (1911.01303)")


def in_window(masses: Masses, window: tuple[float, float]) -> tuple[np.ndarray, np.ndarray | None]:
    """Masses and weights inside the window (edges included), checked."""
    check_window(window)
    low, high = window
    inside = (masses.values >= low) & (masses.values <= high)
    if not inside.any():
        raise UserError(
            f"{masses.source}: no event between {low:g} and {high:g}; its {len(masses.values)} masses run from "
            f"{masses.values.min():g} to {masses.values.max():g}"
        )
    weights = None if masses.weights is None else masses.weights[inside]
    if weights is not None and not weights.sum() > 0:
        raise UserError(f"{masses.source}: the weights in the window sum to {weights.sum():g}: nothing to fit")
    return masses.values[inside], weights


def bin_spectrum(spectrum: Spectrum, window: tuple[float, float], likelihood: str = "auto") -> Bins:
    """The bins of a published histogram that lie inside the window.

    ``auto``: Poisson for whole numbers whose errors, if any, are those of counts; scaled Poisson for counts times a
    factor (`raypipe.stats.spectrum`); weighted for errors sqrt(sum w^2) (`raypipe.stats.weighted`); else
    chi-square. Raises `UserError`: no bin inside, contents or errors that the likelihood cannot take.
    """
    bins, errors, upper = _whole_bins(spectrum, window)
    y, source, auto = bins.counts, spectrum.source, likelihood == "auto"
    whole = bool((y >= 0).all() and (np.abs(y - np.round(y)) < np.minimum(0.02, 1e-6 + 6e-5 * y)).all())
    if whole:  # a density of five digits times its bin width
        y = np.round(y)
        bins = replace(bins, counts=y)
    if likelihood in ("gaussian", "weighted") and errors is None:
        what = "Gaussian chi-square" if likelihood == "gaussian" else "weighted likelihood"
        raise UserError(f"{source}: a {what} needs errors: name their column (--error)")
    if likelihood == "poisson" or (auto and whole and (errors is None or counting_errors(y, errors))):
        if (y < 0).any():
            raise UserError(f"{source}: bin {bins.first(y < 0)} is negative: no Poisson likelihood for it")
        return bins
    if errors is None:
        bad = y < 0 if (y < 0).any() else ~np.isclose(y, np.round(y))
        raise UserError(
            f"{source}: bin {bins.first(bad)} holds {y[bad][0]:g}, which is no count, and no errors are given: name "
            "their column (--error), or --likelihood poisson"
        )
    found = rate_scale(y, errors, upper) if auto and (y >= 0).all() else None
    if found is not None:
        scale, convention = found
        if convention == "sqrt(n)" and scale.max() > 1.05 * scale.min():  # weights that vary with the mass
            return weigh(bins, errors**2, EVENTS)
        note = f"contents are counts times a factor ({convention} errors): scaled Poisson likelihood"
        return replace(bins, scale=scale, notes=(*bins.notes, note))
    empty = errors <= 0
    if (empty & (y != 0)).any():
        raise UserError(f"{source}: bin {bins.first(empty & (y != 0))} has no error: no likelihood for it")
    if likelihood == "weighted" or (auto and of_events(y, errors)):
        if not y.sum() > 0:
            raise UserError(f"{source}: the contents in the window sum to {y.sum():g}: nothing to fit")
        return weigh(bins, errors**2, EVENTS)
    told = (f"{empty.sum()} empty bins without an error left out",) if empty.any() else ()
    notes = (*bins.notes, *told, "Gaussian chi-square with the published errors")
    return replace(bins, errors=errors, notes=notes).take(~empty)


def _whole_bins(spectrum: Spectrum, window: tuple[float, float]) -> tuple[Bins, np.ndarray | None, np.ndarray | None]:
    """Bins inside the window, not all of them empty; their errors and upper errors."""
    check_window(window)
    low, high = window
    slack = 1e-6 * (spectrum.high - spectrum.low)
    inside = (spectrum.low >= low - slack) & (spectrum.high <= high + slack)
    if not inside.any():
        raise UserError(
            f"{spectrum.source}: no whole bin between {low:g} and {high:g}; it runs from {spectrum.low[0]:g} to "
            f"{spectrum.high[-1]:g}"
        )
    cut = ~inside & (spectrum.high > low + slack) & (spectrum.low < high - slack)
    notes = (f"{cut.sum()} bins cut by the window's edges left out",) if cut.any() else ()
    kept = spectrum.take(inside)
    if not (kept.counts != 0).any():
        raise UserError(f"{spectrum.source}: every bin between {low:g} and {high:g} is empty")
    bins = Bins(kept.low, kept.high, kept.counts, np.ones(len(kept)), None, window, notes)
    return bins, kept.errors, kept.upper
