"""Paper B's search around its comparisons: bootstraps first, events simulated or the user's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from raypipe.errors import UserError
from raypipe.search.base import Item, Made, Search, Stage, read_manifest
from raypipe.search.multilepton import BOOTSTRAP, Tables, compare, divide
from raypipe.search.multilepton_inputs import files_key, read_events
from raypipe.search.result import DATA, NO_SIGNAL, Result, Tools, Trial


class Multilepton(Search):
    """The search of paper B: every trial a comparison with one reference, several trained as one stack."""

    sections: ClassVar[tuple[str, ...]] = (
        *("seed", "features", "compare", "networks"),
        *("bootstrap.electron_scale", "bootstrap.muon_scale", "bootstrap.normalisation"),
    )
    no_effect: ClassVar[str] = (
        "{} has no effect in a multilepton search: its networks see the features against the reference"
    )
    report: ClassVar[str] = "raypipe.report.multilepton:multilepton_report"
    costing: ClassVar[str] = "raypipe.search.costs:multilepton_costs"
    metric: ClassVar[str] = "likelihood_ratio"

    @property
    def together(self) -> int:
        """Data sets whose networks are trained together."""
        return self.config.chunk

    @property
    def resources(self) -> Any:
        """A chunk has a GPU where there are some."""
        given = self.config.resources
        return given.model_copy(update={"trial_gpus": given.trial_gpus or float(given.gpu)})

    def bootstraps(self) -> list[Trial]:
        """The comparisons that make the null hypothesis."""
        return [Trial(BOOTSTRAP, 0.0, i) for i in range(self.config.bootstrap.count)]

    def grid(self) -> list[Trial]:
        """Bootstraps first, then the recorded data, background-only data sets, injections."""
        scan = self.config.scan
        return [
            *self.bootstraps(),
            *([Trial(DATA, 0.0, 0)] if self.config.files is not None and not self.config.blind else []),
            *(Trial(NO_SIGNAL, 0.0, i) for i in range(scan.calibration)),
            *(Trial(s, x, i) for s in scan.signals for x in scan.strengths for i in range(scan.instances)),
        ]

    def asked(self, trial: Trial, given: frozenset[str]) -> list[Trial]:
        """The bootstraps, and the data set: recorded data unless a signal is asked for (or blind), else pseudo-data."""
        super().asked(trial, given)
        if self.config.files is not None and trial.signal == NO_SIGNAL:
            if "instance" in given:
                raise UserError(
                    "the search of the recorded data (files.data) takes no --instance: there is one data set"
                )
            if self.config.blind:
                return self.bootstraps()
            trial = Trial(DATA, 0.0, 0)
        return [*self.bootstraps(), trial]

    def stages(self) -> tuple[Stage, ...]:
        """The simulated events, unless they are the user's own or there already."""
        if self.config.events is None:
            return super().stages()

        def items(made: Made, trials: Sequence[Trial]) -> list[Item]:
            key = read_manifest(self.config.events)["key"]
            return [Item("events", key, str(Path(self.config.events).absolute()), "dataset.json")]

        return (Stage("simulate", "tasks", "raypipe.cluster.simulate:simulate_events", items, shared=False),)

    def materials(self, name: str, made: Made) -> dict[str, Any] | None:
        """The key of the events, and whether some of them are kept for pseudo-data."""
        events = made.get("simulate", {}).get("events")
        if self.stages() and not events:
            return None
        pseudo = bool(self.config.scan.signals or self.config.scan.calibration)
        return {"events": files_key(self.config, events["key"] if events else None), "pseudo": pseudo}

    def inputs(self, name: str, folder: Path, tools: Tools) -> Iterator[Tables]:
        yield self.pools(folder)[0]

    _pools: tuple[Tables, dict[str, float]] | None = None

    def pools(self, folder: Path) -> tuple[Tables, dict[str, float]]:
        """The pools and the acceptance of each signal, read once."""
        if self._pools is None:
            events = Path(self.config.events or folder / "events")
            found = read_events(self.config, events, read_manifest(events)["samples"] if self.stages() else {})
            self.notes = [*self.notes, *found.notes]
            tables = divide(found.simulation, found.nature, found.signals, found.data, self.config)
            self._pools = tables, found.acceptance
        return self._pools

    def run(self, inputs: Sequence[Tables], trials: Sequence[Trial], tools: Tools) -> list[Result]:
        return compare(*inputs, self.config, trials, tools)

    def answer(self, rows: list[dict[str, Any]], trials: Sequence[Trial]) -> tuple[list[str], Any]:
        """The statistics of one data set with their p-values."""
        from raypipe.search.exclusion import search_summary

        if trials[-1].signal == BOOTSTRAP:
            return [f"{len(trials)} bootstraps"], {"bootstraps": len(trials), "notes": self.notes}
        found = search_summary(rows, self.config, trials[-1]) | {"notes": self.notes}
        lines = [f"{t['loss']} {t['statistic']:16s} {t['value']:10.5g}  p = {t['p']:.4f}" for t in found["tests"]]
        lines.append(f"{found['trial']}: combined p = {found['combined_p']:.4f} ({found['bootstraps']} bootstraps)")
        return lines, found
