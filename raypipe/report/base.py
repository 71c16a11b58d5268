"""What a report is made of; page, terminal, ``summary.json`` and MLflow show the same."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from raypipe.config.run import Run
from raypipe.errors import redact
from raypipe.files import write_json
from raypipe.report.html import FEW, FEW_TOLD, Section, Table, images, resource, say, table_of, write_html
from raypipe.report.summary import SHARED, other_versions_told, summarise
from raypipe.search.base import Found, Search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PACKAGES = (
    *("raypipe", "ray", "torch", "nflows", "xgboost", "numpy", "pyarrow", "mlflow"),
    *("pythia8mc", "fastjet", "iminuit"),
)
FAILED = ("embedding", "method", "signal", "strength", "instance", "error")
"""What the summary tells of a failed trial."""
Curves = dict[str, list[tuple[str, float, int]]]
"""Of MLflow's child runs, by ``signal/configuration``: (name, value, step)."""


@dataclass(frozen=True)
class Report:
    """What a search tells of a scan."""

    summary: dict[str, Any]
    """Its own part of ``summary.json``."""
    headlines: list[str]
    """The few sentences that a reader should take away; the first is the verdict: what was found, and whether the
    background closes."""
    tables: dict[str, Table] = field(default_factory=dict)
    """By title, for the terminal."""
    sections: list[Section] = field(default_factory=list)
    """Of the page; failures, times, configuration and versions follow them. Without any there is no page."""
    subtitle: str = ""
    asked: str = ""
    """What was asked, in a sentence."""
    figures: dict[str, Path] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    """For MLflow."""
    curves: Curves = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    """Of the encoder, epoch by epoch."""


def page_of(
    search: Search, found: Found, parts: Mapping[str, Any], drawn: Mapping[str, Figure | None], **values: Any
) -> dict[str, Any]:
    """What a `Report` has of a page: its figures, which are written, and its sections, as ``texts.yaml`` lays them out.

    Args:
        parts: the tables by name: each a `Table`, or entries whose columns ``texts.yaml`` knows.
        values: what its texts name.
    """
    texts = resource("texts")[search.config.search]
    from raypipe.report.style import save_figures  # half a second, which no search waits for

    figures, sections = save_figures(drawn, found.folder / "figures", search.config.label), []
    for of in texts["sections"]:
        mine = {name: parts[name] for name in of.get("tables", ()) if parts.get(name)}
        tables = [x if isinstance(x, Table) else table_of(texts["tables"][name], x) for name, x in mine.items()]
        pictures = images(figures, texts["captions"], *of.get("figures", ()))
        if tables or pictures or not of.keys() & {"tables", "figures"}:
            text, closed = of.get("text", "").format(**values), of.get("closed", False)
            sections.append(Section(of["title"], text, tables, pictures, closed=closed))
    told = {name: texts[name].format(**values) for name in ("subtitle", "asked")}
    return told | {"sections": sections, "figures": figures}


def common_summary(search: Search, found: Found) -> dict[str, Any]:
    """What ``summary.json`` says of every search."""
    total = sum(found.stage_seconds.values())
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "search": search.config.search,
        "config_hash": search.config.physics_hash(),
        "choice_hash": search.config.choice_hash(),
        "look": look(search.config),
        "code": found.code,
        "keys": list(found.trials),
        "notes": search.notes,
        "failed_trials": [{k: row[k] for k in FAILED} for row in found.failed],
        "other_versions": found.other_versions,
        "stage_seconds": found.stage_seconds,
        "stage_share": {name: s / total for name, s in found.stage_seconds.items()} if total else {},
        "peak_rss_gib": found.peak_rss_gib,
        "versions": versions | {"python": platform.python_version()},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def finish(search: Search, found: Found, report: Report) -> dict[str, Any]:
    """Write ``summary.json`` and ``report.html`` into the run folder; returns the summary."""
    summary = report.summary | common_summary(search, found)
    write_json(found.folder / "summary.json", summary)
    if report.sections:
        title, subtitle = f"{search.config.search} search", f"{report.subtitle}, {summary['date']}"
        sections, verdict = [*report.sections, *_common_sections(search, summary)], 1 + (summary["look"] is not None)
        told = headlines(report, summary)
        told[:verdict] = [" ".join(told[:verdict])]
        name = "raypipe" if "raypipe" in sys.argv[0] else Path(sys.argv[0]).name
        made = {"command": redact(shlex.join([name, *sys.argv[1:]])), "seed": search.config.seed}
        made |= {"tuned_on": getattr(search.config, "tuned_on", ())} | summary
        write_html(found.folder / "report.html", title, subtitle, told, sections, asked=report.asked, provenance=made)
    return summary


def look(config: Run) -> str | None:
    """``tuned`` if the configuration was chosen on these very pseudo-data, else ``first``; None if it does not say."""
    seeds = getattr(config, "tuned_on", ())
    return ("tuned" if config.seed in seeds else "first") if seeds else None


def headlines(report: Report, summary: Mapping[str, Any]) -> list[str]:
    """The verdict, whether the search was tuned on its data, its other sentences, and what the ledger holds besides."""
    told = list(report.headlines)
    told[1:1] = [SHARED["looks"][summary["look"]]] if summary["look"] else []
    tables = [*report.tables.values(), *(table for section in report.sections for table in section.tables)]
    cells = (cell for table in tables for row in table.rows for cell in row)
    few = [FEW_TOLD] if any(FEW in text for text in (*told, *cells)) else []
    return [*told, *few, *summary["notes"], *other_versions_told(summary["other_versions"])]


def _common_sections(search: Search, summary: Mapping[str, Any]) -> list[Section]:
    """Failures, times, configuration."""
    shares = summary["stage_share"]
    stages = [{"stage": k, "seconds": v, "share": shares[k]} for k, v in summary["stage_seconds"].items()]
    failures = Section("Failed trials", "", [table_of(SHARED["failed"], summary["failed_trials"])])
    times = say(SHARED["memory"], summary), [table_of(SHARED["times"], stages)]
    return [
        *([failures] if summary["failed_trials"] else []),
        Section("Where the time went", *times, closed=True),
        Section("Configuration", code=yaml.safe_dump(search.config.shown(), sort_keys=False), closed=True),
    ]


def plain_report(search: Search, found: Found) -> Report:
    """The report of a search that has none of its own: means of its metric by signal, strength and cut."""
    metric = search.metric
    results = summarise(found.rows, ("signal", "strength", "working_point"), [metric])
    table = table_of(SHARED["plain"] | {metric: f"{{{metric}}}"}, results)
    lines = [f"{r[0]} at {r[1]}: {metric} {r[4]} over {r[3]} instances." for r in table.rows]
    values = {f"{metric}.{e['signal']}.{e['strength']:g}": e[metric]["mean"] for e in results if e[metric]}
    return Report({"results": results}, lines, {"results": table}, [Section("Results", "", [table])], metrics=values)


def curves_of(entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Curves:
    """Metrics of the child runs from summary entries; a step is the injected S/sqrt(B) in thousandths."""
    groups: Curves = {}
    for entry in entries:
        seen = entry.get("embedding", "id")
        way = seen if entry["method"] == "cathode" else f"{seen}-{entry['method']}"
        curves = groups.setdefault(f"{entry['signal']}/{way}", [])
        step = round(1000 * entry["strength"])
        for name in filter(entry.get, names):
            where, quoted = f"{name}.wp{entry['working_point']:g}", entry[name]
            curves.append((where, float(quoted["mean"]), step))
            if quoted["standard_error"] is not None:
                curves.append((f"{where}.error", float(quoted["standard_error"]), step))
    return groups


def point_metrics(entries: Iterable[Mapping[str, Any]], names: Sequence[str], *way: str) -> dict[str, float]:
    """Means of summary entries for MLflow, under the name, the columns ``way``, signal, strength and cut."""
    found = {}
    for e in entries:
        where = ".".join([*(e[k] for k in way), e["signal"], f"{e['strength']:g}", f"wp{e['working_point']:g}"])
        found |= {f"{name}.{where}": e[name]["mean"] for name in names if e[name]}
    return found
