"""`raypipe hunt` as a function: scan a peak over a spectrum, local and global significance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import stats

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats import massfit
from raypipe.stats.backgrounds import template_family
from raypipe.stats.binned import Binned
from raypipe.stats.bins import Bins, split_region
from raypipe.stats.choice import Choice
from raypipe.stats.envelope import background_families, enveloped, fit_envelope
from raypipe.stats.lookelsewhere import GlobalP, asymptotic, finite, from_toys, quotable, report
from raypipe.stats.peakdata import (
    SpectrumFit,
    binned_data,
    binned_problem,
    check_determined,
    check_filled,
    match_reference,
)
from raypipe.stats.peaks import make_peak
from raypipe.stats.scan import scan
from raypipe.stats.spectrum import check_window
from raypipe.stats.toys import Toys, chosen_by_data
from raypipe.stats.weighted import join_negative
from raypipe.stats.widths import Width, default_widths, grid


@dataclass(frozen=True, kw_only=True)
class Hunt(SpectrumFit):
    """What to hunt for, and how. Masses are always binned, a quarter of the narrowest width each unless told.

    ``scan_range``: masses of the peak, by default the window less one (narrowest) width on either side; ``points``:
    their number. ``tails``: of a Crystal Ball. ``toys``: for the global p-value. ``region``: count it over its
    sidebands instead of scanning a peak. ``masks``: ranges left out. ``reference``: simulated background that replaces
    the family; see `template_family`.
    """

    widths: Sequence[Width] = ()
    scan_range: tuple[float, float] | None = None
    points: int | None = None
    tails: Sequence[float] = ()
    toys: int = 0
    seed: int = 0
    masks: Sequence[tuple[float, float]] = ()
    reference: Masses | Spectrum | None = None
    reference_order: int = 0


@dataclass(frozen=True)
class HuntResult:
    """Result of `hunt`: ``masses`` (M,) of the scan, local fits (W, M), fits without (``null``) and with the best peak.

    ``best``: (B,) expected with it. ``toys``: (T,) largest q0 of each toy, ``fields``: (T, W, M) their scans, ``lost``:
    toys left out. ``choice``: of the background, None where it was given.
    """

    asked: Hunt
    source: str
    bins: Bins
    problem: Binned
    masses: np.ndarray
    widths: tuple[str, ...]
    q0: np.ndarray
    s: np.ndarray
    s_err: np.ndarray
    r: np.ndarray
    failed: np.ndarray
    null: massfit.Minimum
    signal: massfit.SignalFit
    best: np.ndarray
    toys: np.ndarray
    fields: np.ndarray
    lost: int
    choice: Choice | None

    @property
    def background(self) -> np.ndarray:
        """(B,) expected without a peak."""
        return self.problem.expected(self.null.theta[None])[0]

    @cached_property
    def row(self) -> dict[str, Any]:
        """The result as one JSON-ready object."""
        chi2, ndf = massfit.goodness(self.bins, self.background, self.problem.size)
        valid = self.null.valid and self.signal.best.valid and not self.failed.any()
        valid = valid and self.lost <= 0.01 * max(self.asked.toys, 1)
        best, found = self._best(), self._global()
        how = "toys" if len(self.toys) else "asymptotic"
        single = "the only test" if self.q0.size == 1 else f"the largest of {self.q0.size} tests"
        quote = quotable(found[how], f"global, {how}; best.z is local, of {single}", f"global.{how}")
        scan = {"mass": self.masses.tolist(), "widths": [self._scan(k) for k in range(len(self.widths))]}
        row = {"status": "converged" if valid else "not converged", "valid": valid, "best": best, "global": found}
        row |= {"quote": quote, "chi2_background_only": chi2, "ndf": ndf, "likelihood": self.bins.likelihood}
        row |= {"background": self.problem.shape.family.name, "n_events": float(self.bins.counts.sum())}
        row |= {"bins": len(self.bins), "window": list(self.bins.window)}
        row |= {"signal_region": list(self.asked.region) if self.asked.region else None}
        row |= {"peaks": self._local_maxima(), "scan": scan, "data": self.source, "notes": self._notes()}
        by, record = (None, None) if self.choice is None else (self.choice.by, self.choice.record)
        return row | {"background_chosen_by": by, "backgrounds_compared": record}

    @property
    def _observed(self) -> float:
        """The largest local q0."""
        return self.signal.q0 if self.problem.weighted else max(self.signal.q0, float(self.q0.flat[self.r.argmax()]))

    def _best(self) -> dict[str, Any]:
        w, m = np.unravel_index(self.r.argmax(), self.r.shape)
        z, limit = math.sqrt(self._observed), self.signal.limit
        return {
            "mass": float(self.masses[m]),
            "width": self.widths[w],
            "s": self.signal.s,
            "s_err": self.signal.s_err,
            "q0": self._observed,
            "z": z,
            "p_local": float(stats.norm.sf(z)),
            "upper_limit": None if limit is None else finite(limit.observed),
        }

    def _global(self) -> dict[str, Any]:
        several = len(self.toys) > 1
        if self.q0.size > 1:
            estimate = asymptotic(self._observed, self.fields if several else self.q0[None])
        else:
            estimate = GlobalP(float(stats.norm.sf(math.sqrt(self._observed))), 0.0, 1.0, "a single test")
        return {
            "toys": report(from_toys(self._observed, self.toys)) if len(self.toys) else None,
            "asymptotic": report(estimate),
            "asymptotic_from": f"{len(self.toys)} toys" if several else "the observed scan",
            "number_of_toys": len(self.toys),
        }

    def _local_maxima(self, least: float = 2.0) -> list[dict[str, Any]]:
        """Places where the best of the widths peaks along the mass above ``least`` sigma, strongest first."""
        line, which = self.r.max(0), self.r.argmax(0)
        padded = np.r_[-np.inf, line, -np.inf]
        peaks = np.flatnonzero((line >= padded[:-2]) & (line > padded[2:]) & (line > least))
        return [
            {
                "mass": float(self.masses[k]),
                "width": self.widths[which[k]],
                "z": float(line[k]),
                "s": float(self.s[which[k], k]),
                "s_err": float(self.s_err[which[k], k]),
            }
            for k in sorted(peaks, key=lambda k: -line[k])[:10]
        ]

    def _scan(self, k: int) -> dict[str, Any]:
        """The scan with one of the widths."""
        return {
            "width": self.widths[k],
            "q0": self.q0[k].tolist(),
            "z_signed": [finite(v) for v in self.r[k].tolist()],
            "s": [finite(v) for v in self.s[k].tolist()],
            "s_err": [finite(v) for v in self.s_err[k].tolist()],
            "p_local": stats.norm.sf(np.sqrt(self.q0[k])).tolist(),
        }

    def _notes(self) -> list[str]:
        notes = list(self.bins.notes)
        p = massfit.goodness_p(self.bins, self.background, self.problem.size)
        if p is not None and p < 1e-3:
            notes.append(
                f"background alone: goodness of fit p = {p:.2g}: a peak, or a background that cannot follow the data"
            )
        if self.failed.any():
            where = [f"{self.masses[m]:.6g} (width {self.widths[w]})" for w, m in np.argwhere(self.failed)]
            more = f" and {len(where) - 5} more" if len(where) > 5 else ""
            notes.append(f"no convergence at mass {', '.join(where[:5])}{more}")
        if not self.null.valid:
            notes.append("the background-only fit did not converge")
        if not self.signal.best.valid:
            notes.append(f"the fit of the best peak, at {self._best()['mass']:.6g}, did not converge")
        if self.lost:
            notes.append(f"{self.lost} of {self.asked.toys} toys left out because a fit did not converge")
        return notes


def hunt(data: Masses | Spectrum, asked: Hunt) -> HuntResult:
    """Scan a peak of given widths over a spectrum and judge the largest excess; ``row["status"]``: failed fits."""
    check_window(asked.window, asked.region)
    if asked.toys < 0:
        raise UserError(f"{asked.toys} toys: must not be negative")
    widths = [] if asked.region is not None else list(asked.widths) or default_widths(asked.window, data)
    full = _prepare(data, asked, widths)
    if widths and not asked.widths:
        told = f"widths not given: {', '.join(w.label for w in widths)}, from the window (--widths)"
        full = replace(full, notes=(*full.notes, told))
    choice, simulated = None, None
    if asked.reference is not None:
        kinds = [template_family(asked.reference_order, *asked.window)]
        full, simulated = match_reference(full, asked.reference)
    else:
        choice = chosen_by_data(full, asked)
        kinds = background_families(asked.background if choice is None else choice.family, full, asked.sqrt_s)
        if len(kinds) > 1 and asked.region is not None:
            raise UserError(f"background {asked.background!r}: an envelope is of a peak, not of a counted region")
    if asked.region is None:
        masses, templates = _tested(full, asked, widths)
        labels = tuple(w.label for w in widths)
    else:
        if simulated is not None:
            raise UserError("a reference histogram and a blinded signal region cannot be combined")
        split = split_region(full, asked.region)
        full, templates = split.joined, split.template[None]
        masses, labels = np.array([sum(asked.region) / 2]), ("region",)
    check_filled(full)
    problems = [binned_problem(full, kind, asked.fixed, simulated) for kind in kinds]
    check_determined(full, max(problem.size for problem in problems) + 1)
    nulls = [massfit.fit(problem, problem.start, "background-only fit") for problem in problems]
    scans = [
        scan(problem, full.counts[None], templates, null.theta, one_sided=False, tolerance=1e-7)
        for problem, null in zip(problems, nulls, strict=True)
    ]
    local, shape = enveloped(scans, problems), (len(labels), len(masses))
    fits = (a.reshape(shape) for a in (local.q0, local.s, local.s_err, local.r, local.lost))
    top = templates[np.argmax(local.r)]
    k = j = 0
    if len(problems) > 1:
        k, signal, choice = fit_envelope([(problem, problem) for problem in problems], top, asked.level)
        j = int(np.argmin([null.value + p.shape.size for null, p in zip(nulls, problems, strict=True)]))
    else:
        signal = massfit.fit_signal(problems[0], top, problems[0], asked.level)
    best = problems[k].with_signal(top).expected(signal.best.theta[None])[0]
    unweighted, starts = [replace(problem, squares=None) for problem in problems], [null.theta for null in nulls]
    choosing = choice is not None and len(problems) == 1
    toys = Toys(asked, replace(full, squares=None), unweighted, starts, templates, choosing)
    thrown = toys.throw(j, asked.toys, asked.seed, shape)
    return HuntResult(
        asked, data.source, full, problems[j], masses, labels, *fits, nulls[j], signal, best, *thrown, choice=choice
    )


def _prepare(data: Masses | Spectrum, asked: Hunt, widths: Sequence[Width]) -> Bins:
    """Bins of the data without the masked ranges."""
    window = asked.window
    smallest = min(w.at(window[0]) for w in widths) * 1.5 if widths else None  # binned_data takes a sixth
    full, _, _ = binned_data(data, asked, smallest, unbinned=False if isinstance(data, Masses) else None)
    for low, high in asked.masks:
        if not low < high:
            raise UserError(f"mask {low:g}-{high:g}: low must come before high")
        if high <= window[0] or low >= window[1]:
            raise UserError(f"mask {low:g}-{high:g} lies outside the window {window[0]:g}-{window[1]:g}: leave it out")
        full = full.take((full.high <= low) | (full.low >= high))
    if not len(full):
        raise UserError("the masks leave nothing of the window")
    return join_negative(full, asked.region)


def _tested(full: Bins, asked: Hunt, widths: Sequence[Width]) -> tuple[np.ndarray, np.ndarray]:
    """Masses (M,) outside the masks, and the peaks' shares (W M, B) of the bins."""
    first, last = asked.window
    narrowest = min(widths, key=lambda w: w.at(first))
    low, high = asked.scan_range or (first + narrowest.at(first), last - narrowest.at(last))
    if not first <= low < high <= last:
        raise UserError(f"scan {low:g}-{high:g} must lie inside the window {first:g}-{last:g}")
    masses = grid(low, high, narrowest, asked.points)
    for start, stop in asked.masks:
        masses = masses[(masses <= start) | (masses >= stop)]
    if not len(masses):
        raise UserError("the masks leave no mass to scan")
    peaks = [make_peak(m, w.at(m), *asked.tails) for w in widths for m in masses]
    templates = np.array([peak.integral(full.low, full.high) for peak in peaks])
    if (templates.sum(1) < 0.01).any():
        raise UserError("a scanned peak has no share in the fitted bins; narrow the scan or the masks")
    return masses, templates
