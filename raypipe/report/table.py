"""What a search on a table tells: its cuts, on the terminal, in ``summary.json`` and on a page."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from raypipe.config.sections import MassWindow
from raypipe.report.base import Report, page_of
from raypipe.report.figures import features, points
from raypipe.report.html import resource, say
from raypipe.report.style import COLOURS, new_figure
from raypipe.search.base import Found, plain
from raypipe.search.counting import cut_lines
from raypipe.search.table_search import TableSearch

METRICS = ("z_before", "z_after", "sic", "max_sic", "n_before", "n_after", "expected_after", "expected_after_error")


def table_report(search: TableSearch, found: Found) -> Report:
    """The cuts of the one trial."""
    rows, window, texts = [plain(row) for row in found.good], search.config.window, resource("texts")["table"]
    first, bad = rows[0], sum(bool(row["verdict"]) for row in found.good)
    closes = f"does NOT close at {bad} of {len(rows)} cuts" if bad else "closes at all cuts"
    cuts = [cut_lines(row) for row in rows]
    cuts = [
        [c if r["sic"] is None else f"{c}, SIC {r['sic']:.2f}", *rest] for r, (c, *rest) in zip(rows, cuts, strict=True)
    ]
    lines = [f"{cuts[0].pop(0)}. The background model {closes}."]
    known = first | {"policy": texts["policy"][first["duplicates"]]}
    lines += [say(text, known) for name, text in texts["lines"].items() if first[name]]
    lines += [line for cut in cuts for line in cut]
    if first["max_sic"] is not None:
        lines.append(say(texts["largest"], first))
    (key,) = found.trials
    scores = found.folder / "scores.parquet"
    lines.append(f"scores: {scores}; summary: {found.folder / 'summary.json'}")
    told = ((name, row) for row in rows for name in METRICS if row.get(name) is not None)
    metrics = {f"{name}.wp{row['working_point']:g}": row[name] for name, row in told}
    summary = {"rows": rows, "key": key, "files": search.digests(), "scores": str(scores)}
    arrays, names = found.arrays(key), ", ".join(map(str, search.config.data.columns.features))
    known |= {"low": window.sr_low, "high": window.sr_high, "names": names}
    drawn = {"mass": _spectrum(arrays, window), "features": features(arrays)}
    page = page_of(search, found, {"cuts": rows}, drawn, **known)
    return Report(summary, lines, **page, metrics=metrics)


def _spectrum(arrays: Mapping[str, np.ndarray], window: MassWindow) -> Figure:
    figure, (axis,) = new_figure(1, 7.0)
    edges = arrays["mass_edges"]
    points(axis, edges, arrays["mass_data"])
    if "mass_fit" in arrays:
        axis.plot((edges[:-1] + edges[1:]) / 2, arrays["mass_fit"], color=COLOURS["fit"], label="sideband fit")
    axis.axvspan(window.sr_low, window.sr_high, color="grey", alpha=0.12, lw=0)
    axis.set(xlabel="mass", ylabel=f"events / {edges[1] - edges[0]:g}", ylim=(0, None))
    axis.legend(fontsize=8)
    return figure
