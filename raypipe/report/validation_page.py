"""The HTML of a validation page: tables of text made of the numbers, and the figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from raypipe.report.html import Section, Table, image, images, plus_minus, resource, table_of, write_html
from raypipe.report.validation_numbers import MEANS, SPLIT_TOLERANCE
from raypipe.report.validation_quantities import SLOT_NAMES, VARIANTS, references

Numbers = dict[str, Any]

YIELDS: dict[str, Callable[[Numbers], str]] = {
    "sample": lambda s: s["name"],
    "group": lambda s: str(s["group"]),
    "events": lambda s: f"{sum(s['yield']['events'].values()):,}",
    "σ·BR·K [fb]": lambda s: number(s["yield"].get("reference_cross_section_fb"), 4),
    "K over Pythia": lambda s: number(s["yield"].get("k_factor") if s["group"] >= 0 else None),
    "prototype's K": lambda s: number(s["yield"]["others_k_factor"]),
    "efficiency": lambda s: plus_minus(s["yield"].get("efficiency"), s["yield"].get("efficiency_error"), 4),
    "yield [fb]": lambda s: number(s["yield"]["per_fb"], 4),
    "Σw / (σ·ε)": lambda s: f"{np.mean(_closure(s)):.6f}" if _closure(s) else "-",
    "compared [fb]": lambda s: number(_other(s).get("ours"), 4),
    "another simulation [fb]": lambda s: number(_other(s).get("per_fb"), 4),
    "ratio": lambda s: f"{_other(s)['ratio']:.2f}" if _other(s) else "-",
}
"""Columns of the table of yields: heading -> the cell of a sample."""


def _closure(sample: Numbers) -> list[float]:
    """Sums of weights over reference cross section x efficiency, those of the splits that have it."""
    return [r for r in sample["yield"].get("of_reference", {}).values() if r is not None]


def _other(sample: Numbers) -> Numbers:
    """What another simulation found."""
    return sample["yield"].get("others") or {}


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, or a dash."""
    return "-" if value is None else f"{value:.{digits}g}"


def mean(entry: Numbers | None, digits: int = 2) -> str:
    """A mean with its error, or a dash."""
    return plus_minus(entry["value"], entry["error"], digits) if entry else "-"


def headlines(numbers: Numbers) -> list[str]:
    """What a reader should take away."""
    samples = numbers["samples"]
    events = sum(sum(s["yield"]["events"].values()) for s in samples.values())
    size = sum(s["bytes"] for s in samples.values())
    lines = [f"{len(samples)} samples, {events:,} events, {size / max(events, 1):.0f} bytes an event."]
    if ratios := [r for s in samples.values() for r in _closure(s)]:
        worst = max(abs(r - 1) for r in ratios)
        verdict = "agree with" if worst < SPLIT_TOLERANCE else "DISAGREE with"
        lines.append(f"Sums of weights {verdict} reference × efficiency (largest difference {worst:.1e}).")
    for name, s in samples.items():
        shown = {m: p for m, p in s["peaks"].items() if p and m != "m_yy" and f"{m} near Z" not in s["peaks"]}
        if found := [f"{m} {p['position']:.2f} ± {p['error']:.2f}" for m, p in shown.items()]:
            lines.append(f"{name}, peaks [GeV]: {', '.join(found)}.")
    if higgs := [s["peaks"]["m_yy"] for s in samples.values() if s["group"] != 0 and s["peaks"].get("m_yy")]:
        positions, widths = (sorted(p[what] for p in higgs) for what in ("position", "sigma68"))
        where = f"{positions[0]:.2f} to {positions[-1]:.2f} GeV, σ68 {widths[0]:.2f} to {widths[-1]:.2f} GeV"
        lines.append(f"m_yy peaks at {where}.")
    for name, s in samples.items():
        if fit := s.get("smoothness"):
            quality = f"χ²/ndf {fit['chi2']:.0f}/{fit['ndf']} to a smooth fall (p = {fit['p_value']:.2g})"
            furthest = f"{fit['largest_pull']:+.1f}σ at {fit['largest_at']:.1f} GeV"
            lines.append(f"{name}: {quality}, largest pull {furthest}.")
    if numbers["skipped_files"]:
        lines.append(f"{len(numbers['skipped_files'])} input files could not be read and were skipped.")
    return lines


def flow_tables(samples: Numbers) -> list[Table]:
    """Cut flows as counts and shares of the generated events; one table a set of steps."""
    sets: dict[tuple[str, ...], list[list[str]]] = {}
    for name, s in samples.items():
        if flow := s["yield"].get("cut_flow"):
            first = next(iter(flow.values())) or 1
            cells = [f"{n:,}" if k == 0 else f"{n / first:.2%}" for k, n in enumerate(flow.values())]
            sets.setdefault(tuple(flow), []).append([name, *cells])
    return [Table(["sample", *(s.replace("_", " ") for s in steps)], rows) for steps, rows in sets.items()]


def mean_table(samples: Numbers) -> Table:
    """Means of every sample with the prototype's in brackets, and bytes an event."""
    there = list(dict.fromkeys(m for s in samples.values() for m in s["means"]))
    shown = [m for m in MEANS if m in there] or there[:8]

    def cell(name: str, sample: Numbers, m: str) -> str:
        theirs = references()["means"].get(name, {})
        digits = 1 if m in {"met", "pt_yy"} else 3
        return mean(sample["means"].get(m), digits) + (f" ({theirs[m]:g})" if m in theirs else "")

    rows = [[n, *(cell(n, s, m) for m in shown), number(s["bytes_per_event"])] for n, s in samples.items()]
    return Table(["sample", *(MEANS.get(m, f"<{m}>") for m in shown), "bytes / event"], rows)


def peak_tables(samples: Numbers) -> list[Table]:
    """Peaks of the masses; no table without any."""
    masses = list(dict.fromkeys(m for s in samples.values() for m in s["peaks"]))
    rows = []
    for name, s in samples.items():
        rows.append([name])
        for m in masses:
            p, other = s["peaks"].get(m), s["others_widths"].get(m)
            width = f" ({other:g})" if other else ""
            place = plus_minus(p["position"], p["error"]) if p else "-"
            rows[-1] += [place, *((f"{p['median']:.2f}", f"{p['sigma68']:.2f}{width}") if p else "--")]
    head = ["sample", *(f"{m} {what}" for m in masses for what in ("peak", "median", "σ68"))]
    return [Table(head, rows)] if masses else []


def presence_section(samples: Numbers, figures: dict[str, Path]) -> Section | None:
    """Presence shares beside numbers.md 2.4, what could be measured of the differences, and what else differs."""
    entries = {n: s["presence"] for n, s in samples.items() if s["presence"]}
    if not entries:
        return None
    rows, variants, means = [], [], []
    for name, e in entries.items():
        slots = [e["slots"][s] for s in SLOT_NAMES]
        ours, theirs = [plus_minus(s["ours"], s["error"], 3) for s in slots], [f"{s['reference']:.2f}" for s in slots]
        difference = ["-" if s["difference"] is None else f"{s['difference']:+.3f}" for s in slots]
        rows += [[name, "here", *ours], [e["label"], "reference", *theirs], ["", "difference", *difference]]
        fat = slice(SLOT_NAMES.index("fat1"), SLOT_NAMES.index("fat2") + 1)
        variants += [[name, "reference", *theirs[fat]], ["", "as stored", *ours[fat]]]
        for key, title in VARIANTS.items():
            variants.append(["", title, *(mean(e["variants"].get(f"{key}_{i}"), 3) for i in (1, 2))])
        means += [[name, key, mean(m), f"{m['reference']:g}"] for key, m in e["means"].items()]
    theirs = references()["presence"]
    studies = []
    for s in (study for study in theirs["studies"] if study["sample"] in entries):
        shares = [plus_minus(share, error, 3) for share, error in zip(s["shares"], s["errors"], strict=True)]
        studies.append([s["sample"], s["change"], f"{s['events']:,}", *shares, f"{s['pt_yy']:g}", f"{s['n_jet']:g}"])
    texts, (low, high), title = resource("texts")["validation"], theirs["window"], "Presence of objects"
    counted, changed = texts["presence"]["variants"], texts["presence"]["studies"]
    tables = [
        Table(["sample", "", *SLOT_NAMES], rows),
        Table(["sample", "large-R jets counted", "at least one", "at least two"], variants, counted),
        Table(["sample", "mean", "here", "reference"], means, texts["presence"]["means"]),
        Table(["sample", "change", "events", *SLOT_NAMES, "<pT yy>", "<jets>"], studies, changed),
    ]
    text = texts["sections"][title].format(low=low, high=high, source=theirs["source"])
    return Section(title, text, tables, images(figures, texts["captions"], "presence"), notes=texts["notes"])


def write_validation_page(path: Path, numbers: Numbers, captions: dict[str, str], figures: dict[str, Path]) -> None:
    """Write the page."""
    texts, samples = resource("texts")["validation"], numbers["samples"]
    text = texts["sections"]
    yields = table_of(YIELDS, [s | {"name": name} for name, s in samples.items()])
    expected = [image(p, texts["captions"]["expected"]) for n, p in figures.items() if n.endswith("expected")]
    others = [f"{n}: {_other(s)['source']}." for n, s in samples.items() if _other(s)]
    bad = [[f["file"], f["reason"]] for f in numbers["skipped_files"]]
    manifest = yaml.safe_dump(numbers["manifest"] | {"card": numbers["card"]}, sort_keys=False)
    sections = [
        Section("Yields", text["Yields"], [yields], expected, notes=others),
        Section("Cut flow", text["Cut flow"], flow_tables(samples)),
        Section("Samples", text["Samples"], [mean_table(samples)]),
        Section("Peaks", text["Peaks"], peak_tables(samples)),
        presence_section(samples, figures),
        Section("Shapes", text["Shapes"], [], images(figures, captions, *captions)),
        Section("Skipped files", "", [Table(["file", "reason"], bad)] if bad else []),
        Section("Data set", "", code=manifest),
    ]
    filled = [s for s in sections if s is not None and (s.tables or s.figures or s.code)]
    mpi, card = numbers["manifest"].get("mpi"), numbers["card"]
    profile = "imported" if mpi is None else f"card {card}, multi-parton interactions {'on' if mpi else 'off'}"
    write_html(path, "Event data set", f"{numbers['events']}; {profile}", headlines(numbers), filled)
