"""A trial of paper A's search: hybrid background in the latent space of an autoencoder, then a bump hunt.

Up to the cut it is a trial of `raypipe.search.contrastive`; after it, the mass spectrum of the window is fitted with a
smooth continuum, the Higgs peak that the simulation predicts after the same cut, and a signal peak of the same shape.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from raypipe.config.haxad import HaxadConfig
from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.fit.classifier import FoldScores
from raypipe.search import contrastive
from raypipe.search.case import Case, Judged, Tables, Template
from raypipe.search.contrastive import CONTINUUM
from raypipe.search.evaluate import evaluate
from raypipe.search.nulls import counted
from raypipe.search.result import ALONE, Result, Tools, Trial
from raypipe.stats.choice import choose_listed, fits_of
from raypipe.stats.peakdata import FixedPeak, SpectrumFit, binned_data
from raypipe.stats.peakfit import PeakFit, fit_peak
from raypipe.stats.peaks import CrystalBall, fit_shape
from raypipe.stats.significance import asimov_significance

FITTED = ("s", "s_err", "q0", "z", "z_signed", "p0", "upper_limit", "chi2", "ndf", "status", "valid")
"""Numbers of the bump-hunt fit that a row keeps, each as ``fit_<name>_before`` and ``fit_<name>_after``."""
WITHHELD = ("fit_q0_after", "fit_z_after", "fit_z_signed_after", "fit_p0_after")
"""What is not said of a fit after a cut that a template made which does not close."""


def search(tables: Tables | Sequence[Tables], config: HaxadConfig, trial: Trial, tools: Tools = ALONE) -> Result:
    """`raypipe.search.contrastive.search` with a bump hunt; deterministic in (tables, config, trial).

    A row is that of `raypipe.search.evaluate.evaluate` with the fits of the spectrum before and after the cut
    (``fit_s_after`` events, ``fit_z_after = sqrt(q0)``, ...), ``higgs_before, higgs_after`` as predicted, ``family`` of
    the continuum, and ``asimov_before, asimov_after``, expected from the truth.
    """
    found = contrastive.search(tables, config, trial, tools, hunted)
    return replace(found, rows=[{k: v for k, v in row.items() if k != "encoders"} for row in found.rows])


def hunted(
    tables: Tables, case: Case, judged: Judged, config: HaxadConfig, cut: Callable[..., dict[str, Any]] = evaluate
) -> list[list[dict[str, Any]]]:
    """The rows of every cut and ensemble; ``cut`` tells of one besides the fits, as `evaluate` does."""
    started = time.perf_counter()
    family, peak = choose_family(tables, config), higgs_shape(case)
    same = {"family": family, "peak_mass": peak.mass, "peak_width": peak.width}
    asked = PeakFit(**_spectrum(config), background=family, peak=peak)
    same |= _hunt(case, judged.scores[0], judged.template, None, asked, config)
    template = judged.template

    def row(scores: FoldScores, point: float) -> dict[str, Any]:
        found = cut(case, scores, template, point, config)
        # Only the template of the search itself scores the simulated Higgs, which the fit needs.
        if template.is_higgs.any():
            found |= _hunt(case, scores, template, point, asked, config)
        if found["verdict"]:
            found |= dict.fromkeys(WITHHELD, float("nan"))
        for when in ("before", "after") if "s_before" in found else ():
            s, b = found[f"s_{when}"], found[f"b_{when}"]
            found[f"asimov_{when}"] = asimov_significance(s, b) if b else float("nan")
        return found

    rows = [[row(scores, point) for scores in judged.scores] for point in config.selection.working_points]
    same["seconds_fits"] = time.perf_counter() - started
    return [[row | same for row in every] for every in rows]


null_hunted = partial(hunted, cut=counted)
"""`hunted` where nobody knows the truth."""


def choose_family(tables: Tables, config: HaxadConfig) -> str:
    """The family that the next one does not improve (F-test) on simulated continuum; `UserError` without any."""
    families = config.hunt.families
    if config.hunt.choice == "first" or len(families) == 1:
        return families[0]
    if tables.continuum is None or not len(tables.continuum):
        raise UserError(
            f"hunt.choice = f-test: no embedded event of {CONTINUUM} in the embedding split; set it to first"
        )
    masses = Masses(tables.continuum, None, f"simulated {CONTINUUM}")
    bins, _, _ = binned_data(masses, SpectrumFit(**_spectrum(config)))
    return choose_listed(bins.window, families, fits_of(bins), threshold=config.hunt.significance)[0]


def higgs_shape(case: Case) -> CrystalBall:
    """The Higgs peak of the simulation, all processes together; a signal with a Higgs has the same shape."""
    if not case.higgs:
        raise UserError("selection.include_higgs = false: the bump hunt needs the simulated Higgs peak")
    masses = np.concatenate([events.mass for events in case.higgs.values()])
    return fit_shape(masses, np.concatenate([events.weight for events in case.higgs.values()]))


def _spectrum(config: HaxadConfig) -> dict[str, Any]:
    """Window and bins of the fits."""
    low, high = config.window.low, config.window.high
    return {"window": (low, high), "bins": round((high - low) / config.hunt.bin_width)}


def _hunt(
    case: Case, scores: FoldScores, template: Template, cut: float | None, asked: PeakFit, config: HaxadConfig
) -> dict[str, Any]:
    """The fit of the spectrum before (``cut`` None) or after a cut."""
    mass, when = case.data.events.mass, "before" if cut is None else "after"
    passed = np.ones(len(mass), dtype=bool) if cut is None else case.passes(scores, cut)
    expected, error = higgs_yield(case, scores, template, cut, config)
    fixed = (FixedPeak(asked.peak, expected, error),)
    row = fit_peak(Masses(mass[passed], None, f"data {when} the cut"), replace(asked, fixed=fixed))
    fitted = {f"fit_{name}_{when}": row.get(name) for name in FITTED}
    return fitted | {f"higgs_{when}": expected, f"higgs_{when}_error": error, f"n_window_{when}": int(passed.sum())}


def higgs_yield(
    case: Case, scores: FoldScores, template: Template, cut: float | None, config: HaxadConfig
) -> tuple[float, float]:
    """Higgs events expected in the window before or after a cut, and their error: yield uncertainty and statistics of
    the simulation. The passing share is that of the simulated Higgs in the template."""
    weight = np.concatenate([events.weight for events in case.higgs.values()]) * config.pseudodata.luminosity
    total, squares = float(weight.sum()), float((weight**2).sum())
    if cut is not None:
        is_higgs = template.is_higgs
        w, ok = template.weight[is_higgs], scores.passes("template", cut)[is_higgs]
        share = float(w[ok].sum() / w.sum())
        # One event more: an empty tail is not known to be empty.
        squares = (total / float(w.sum())) ** 2 * (float((w[ok] ** 2).sum()) + float(w.max()) ** 2)
        total *= share
    return total, float(np.hypot(config.selection.higgs_uncertainty * total, np.sqrt(squares)))
