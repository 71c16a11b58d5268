"""A data set: which shards it takes, whether they are there, and how they become event tables with weights.

Layout of a data set folder (``events``)::

    embedding/<sample>.parquet      final event tables, one a split and sample
    search/<sample>.parquet
    dataset.json                    manifest, written last: without it nothing is finished
    shards/<sample>/00000.parquet   pieces with their sidecars 00000.json; kept, so that a larger data set reuses them
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import seeds
from raypipe.config import Config
from raypipe.config.inputs import FourLeptons
from raypipe.errors import UserError
from raypipe.events.schema import EVENT_SCHEMA, FOUR_LEPTON_SCHEMA, SPLITS, validate
from raypipe.events.table import read_table, write_table
from raypipe.files import code_digest, digest, file_digest, read_json, write_json
from raypipe.simulate import processes
from raypipe.simulate.card import Card, load_card
from raypipe.simulate.fourlepton.hard_process import PartonCuts
from raypipe.simulate.processes import BEAM_ENERGY, DIPHOTON, FOUR_LEPTONS, Process, Reference, reference
from raypipe.simulate.selection import PAPER

MANIFEST = "dataset.json"
FORMAT = 1  # Number of the layout above

MAX_EXTRA = 4  # A sample may need so many times the shards planned before its expected efficiency is called wrong


@dataclass(frozen=True)
class Shard:
    """One piece of one sample, fully determined; ``code``: digest of the source; ``four_leptons``: or None."""

    process: Process
    card: Card
    number: int
    seed: int
    n_generate: int
    embedding_fraction: float
    mpi: bool
    met_smearing: float
    code: str
    four_leptons: FourLeptons | None = None

    @cached_property
    def key(self) -> str:
        """Hash of all that determines the shard's events."""
        names = ("seed", "n_generate", "embedding_fraction", "mpi", "met_smearing", "cuts", "code")
        made = {"process": self.process.as_dict(), "card": self.card.model_dump(mode="json"), "shard": self.number}
        made |= {name: getattr(self, name) for name in names}
        return digest(made | {"generator": version("pythia8mc"), "clustering": version("fastjet")})

    @property
    def cuts(self) -> dict[str, Any]:
        """The selection, as plain values for keys and manifests."""
        if not (section := self.four_leptons):
            return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(PAPER).items()}
        cuts = {"beam_energy": section.beam_energy, "selection": section.selection.model_dump(mode="json")}
        return cuts | {"parton_level": asdict(PartonCuts.of(section))}

    @property
    def schema(self) -> pa.Schema:
        """Schema of this shard's event table."""
        return FOUR_LEPTON_SCHEMA if self.four_leptons else EVENT_SCHEMA

    @property
    def reference(self) -> Reference:
        """Normalisation of the sample at this beam energy."""
        energy = self.four_leptons.beam_energy if self.four_leptons else BEAM_ENERGY
        return reference(self.process.name, energy)

    def path(self, folder: str | Path) -> Path:
        """Parquet file of this shard in the data set ``folder``; the sidecar is beside it."""
        return Path(folder) / "shards" / self.process.name / f"{self.number:05d}.parquet"

    def make(self, folder: str | Path) -> dict[str, Any]:
        """Simulate the shard and store it; returns the sidecar. The sidecar is written last."""
        # Imported here: planning and checking must not need Pythia, and take milliseconds.
        from raypipe.simulate.shard import simulate_shard

        names = ("seed", "n_generate", "embedding_fraction", "mpi", "met_smearing", "four_leptons")
        options = {name: getattr(self, name) for name in names}
        table, sidecar = simulate_shard(self.process, self.card, shard=self.number, **options)
        path = self.path(folder)
        path.with_suffix(".json").unlink(missing_ok=True)
        write_table(validate(table, f"sample {self.process.name}, shard {self.number}", self.schema), path)
        sidecar |= {"key": self.key, "digest": file_digest(path)}
        write_json(path.with_suffix(".json"), sidecar)
        return sidecar

    def finished(self, folder: str | Path) -> dict[str, Any] | None:
        """The sidecar if this shard is there, whole and made by the same code and settings; else ``None``."""
        path = self.path(folder)
        try:
            sidecar = read_json(path.with_suffix(".json"))
            if sidecar["key"] == self.key and file_digest(path) == sidecar["digest"]:
                return sidecar
        except (OSError, UserError, KeyError, TypeError):
            pass
        return None


@dataclass(frozen=True)
class SamplePlan:
    """The shards of one sample: as many as expected for ``events`` selected, more if that was too optimistic."""

    template: Shard
    events: int
    expected: int
    root_seed: int

    @property
    def name(self) -> str:
        """Name of the sample."""
        return self.template.process.name

    def shard(self, number: int) -> Shard:
        """The shard of that ``number``; its seed depends on nothing but the run's seed, the sample and the number."""
        return replace(self.template, number=number, seed=seeds.integer(self.root_seed, "simulate", self.name, number))

    def missing(self, sidecars: list[dict[str, Any]]) -> int:
        """How many shards are still needed after the first ``len(sidecars)``; far too few events: `RuntimeError`."""
        made, selected = len(sidecars), sum(sidecar["n_selected"] for sidecar in sidecars)
        if made < self.expected:
            return self.expected - made
        if selected >= self.events:
            return 0
        if not selected or made >= MAX_EXTRA * self.expected:
            raise RuntimeError(
                f"sample {self.name}: {selected} of {made * self.template.n_generate} generated events selected, "
                f"expected a share of {self.template.process.efficiency:g}"
            )
        return math.ceil((self.events - selected) / (selected / made))


@dataclass(frozen=True)
class Plan:
    """All samples of a data set."""

    samples: dict[str, SamplePlan]

    @cached_property
    def key(self) -> str:
        """Hash of all that determines the data set."""
        samples = {name: [p.shard(0).key, p.root_seed, p.events, p.expected] for name, p in self.samples.items()}
        return digest({"format": FORMAT, "samples": samples})


def plan(config: Config) -> Plan:
    """What a configuration asks for; an unknown sample or card, or a too wide mass window, is a `UserError`."""
    settings = config.simulate
    table = {name: processes.get(name) for name in settings.samples}
    cards = {DIPHOTON: load_card(settings.card), FOUR_LEPTONS: load_card(settings.four_leptons.card)}
    low, high = PAPER.window
    window = getattr(config, "window", None)
    if window is not None and (window.low < low or window.high > high):
        raise UserError(
            f"window: {window.low:g}-{window.high:g} GeV, but simulated events are selected in {low:g}-{high:g} GeV"
        )
    code = code_digest("simulate")
    samples = {}
    for name, size in settings.samples.items():
        expected = math.ceil(size.events / settings.shard_events)
        per_shard = math.ceil(size.events / expected)
        # Two statistical deviations and one per cent above the number wanted: seldom another shard for a few events.
        n_generate = math.ceil((per_shard + 2 * math.sqrt(per_shard)) * 1.01 / table[name].efficiency)
        final_state = table[name].final_state
        template = Shard(
            process=table[name],
            card=cards[final_state],
            number=0,
            seed=0,
            n_generate=n_generate,
            embedding_fraction=size.embedding_fraction,
            mpi=settings.mpi,
            met_smearing=settings.met_smearing,
            code=code,
            four_leptons=settings.four_leptons if final_state == FOUR_LEPTONS else None,
        )
        _ = template.reference  # a beam energy without a cross section is told now, not after the simulation
        samples[name] = SamplePlan(template, size.events, expected, config.seed)
    return Plan(samples)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a finished data set ``folder``; a missing one is a `UserError`."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise UserError(f"{path}: no finished data set here (run `raypipe simulate` first)")
    return read_json(path)


def is_complete(wanted: Plan, folder: str | Path) -> bool:
    """Whether ``folder`` holds exactly this data set, whole: manifest key, and every file with its size."""
    folder = Path(folder)
    try:
        manifest = read_manifest(folder)
        if manifest["key"] != wanted.key:
            return False
        return all(
            (folder / name).stat().st_size == size
            for sample in manifest["samples"].values()
            for name, size in sample["files"].items()
        )
    except (OSError, UserError, KeyError, TypeError, AttributeError):
        return False


def assemble(wanted: Plan, folder: str | Path, sidecars: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Join finished shards into one table a sample and split, with final weights; returns the manifest."""
    folder = Path(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    samples = {}
    for name, sample in wanted.samples.items():
        entry = _summary(sample, sidecars[name])
        shards = [sample.shard(number) for number in range(len(sidecars[name]))]
        entry["files"] = {}
        for split in SPLITS:
            weight = entry["yield_per_fb"] / entry["n_split"][split] if entry["n_split"][split] else 0.0
            path = folder / split / f"{name}.parquet"
            _join((shard.path(folder) for shard in shards), split, weight, path)
            entry["files"][f"{split}/{name}.parquet"] = path.stat().st_size
        samples[name] = entry
    for split in SPLITS:  # tables of samples that are no longer part of the data set must not be mistaken for it
        for path in (folder / split).glob("*.parquet"):
            if path.stem not in samples:
                path.unlink()
    first = next(iter(wanted.samples.values())).template
    manifest = {"format": FORMAT, "key": wanted.key, "code": first.code, "card": first.card.model_dump(mode="json")}
    manifest |= {"mpi": first.mpi, "met_smearing": first.met_smearing, "cuts": first.cuts}
    manifest |= {"versions": next(iter(sidecars.values()))[0]["versions"], "samples": samples}
    write_json(folder / MANIFEST, manifest)
    return manifest


def _summary(sample: SamplePlan, sidecars: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts, efficiency and yield of one sample."""
    generated = np.array([sidecar["n_generated"] for sidecar in sidecars])
    selected = np.array([sidecar["n_selected"] for sidecar in sidecars])
    errors = np.array([sidecar["pythia_cross_section_error_fb"] for sidecar in sidecars])
    total, kept = int(generated.sum()), int(selected.sum())
    shares = generated / total
    cross_section = float(shares @ [sidecar["pythia_cross_section_fb"] for sidecar in sidecars])
    efficiency = kept / total
    template, normalisation = sample.template, sample.template.reference
    reference_fb = normalisation.value(cross_section)
    embedding = sum(sidecar["n_embedding"] for sidecar in sidecars)
    flow = {step: sum(sidecar["cut_flow"][step] for sidecar in sidecars) for step in sidecars[0]["cut_flow"]}
    sigma_error = float(np.sqrt(np.sum((shares * errors) ** 2)))
    entry = {name: getattr(template.process, name) for name in ("title", "group", "final_state")}
    entry |= {"card": template.card.name, "cuts": template.cuts, "n": kept}
    entry |= {"n_split": {"embedding": embedding, "search": kept - embedding}, "n_generated": total, "cut_flow": flow}
    entry |= {"efficiency": efficiency, "efficiency_error": math.sqrt(efficiency * (1 - efficiency) / total)}
    entry |= {"pythia_cross_section_fb": cross_section, "pythia_cross_section_error_fb": sigma_error}
    entry |= {"reference_cross_section_fb": reference_fb, "reference": asdict(normalisation)}
    entry |= {"yield_per_fb": reference_fb * efficiency, "cpu_seconds": sum(s["cpu_seconds"] for s in sidecars)}
    entry |= {"max_rss_mib": max(s["max_rss_mib"] for s in sidecars), "seeds": [s["seed"] for s in sidecars]}
    return entry | {"keys": [s["key"] for s in sidecars]}


def _join(paths: Iterable[Path], split: str, weight: float, target: Path) -> None:
    """Write the rows of one ``split`` of all shards to ``target``, with this ``weight``."""
    parts = []
    for path in paths:
        table = read_table(path)
        parts.append(table.filter(pc.equal(table["split"].cast(pa.string()), split)))
    table = pa.concat_tables(parts).unify_dictionaries()
    weights = pa.array(np.full(table.num_rows, weight))
    position = table.schema.get_field_index("weight")
    write_table(table.set_column(position, table.schema.field("weight"), weights), target)
