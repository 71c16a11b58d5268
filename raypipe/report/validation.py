"""The validation page of an event data set, simulated or imported: is this the physics that it should be?

``make_validation`` reads the manifest and, once, every table; it writes ``validation.html`` (self-contained),
``validation.json`` (all numbers, spectra included) and the figures as PNG.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raypipe.errors import UserError
from raypipe.events.table import read_schema
from raypipe.files import check_writable, read_json, write_json
from raypipe.report import validation_figures as figures
from raypipe.report.style import save_figures
from raypipe.report.validation_data import SampleSums, collect
from raypipe.report.validation_numbers import sample_numbers
from raypipe.report.validation_page import write_validation_page
from raypipe.report.validation_quantities import Kind, kind_of
from raypipe.simulate.dataset import MANIFEST, read_manifest
from raypipe.simulate.processes import GROUPS

IMPORTED = "read.json"
"""Sidecar of the tables that `raypipe read` wrote."""

MAX_IN_PANEL = 6
"""Samples that one panel shows before they cannot be told apart."""


def make_validation(events: str | Path, output: str | Path | None = None) -> dict[str, Any]:
    """Validate the data set folder ``events`` and write the page.

    Args:
        output: folder of the page; ``<events>/validation`` where not given.

    Returns:
        The numbers, as in ``validation.json``, with the path of the page under ``page``.

    Raises:
        UserError: no manifest, a missing or damaged file, a value that is not finite, no place to write.
    """
    output = Path(events) / "validation" if output is None else Path(output)
    if (Path(events) / "dataset.json").is_file():  # before the work; without a data set there is none
        check_writable(output)
    samples, numbers = measure(events)
    numbers["page"] = str(output / "validation.html")
    write_json(output / "validation.json", numbers)
    paths = save_figures(draw_all(samples, numbers), output / "figures")
    write_validation_page(output / "validation.html", numbers, _captions(samples), paths)
    return numbers


def measure(events: str | Path) -> tuple[list[SampleSums], dict[str, Any]]:
    """The sums of every sample of the data set folder ``events``, and the numbers of ``validation.json``."""
    events = Path(events)
    manifest = describe(events)
    samples = collect_all(events, manifest)
    entries = manifest["samples"]
    return samples, {
        "events": str(events),
        "skipped_files": manifest.pop("skipped", []),
        "manifest": {k: v for k, v in manifest.items() if k not in {"samples", "card"}},
        "card": (manifest.get("card") or {}).get("name"),
        "samples": {s.name: sample_numbers(s, entries[s.name]) for s in samples},
    }


def describe(events: Path) -> dict[str, Any]:
    """The manifest of a simulated data set; of an imported one (``read.json``), what stands in for it.

    Every imported table is a sample of its own; files that were skipped stand under ``skipped``.
    """
    sidecar = events / IMPORTED
    if (events / MANIFEST).is_file() or not sidecar.is_file():
        return read_manifest(events)
    summary = read_json(sidecar)
    try:
        group = (summary["config"].get("source") or {}).get("group", 0)
        samples = {
            Path(file["table"]).stem: {
                "title": str(file["path"]),
                "group": group,
                "files": {Path(file["table"]).name: None},
                "cut_flow": {"events_read": file["events"], "written": file["written"]},
            }
            for file in summary["files"]
        }
        skipped = [{"file": str(f["path"]), "reason": str(f["reason"])} for f in summary["skipped"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{sidecar}: not a sidecar of `raypipe read`: {error} is missing") from error
    return {"imported": True, "raypipe": summary.get("raypipe"), "samples": samples, "skipped": skipped}


def collect_all(events: Path, manifest: dict[str, Any]) -> list[SampleSums]:
    """One pass over every sample of the manifest, in its order."""
    found: list[SampleSums] = []
    kinds: dict[tuple[str, ...], Kind] = {}
    for name, entry in _samples(events, manifest).items():
        files: dict[str, list[Path]] = {}
        for file in entry.get("files", {}):
            split = Path(file).parts[0] if len(Path(file).parts) > 1 else "all"
            files.setdefault(split, []).append(events / file)
        if not files:
            raise UserError(f"{events}: sample {name!r} has no files in the manifest")
        first = next(iter(files.values()))[0]
        # One kind for all tables of the same columns, so that their axes agree.
        kind = kinds.setdefault(tuple(read_schema(first).names), kind_of(first))
        found.append(collect(name, int(entry.get("group", 0)), files, kind))
    return found


def _samples(events: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    samples = manifest.get("samples") if isinstance(manifest, dict) else None
    if not isinstance(samples, dict) or not samples:
        raise UserError(f"{events}: the manifest names no samples")
    return samples


def panels(samples: list[SampleSums]) -> list[tuple[str, list[SampleSums]]]:
    """The samples by family: everything known (groups >= 0) first, then one panel a family of signals."""
    groups: dict[int, list[SampleSums]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample)
    known = [s for group in sorted(g for g in groups if g >= 0) for s in groups[group]]
    families = [("known processes", known)] if known else []
    families += [
        (f"group {g}: {GROUPS.get(g, '')}".rstrip(": "), groups[g])
        for g in sorted((g for g in groups if g < 0), reverse=True)
    ]
    return [
        (title if len(members) <= MAX_IN_PANEL else f"{title} ({k // MAX_IN_PANEL + 1})", members[k : k + MAX_IN_PANEL])
        for title, members in families
        for k in range(0, len(members), MAX_IN_PANEL)
    ]


def _by_kind(samples: list[SampleSums]) -> dict[tuple[str, ...], list[SampleSums]]:
    """Samples that offer the same quantities."""
    kinds: dict[tuple[str, ...], list[SampleSums]] = {}
    for sample in samples:
        kinds.setdefault(tuple(q.name for q in sample.kind.quantities), []).append(sample)
    return kinds


def draw_all(samples: list[SampleSums], numbers: dict[str, Any]) -> dict[str, Any]:
    """Every figure of the page by name."""
    drawn = {}
    for k, members in enumerate(_by_kind(samples).values()):
        prefix = f"{k}_" if k else ""
        first = members[0].kind.quantities[0]
        known = sorted((s for s in members if s.group >= 0 and s.events), key=lambda s: s.yield_per_fb)
        reference = known[-1] if known else None  # the continuum
        if known and members[0].kind.name != "table":
            drawn[f"{prefix}expected"] = figures.stacked(first, known)
        for quantity in members[0].kind.quantities:
            if quantity.shown:
                drawn[f"{prefix}{quantity.name}"] = figures.shapes(quantity, panels(members), reference)
    rows = {n: s["presence"] for n, s in numbers["samples"].items() if s["presence"]}
    rows = {n: r for n, r in rows.items() if r["slots"]["jet1"]["ours"] is not None}
    if rows:
        drawn["presence"] = figures.presence(rows)
    return drawn


def _captions(samples: list[SampleSums]) -> dict[str, str]:
    found = {}
    for k, members in enumerate(_by_kind(samples).values()):
        found |= {f"{k}_{q.name}" if k else q.name: q.caption for q in members[0].kind.quantities}
    return found
