"""What of a finished scan goes to MLflow: a parent run, a child for every (signal, configuration), the models."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from raypipe.cluster.registry import register_models
from raypipe.cluster.tracking import Recorder, record
from raypipe.config import Config
from raypipe.config.haxad import HaxadConfig
from raypipe.events.table import write_table
from raypipe.report.haxad import QUANTITIES
from raypipe.report.summary import is_main

CURVES = ("z_before", "z_after", "sic", "truth_before", "truth_after", "auc")
"""What the child runs draw over the strength."""


def record_run(
    config: Config,
    summary: dict[str, Any],
    history: list[dict[str, float]],
    figures: dict[str, Path],
    rows: list[dict[str, Any]],
    flow: Path | None,
    examples: dict[str, Any] | None = None,
) -> str | None:
    """Record one finished scan: a parent run with parameters, metrics, models, figures and ledger rows, and one child
    run for each (signal, configuration) with its curves over the strength.

    Not one run a trial: an MLflow run costs a third of a second, and ten thousand of them are not readable.

    Args:
        rows: of the ledger.
        flow: a background model to register, if there is one.
        examples: inputs of the models by model name (`raypipe.cluster.registry`).

    Returns:
        The MLflow run id of the parent, or None if tracking is off or failed.
    """

    entries = summary["results_all_working_points"]
    shown = Shown(_result_metrics(summary), group_curves(entries, CURVES), history, figures, rows, flow, examples or {})
    return _record(config, summary, shown)


def record_haxad(
    config: HaxadConfig,
    summary: dict[str, Any],
    history: list[dict[str, float]],
    figures: dict[str, Path],
    rows: list[dict[str, Any]],
    flow: Path | None,
    examples: dict[str, Any] | None = None,
) -> str | None:
    """`record_run` for a finished scan of a haxad search: fits, significances, its null and linearity studies."""
    metrics = {f"seconds.{stage}": seconds for stage, seconds in summary["stage_seconds"].items()}
    metrics["peak_rss_gib"] = summary["peak_rss_gib"]
    for study in ("null", "linearity"):
        for found in filter(None, summary[study]):
            where = f"wp{found['working_point']:g}"
            metrics |= {
                f"{study}.{name}.{where}": value
                for name, value in found.items()
                if isinstance(value, float) and name != "working_point"
            }
    for entry in summary["results"]:
        where = f"{entry['method']}.{entry['signal']}.{entry['strength']:g}.wp{entry['working_point']:g}"
        metrics |= {f"{name}.{where}": entry[name]["mean"] for name in QUANTITIES if entry[name]}
    curves = group_curves(summary["results"], QUANTITIES)
    return _record(config, summary, Shown(metrics, curves, history, figures, rows, flow, examples or {}))


@dataclass(frozen=True)
class Shown:
    """What of a finished scan goes to MLflow."""

    metrics: dict[str, float]
    curves: dict[str, list[tuple[str, float, int]]]
    """Of the child runs, by ``signal/configuration``."""
    history: list[dict[str, float]]
    """Of the encoder, epoch by epoch."""
    figures: dict[str, Path]
    rows: list[dict[str, Any]]
    flow: Path | None
    examples: dict[str, Any]


def _record(config: Any, summary: dict[str, Any], shown: Shown) -> str | None:
    def fill(run: Recorder) -> None:
        run.metrics((name, value, 0) for name, value in shown.metrics.items())
        run.metrics(
            (f"encoder.{name}", value, int(epoch.get("epoch", number)))
            for number, epoch in enumerate(shown.history)
            for name, value in epoch.items()
            if name != "epoch"
        )
        for group, curves in shown.curves.items():
            signal, configuration = group.split("/")
            run.child(group, {"signal": signal, "configuration": configuration}, curves)
        run.files(shown.figures.values(), "figures")
        run.files([Path(config.output) / "summary.json"])
        if shown.rows:
            with tempfile.TemporaryDirectory(prefix="raypipe-") as scratch:
                write_table(pa.Table.from_pylist(shown.rows), Path(scratch) / "ledger.parquet")
                run.files([Path(scratch) / "ledger.parquet"])
        register_models(config, run, shown.flow, shown.examples)

    made_of = {"code": summary["code"], "rows": sorted(summary["keys"])}
    tags = {f"raypipe.{name}": summary[name] for name in ("config_hash", "code")}
    return record(config, f"{config.search}-{summary['config_hash']}", made_of, fill, tags)


def group_curves(
    entries: list[dict[str, Any]], names: Sequence[str] = CURVES
) -> dict[str, list[tuple[str, float, int]]]:
    """Metrics of the child runs: for every ``signal/configuration`` triples (name, value, step).

    A step is the injected S/sqrt(B) in thousandths, since MLflow's are integers; the name holds the working point.
    """
    groups: dict[str, list[tuple[str, float, int]]] = {}
    for entry in entries:
        seen = entry.get("embedding", "id")
        way = seen if entry["method"] == "cathode" else f"{seen}-{entry['method']}"
        curves = groups.setdefault(f"{entry['signal']}/{way}", [])
        step = round(1000 * entry["strength"])
        for name in names:
            if entry[name]:
                where = f"{name}.wp{entry['working_point']:g}"
                curves.append((where, float(entry[name]["mean"]), step))
                if entry[name]["standard_error"] is not None:
                    curves.append((f"{where}.error", float(entry[name]["standard_error"]), step))
    return groups


def _result_metrics(summary: dict[str, Any]) -> dict[str, float]:
    metrics = {f"seconds.{stage}": seconds for stage, seconds in summary["stage_seconds"].items()}
    metrics["peak_rss_gib"] = summary["peak_rss_gib"]
    if summary["closure_auc"]:
        metrics["closure_auc"] = summary["closure_auc"]["mean"]
    for entry in summary["results_all_working_points"]:
        way = "" if is_main(entry) else f"{entry['embedding']}.{entry['method']}."
        where = f"{way}{entry['signal']}.{entry['strength']:g}.wp{entry['working_point']:g}"
        for name in ("z_before", "z_after", "sic"):
            if entry[name]:
                metrics[f"{name}.{where}"] = entry[name]["mean"]
    return metrics
