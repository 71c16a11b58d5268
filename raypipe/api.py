"""Fits, hunts and classifiers on arrays, tables or files."""

import html
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.errors import UserError

SHOWN = ("signal", "strength", "window_low", "working_point", "n_after", "expected_after", "z_before", "z_after", "sic")
"""Columns of ``rows`` that a notebook shows."""


def load(path: str | Path, *overrides: str) -> Any:
    """The configuration of a file, with ``KEY=VALUE`` in place of some values; a wrong one is a `UserError`.

    >>> load("configs/lhco/laptop.yaml", "data.path=events.h5", "flow.epochs=5").flow.epochs
    5
    """
    from raypipe.config.load import load_config
    from raypipe.kinds import load_plugins

    load_plugins()
    return load_config(path, overrides)


class Found:
    """What was found: every entry of ``row`` is an attribute, ``lines`` are those of the terminal, ``plot`` draws."""

    def __init__(self, row: Mapping[str, Any], lines: Sequence[str], plot: Any = None) -> None:
        self.row, self.lines, self.plot = dict(row), list(lines), plot

    def __getattr__(self, name: str) -> Any:
        if name not in (row := self.__dict__.get("row", {})):
            raise AttributeError(f"there is no {name!r}, but {', '.join(row)}")
        return row[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.row]

    def _table(self, form: str) -> str:
        if "z_after" not in (rows := self.row.get("rows", ())):
            return ""
        return getattr(rows[[name for name in SHOWN if name in rows]], form)(index=False, float_format="{:.4g}".format)

    def __repr__(self) -> str:
        return self._table("to_string") or "\n".join(self.lines)

    def _repr_html_(self) -> str:
        cells = (f"<th>{html.escape(line[:12])}</th><td>{html.escape(line[12:])}</td>" for line in self.lines)
        return self._table("to_html") or f"<table><tr>{'</tr><tr>'.join(cells)}</tr></table>"


def fit(masses: Any, window: tuple[float, float], background: str = "exp", peak: Any = None, **more: Any) -> Found:
    """Fit a peak, or count a signal region, over a smooth background: `raypipe fit` on anything.

    Args:
        masses: an array, a histogram (counts, edges) as `numpy.histogram` gives it, or a file of either.
        background: a family, or how to choose one: see ``raypipe fit --help``. ``peak``: ``MASS:WIDTH``, or numbers.
        more: ``known`` peaks; ``float_mass``, ``float_width``: ranges, with ``toys`` and ``seed`` for a global p-value;
            ``region``, ``bins``, ``level``, ...: see `raypipe.stats.peakfit.PeakFit`; of a file: see `load_masses`.

    >>> masses = np.r_[np.linspace(105, 160, 10_000), np.random.default_rng(1).normal(125, 1.7, 300)]
    >>> found = fit(masses, window=(105, 160), background="flat", peak="125:1.7")
    >>> abs(found.s - 300) < found.s_err, found.z > 5
    (True, True)
    """
    from raypipe.cli.fits import describe
    from raypipe.stats import peaks
    from raypipe.stats.floating import Ranges
    from raypipe.stats.peakfit import PeakFit, fit_peak

    floating = {"float_mass": None, "float_width": None, "toys": 500, "seed": 1}
    more["ranges"] = Ranges(*(more.pop(name, default) for name, default in floating.items()))
    if peak is not None:
        more["peak"] = peaks.peak(peak if isinstance(peak, str) else ":".join(map(str, peak)))
    data = _spectrum(masses, more)
    row = fit_peak(data, PeakFit(window=window, background=background, **more))
    return Found(row, describe(row))


def hunt(
    masses: Any, window: tuple[float, float], background: str = "exp", widths: Sequence[float | str] = (), **more: Any
) -> Found:
    """Scan a peak over a spectrum, local and global significance: `raypipe hunt` on anything.

    Args:
        masses, background: see `fit`. ``widths``: standard deviations, ``"2%"`` of the mass; default: from the window.
        more: ``known`` peaks, ``toys``, ``seed``, ``reference`` (simulated background in place of a family),
            ``scan_range``, ``masks``, ...: see `raypipe.stats.hunt.Hunt`; those of `raypipe.events.masses.load_masses`.

    >>> masses = np.r_[np.linspace(105, 160, 5_000), np.random.default_rng(1).normal(130, 1.5, 150)]
    >>> found = hunt(masses, window=(105, 160), background="flat", widths=[1.5], toys=50)
    >>> abs(found.mass - 130) < 1, found.quote["key"]
    (True, 'global.toys')
    """
    from raypipe.cli.fits import describe_hunt
    from raypipe.report.hunt import figure
    from raypipe.stats import hunt as hunting
    from raypipe.stats.widths import width

    asked: dict[str, Any] = {"toys": 1000, "seed": 1, "widths": [width(str(one)) for one in widths]} | more
    data = _spectrum(masses, asked)
    result = hunting.hunt(data, hunting.Hunt(window=window, background=background, **asked))
    return Found(result.row | result.row["best"], describe_hunt(result.row), partial(figure, result))


def _spectrum(data: Any, more: dict[str, Any]) -> Any:
    """Masses or a histogram of what was given; ``more`` is then what `PeakFit` or `Hunt` takes."""
    from raypipe.cli.fits import READING
    from raypipe.events.masses import Masses, load_masses
    from raypipe.events.spectra import spectrum_from_mapping
    from raypipe.stats.peakdata import known_peak

    more["fixed"] = [known_peak(one) for one in more.pop("known", ())]
    more |= {name: _spectrum(more[name], {}) for name in ("simulation", "reference") if name in more}
    reading = {name: more.pop(name) for name in READING if name in more}
    if isinstance(data, str | os.PathLike):
        return load_masses(Path(data), **reading)
    if isinstance(data, tuple):
        return spectrum_from_mapping({"edges": data[1], "counts": data[0]}, None, "histogram")
    values, weights = np.asarray(data, float), np.asarray(reading.get("weight", np.ones(len(data))), float)
    good = np.isfinite(values) & np.isfinite(weights)
    return Masses(values[good], weights[good] if "weight" in reading else None, "masses", int((~good).sum()))


def classify(data: Any, background: Any, score: Any = None, seed: int = 1, **more: Any) -> Found:
    """Train data against background and score events (None: the data), in this process: `raypipe classify`.

    ``score``: log-odds of data against background, ``auc`` between the two out of fold, ``evaluation`` against the
    truth where there are labels, and all columns as an Arrow ``table``.

    Args:
        data, background, score: arrays (n, d), tables of pandas or Arrow, files, or lists of files.
        more: ``features``: columns by name or place, else all that the tables share; ``label``: truth, never trained
            on; ``mass``: kept out of the features; ``weight``; of `raypipe.config.Classifier`: ``folds``, ``rounds``...

    >>> rng = np.random.default_rng(1)
    >>> data, background = rng.normal(size=(2000, 2)), rng.normal(size=(2000, 2))
    >>> data[:200] = rng.normal(2, 0.2, (200, 2))  # a signal
    >>> scores = classify(data, background, folds=2, ensemble=1)
    >>> bool(scores.score[:200].mean() > scores.score[200:].mean() + 1)
    True
    """
    from pydantic import ValidationError
    from threadpoolctl import threadpool_limits

    from raypipe.config.load import one_line
    from raypipe.config.sections import WEAK_SIGNAL, Classifier
    from raypipe.fit import classify as fits
    from raypipe.search.classify import Request, WeakSearch

    named = {name: more.pop(name) for name in ("features", "label", "mass", "weight") if name in more}
    try:
        config = Classifier.model_validate(WEAK_SIGNAL.model_dump() | more)
    except ValidationError as error:
        raise UserError(one_line("classify", error.errors(), Classifier)) from None
    tables = {"data": data, "background": background, "score": data if score is None else score}
    request = Request((), (), (), **named, classifier=config, seed=seed)
    asked = WeakSearch(request, {name: _columns(value, name) for name, value in tables.items()})
    (of_data, of_background, scored), weights = asked.matrices, asked.weights
    with threadpool_limits(1):  # more threads may sum in another order
        contest = fits.contest_of(of_data, of_background, scored, config, seed=seed, **weights)
        found = fits.classify(contest, mapper=map, **weights)
    truth, table = asked.evaluation(found.score), asked.scored(found)
    row = {"score": found.score, "auc": found.auc, "auc_error": found.auc_error, "evaluation": truth, "table": table}
    lines = [f"scored      {len(found.score)} events", f"AUC         {found.auc:.4f} ± {found.auc_error:.4f}"]
    return Found(row, lines + [f"{name:24} {value:.4g}" for name, value in (truth or {}).items()])


def _columns(data: Any, name: str) -> Any:
    """A table for `WeakSearch`; a value that is no finite number is a `UserError` with its row."""
    import pandas as pd
    import pyarrow as pa

    from raypipe.config.read import Source
    from raypipe.events.readers.features import numbers
    from raypipe.events.readers.matrix import Columnar, read_columns

    files = data if isinstance(data, list) else [data]
    if all(isinstance(one, str | os.PathLike) for one in files):
        return read_columns(files, Source())
    frame = data.to_pandas() if isinstance(data, pa.Table) else pd.DataFrame(data)
    table = pa.Table.from_pandas(frame.rename(columns=str), preserve_index=False)
    return Columnar({k: numbers(table, k, name) for k in table.column_names}, np.zeros(len(frame), int), (name,))
