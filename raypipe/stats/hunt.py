"""`raypipe hunt` as a function: scan a peak over a spectrum, local and global significance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import stats

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats import massfit
from raypipe.stats.backgrounds import family, template_family
from raypipe.stats.choice import Choice, choose, is_choice
from raypipe.stats.lookelsewhere import GlobalP, asymptotic, from_toys, quotable, report
from raypipe.stats.peakdata import FixedPeak, binned_data, binned_problem, check_determined, check_filled
from raypipe.stats.peaks import make_peak
from raypipe.stats.reference import Reference, match_reference
from raypipe.stats.region import split_region
from raypipe.stats.scan import draw_toys, scan
from raypipe.stats.spectrum import Bins, check_window
from raypipe.stats.weighted import join_negative
from raypipe.stats.widths import Width, default_widths, grid


@dataclass(frozen=True)
class Hunt:
    """Result of `hunt`.

    Attributes:
        masses: (M,). widths: of the scan. q0, s, s_err, r: (W, M) local fits. bins: the data. background: (B,) fit
            without, best: (B,) with the best peak. toys: (T,) largest q0 of each toy. row: what is printed.
    """

    masses: np.ndarray
    widths: tuple[str, ...]
    q0: np.ndarray
    s: np.ndarray
    s_err: np.ndarray
    r: np.ndarray
    bins: Bins
    background: np.ndarray
    best: np.ndarray
    toys: np.ndarray
    row: dict[str, Any] = field(repr=False)


def hunt(
    data: Masses | Spectrum,
    window: tuple[float, float],
    background: str = "exp",
    widths: Sequence[Width] = (),
    scan_range: tuple[float, float] | None = None,
    points: int | None = None,
    tails: Sequence[float] = (),
    toys: int = 0,
    seed: int = 0,
    bins: int | None = None,
    likelihood: str = "auto",
    region: tuple[float, float] | None = None,
    masks: Sequence[tuple[float, float]] = (),
    fixed: Sequence[FixedPeak] = (),
    reference: Masses | Spectrum | None = None,
    reference_order: int = 0,
    sqrt_s: float = 13000.0,
    level: float | None = 0.95,
) -> Hunt:
    """Scan a peak of given widths over a spectrum and judge the largest excess.

    Args:
        data, window, background, bins, likelihood, fixed, sqrt_s, level: as `raypipe.stats.peakfit.fit_peak`; masses
            are always binned here, a quarter of the narrowest width each unless ``bins`` is given.
        widths: of the peak; without any, see `default_widths`. scan_range: masses at which it may sit; by default the
            window less one (narrowest) width
            on either side. points: number of masses. tails: of a Crystal Ball.
        toys, seed: background-only spectra for the global p-value.
        region: count this blinded region over its sidebands instead of scanning a peak.
        masks: ranges left out, such as known resonances.
        reference, reference_order: simulated background that replaces the family; see `match_reference`.

    Raises:
        UserError: input that cannot be used. Fits that did not converge are told in ``row["status"]``.
    """
    check_window(window, region)
    told: tuple[str, ...] = ()
    if region is None and not widths:
        widths = default_widths(window, data)
        told = (f"widths not given: {', '.join(w.label for w in widths)}, from the window (--widths)",)
    if toys < 0:
        raise UserError(f"{toys} toys: must not be negative")
    narrowest = min(widths, key=lambda w: w.at(window[0])) if widths else None
    full = _prepare(data, window, narrowest, bins, likelihood, region, masks)
    full = replace(full, notes=(*full.notes, *told))
    choice: Choice | None = None
    if is_choice(background) and reference is None:
        seen = full if region is None else split_region(full, region).sidebands
        choice = choose(seen, background, fixed, sqrt_s)
        background = choice.family
    kind = family(background, *window, sqrt_s) if reference is None else template_family(reference_order, *window)
    simulated: Reference | None = None
    if reference is not None:
        full, simulated = match_reference(full, reference, reference_order)
    if region is not None:
        if simulated is not None:
            raise UserError("a reference histogram and a blinded signal region cannot be combined")
        split = split_region(full, region)
        full = split.joined
        points_at, templates, labels = np.array([sum(region) / 2]), split.template[None], ("region",)
    else:
        assert narrowest is not None
        margin = float(narrowest.at(window[0])), float(narrowest.at(window[1]))
        low, high = scan_range or (window[0] + margin[0], window[1] - margin[1])
        if not window[0] <= low < high <= window[1]:
            raise UserError(f"scan {low:g}-{high:g} must lie inside the window {window[0]:g}-{window[1]:g}")
        points_at = grid(low, high, narrowest, points)
        points_at = _unmasked(points_at, masks)
        templates = np.concatenate(
            [[make_peak(m, float(w.at(m)), *tails).integral(full.low, full.high) for m in points_at] for w in widths]
        )
        labels = tuple(w.label for w in widths)
        if (templates.sum(1) < 0.01).any():
            raise UserError("a scanned peak has no share in the fitted bins; narrow the scan or the masks")
    check_filled(full)
    problem = binned_problem(full, kind, fixed, simulated)
    check_determined(full, problem.size + 1)
    null = massfit.fit(problem, np.r_[problem.shape.start, [f.expected for f in fixed]], "background-only fit")
    local = scan(problem, full.counts[None], templates, null.theta, one_sided=False, tolerance=1e-7)
    shape = (len(labels), len(points_at))
    q0, s, s_err, r = (a.reshape(shape) for a in (local.q0, local.s, local.s_err, local.r))
    top = np.unravel_index(np.argmax(r), shape)
    chosen = templates.reshape(*shape, -1)[top]
    signal = massfit.fit_signal(problem, chosen, problem, level)
    maxima, fields, lost = _throw(replace(problem, squares=None), null.theta, templates, toys, seed, shape)
    best = problem.with_signal(chosen).expected(signal.best.theta[None])[0]
    row = _row(
        data,
        full,
        kind.name,
        labels,
        points_at,
        q0,
        s,
        s_err,
        r,
        top,
        signal,
        null,
        problem,
        maxima,
        fields,
        lost,
        region,
        toys,
        local.lost.reshape(shape),
    )
    row["background_chosen_by"] = None if choice is None else choice.by
    row["backgrounds_compared"] = None if choice is None else choice.record
    return Hunt(points_at, labels, q0, s, s_err, r, full, problem.expected(null.theta[None])[0], best, maxima, row)


def _prepare(
    data: Masses | Spectrum,
    window: tuple[float, float],
    narrowest: Width | None,
    bins: int | None,
    likelihood: str,
    region: tuple[float, float] | None,
    masks: Sequence[tuple[float, float]],
) -> Bins:
    """Bins of the data without the masked ranges."""
    smallest = None if narrowest is None else float(narrowest.at(window[0])) * 1.5  # binned_data takes a sixth
    binned = False if isinstance(data, Masses) else None
    full, _, _ = binned_data(data, window, bins, likelihood, smallest, region, unbinned=binned)
    for low, high in masks:
        if not low < high:
            raise UserError(f"mask {low:g}-{high:g}: low must come before high")
        if high <= window[0] or low >= window[1]:
            raise UserError(f"mask {low:g}-{high:g} lies outside the window {window[0]:g}-{window[1]:g}: leave it out")
        full = full.select((full.high <= low) | (full.low >= high))
    if not len(full):
        raise UserError("the masks leave nothing of the window")
    return join_negative(full, region)


def _unmasked(masses: np.ndarray, masks: Sequence[tuple[float, float]]) -> np.ndarray:
    keep = np.ones(len(masses), bool)
    for low, high in masks:
        keep &= (masses <= low) | (masses >= high)
    if not keep.any():
        raise UserError("the masks leave no mass to scan")
    return masses[keep]


def _throw(
    problem: Any, theta: np.ndarray, templates: np.ndarray, toys: int, seed: int, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Largest q0 of every toy, its scans (T, W, M), and how many toys were given up."""
    maxima, fields, lost = [], [], 0
    for counts, auxiliary in draw_toys(problem, theta, toys, seed):
        result = scan(problem, counts, templates, theta, auxiliary)
        good = ~result.failed
        lost += int(result.failed.sum())
        maxima.append(result.q0[good].max(1))
        fields.append(result.q0[good].reshape(-1, *shape).astype(np.float32))
    if not maxima:
        return np.zeros(0), np.zeros((0, *shape)), 0
    return np.concatenate(maxima), np.concatenate(fields), lost


def _row(
    data,
    full,
    background,
    labels,
    masses,
    q0,
    s,
    s_err,
    r,
    top,
    signal,
    null,
    problem,
    maxima,
    fields,
    lost,
    region,
    toys,
    failed,
) -> dict[str, Any]:  # type: ignore[no-untyped-def]
    """The result as one JSON-ready object."""
    observed = signal.q0 if problem.weighted else max(signal.q0, float(q0[top]))
    chi2, ndf = massfit.goodness(full, problem.expected(null.theta[None])[0], problem.size)
    where = [{"mass": float(masses[m]), "width": labels[w]} for w, m in np.argwhere(failed)]
    valid = null.valid and signal.best.valid and not where and lost <= 0.01 * max(toys, 1)
    limit = signal.limit
    notes = list(full.notes)
    merged, merged_ndf = massfit.goodness(full, problem.expected(null.theta[None])[0], problem.size, merge=5.0)
    if merged_ndf > 0 and stats.chi2.sf(merged, merged_ndf) < 1e-3:
        notes.append(
            f"background alone: goodness of fit p = {stats.chi2.sf(merged, merged_ndf):.2g}: a peak, or a "
            "background that cannot follow the data"
        )
    if where:
        told = ", ".join(f"{at['mass']:.6g} (width {at['width']})" for at in where[:5])
        more = f" and {len(where) - 5} more" if len(where) > 5 else ""
        notes.append(f"no convergence at mass {told}{more}")
    if not null.valid:
        notes.append("the background-only fit did not converge")
    if not signal.best.valid:
        notes.append(f"the fit of the best peak, at {masses[top[1]]:.6g}, did not converge")
    if lost:
        notes.append(f"{lost} of {toys} toys left out because a fit did not converge")
    best = {
        "mass": float(masses[top[1]]),
        "width": labels[top[0]],
        "s": signal.s,
        "s_err": signal.s_err,
        "q0": observed,
        "z": math.sqrt(observed),
        "p_local": float(stats.norm.sf(math.sqrt(observed))),
        "upper_limit": None if limit is None or not math.isfinite(limit.observed) else limit.observed,
    }
    row: dict[str, Any] = {"status": "converged" if valid else "not converged", "valid": valid, "best": best}
    row["global"] = {
        "toys": report(from_toys(observed, maxima)) if len(maxima) else None,
        "asymptotic": report(asymptotic(observed, fields if len(maxima) > 1 else q0[None]))
        if q0.size > 1
        else report(GlobalP(best["p_local"], 0.0, 1.0, "a single test")),
        "asymptotic_from": f"{len(maxima)} toys" if len(maxima) > 1 else "the observed scan",
        "number_of_toys": len(maxima),
    }
    how = "toys" if len(maxima) else "asymptotic"
    single = "the only test" if q0.size == 1 else f"the largest of {q0.size} tests"
    row["quote"] = quotable(row["global"][how], f"global, {how}; best.z is local, of {single}", f"global.{how}")
    return row | {
        "chi2_background_only": chi2,
        "ndf": ndf,
        "likelihood": full.likelihood,
        "background": background,
        "n_events": float(full.counts.sum()),
        "bins": len(full),
        "window": list(full.window),
        "signal_region": list(region) if region else None,
        "peaks": local_maxima(masses, labels, r, s, s_err),
        "scan": {
            "mass": masses.tolist(),
            "widths": [
                {
                    "width": label,
                    "q0": q0[k].tolist(),
                    "z_signed": _numbers(r[k]),
                    "s": _numbers(s[k]),
                    "s_err": _numbers(s_err[k]),
                    "p_local": stats.norm.sf(np.sqrt(q0[k])).tolist(),
                }
                for k, label in enumerate(labels)
            ],
        },
        "data": data.source,
        "notes": notes,
    }


def local_maxima(
    masses: np.ndarray, labels: Sequence[str], r: np.ndarray, s: np.ndarray, s_err: np.ndarray, least: float = 2.0
) -> list[dict[str, Any]]:
    """Places where the best of the widths peaks along the mass above ``least`` sigma, strongest first."""
    line, which = r.max(0), r.argmax(0)
    padded = np.r_[-np.inf, line, -np.inf]
    peaks = np.flatnonzero((line >= padded[:-2]) & (line > padded[2:]) & (line > least))
    return [
        {
            "mass": float(masses[k]),
            "width": labels[which[k]],
            "z": float(line[k]),
            "s": float(s[which[k], k]),
            "s_err": float(s_err[which[k], k]),
        }
        for k in sorted(peaks, key=lambda k: -line[k])[:10]
    ]


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(v) if math.isfinite(v) else None for v in values]
