"""`raypipe fit` as a function: masses or a histogram, a background and a peak or signal region in, numbers out."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.files import check_file_writable, write_json
from raypipe.stats import massfit
from raypipe.stats.backgrounds import Family
from raypipe.stats.binned import Binned
from raypipe.stats.bins import Bins, split_region
from raypipe.stats.choice import Choice, choose_by_simulation, feigned, is_choice
from raypipe.stats.envelope import Candidate, background_families, fit_envelope
from raypipe.stats.exports import peak_workspace
from raypipe.stats.floating import Floated, Ranges, float_peak
from raypipe.stats.lookelsewhere import finite, quotable, report
from raypipe.stats.peakdata import FixedPeak, SpectrumFit, binned_data, binned_problem, check_determined, check_filled
from raypipe.stats.peaks import Peak
from raypipe.stats.shape import Shape
from raypipe.stats.significance import asimov_significance, counting_significance
from raypipe.stats.spectrum import check_window
from raypipe.stats.toys import chosen_by_data
from raypipe.stats.unbinned import Unbinned
from raypipe.stats.weighted import join_negative
from raypipe.stats.workspace import Fits


@dataclass(frozen=True)
class Fitted:
    """One fit: ``best`` has the quoted background, ``total`` (B,) is the expectation, ``floated``: where a peak is."""

    problem: Binned | Unbinned
    best: massfit.Minimum
    signal: massfit.SignalFit | None
    bins: Bins
    total: np.ndarray
    peak: Peak | None = None
    floated: Floated | None = None

    @property
    def unbinned(self) -> bool:
        return isinstance(self.problem, Unbinned)

    @property
    def minima(self) -> list[massfit.Minimum]:
        return [self.best, *([self.signal.null] if self.signal else [])]

    @property
    def free(self) -> int:
        """Number of parameters that are free."""
        moved = (self.floated.mass_err, self.floated.width_err) if self.floated else ()
        free = self.problem.shape.size + sum(c.error > 0 for c in self.problem.components)
        return free + (self.signal is not None) + sum(error is not None for error in moved)


def write_up(
    fitted: Fitted,
    counted: dict[str, Any] | None,
    choice: Choice | None,
    level: float | None,
    events: float,
    source: str,
) -> dict[str, Any]:
    """The result as one JSON-ready row; ``counted``: row of the blinded region, ``events``: in the window."""
    shape, best, bins, peak = fitted.problem.shape, fitted.best, fitted.bins, fitted.peak
    size = shape.size
    b, b_err = massfit.predict(shape, best)
    chi2, ndf = massfit.goodness(bins, fitted.total, fitted.free, merge=10.0 if fitted.unbinned else 0.0)
    gof_p = massfit.goodness_p(bins, fitted.total, fitted.free)
    valid = all(m.valid for m in fitted.minima) and (fitted.floated is None or fitted.floated.valid)
    row: dict[str, Any] = {"status": "converged" if valid else "not converged", "valid": valid}
    row |= _yield(fitted.signal, level)
    row |= {"b": b, "b_err": b_err} if counted is None or peak is not None else {k: counted[k] for k in ("b", "b_err")}
    row |= {"chi2": chi2 if ndf > 0 else None, "ndf": max(ndf, 0), "chi2_ndf": chi2 / ndf if ndf > 0 else None}
    row |= {"gof_p": gof_p, "likelihood": "unbinned" if fitted.unbinned else bins.likelihood}
    row |= {"window": list(bins.window), "bins": len(bins), "n_events": events, "background_in_window": b}
    row["background"] = {"family": shape.family.name, "parameters": _physical(shape, best)}
    known = enumerate(fitted.problem.components, start=size)
    row["components"] = {c.name: [float(best.theta[k]), float(best.errors[k])] for k, c in known}
    row["largest_pulls"] = _largest_pulls(bins, fitted.total)
    if peak is not None:
        share = float(peak.integral(bins.low, bins.high).sum())
        row["peak"] = {"mass": peak.mass, "width": peak.width, "share_in_window": share}
        row["counting"] = _window_count(fitted, peak)
    if counted is not None:
        row["signal_region"] = counted
    if choice is not None:
        row["background"] |= {"chosen_by": choice.by, "compared": choice.record}
    floated = fitted.floated
    if floated is not None:
        row["peak"] |= {"mass_err": floated.mass_err, "width_err": floated.width_err}
        row["s_err_fixed_peak"], row["s_err"] = row["s_err"], floated.s_err
        row["global"] = None if floated.global_p is None else report(floated.global_p)
    notes = _notes(fitted, ndf, gof_p, choice)
    return row | {"quote": _quote(row, fitted), "data": source, "notes": notes}


def _physical(shape: Shape, best: massfit.Minimum) -> dict[str, list[float]]:
    """Parameters of the background as its formula has them, and their errors."""
    values, covariance = shape.transform @ best.theta[: shape.size], best.covariance[: shape.size, : shape.size]
    errors = np.sqrt(np.maximum(np.diag(shape.transform @ covariance @ shape.transform.T), 0))
    return {n: [float(v), float(e)] for n, v, e in zip(shape.family.labels, values, errors, strict=True)}


def _yield(signal: massfit.SignalFit | None, level: float | None) -> dict[str, Any]:
    if signal is None:
        return dict.fromkeys(("s", "s_err", "q0", "z", "p0"))
    limit = signal.limit
    row: dict[str, Any] = {"s": signal.s, "s_err": signal.s_err, "s_interval": [finite(v) for v in signal.interval]}
    row |= {"q0": signal.q0, "z": signal.z, "p0": signal.p0, "z_signed": signal.r}
    if signal.spurious:
        row |= {"spurious": signal.spurious, "z_without_spurious": math.sqrt(signal.q0_alone)}
    row["upper_limit"] = None if limit is None else finite(limit.observed)
    row["expected_limit"] = None if limit is None else finite(limit.expected)
    row["expected_limit_bands"] = None if limit is None else [finite(v) for v in limit.bands]
    where = "unconstrained" if not signal.at_boundary else "at its lower boundary"
    return row | {"limit_level": level, "yield": where}


def _notes(fitted: Fitted, ndf: int, gof_p: float | None, choice: Choice | None) -> list[str]:
    notes, signal = list(fitted.bins.notes), fitted.signal
    if any(m.valid and m.status != "converged" for m in fitted.minima):
        notes.append("a parameter is at a boundary; errors from the expected information")
    if signal is not None and signal.at_boundary:
        notes.append("the yield stopped where it would make the expectation negative; its error is the upper one")
    if ndf == 0:
        notes.append("as many parameters as bins: nothing is left to test the fit with")
    if gof_p is not None and gof_p < 1e-3:
        notes.append(f"the model describes the data badly (goodness of fit p = {gof_p:.2g}): mistrust yield and error")
    if fitted.peak is not None and signal.inflation > 10:
        notes.append(
            f"the background can nearly take the shape of the signal: it makes the yield's error "
            f"{signal.inflation:.0f} times larger than over a known background"
        )
    if choice is not None and choice.by == "spurious signal" and not any(step["passed"] for step in choice.record):
        notes.append("no background keeps its spurious signal below 20 % of the error: the least biased one was taken")
    if fitted.floated is not None:
        notes.append("z and p0 are local, at the best mass: judge a discovery by the global p-value")
        if fitted.floated.at_limit:
            notes.append("the mass or width stopped at an end of its range")
    return notes


def _window_count(fitted: Fitted, peak: Peak) -> dict[str, Any] | None:
    """Counting cross-check in the bins within 1.5 widths of the peak (1007.1727, equation 97)."""
    bins, problem, theta = fitted.bins, fitted.problem, fitted.best.theta
    near = np.abs((bins.low + bins.high) / 2 - peak.mass) <= 1.5 * peak.width
    if not near.any():
        near = np.arange(len(bins)) == np.argmax(peak.integral(bins.low, bins.high))
    size = problem.shape.size
    background = problem.shape.expected(theta[None, :size])[0] + sum(
        theta[k] * c.template for k, c in enumerate(problem.components, start=size)
    )
    b, n = float(background[near].sum()), float(bins.counts[near].sum())
    s = float(theta[-1]) * float(peak.integral(bins.low[near], bins.high[near]).sum())
    row = {"window": [float(bins.low[near].min()), float(bins.high[near].max())], "n": n, "b": b, "s": s}
    c = float(bins.variance[near].sum()) / n if bins.squares is not None and n > 0 else float(bins.scale[near].mean())
    if b > 0 and n >= 0 and bins.errors is None:
        z_asimov = asimov_significance(s / c, b / c) if s > 0 else None
        row |= {"z": counting_significance(n / c, b / c), "z_asimov": z_asimov}
    return row


def _quote(row: dict[str, Any], fitted: Fitted) -> dict[str, Any] | None:
    """Which of the significances of the row is the one to quote."""
    if fitted.signal is None:
        return None
    if fitted.floated is None:
        counted = "sidebands and count" if fitted.peak is None else "the peak"
        return quotable({"p": row["p0"], "z": row["z"]}, f"profile likelihood of {counted}", "z")
    return quotable(row["global"], "global, toys; z is local, at the best mass", "global") if row["global"] else None


def _largest_pulls(bins: Bins, total: np.ndarray, number: int = 3) -> list[dict[str, float]]:
    spread = bins.errors if bins.errors is not None else np.sqrt(np.maximum(total * bins.scale, 1e-300))
    pulls = (bins.counts - total) / spread
    order = np.argsort(-np.abs(pulls))[:number]
    return [{"low": float(bins.low[k]), "high": float(bins.high[k]), "pull": float(pulls[k])} for k in order]


@dataclass(frozen=True, kw_only=True)
class PeakFit(SpectrumFit):
    """What to fit. ``ranges``: in which mass and width of the peak are fitted too.

    ``simulation``: background-only spectrum on which the background is chosen by its spurious signal. ``spurious``:
    standard deviation [events] of a yield that the background may feign; None: as the simulation says, or none.
    ``export``: a file for the model as a pyhf workspace, of binned fits.
    """

    peak: Peak | None = None
    unbinned: bool | None = None
    ranges: Ranges = field(default_factory=Ranges)
    simulation: Masses | Spectrum | None = None
    spurious: float | None = None
    export: Path | None = None


def fit_peak(data: Masses | Spectrum, asked: PeakFit) -> dict[str, Any]:
    """Fit a peak over a smooth background, and count a signal region over its sidebands: a JSON-ready row.

    With ``peak`` the yield ``s`` is that of the whole peak, also outside the window. With ``region`` alone ``s = n -
    b``, and q0 is the profile likelihood of sidebands and count together. What cannot be fitted is a `UserError`.
    """
    window, region, peak = asked.window, asked.region, asked.peak
    check_window(window, region)
    if peak is not None and not window[0] <= peak.mass <= window[1]:
        raise UserError(f"peak at {peak.mass:g} lies outside the window {window[0]:g}-{window[1]:g}")
    if asked.ranges.free and peak is None:
        raise UserError("a mass or width that floats needs a peak to begin with (--peak MASS:WIDTH)")
    if asked.spurious is not None and (peak is None or asked.ranges.free):
        raise UserError("--spurious-signal is of a peak whose mass and width are given (--peak MASS:WIDTH)")
    full, values, weights = binned_data(data, asked, peak.width if peak else None, asked.unbinned)
    full = join_negative(full, region)
    check_filled(full, values)
    choice = _chosen(full, asked)
    kinds = background_families(asked.background if choice is None else choice.family, full, asked.sqrt_s)
    if len(kinds) > 1 and (peak is None or region is not None or asked.ranges.free or asked.spurious is not None):
        told = "an envelope needs --peak MASS:WIDTH, and takes no region, floating peak or spurious signal beside it"
        raise UserError(f"background {asked.background!r}: {told}")
    if asked.spurious is None and choice is not None and choice.by == "spurious signal" and not asked.ranges.free:
        asked = replace(asked, spurious=feigned(choice, peak.mass, peak.width))
    counted, fitted = (None, None) if region is None else _count_region(full, kinds[0], asked)
    if fitted is None or peak is not None:
        candidates = [_candidate(full, kind, asked, values, weights) for kind in kinds]
        fitted, choice = _fit_window(full, candidates, asked, values, choice)
    row = write_up(fitted, counted, choice, asked.level, float(full.counts.sum()), data.source)
    return row if asked.export is None else row | {"export": _exported(fitted, asked.export)}


def _exported(fitted: Fitted, path: Path) -> dict[str, Any]:
    """The model as a pyhf workspace in a file, and what is found with it."""
    if fitted.unbinned or fitted.peak is None:
        raise UserError("--export is of a binned fit of a peak: --peak MASS:WIDTH --binned")
    template = fitted.peak.integral(fitted.bins.low, fitted.bins.high)
    spec = peak_workspace(fitted.problem, fitted.best.theta, template, fitted.signal.spurious)
    found = Fits(spec)
    write_json(check_file_writable(path), spec)
    return {"path": str(path), "z": found.z, "s": found.mu}


def _fit_window(
    full: Bins, candidates: list[Candidate], asked: PeakFit, values: np.ndarray | None, choice: Choice | None
) -> tuple[Fitted, Choice | None]:
    """The background over the whole window, with the peak if there is one; of an envelope the ``choice``."""
    (problem, counted), peak, floated = candidates[0], asked.peak, None
    if peak is None:
        check_determined(full, problem.size, values)
        best = massfit.fit(problem, problem.start, "background-only fit")
        return Fitted(problem, best, None, full, counted.expected(best.theta[None])[0]), choice
    check_determined(full, max(p.size for p, _ in candidates) + 1 + asked.ranges.free, values)
    if asked.ranges.free:
        floated = float_peak(problem, counted, peak, asked.ranges, full, values)
        peak = floated.peak
    template = peak.integral(full.low, full.high)
    if template.sum() < 0.01:
        raise UserError(f"only {template.sum():.1%} of the peak at {peak.mass:g} lies in the fitted bins")
    density = peak.density(values) if values is not None else None
    if len(candidates) > 1:
        k, signal, choice = fit_envelope(candidates, template, asked.level, density)
        problem, counted = candidates[k]
    else:
        signal = massfit.fit_signal(problem, template, counted, asked.level, density, asked.spurious or 0.0)
    total = counted.with_signal(template).expected(signal.best.theta[None])[0]
    return Fitted(problem, signal.best, signal, full, total, peak, floated), choice


def _chosen(full: Bins, asked: PeakFit) -> Choice | None:
    """The background chosen by data or simulation, or None where it is given."""
    background, peak = asked.background, asked.peak
    if not is_choice(background):
        if asked.simulation is not None:
            raise UserError(
                f"--simulation chooses a background, but it is given: {background} (auto, NAME:auto or A,B,C)"
            )
        return None
    if asked.simulation is not None:
        if peak is None:
            raise UserError("the spurious signal is that of a peak: give --peak MASS:WIDTH with --simulation")
        return choose_by_simulation(full, background, asked.simulation, peak, asked.sqrt_s)
    if peak is not None and asked.region is None:  # or a strong signal would be taken for a bend of the background
        asked = replace(asked, fixed=[*asked.fixed, FixedPeak(peak, 0.0, math.inf, "signal")])
    return chosen_by_data(full, asked)


def _candidate(
    full: Bins, kind: Family, asked: PeakFit, values: np.ndarray | None, weights: np.ndarray | None
) -> Candidate:
    """The likelihood in bins, and with masses in place of counts; scale and kind of errors are those of the bins."""
    problem = binned_problem(full, kind, asked.fixed)
    if values is None:
        return problem, problem
    shape = problem.shape
    unbinned = Unbinned(
        shape,
        shape.family.basis(values) @ shape.transform,
        np.ones(len(values)) if weights is None else weights,
        float(problem.scale[0]),
        components=problem.components,
        densities=tuple(f.peak.density(values) for f in asked.fixed),
        weighted=problem.weighted,
    )
    return unbinned, problem


def _count_region(full: Bins, kind: Family, asked: PeakFit) -> tuple[dict[str, Any], Fitted]:
    """Fit the sidebands, count the region over them."""
    split = split_region(full, asked.region)
    n, ends = split.count, (np.array([split.low]), np.array([split.high]))
    problem = binned_problem(split.sidebands, kind, asked.fixed)
    best = massfit.fit(problem, problem.start, "sideband fit")
    b, b_err = massfit.predict(problem.shape.over(*ends), best)
    for k, f in enumerate(asked.fixed, start=problem.shape.size):
        share = float(f.peak.integral(*ends)[0])
        b += share * float(best.theta[k])
        b_err = math.hypot(b_err, share * float(best.errors[k]))
    chi2, ndf = massfit.goodness(split.sidebands, problem.expected(best.theta[None])[0], problem.size)
    row: dict[str, Any] = {"window": [split.low, split.high], "n": n, "b": b, "b_err": b_err, "excess": n - b}
    row |= {"z": None, "z_without_uncertainty": None, "z_asimov": None, "sideband_status": best.status}
    row |= {"sideband_events": float(split.sidebands.counts.sum()), "sideband_chi2": chi2, "sideband_ndf": ndf}
    if full.errors is not None:
        row["z"] = (n - b) / math.sqrt(split.variance + b_err**2)
        row["z_without_uncertainty"] = (n - b) / math.sqrt(split.variance)
    elif b > 0:
        c = split.scale
        row["z"] = counting_significance(n / c, b / c, b_err / c)
        row["z_without_uncertainty"] = counting_significance(n / c, b / c)
        if n > b:
            row["z_asimov"] = asimov_significance((n - b) / c, b / c, b_err / c)
    # The region as one bin of the fit: profile likelihood of sidebands and count together.
    together = binned_problem(split.joined, kind, asked.fixed)
    check_determined(split.joined, together.size + 1)
    signal = massfit.fit_signal(together, split.template, together, asked.level)
    total = together.with_signal(split.template).expected(signal.best.theta[None])[0]
    return row, Fitted(together, signal.best, signal, split.joined, total)
