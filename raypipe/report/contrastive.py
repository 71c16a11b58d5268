"""The report of a contrastive scan (paper C)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from raypipe.errors import UserError
from raypipe.events.schema import FEATURES
from raypipe.files import read_json
from raypipe.report.background import asked, sculpting, verdict
from raypipe.report.base import Report, curves_of, page_of, point_metrics
from raypipe.report.calibrated import shown
from raypipe.report.figures import figures_of_scan
from raypipe.report.html import Table, plus_minus, resource, say, table_of, with_error
from raypipe.report.summary import SHARED, Row, build_summary, is_main, quote, withheld_lines
from raypipe.search.base import Found, plain
from raypipe.search.contrastive_search import Contrastive, shown_encoder
from raypipe.search.diphoton import WORLD
from raypipe.search.identity import read
from raypipe.search.result import NO_SIGNAL
from raypipe.simulate.processes import GROUPS

TEXTS = resource("texts")["contrastive"]
CURVES = ("z_before", "z_after", "sic", "truth_before", "truth_after", "auc")
"""What MLflow's child runs draw over the strength."""
SHOWN = 20  # Events in the list of the page; the summary has all
PLACE = ("signal", "strength", "working_point")
Z = {"z_before": "-", "z_after": "withheld", "z_likelihood": "withheld"}
"""Significances of the table, and what stands there without one."""


def required_rows(entries: list[dict[str, Any]]) -> Table:
    """The table of required injections (`required_table`): a row for each signal and way, a column for each cut."""
    points = list(dict.fromkeys(e["working_point"] for e in entries))
    cells: dict[tuple[str, ...], dict[float, str]] = {}
    for e in entries:
        text = plus_minus(e["required"], e["standard_error"], none=f"> {e['largest']:g}")
        cells.setdefault((e["signal"], e["embedding"], e["method"]), {})[e["working_point"]] = text
    head = ["signal", "embedding", "method", *(f"S/√B for {entries[0]['target']:g}σ, cut at {p:.1%}" for p in points)]
    return Table(head, [[*way, *(found.get(p, "-") for p in points)] for way, found in cells.items()])


def headlines(summary: dict[str, Any]) -> list[str]:
    """The verdict, and the few sentences that a reader should take away besides."""
    lines = verdict(summary["results"], "z", TEXTS) + withheld_lines(summary["results_all_working_points"])
    lines += [say(SHARED["steered"], of) for of in summary["steered"]]
    if summary["closure_auc"]:
        lines.append(f"Closure AUC (template against true background): {with_error(summary['closure_auc'], 4)}.")
    return lines


def identity(rows: Sequence[dict[str, Any]], found: Found) -> dict[str, Any]:
    """The ``trial`` with the largest z of ``rows``, its ``z_after``, and its tables, labels by falling excess."""
    quoted = [row for row in rows if row["z_after"] is not None and math.isfinite(row["z_after"])]
    loud = max(quoted, key=lambda row: row["z_after"], default=None)
    if loud is None or not (tables := read(found.arrays(loud["key"]))):
        return {}
    tables["features"] = [{"feature": name} | e for name, e in zip(FEATURES, tables["features"], strict=True)]
    for name in ("labels", "list"):
        tables[name] = [entry | {"label": GROUPS[int(entry["label"])]} for entry in tables[name]]
    tables["labels"].sort(key=lambda entry: -entry["excess"])
    told = {name: list(map(plain, entries)) for name, entries in tables.items()}
    return {"trial": found.trials[loud["key"]].label(), "z_after": loud["z_after"], **told}


def worlds(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One entry a world of `raypipe.events.worlds`, signal, strength and cut, from the finished rows of a scan.

    ``z_bias``: z after the cut less that of the same pseudo-data set in the nominal world, its mean with the error over
    instances (None where no set has both). ``sic_ratio``: SIC over the nominal one. ``coverage_68``: share of instances
    whose true background is within one standard error of the expected one.
    """
    nominal = {_place(row): row for row in rows if row["embedding"] == "id" and row["method"] == "cathode"}
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if world := row["embedding"].partition(WORLD)[2]:
            groups.setdefault((world, *(row[name] for name in PLACE)), []).append(row)
    return [dict(zip(("world", *PLACE), of, strict=True)) | _world(mine, nominal) for of, mine in groups.items()]


def _place(row: Row) -> tuple[Any, ...]:
    return *(row[name] for name in PLACE), row["instance"]


def _world(rows: Sequence[Row], nominal: Mapping[tuple[Any, ...], Row]) -> dict[str, Any]:
    pairs = [(row, nominal[_place(row)]) for row in rows if _place(row) in nominal]
    pulls = np.array([row["background_pull"] for row in rows], float)
    entry: dict[str, Any] = {"instances": len(rows), "coverage_68": float((np.abs(pulls) < 1).mean())}
    entry |= {name: quote(rows, name) for name in ("z_after", "background_pull")}
    entry["z_bias"] = quote([a | {"z_bias": a["z_after"] - b["z_after"]} for a, b in pairs], "z_bias")
    injected = [(a["sic"], b["sic"]) for a, b in pairs if b["sic"] > 0 and b["signal"] != NO_SIGNAL]
    return entry | {"sic_ratio": quote([{"sic_ratio": sic / nominal} for sic, nominal in injected], "sic_ratio")}


def contrastive_report(search: Contrastive, found: Found) -> Report:
    """Significances, figures 3 to 7 of paper C as far as the scan goes, and the encoder behind them."""
    config, folder = search.config, found.folder / shown_encoder(found, search.need)
    if not (folder / "encoder.json").is_file():
        raise UserError(f"{folder}: the encoder is not whole (run `raypipe scan` again)")
    history, point = read_json(folder / "encoder.json")["history"], config.selection.working_points[0]
    other, found = worlds(found.good), replace(found, rows=[row for row in found.rows if WORLD not in row["embedding"]])
    calibration = shown(search, found)
    summary = build_summary(calibration.rows, working_point=point, target=config.selection.target)
    summary["instance_overlap"] = max((row["instance_overlap"] for row in found.good), default=0.0)
    quoted = [row for row in found.good if row["working_point"] == point and is_main(row)]
    summary["sculpting"] = sculpting(quoted, found.arrays)
    summary |= {"worlds": other} if other else {}
    summary["identity"] = what = identity(quoted, found)
    every, required, closure = (summary[k] for k in ("results_all_working_points", "required", "closure_auc"))
    samples = found.made["simulate"]["events"]["samples"]
    events = [s | {"name": k, "yield": s["yield_per_fb"] * config.pseudodata.luminosity} for k, s in samples.items()]
    parts = {"results": every, "required": required and required_rows(required), "events": events}
    steps = {s.replace("_", " "): f"{{cut_flow[{s}]:,}}" for s in events[0]["cut_flow"]}
    parts |= {
        "flow": table_of({"sample": "{name}"} | steps, events),
        "background": list(filter(is_main, every)),
        "sculpting": summary["sculpting"],
        "worlds": other,
    }
    parts |= calibration.parts | what | {"list": what.get("list", [])[:SHOWN]}
    drawn = figures_of_scan(config, found, summary, history) | calibration.figures
    page = page_of(search, found, parts, drawn, **asked(config), overlap=summary["instance_overlap"], loudest=what)
    names, metrics = ("z_before", "z_after", "sic"), {"closure_auc": closure["mean"]} if closure else {}
    metrics |= point_metrics(filter(is_main, every), names)
    metrics |= point_metrics((e for e in every if not is_main(e)), names, "embedding", "method")
    told = {"metrics": metrics, "curves": curves_of(every, CURVES), "history": history}
    tables = {"": table_of(TEXTS["tables"]["results"], every)}
    return Report(summary, [*headlines(summary), *calibration.notes], tables, **page, **told)
