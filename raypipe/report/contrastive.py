"""The report of a contrastive scan (paper C)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raypipe.config import Config
from raypipe.errors import UserError
from raypipe.files import read_json
from raypipe.report.base import Report, curves_of
from raypipe.report.figures import figures_of_scan
from raypipe.report.html import Section, Table, images, resource
from raypipe.report.style import save_figures
from raypipe.report.summary import build_summary, is_main, with_error, withheld_lines
from raypipe.search.base import Found
from raypipe.search.contrastive import Contrastive, shown_encoder
from raypipe.search.result import NO_SIGNAL

TEXTS = resource("texts")["contrastive"]


def result_rows(entries: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The table of significances: head and rows of text, for the page and the terminal."""
    way = ["embedding", "method"] if len({(e["embedding"], e["method"]) for e in entries}) > 1 else []
    head = [
        "signal",
        *way,
        "S/√B injected",
        "cut",
        "instances",
        "z before",
        "z after",
        "S/√B before",
        "S/√B after",
        "SIC",
    ]
    rows = []
    for e in entries:
        none = e["signal"] == NO_SIGNAL
        truth = ["-"] * 3 if none else [with_error(e[k]) for k in ("truth_before", "truth_after", "sic")]
        name, strength = ("no signal", "-") if none else (e["signal"], f"{e['strength']:g}")
        rows.append(
            [
                name,
                *(e[k] for k in way),
                strength,
                f"{e['working_point']:.1%}",
                str(e["instances"]),
                with_error(e["z_before"]),
                with_error(e["z_after"], none="withheld"),
                *truth,
            ]
        )
    return head, rows


def required_rows(entries: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The table of required injections (`required_table`): a row for each signal and way, a column for each cut."""
    points = list(dict.fromkeys(e["working_point"] for e in entries))
    cells: dict[tuple[str, ...], dict[float, str]] = {}
    for e in entries:
        error = f" ± {e['standard_error']:.2f}" if e["standard_error"] is not None else ""
        text = f"> {e['largest']:g}" if e["required"] is None else f"{e['required']:.2f}{error}"
        cells.setdefault((e["signal"], e["embedding"], e["method"]), {})[e["working_point"]] = text
    head = ["signal", "embedding", "method", *(f"S/√B for {entries[0]['target']:g}σ, cut at {p:.1%}" for p in points)]
    return head, [[*way, *(found.get(p, "-") for p in points)] for way, found in cells.items()]


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
            lines.append(
                f"{e['signal']} at S/√B = {e['strength']:g}: {with_error(e['z_before'], 1)} → "
                f"{with_error(e['z_after'], 1)} sigma; SIC {with_error(e['sic'], 1)}."
            )
    lines += withheld_lines(summary["results_all_working_points"])
    if summary["closure_auc"]:
        lines.append(f"Closure AUC (template against true background): {with_error(summary['closure_auc'], 4)}.")
    return lines


def _events_section(manifest: dict[str, Any], config: Config) -> Section:
    samples, luminosity, texts = manifest["samples"], config.pseudodata.luminosity, TEXTS["events"]
    head = ["sample", *texts["columns"], f"events at {luminosity:g} fb⁻¹"]
    rows = [
        [name, *(form.format(**s) for form in texts["columns"].values()), f"{s['yield_per_fb'] * luminosity:,.0f}"]
        for name, s in samples.items()
    ]
    steps = list(next(iter(samples.values()))["cut_flow"])
    flow = Table(
        ["sample", *[step.replace("_", " ") for step in steps]],
        [[name, *[f"{s['cut_flow'][step]:,}" for step in steps]] for name, s in samples.items()],
    )
    return Section("Events", texts["text"], [Table(head, rows), flow])


CURVES = ("z_before", "z_after", "sic", "truth_before", "truth_after", "auc")
"""What MLflow's child runs draw over the strength."""


def contrastive_report(search: Contrastive, found: Found) -> Report:
    """Significances, figures 3 to 7 of paper C as far as the scan goes, and the encoder behind them."""
    config, folder = search.config, found.folder / shown_encoder(found, search.need)
    if not (folder / "encoder.json").is_file():
        raise UserError(f"{folder}: the encoder is not whole (run `raypipe scan` again)")
    history = read_json(folder / "encoder.json")["history"]
    selection = config.selection
    summary = build_summary(found.rows, working_point=selection.working_points[0], target=selection.target)
    summary["instance_overlap"] = max((row["instance_overlap"] for row in found.good), default=0.0)
    drawn = figures_of_scan(config, found, summary, history)
    figures = save_figures(drawn, found.folder / "figures")
    window = f"signal region {config.window.sr_low:g}-{config.window.sr_high:g} GeV"
    return Report(
        summary,
        headlines(summary),
        {"": result_rows(summary["results_all_working_points"])},
        _sections(config, found, summary, figures),
        f"{config.pseudodata.luminosity:g} fb⁻¹ of pseudo-data, {window}",
        figures,
        _metrics(summary),
        curves_of(summary["results_all_working_points"], CURVES),
        history,
    )


def _sections(config: Config, found: Found, summary: dict[str, Any], figures: dict[str, Path]) -> list[Section]:
    """Of the page; images are embedded, so that the file can be mailed alone."""

    def shown(*names: str) -> list[dict[str, str]]:
        return images(figures, TEXTS["captions"], *names)

    tables = [result_rows(summary["results_all_working_points"])]
    if summary["required"]:
        tables.append(required_rows(summary["required"]))
    text = TEXTS["significances"].format(**summary)
    pictures = shown("significances", "sic", "sic_by_strength", "required")
    return [
        Section("Significances", text, [Table(*rows) for rows in tables], pictures),
        Section("Background model", "", [], shown("closure", "masses_signal", "masses_no_signal")),
        Section("Latent space", "", [], shown("latents_signal", "latents_no_signal", "encoder_training")),
        _events_section(found.made["simulate"]["events"], config),
    ]


def _metrics(summary: dict[str, Any]) -> dict[str, float]:
    found = {"closure_auc": summary["closure_auc"]["mean"]} if summary["closure_auc"] else {}
    for entry in summary["results_all_working_points"]:
        way = "" if is_main(entry) else f"{entry['embedding']}.{entry['method']}."
        where = f"{way}{entry['signal']}.{entry['strength']:g}.wp{entry['working_point']:g}"
        found |= {f"{name}.{where}": entry[name]["mean"] for name in ("z_before", "z_after", "sic") if entry[name]}
    return found
