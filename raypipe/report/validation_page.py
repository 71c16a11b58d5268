"""The HTML of a validation page: tables of text made of the numbers, and the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from raypipe.report.html import Section, Table, image, images, resource, write_html
from raypipe.report.validation_numbers import MEANS, SPLIT_TOLERANCE
from raypipe.report.validation_presence import SLOT_NAMES, VARIANTS, references

Numbers = dict[str, Any]

VARIANT_HEAD = ["sample", "large-R jets counted", "at least one", "at least two"]
MEAN_HEAD = ["sample", "mean", "here", "reference"]


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, or a dash."""
    return "-" if value is None else f"{value:.{digits}g}"


def with_error(entry: Numbers | None, digits: int = 2) -> str:
    """``value +- error``, or a dash."""
    if entry is None or entry.get("value") is None:
        return "-"
    if entry.get("error") is None:
        return f"{entry['value']:.{digits}f}"
    return f"{entry['value']:.{digits}f} ± {entry['error']:.{digits}f}"


def headlines(numbers: Numbers) -> list[str]:
    """What a reader should take away."""
    samples = numbers["samples"]
    events = sum(sum(s["yield"]["events"].values()) for s in samples.values())
    size = sum(s["bytes"] for s in samples.values())
    lines = [f"{len(samples)} samples, {events:,} events, {size / max(events, 1):.0f} bytes an event."]
    ratios = [r for s in samples.values() for r in s["yield"].get("of_reference", {}).values() if r is not None]
    if ratios:
        worst = max(abs(r - 1) for r in ratios)
        verdict = "agree with" if worst < SPLIT_TOLERANCE else "DISAGREE with"
        lines.append(f"Sums of weights {verdict} reference × efficiency (largest difference {worst:.1e}).")
    for name, s in samples.items():
        shown = {m: p for m, p in s["peaks"].items() if p and m != "m_yy" and f"{m} near Z" not in s["peaks"]}
        found = [f"{m} {p['position']:.2f} ± {p['error']:.2f}" for m, p in shown.items()]
        if found:
            lines.append(f"{name}, peaks [GeV]: {', '.join(found)}.")
    higgs = [s["peaks"]["m_yy"] for s in samples.values() if s["group"] != 0 and s["peaks"].get("m_yy")]
    if higgs:
        low, high = (f([p["position"] for p in higgs]) for f in (min, max))
        widths = sorted(p["sigma68"] for p in higgs)
        lines.append(f"m_yy peaks at {low:.2f} to {high:.2f} GeV, σ68 {widths[0]:.2f} to {widths[-1]:.2f} GeV.")
    for name, s in samples.items():
        if s.get("smoothness"):
            fit = s["smoothness"]
            lines.append(
                f"{name}: χ²/ndf {fit['chi2']:.0f}/{fit['ndf']} to a smooth fall (p = {fit['p_value']:.2g}), "
                f"largest pull {fit['largest_pull']:+.1f}σ at {fit['largest_at']:.1f} GeV."
            )
    if numbers["skipped_files"]:
        lines.append(f"{len(numbers['skipped_files'])} input files could not be read and were skipped.")
    return lines


def yield_table(numbers: Numbers) -> Table:
    """Yields beside the references."""
    head = [
        "sample",
        "group",
        "events",
        "σ·BR·K [fb]",
        "K over Pythia",
        "prototype's K",
        "efficiency",
        "yield [fb]",
        "Σw / (σ·ε)",
        "compared [fb]",
        "another simulation [fb]",
        "ratio",
    ]
    rows = []
    for name, s in numbers["samples"].items():
        y = s["yield"]
        closure = [r for r in y.get("of_reference", {}).values() if r is not None]
        physical = s["group"] >= 0
        efficiency = {"value": y.get("efficiency"), "error": y.get("efficiency_error")}
        other = y.get("others")
        rows.append(
            [
                name,
                str(s["group"]),
                f"{sum(y['events'].values()):,}",
                number(y.get("reference_cross_section_fb"), 4),
                number(y.get("k_factor") if physical else None),
                number(y["others_k_factor"]),
                with_error(efficiency, 4),
                number(y["per_fb"], 4),
                f"{np.mean(closure):.6f}" if closure else "-",
                "-" if other is None else number(other["ours"], 4),
                "-" if other is None else number(other["per_fb"], 4),
                "-" if other is None else f"{other['ratio']:.2f}",
            ]
        )
    return Table(head, rows)


def flow_tables(numbers: Numbers) -> list[Table]:
    """Cut flows as counts and shares of the generated events; one table a set of steps."""
    sets: dict[tuple[str, ...], list[list[str]]] = {}
    for name, s in numbers["samples"].items():
        flow = s["yield"].get("cut_flow")
        if flow:
            first = next(iter(flow.values())) or 1
            cells = [f"{n:,}" if k == 0 else f"{n / first:.2%}" for k, n in enumerate(flow.values())]
            sets.setdefault(tuple(flow), []).append([name, *cells])
    return [Table(["sample", *(s.replace("_", " ") for s in steps)], rows) for steps, rows in sets.items()]


def mean_table(numbers: Numbers) -> Table:
    """Means of every sample with the prototype's in brackets, and bytes an event."""
    shown = [m for m in MEANS if any(m in s["means"] for s in numbers["samples"].values())]
    if not shown:
        shown = list(dict.fromkeys(m for s in numbers["samples"].values() for m in s["means"]))[:8]
    rows = []
    for name, s in numbers["samples"].items():
        theirs = references()["means"].get(name, {})
        cells = []
        for m in shown:
            digits = 1 if m in {"met", "pt_yy"} else 3
            other = f" ({theirs[m]:g})" if m in theirs else ""
            cells.append(with_error(s["means"].get(m), digits) + other)
        rows.append([name, *cells, number(s["bytes_per_event"])])
    return Table(["sample", *(MEANS.get(m, f"<{m}>") for m in shown), "bytes / event"], rows)


def peak_table(numbers: Numbers) -> Table:
    """Peaks of the masses."""
    masses = list(dict.fromkeys(m for s in numbers["samples"].values() for m in s["peaks"]))
    rows = []
    for name, s in numbers["samples"].items():
        cells = []
        for m in masses:
            p, other = s["peaks"].get(m), s["others_widths"].get(m)
            cells += (
                ["-"] * 3
                if p is None
                else [
                    f"{p['position']:.2f} ± {p['error']:.2f}",
                    f"{p['median']:.2f}",
                    f"{p['sigma68']:.2f}" + (f" ({other:g})" if other else ""),
                ]
            )
        rows.append([name, *cells])
    return Table(["sample", *(f"{m} {what}" for m in masses for what in ("peak", "median", "σ68"))], rows)


def presence_section(numbers: Numbers, figures: dict[str, Path]) -> Section | None:
    """Presence shares beside numbers.md 2.4, what could be measured of the differences, and what else differs."""
    entries = {n: s["presence"] for n, s in numbers["samples"].items() if s["presence"]}
    if not entries:
        return None
    rows, variant_rows, mean_rows = [], [], []
    for name, e in entries.items():
        slots = [e["slots"][s] for s in SLOT_NAMES]
        rows.append([name, "here", *(with_error({"value": s["ours"], "error": s["error"]}, 3) for s in slots)])
        rows.append([e["label"], "reference", *(f"{s['reference']:.2f}" for s in slots)])
        rows.append(["", "difference", *("-" if s["difference"] is None else f"{s['difference']:+.3f}" for s in slots)])
        first, second = e["slots"]["fat1"], e["slots"]["fat2"]
        variant_rows.append([name, "reference", f"{first['reference']:.2f}", f"{second['reference']:.2f}"])
        variant_rows.append(
            ["", "as stored", *(with_error({"value": s["ours"], "error": s["error"]}, 3) for s in (first, second))]
        )
        for key, title in VARIANTS.items():
            cells = [with_error(e["variants"].get(f"{key}_{i}"), 3) for i in (1, 2)]
            variant_rows.append(["", title, *cells])
        for key, mean in e["means"].items():
            mean_rows.append([name, key, with_error(mean, 2), f"{mean['reference']:g}"])
    theirs = references()["presence"]
    studies = [
        [
            study["sample"],
            study["change"],
            f"{study['events']:,}",
            *(f"{share:.3f} ± {error:.3f}" for share, error in zip(study["shares"], study["errors"], strict=True)),
            f"{study['pt_yy']:g}",
            f"{study['n_jet']:g}",
        ]
        for study in theirs["studies"]
        if study["sample"] in entries
    ]
    texts, (low, high) = resource("texts")["validation"], theirs["window"]
    study_head = ["sample", "change", "events", *SLOT_NAMES, "<pT yy>", "<jets>"]
    title = "Presence of objects"
    return Section(
        title,
        texts["sections"][title].format(low=low, high=high, source=theirs["source"]),
        [
            Table(["sample", "", *SLOT_NAMES], rows),
            Table(VARIANT_HEAD, variant_rows, "Large-R jets under other definitions"),
            Table(MEAN_HEAD, mean_rows, "Means [GeV] in the same window (jets: whole window)"),
            Table(study_head, studies, "One change at a time to our simulation (measured once, not this data set)"),
        ],
        images(figures, texts["captions"], "presence"),
        notes=texts["notes"],
    )


def write_validation_page(path: Path, numbers: Numbers, captions: dict[str, str], figures: dict[str, Path]) -> None:
    """Write the page."""
    texts = resource("texts")["validation"]
    text, shape_figures = texts["sections"], images(figures, captions, *captions)
    expected = [image(p, texts["captions"]["expected"]) for n, p in figures.items() if n.endswith("expected")]
    others = [
        f"{n}: {s['yield']['others']['source']}." for n, s in numbers["samples"].items() if s["yield"].get("others")
    ]
    bad = [[f["file"], f["reason"]] for f in numbers["skipped_files"]]
    peaks = [peak_table(numbers)] if any(s["peaks"] for s in numbers["samples"].values()) else []
    manifest = yaml.safe_dump(numbers["manifest"] | {"card": numbers["card"]}, sort_keys=False)
    sections = [
        Section("Yields", text["Yields"], [yield_table(numbers)], expected, notes=others),
        Section("Cut flow", text["Cut flow"], flow_tables(numbers)),
        Section("Samples", text["Samples"], [mean_table(numbers)]),
        Section("Peaks", text["Peaks"], peaks),
        presence_section(numbers, figures),
        Section("Shapes", text["Shapes"], [], shape_figures),
        Section("Skipped files", "", [Table(["file", "reason"], bad)]) if bad else None,
        Section("Data set", "", code=manifest),
    ]
    cells = [s for s in sections if s is not None and (s.tables or s.figures or s.code)]
    mpi = numbers["manifest"].get("mpi")
    profile = (
        "imported" if mpi is None else f"card {numbers['card']}, multi-parton interactions {'on' if mpi else 'off'}"
    )
    subtitle = f"{numbers['events']}; {profile}"
    write_html(path, "Event data set", subtitle, headlines(numbers), cells)
