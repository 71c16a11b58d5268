"""The validation page of an event data set, simulated or imported: is this the physics that it should be?

``make_validation`` reads the manifest and, once, every table; it writes ``validation.html`` (self-contained),
``validation.json`` (all numbers, spectra included) and the figures as PNG.
"""

from __future__ import annotations

from itertools import groupby
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
    drawn, captions = draw_all(samples, numbers)
    paths = save_figures(drawn, output / "figures")
    write_validation_page(output / "validation.html", numbers, captions, paths)
    return numbers


def measure(events: str | Path) -> tuple[list[SampleSums], dict[str, Any]]:
    """The sums of every sample of the data set folder ``events``, and the numbers of ``validation.json``."""
    events = Path(events)
    manifest = describe(events)
    entries = manifest.get("samples") if isinstance(manifest, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{events}: the manifest names no samples")
    kinds: dict[tuple[str, ...], Kind] = {}
    samples = [_sums(events, name, entry, kinds) for name, entry in entries.items()]
    return samples, {
        "events": str(events),
        "skipped_files": manifest.pop("skipped", []),
        "manifest": {k: v for k, v in manifest.items() if k not in {"samples", "card"}},
        "card": (manifest.get("card") or {}).get("name"),
        "samples": {s.name: sample_numbers(s, entries[s.name]) for s in samples},
    }


def _sums(events: Path, name: str, entry: dict[str, Any], kinds: dict[tuple[str, ...], Kind]) -> SampleSums:
    """One pass over a sample; tables of the same columns share a kind of ``kinds``, so that their axes agree."""
    files: dict[str, list[Path]] = {}
    for file in map(Path, entry.get("files", {})):
        files.setdefault(file.parts[0] if len(file.parts) > 1 else "all", []).append(events / file)
    if not files:
        raise UserError(f"{events}: sample {name!r} has no files in the manifest")
    first = next(iter(files.values()))[0]
    kind = kinds.setdefault(tuple(read_schema(first).names), kind_of(first))
    return collect(name, int(entry.get("group", 0)), files, kind)


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


def panels(samples: list[SampleSums]) -> list[tuple[str, list[SampleSums]]]:
    """The samples by family: everything known (groups >= 0) first, then one panel a family of signals."""
    ordered = sorted(samples, key=lambda s: (s.group < 0, abs(s.group)))
    found = []
    for group, family in groupby(ordered, lambda s: min(s.group, 0)):
        title = f"group {group}: {GROUPS.get(group, '')}".rstrip(": ") if group else "known processes"
        members = list(family)
        parts = [members[k : k + MAX_IN_PANEL] for k in range(0, len(members), MAX_IN_PANEL)]
        found += [(f"{title} ({k})" if len(parts) > 1 else title, part) for k, part in enumerate(parts, 1)]
    return found


def draw_all(samples: list[SampleSums], numbers: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Every figure of the page by name, and the captions of the spectra."""
    drawn, captions = {}, {}
    kinds: dict[tuple[str, ...], list[SampleSums]] = {}
    for sample in samples:  # by the quantities that they offer
        kinds.setdefault(tuple(q.name for q in sample.kind.quantities), []).append(sample)
    for k, members in enumerate(kinds.values()):
        prefix, kind = f"{k}_" if k else "", members[0].kind
        known = sorted((s for s in members if s.group >= 0 and s.events), key=lambda s: s.yield_per_fb)
        reference = known[-1] if known else None  # the continuum
        if known and kind.name != "table":
            drawn[f"{prefix}expected"] = figures.stacked(kind.quantities[0], known)
        captions |= {f"{prefix}{q.name}": q.caption for q in kind.quantities}
        shown = [q for q in kind.quantities if q.shown]
        drawn |= {f"{prefix}{q.name}": figures.shapes(q, panels(members), reference) for q in shown}
    rows = {n: s["presence"] for n, s in numbers["samples"].items() if s["presence"]}
    if rows := {n: r for n, r in rows.items() if r["slots"]["jet1"]["ours"] is not None}:
        drawn["presence"] = figures.presence(rows)
    return drawn, captions
