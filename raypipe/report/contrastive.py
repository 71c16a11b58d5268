"""The report of a contrastive scan (paper C)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from raypipe.config import Config
from raypipe.errors import UserError
from raypipe.files import read_json
from raypipe.report.base import Report, curves_of, point_metrics
from raypipe.report.calibrated import calibrated_rows, p_p_plot, read_calibration, retrained_lines, tail_table
from raypipe.report.figures import figures_of_scan
from raypipe.report.html import Section, Table, images, plus_minus, resource, table_of
from raypipe.report.style import save_figures
from raypipe.report.summary import build_summary, is_main, with_error, withheld_lines
from raypipe.search.base import Found
from raypipe.search.contrastive_search import Contrastive, shown_encoder
from raypipe.search.result import NO_SIGNAL

TEXTS = resource("texts")["contrastive"]
CURVES = ("z_before", "z_after", "sic", "truth_before", "truth_after", "auc")
"""What MLflow's child runs draw over the strength."""
Z = {"z_before": "-", "z_after": "withheld", "z_likelihood": "withheld"}
"""Significances of the table, and what stands there without one."""


def result_rows(entries: list[dict[str, Any]]) -> Table:
    """The table of significances, for the page and the terminal; embedding and method only where they differ."""
    way = ["embedding", "method"] if len({(e["embedding"], e["method"]) for e in entries}) > 1 else []
    calibrated = [name for name in ("z_calibrated", "z_global") if any(name in e for e in entries)]
    rows = []
    for e in entries:
        none = e["signal"] == NO_SIGNAL
        named, strength = ("no signal", "-") if none else (e["signal"], f"{e['strength']:g}")
        z = tuple(with_error(e.get(name), none=none) for name, none in Z.items())
        truth = ["-" if none else with_error(e[name]) for name in ("truth_before", "truth_after", "sic")]
        z += tuple(map(partial(at_least, e), calibrated))
        rows.append(
            [named, *(e[k] for k in way), strength, f"{e['working_point']:.1%}", str(e["instances"]), *z, *truth]
        )
    z_head = ["z before", "z after", "z of all bins", *(name.replace("_", " ") for name in calibrated)]
    head = ["S/√B injected", "cut", "instances", *z_head, "S/√B before", "S/√B after", "SIC"]
    return Table(["signal", *way, *head], rows)


def at_least(entry: dict[str, Any], name: str) -> str:
    """A calibrated significance; with ``≥`` where any of its instances is a lower bound."""
    bound = entry.get(f"{name}_bound")
    return ("≥ " if bound and bound["mean"] > 0 else "") + with_error(entry.get(name))


def background_rows(entries: list[dict[str, Any]]) -> Table:
    """How well the search itself knew the background after its cuts: expected, true, calibration and pull."""
    rows = []
    for e in filter(is_main, entries):
        what = "no signal" if e["signal"] == NO_SIGNAL else e["signal"]
        numbers = [with_error(e[name]) for name in ("expected_after", "b_after", "kappa", "background_pull")]
        rows.append([what, f"{e['strength']:g}", f"{e['working_point']:.1%}", str(e["instances"]), *numbers])
    return Table(["signal", "S/√B injected", "cut", "instances", "expected", "true", "κ", "pull"], rows)


def steered_line(found: dict[str, Any]) -> str:
    """A sentence about what `steered` found."""
    mean = plus_minus(found["pull_mean"], found["pull_mean_error"])
    return (
        f"Background where a signal steered the classifiers, cut at {found['working_point']:.1%}: pull {mean}, width "
        f"{found['pull_width']:.2f}, within one sigma in {found['coverage_68']:.0%} of {found['rows']} runs."
    )


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
    """The few sentences that a reader should take away."""
    lines = []
    for e in summary["results"]:
        if e["z_after"] is None:
            continue
        if e["signal"] == NO_SIGNAL:
            spread = ", ".join(f"{v:+.1f}" for v in e["z_after"]["values"])
            lines.append(f"Without a signal: {with_error(e['z_after'])} sigma after the cut ({spread}).")
        else:
            before, after, sic = (with_error(e[name], 1) for name in ("z_before", "z_after", "sic"))
            lines.append(f"{e['signal']} at S/√B = {e['strength']:g}: {before} → {after} sigma; SIC {sic}.")
    lines += withheld_lines(summary["results_all_working_points"])
    lines += map(steered_line, summary["steered"])
    if summary["closure_auc"]:
        lines.append(f"Closure AUC (template against true background): {with_error(summary['closure_auc'], 4)}.")
    return lines


def contrastive_report(search: Contrastive, found: Found) -> Report:
    """Significances, figures 3 to 7 of paper C as far as the scan goes, and the encoder behind them."""
    config, folder = search.config, found.folder / shown_encoder(found, search.need)
    if not (folder / "encoder.json").is_file():
        raise UserError(f"{folder}: the encoder is not whole (run `raypipe scan` again)")
    history = read_json(folder / "encoder.json")["history"]
    selection = config.selection
    record, maps, notes = read_calibration(search, found)
    rows = calibrated_rows(found.rows, maps) if maps else found.rows
    summary = build_summary(rows, working_point=selection.working_points[0], target=selection.target)
    summary["instance_overlap"] = max((row["instance_overlap"] for row in found.good), default=0.0)
    drawn = figures_of_scan(config, found, summary, history) | ({"calibration": p_p_plot(maps)} if maps else {})
    figures = save_figures(drawn, found.folder / "figures")
    every = summary["results_all_working_points"]
    table = result_rows(every)
    closure, quoted = summary["closure_auc"], ("z_before", "z_after", "sic")
    metrics = {"closure_auc": closure["mean"]} if closure else {}
    metrics |= point_metrics(filter(is_main, every), quoted)
    metrics |= point_metrics((e for e in every if not is_main(e)), quoted, "embedding", "method")
    window = f"signal region {config.window.sr_low:g}-{config.window.sr_high:g} GeV"
    subtitle = f"{config.pseudodata.luminosity:g} fb⁻¹ of pseudo-data, {window}"
    sections, told = _sections(config, found, summary, table, figures), [*headlines(summary), *notes]
    if record and maps:
        tails = tail_table([of for of in record["tails"] if of["embedding"] in maps])
        text, plot = TEXTS["calibration"], images(figures, TEXTS["captions"], "calibration")
        sections.insert(1, Section("Calibration", text, [tails], plot, notes=retrained_lines(record["retrained"])))
    curves = curves_of(every, CURVES)
    return Report(summary, told, {"": table}, sections, subtitle, figures, metrics, curves, history)


def _sections(
    config: Config, found: Found, summary: dict[str, Any], table: Table, figures: Mapping[str, Path]
) -> list[Section]:
    shown = partial(images, figures, TEXTS["captions"])
    tables = [table, *([required_rows(summary["required"])] if summary["required"] else [])]
    background = background_rows(summary["results_all_working_points"])
    text, pictures = TEXTS["significances"].format(**summary), ("significances", "sic", "sic_by_strength", "required")
    samples, luminosity = found.made["simulate"]["events"]["samples"], config.pseudodata.luminosity
    forms = {"sample": "{name}", **TEXTS["events"]["columns"]}
    columns = {head: partial(lambda form, s: form.format(**s), form) for head, form in forms.items()}
    columns[f"events at {luminosity:g} fb⁻¹"] = lambda s: f"{s['yield_per_fb'] * luminosity:,.0f}"
    events = table_of(columns, [s | {"name": name} for name, s in samples.items()])
    steps = list(next(iter(samples.values()))["cut_flow"])
    flow = [[name, *(f"{s['cut_flow'][step]:,}" for step in steps)] for name, s in samples.items()]
    flows = Table(["sample", *(step.replace("_", " ") for step in steps)], flow)
    return [
        Section("Significances", text, tables, shown(*pictures)),
        Section(
            "Background model", TEXTS["background"], [background], shown("closure", "masses_signal", "masses_no_signal")
        ),
        Section("Latent space", "", [], shown("latents_signal", "latents_no_signal", "encoder_training")),
        Section("Events", TEXTS["events"]["text"], [events, flows]),
    ]
