"""The self-contained HTML page of a scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from raypipe.config import Config
from raypipe.report.html import Section, Table, images, resource, write_html
from raypipe.report.summary import other_versions_told, with_error, withheld_lines
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
    return lines + other_versions_told(summary.get("other_versions", 0))


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


def write_page(
    path: Path, summary: dict[str, Any], config: Config, manifest: dict[str, Any], figures: dict[str, Path]
) -> None:
    """Write the page; images are embedded, so that the file can be mailed alone."""

    def shown(*names: str) -> list[dict[str, str]]:
        return images(figures, TEXTS["captions"], *names)

    stages = Table(
        ["stage", "seconds", "share"],
        [[k, f"{v:.1f}", f"{summary['stage_share'][k]:.0%}"] for k, v in summary["stage_seconds"].items()],
    )
    tables = [result_rows(summary["results_all_working_points"])]
    if summary["required"]:
        tables.append(required_rows(summary["required"]))
    provenance = {k: summary[k] for k in ("config_hash", "code", "versions", "peak_rss_gib", "date")}
    sections = [
        Section(
            "Significances",
            TEXTS["significances"].format(**summary),
            [Table(*rows) for rows in tables],
            shown("significances", "sic", "sic_by_strength", "required"),
        ),
        Section("Background model", "", [], shown("closure", "masses_signal", "masses_no_signal")),
        Section("Latent space", "", [], shown("latents_signal", "latents_no_signal", "encoder_training")),
        _events_section(manifest, config),
        Section("Where the time went", f"Peak memory {summary['peak_rss_gib']:.2f} GiB.", [stages]),
        Section("Configuration", "", code=yaml.safe_dump(config.shown(), sort_keys=False)),
        Section("Versions", "", code=yaml.safe_dump(provenance, sort_keys=False)),
    ]
    if summary["failed_trials"]:
        rows = [[f["signal"], f"{f['strength']:g}", str(f["instance"]), f["error"]] for f in summary["failed_trials"]]
        sections.insert(1, Section("Failed trials", "", [Table(["signal", "strength", "instance", "error"], rows)]))
    window = f"signal region {config.window.sr_low:g}-{config.window.sr_high:g} GeV"
    subtitle = f"{config.pseudodata.luminosity:g} fb⁻¹ of pseudo-data, {window}, {summary['date']}"
    write_html(path, f"{config.search} search", subtitle, headlines(summary), sections)
