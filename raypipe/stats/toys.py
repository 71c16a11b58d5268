"""Background-only toys of a hunt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raypipe.errors import UserError
from raypipe.stats import massfit
from raypipe.stats.backgrounds import Family
from raypipe.stats.binned import Binned
from raypipe.stats.bins import Bins, split_region
from raypipe.stats.choice import Choice, Measured, choose, is_choice
from raypipe.stats.envelope import background_families, enveloped
from raypipe.stats.peakdata import SpectrumFit, binned_problem
from raypipe.stats.scan import draw_toys, fit_all, scan


def chosen_by_data(full: Bins, asked: SpectrumFit) -> Choice | None:
    """The background chosen by the data outside a blinded region, or None where it is given."""
    if not is_choice(asked.background):
        return None
    seen = full if asked.region is None else split_region(full, asked.region).sidebands
    return choose(seen, asked.background, asked.fixed, asked.sqrt_s)


@dataclass(frozen=True)
class Toys:
    """Spectra without a peak, scanned as the data are: what chooses a background for the data chooses it for a toy.

    ``problems``, ``starts``: the backgrounds that toys are fitted with, and where to start. ``templates``: (W M, B).
    """

    asked: SpectrumFit
    full: Bins
    problems: Sequence[Binned]
    starts: Sequence[np.ndarray]
    templates: np.ndarray
    choosing: bool

    def throw(self, true: int, number: int, seed: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, int]:
        """Of toys of background ``true``: the largest q0 of each, its scans (T, W, M), how many were given up."""
        maxima, fields, lost = [np.zeros(0)], [np.zeros((0, *shape), np.float32)], 0
        for counts, auxiliary in draw_toys(self.problems[true], self.starts[true], number, seed):
            q0, failed = self._chosen(counts) if self.choosing else self._scanned(counts, auxiliary)
            lost += int(failed.sum())
            maxima.append(q0[~failed].max(1))
            fields.append(q0[~failed].reshape(-1, *shape).astype(np.float32))
        return np.concatenate(maxima), np.concatenate(fields), lost

    def _scanned(self, counts: np.ndarray, auxiliary: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """q0 (T, W M), and which toys failed (T,), over the backgrounds of the data."""
        pairs = zip(self.problems, self.starts, strict=True)
        scans = [scan(problem, counts, self.templates, start, auxiliary) for problem, start in pairs]
        found = enveloped(scans, self.problems)
        return found.q0, found.failed

    def _chosen(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same, each toy over the background that is chosen for it."""
        of: dict[str, list[int]] = {}
        choice = self._choice(counts)
        q0, failed = np.zeros((len(counts), len(self.templates))), np.zeros(len(counts), bool)
        for k in range(len(counts)):
            try:
                of.setdefault(choice(k).family, []).append(k)
            except UserError:  # too few events for any of the backgrounds
                failed[k] = True
        for name, rows in of.items():
            (kind,) = background_families(name, self.full, self.asked.sqrt_s)
            problem = replace(binned_problem(self.full, kind, self.asked.fixed), squares=None)
            q0[rows], failed[rows] = replace(self, problems=[problem], starts=[problem.start])._scanned(counts[rows])
        return q0, failed

    def _choice(self, counts: np.ndarray) -> Callable[[int], Choice]:
        """The background that is chosen for a toy; every function is fitted to all toys (T, B) at once."""
        asked = self.asked
        outside = self.templates[0] == 0 if asked.region else np.ones(counts.shape[1], bool)
        bins, toys, known = self.full.take(outside), counts[:, outside], {}

        def fit(kind: Family, k: int) -> Measured:
            if kind.name not in known:
                problem = binned_problem(bins, kind, asked.fixed)
                found = fit_all(problem, toys)
                pairs = zip(toys, problem.expected(found.theta), strict=True)
                chi2 = [massfit.goodness(replace(bins, counts=toy), mu, problem.size) for toy, mu in pairs]
                known[kind.name] = chi2, np.where(found.converged, found.value, np.nan)
            chi2, value = known[kind.name]
            if not np.isfinite(value[k]):
                raise UserError(f"background {kind.name}: no fit of toy {k}")
            return chi2[k][0], float(value[k]), chi2[k][1]

        return lambda k: choose(bins, asked.background, asked.fixed, asked.sqrt_s, lambda kind: fit(kind, k))
