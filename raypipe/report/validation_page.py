"""The HTML of a validation page: tables of text made of the numbers, and the figures."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from raypipe.report.html import Section, Table, image, images, plus_minus, resource, say, table_of, write_html
from raypipe.report.validation_numbers import MEANS, SPLIT_TOLERANCE

Numbers = dict[str, Any]
TEXTS = resource("texts")["validation"]


def _closure(sample: Numbers) -> list[float]:
    """Sums of weights over reference cross section x efficiency, those of the splits that have it."""
    return [r for r in sample["yield"].get("of_reference", {}).values() if r is not None]


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
    lines += [TEXTS["smoothness"].format(name=n, **s["smoothness"]) for n, s in samples.items() if s.get("smoothness")]
    if numbers["skipped_files"]:
        lines.append(f"{len(numbers['skipped_files'])} input files could not be read and were skipped.")
    return lines


def yield_table(samples: Numbers) -> Table:
    """The table of yields, whose columns are in ``texts.yaml``."""
    entries = []
    for name, s in samples.items():
        known = {"name": name, "total": sum(s["yield"]["events"].values())}
        known |= {"closure": np.mean(_closure(s)) if _closure(s) else None}
        known |= {"k": s["yield"].get("k_factor") if s["group"] >= 0 else None}
        entries.append(s | known)
    return table_of(TEXTS["yields"], entries)


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

    def one(name: str, sample: Numbers, m: str) -> str:
        theirs = resource("references")["means"].get(name, {})
        ours, digits = sample["means"].get(m, {}), 1 if m in {"met", "pt_yy"} else 3
        told = plus_minus(ours.get("value"), ours.get("error"), digits)
        return told + (f" ({theirs[m]:g})" if m in theirs else "")

    rows = [[n, *(one(n, s, m) for m in shown), say("{bytes_per_event:.3g}", s)] for n, s in samples.items()]
    return Table(["sample", *(MEANS.get(m, f"<{m}>") for m in shown), "bytes / event"], rows)


def peak_tables(samples: Numbers) -> list[Table]:
    """Peaks of the masses; no table without any."""
    masses = list(dict.fromkeys(m for s in samples.values() for m in s["peaks"]))
    rows = []
    for name, s in samples.items():
        rows.append([name])
        for m in masses:
            found, theirs = s["peaks"].get(m) or {}, s["others_widths"].get(m)
            forms = ["{position:.2f} ± {error:.2f}", "{median:.2f}", "{sigma68:.2f}"]
            forms[-1] += f" ({theirs:g})" if found and theirs is not None else ""
            rows[-1] += [say(form, found) for form in forms]
    head = ["sample", *(f"{m} {what}" for m in masses for what in ("peak", "median", "σ68"))]
    return [Table(head, rows)] if masses else []


def write_validation_page(path: Path, numbers: Numbers, captions: dict[str, str], figures: dict[str, Path]) -> None:
    """Write the page."""
    text, samples = TEXTS["sections"], numbers["samples"]
    expected = [image(p, TEXTS["captions"]["expected"]) for n, p in figures.items() if n.endswith("expected")]
    others = [f"{n}: {s['yield']['others']['source']}." for n, s in samples.items() if s["yield"].get("others")]
    bad = [[f["file"], f["reason"]] for f in numbers["skipped_files"]]
    manifest = yaml.safe_dump(numbers["manifest"] | {"card": numbers["card"]}, sort_keys=False)
    sections = [
        Section("Yields", text["Yields"], [yield_table(samples)], expected, notes=others),
        Section("Cut flow", text["Cut flow"], flow_tables(samples)),
        Section("Samples", text["Samples"], [mean_table(samples)]),
        Section("Peaks", text["Peaks"], peak_tables(samples)),
        Section("Shapes", text["Shapes"], [], images(figures, captions, *captions)),
        Section("Skipped files", "", [Table(["file", "reason"], bad)] if bad else []),
        Section("Data set", "", code=manifest),
    ]
    filled = [s for s in sections if s.tables or s.figures or s.code]
    mpi, card = numbers["manifest"].get("mpi"), numbers["card"]
    profile = "imported" if mpi is None else f"card {card}, multi-parton interactions {'on' if mpi else 'off'}"
    write_html(path, "Event data set", f"{numbers['events']}; {profile}", headlines(numbers), filled)
