"""The validation page of an event data set, simulated or imported: is this the physics that it should be?"""

from collections.abc import Sequence
from itertools import cycle, groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raypipe.errors import UserError
from raypipe.events.table import read_schema
from raypipe.files import check_writable, read_json, write_json
from raypipe.progress import say
from raypipe.report.style import CYCLE, new_figure, save_figures
from raypipe.report.validation_numbers import SampleSums, Spectrum, collect, sample_numbers
from raypipe.report.validation_page import write_validation_page
from raypipe.report.validation_quantities import Kind, Quantity, kind_of
from raypipe.simulate.dataset import MANIFEST, read_manifest
from raypipe.simulate.processes import GROUPS

IMPORTED = "read.json"  # Sidecar of the tables that `raypipe read` wrote

MAX_IN_PANEL = 6  # Samples that one panel shows before they cannot be told apart


def make_validation(events: str | Path, output: str | Path | None = None) -> dict[str, Any]:
    """Validate the data set folder ``events``: numbers, figures and page in ``output``, or ``<events>/validation``.

    Returns the numbers, as in ``validation.json``, and the path of the page. What cannot be read is a `UserError`.
    """
    output = Path(events) / "validation" if output is None else Path(output)
    if (Path(events) / MANIFEST).is_file():  # before the work; without a data set there is none
        check_writable(output)
    samples, numbers = measure(events)
    numbers["page"] = str(output / "validation.html")
    write_json(output / "validation.json", numbers)
    drawn, captions = draw_all(samples)
    write_validation_page(output / "validation.html", numbers, captions, save_figures(drawn, output / "figures"))
    return numbers


def measure(events: str | Path) -> tuple[list[SampleSums], dict[str, Any]]:
    """The sums of every sample of the data set folder ``events``, and the numbers of ``validation.json``."""
    events = Path(events)
    manifest = describe(events)
    entries = manifest.get("samples") if isinstance(manifest, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{events}: the manifest names no samples")
    say(f"report: {events}, {len(entries)} samples")
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
    """The manifest of a simulated data set; of an imported one its tables and the ``skipped`` files."""
    sidecar = events / IMPORTED
    if (events / MANIFEST).is_file() or not sidecar.is_file():
        return read_manifest(events)
    summary = read_json(sidecar)
    samples = {}
    try:
        group = (summary["config"].get("source") or {}).get("group", 0)
        for file in summary["files"]:
            table, flow = Path(file["table"]), {"events_read": file["events"], "written": file["written"]}
            entry = {"title": str(file["path"]), "group": group, "files": {table.name: None}, "cut_flow": flow}
            samples[table.stem] = entry
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


def draw_all(samples: list[SampleSums]) -> tuple[dict[str, Any], dict[str, str]]:
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
            drawn[f"{prefix}expected"] = stacked(kind.quantities[0], known)
        captions |= {f"{prefix}{q.name}": q.caption for q in kind.quantities}
        shown = [q for q in kind.quantities if q.shown]
        drawn |= {f"{prefix}{q.name}": shapes(q, panels(members), reference) for q in shown}
    return drawn, captions


def _draw(axis: Axes, spectrum: Spectrum, label: str, **style: Any) -> np.ndarray:
    """Steps of the normalised shape with its statistical errors as bars; returns the heights."""
    heights, errors = spectrum.shape()
    axis.stairs(heights, spectrum.edges, label=label, lw=1.2, **style)
    seen = heights > 0
    axis.errorbar(spectrum.centres[seen], heights[seen], errors[seen], fmt="none", elinewidth=0.7, alpha=0.7, **style)
    return heights


def shapes(quantity: Quantity, panels: Sequence[tuple[str, list[SampleSums]]], reference: SampleSums | None) -> Figure:
    """One quantity of all samples, normalised to one; the reference grey in every panel that does not hold it."""
    figure, axes = new_figure(len(panels), *((6.4, 4.0) if len(panels) == 1 else (4.4, 3.3)))
    tops, floors = [], []
    for axis, (title, samples) in zip(axes, panels, strict=True):
        if reference is not None and reference not in samples:
            spectrum = reference.spectra[quantity.name]
            heights, _ = spectrum.shape()
            axis.stairs(heights, spectrum.edges, color="0.75", fill=True, alpha=0.5, label=reference.name)
            tops.append(heights.max())
        for colour, sample in zip(cycle(CYCLE), samples, strict=False):
            heights = _draw(axis, sample.spectra[quantity.name], sample.name, color=colour)
            tops.append(heights.max())
            floors += heights[heights > 0].tolist()
        axis.set_title(title, fontsize=9)
        axis.set(xlabel=quantity.label, ylabel="share of events / bin", xlim=quantity.edges[[0, -1]])
        axis.legend(fontsize=7)
    top = max(tops, default=0) or 1.0
    low = max(min(floors, default=1e-4), 1e-5 * top) / 2
    for axis in axes:
        axis.set(**{"yscale": "log", "ylim": (low, 4 * top)} if quantity.log else {"ylim": (0, None)})
    return figure


def stacked(quantity: Quantity, samples: Sequence[SampleSums]) -> Figure:
    """Expected events per fb^-1 and unit of the standard-model samples, one on top of the other."""
    figure, (axis,) = new_figure(1, 6.4, 4.0)
    edges, width = quantity.edges, np.diff(quantity.edges)
    below, variance, counts = np.zeros(len(width)), np.zeros(len(width)), []
    for colour, sample in zip(cycle(CYCLE), samples, strict=False):
        spectrum = sample.spectra[quantity.name]
        top = below + spectrum.counts / width
        axis.stairs(top, edges, baseline=below, fill=True, color=colour, alpha=0.8, lw=0.5, label=sample.name)
        variance += (spectrum.errors / width) ** 2
        counts += spectrum.counts[spectrum.counts > 0].tolist()
        below = top
    style = {"fmt": "none", "ecolor": "k", "elinewidth": 0.8, "label": "statistical error"}
    axis.errorbar((edges[:-1] + edges[1:]) / 2, below, np.sqrt(variance), **style)
    low = max(min(counts, default=1.0) / width.max(), 1e-6 * below.max())
    axis.set(yscale="log", ylim=(low, 3 * below.max()), xlim=edges[[0, -1]])
    axis.set(xlabel=quantity.label, ylabel=r"events / GeV / fb$^{-1}$")
    axis.legend(fontsize=8)
    return figure
