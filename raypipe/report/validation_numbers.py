"""The numbers of a validation page, of one pass over a data set: weighted spectra, means, shares, and what they say.

Only sums are kept. The splits of a sample each carry its whole yield (`raypipe.events.schema`); they are averaged in
proportion to their number of events, which leaves every event of a simulated sample with the same weight.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.errors import UserError
from raypipe.events.schema import has_signs, tensor_values
from raypipe.events.spectra import Spectrum as Published
from raypipe.events.table import count_rows, stream_table
from raypipe.report.html import resource
from raypipe.report.validation_quantities import ALL, Batch, Kind
from raypipe.stats.peakfit import PeakFit, fit_peak


class Spectrum:
    """A weighted histogram over ``edges`` (k + 1,); ``sums``, ``squares`` of weights (k + 2,): below, bins, above."""

    def __init__(self, edges: np.ndarray) -> None:
        self.edges, self.centres = edges, (edges[:-1] + edges[1:]) / 2
        self.sums, self.squares = np.zeros((2, len(edges) + 1))

    def add(self, values: np.ndarray, weights: np.ndarray) -> None:
        """Fill with ``values`` (n,) and ``weights`` (n,); the last bin includes its upper edge, as NumPy's."""
        place = np.searchsorted(self.edges, values, side="right")
        place[values == self.edges[-1]] = len(self.edges) - 1
        self.sums += np.bincount(place, weights, len(self.sums))
        self.squares += np.bincount(place, weights**2, len(self.sums))

    @property
    def counts(self) -> np.ndarray:
        """(k,) sum of weights inside each bin."""
        return self.sums[1:-1]

    @property
    def errors(self) -> np.ndarray:
        """(k,) statistical errors of `counts`, root of the sum of squared weights."""
        return np.sqrt(self.squares[1:-1])

    def shape(self) -> tuple[np.ndarray, np.ndarray]:
        """Share of all events in each bin (outside included in the total) and its statistical error."""
        total = self.sums.sum() or 1.0
        return self.counts / total, self.errors / total

    def between(self, low: float, high: float) -> float:
        """Sum of weights between two of the edges."""
        return float(self.counts[slice(*np.searchsorted(self.edges, [low, high]))].sum())

    def quantiles(self, shares: list[float], inside: np.ndarray) -> np.ndarray:
        """Values below which the given shares of the bins of a mask (k,) lie; linear within a bin, NaN without any."""
        cumulative = np.r_[0.0, np.cumsum(self.counts * inside)]
        if cumulative[-1] <= 0:
            return np.full(len(shares), np.nan)
        return np.interp(np.array(shares) * cumulative[-1], cumulative, self.edges)

    def as_dict(self) -> dict[str, Any]:
        """Plain values; counts are in the unit of the weights."""
        inside = {name: getattr(self, name).tolist() for name in ("edges", "counts", "errors")}
        return inside | {"below": float(self.sums[0]), "above": float(self.sums[-1])}


class Mean:
    """A weighted mean with its statistical error; of a mask it is a weighted share."""

    def __init__(self) -> None:
        self.sums = np.zeros(5)  # Of w, w x, w^2, w^2 x and w^2 x^2

    def add(self, values: np.ndarray, weights: np.ndarray) -> None:
        """Fill with ``values`` (n,), numbers or booleans."""
        w2, x2 = weights**2, np.square(values, dtype=np.float64)
        self.sums += weights.sum(), weights @ values, w2.sum(), w2 @ values, w2 @ x2

    def as_dict(self) -> dict[str, float | None]:
        """``value``: sum w x / sum w, ``error``: root of sum w^2 (x - mean)^2, over sum w; None where nothing is in."""
        w, wx, w2, w2x, w2xx = self.sums
        if not w:
            return {"value": None, "error": None}
        mean = wx / w
        return {"value": float(mean), "error": float(np.sqrt(max(w2xx - 2 * mean * w2x + mean**2 * w2, 0.0)) / w)}


@dataclass
class SampleSums:
    """All that one pass over a sample's files found; ``size``: bytes of the files."""

    name: str
    kind: Kind
    group: int
    rows: dict[str, int]  # Events of each split
    weight: dict[str, float]  # Their sum of weights
    size: int
    spectra: dict[str, Spectrum]
    means: dict[str, Mean]

    @property
    def events(self) -> int:
        """Rows of all splits."""
        return sum(self.rows.values())

    @property
    def yield_per_fb(self) -> float:
        """Sum of weights, the splits averaged in proportion to their number of events."""
        return sum(self.weight[s] * self.rows[s] / self.events for s in self.rows) if self.events else 0.0


def _batches(path: Path, kind: Kind) -> Iterator[Batch]:
    """The columns of a file, piece by piece; a value that is not finite or a wrong sign of a weight: `UserError`."""
    first = 0
    for table in filter(len, stream_table(path, kind.columns)):
        batch = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            is_tensor = isinstance(column.type, pa.FixedShapeTensorType)
            values = tensor_values(column) if is_tensor else column.to_numpy().astype(np.float64)
            signed = name != "weight" or has_signs(table)
            good = np.isfinite(values) if signed else np.isfinite(values) & (values >= 0)
            for where in map(tuple, np.argwhere(~good)[:1]):
                what = "is negative" if np.isfinite(values[where]) else "is not finite"
                raise UserError(f"{path}: column {name!r}, row {first + where[0]}: {values[where]} {what}")
            batch[name] = values
        yield batch
        first += len(table)


def collect(name: str, group: int, files: Mapping[str, Sequence[Path]], kind: Kind) -> SampleSums:
    """One pass over the files (split -> paths) of a sample for the quantities of its ``kind``."""
    rows = {split: sum(count_rows(path) for path in paths) for split, paths in files.items()}
    every = [path for paths in files.values() for path in paths]
    size, spectra = sum(path.stat().st_size for path in every), {q.name: Spectrum(q.edges) for q in kind.quantities}
    sums = SampleSums(name, kind, group, rows, dict.fromkeys(files, 0.0), size, spectra, defaultdict(Mean))
    for split, paths in files.items():
        for batch in chain.from_iterable(_batches(path, kind) for path in paths):
            sums.weight[split] += float(batch["weight"].sum())
            weights = batch["weight"] * (rows[split] / sums.events)
            filled = [(spectra[q.name], *q.values(batch)) for q in kind.quantities]
            filled += [(sums.means[label], values, ALL) for label, values in kind.means(batch).items()]
            for target, values, mask in filled:
                target.add(values[mask], weights[mask])
    return sums


MEANS = resource("texts")["validation"]["means"]
"""Means and shares that the page shows of every sample, with their headings."""
GROUP_4L = 10  # Label of the four-lepton continuum (`raypipe.simulate.processes.GROUPS`)
NEAR_Z = (80.0, 100.0)  # GeV, where the Z peak of a four-lepton background is looked for
CROSS_SECTIONS = ("reference_cross_section_fb", "pythia_cross_section_fb")
FROM_MANIFEST = ("n_generated", "efficiency", "efficiency_error", *CROSS_SECTIONS, "cut_flow")
PEAK_REACH, MAX_PEAK_REACH = 3.0, 12.0
"""GeV around the highest point, from which a peak's position is taken: doubled up to the second while it is wider."""
RESOLVED = 0.45  # Half the central 68 % over the reach, below which the peak fits into it (a flat density has 0.68)
CENTRAL = [0.15865, 0.5, 0.84135]
SPLIT_TOLERANCE = 1e-6
"""Relative difference between a split's sum of weights and the yield in the manifest that is rounding."""


def peak(spectrum: Spectrum, low: float = -np.inf, high: float = np.inf) -> dict[str, float] | None:
    """Position of the highest peak between ``low`` and ``high``, and its width.

    The position is the weighted median of what lies around the highest GeV, within a reach that holds the peak, moved
    with the median until it rests; its error that of a median, 1.2533 sigma / sqrt(n_eff). ``sigma68`` is half the
    central 68.27 % of everything between ``low`` and ``high``.
    """
    centres = spectrum.centres
    inside = (centres > low) & (centres < high)
    counts = np.where(inside, spectrum.counts, 0.0)
    if not counts.any():
        return None
    bins = max(1, round(1.0 / (spectrum.edges[1] - spectrum.edges[0])))
    smooth = np.convolve(counts, np.ones(bins) / bins, mode="same")
    reach, position = PEAK_REACH, centres[np.argmax(smooth)]
    while True:
        for _ in range(10):
            core = inside & (np.abs(centres - position) < reach)
            if not spectrum.counts[core].any():  # a few events with a gap between them
                return None
            left, position, right = spectrum.quantiles(CENTRAL, core)
        if (right - left) / 2 < RESOLVED * reach or reach >= MAX_PEAK_REACH:
            break
        reach *= 2
    n_eff = (spectrum.counts * core).sum() ** 2 / (spectrum.squares[1:-1] * core).sum()
    low68, median, high68 = spectrum.quantiles(CENTRAL, inside)
    error = 1.2533 * (right - left) / 2 / np.sqrt(n_eff)
    found = {"position": position, "error": error, "median": median, "sigma68": (high68 - low68) / 2}
    return {name: float(value) for name, value in found.items()}


def smoothness(spectrum: Spectrum) -> dict[str, float] | None:
    """Fit of exp(cubic) to a spectrum: a continuum that falls without an edge has a good chi2.

    ``largest_pull`` is the bin furthest from the curve in standard deviations. None below 50 effective events a bin.
    """
    counts, squares, edges = spectrum.counts, spectrum.squares[1:-1], spectrum.edges
    if counts.min() <= 0 or counts.min() ** 2 / squares[np.argmin(counts)] < 50:
        return None
    data = Published(edges[:-1], edges[1:], counts, spectrum.errors, "m_yy")
    row = fit_peak(data, PeakFit(window=(edges[0], edges[-1]), background="exppoly:3", likelihood="weighted"))
    worst = row["largest_pulls"][0]
    largest = {"largest_pull": worst["pull"], "largest_at": (worst["low"] + worst["high"]) / 2}
    return {"chi2": row["chi2"], "ndf": row["ndf"], "p_value": row["gof_p"], **largest}


def yields(sums: SampleSums, entry: dict[str, Any]) -> dict[str, Any]:
    """Yield of one sample beside its reference.

    ``of_reference``: sum of weights over reference cross section x efficiency; one if the weights are right.
    ``others``: what another simulation found (``references.yaml``), and ours in its mass window and at its order.
    """
    found = {"per_fb": sums.yield_per_fb, "events": sums.rows, "sum_of_weights": sums.weight}
    found |= {key: entry[key] for key in FROM_MANIFEST if key in entry}
    if {"efficiency", "reference_cross_section_fb"} <= entry.keys():
        expected = entry["efficiency"] * entry["reference_cross_section_fb"]
        found["of_reference"] = {s: _ratio(w, expected) for s, w in sums.weight.items()}
        found["k_factor"] = _ratio(*(entry.get(name) for name in CROSS_SECTIONS))
    if other := resource("references")["yields"].get(sums.name):
        ours = sums.yield_per_fb
        if "window" in other and "m_yy_fine" in sums.spectra:
            ours = sums.spectra["m_yy_fine"].between(*other["window"])
        if other.get("without_k"):
            ours /= entry.get("reference", {}).get("k_factor", 1.0)
        found["others"] = other | {"ours": ours, "ratio": _ratio(ours, other["per_fb"])}
    found["others_k_factor"] = resource("references")["k_factors"].get(sums.name)
    return found


def _ratio(top: float, bottom: float | None) -> float | None:
    return top / bottom if bottom else None


def sample_numbers(sums: SampleSums, entry: dict[str, Any]) -> dict[str, Any]:
    """Everything known of one sample; ``entry`` is its part of the manifest."""
    fine = {n.removesuffix("_fine"): s for n, s in sums.spectra.items() if n.endswith("_fine")}
    peaks = {n: peak(s) for n, s in fine.items() if sums.group != 0}  # the diphoton continuum has none
    if "m_4l" in fine and sums.group == GROUP_4L:
        peaks |= {f"{n} near Z": peak(s, *NEAR_Z) for n, s in fine.items()}
    numbers = {
        "kind": sums.kind.name,
        "group": sums.group,
        "title": entry.get("title", ""),
        "yield": yields(sums, entry),
        "means": {n: m.as_dict() for n, m in sums.means.items()},
        "peaks": peaks,
        "others_widths": resource("references")["widths"].get(sums.name, {}),
        "bytes": sums.size,
        "bytes_per_event": _ratio(sums.size, sums.events),
        "spectra": {q.name: sums.spectra[q.name].as_dict() for q in sums.kind.quantities if q.shown},
    }
    if sums.group == 0 and "m_yy" in sums.spectra:
        numbers["smoothness"] = smoothness(sums.spectra["m_yy"])
    return numbers
