"""What a search is: a short list of stages, a list of trials, and one pure function that makes a trial."""

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from raypipe.config.run import Handed
from raypipe.errors import UserError
from raypipe.files import code_of
from raypipe.kinds import BACKGROUNDS, KINDS, Background, Kind, resolve
from raypipe.search.result import NO_SIGNAL, NUMERICS, Result, Tools, Trial

Made = dict[str, dict[str, dict[str, Any]]]  # Records of what is there: by stage, and by item


@dataclass(frozen=True)
class Item:
    """One thing to make before the trials: files in a folder of the run, and a record of them, written last."""

    name: str
    key: str  # Hash of all that it is made of; the record holds it
    folder: str  # Below the run folder
    record: str  # JSON file in that folder
    files: tuple[str, ...] = ()  # The other files
    what: Any = None  # What its maker needs
    whole: Callable[[Path], bool] | None = None  # Whether the folder is whole, where the record alone does not tell


@dataclass(frozen=True)
class Stage:
    """A step of a run."""

    name: str
    on: Literal["tasks", "train", "data", "tune"]  # The part of Ray that makes its items
    make: str  # Its maker as ``module:name``, a function (run, items) that leaves files and records
    items: Callable[[Made, Sequence[Trial]], list[Item]]  # What the trials need, as far as earlier stages are there
    shared: bool = True  # Whether runs share its items whole (`resources.artefacts`)


@dataclass(frozen=True)
class Served:
    """A model for the MLflow registry: code in `raypipe.cluster.served`, weights in a file or folder."""

    artifact: Path
    example: Mapping[str, np.ndarray]  # Inputs; axis 0 counts events
    output: tuple[int, ...]  # Shape of what comes out, without that axis
    dtype: type = np.float32


@dataclass(frozen=True)
class Found:
    """What is there for a report."""

    folder: Path
    trials: Mapping[str, Trial]  # By ledger key
    rows: list[dict[str, Any]]  # Of the ledger, those of failed trials with ``status: failed``
    arrays: Callable[[str], Mapping[str, np.ndarray]]  # The figure arrays of a key
    made: Made
    stage_seconds: dict[str, float]
    peak_rss_gib: float
    other_versions: int  # Trials in the ledger that another version of the code or packages has made
    code: str  # Digest of the code that made the rows

    @property
    def good(self) -> list[dict[str, Any]]:
        """Rows of finished trials."""
        return [row for row in self.rows if row["status"] == "ok"]

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Those of failed ones."""
        return [row for row in self.rows if row["status"] != "ok"]


class Search:
    """One kind of search, for one configuration. Subclasses say what differs; registered with `kind`."""

    sections: ClassVar[tuple[str, ...]] = ()  # Of the configuration, all that a trial reads; its key holds them
    versions: ClassVar[tuple[str, ...]] = NUMERICS  # Packages whose version can move a number of a trial
    options: ClassVar[tuple[str, ...]] = ("signal", "strength", "instance")  # Of `raypipe search`, with an effect
    no_effect: ClassVar[str] = "{} has no effect in this search"  # Why others are refused; ``{}`` is the option
    report: ClassVar[str] = "raypipe.report.base:plain_report"
    """(search, `Found`) -> `raypipe.report.base.Report`, as ``module:name``."""
    costing: ClassVar[str] = "raypipe.search.costs:costs_of"  # (search) -> list of `Cost`, as ``module:name``
    metric: ClassVar[str] = "z_after"  # Column of a row that tells most of a trial
    here: ClassVar[bool] = False  # Whether a trial is made in this process, its parts perhaps spread, not in a task
    parts: int = 1  # Of a trial that is made here, for the progress bar
    together: int = 0  # Trials that are made as one; 0: each by itself

    def __init__(self, config: Any) -> None:
        self.config = config
        self.notes: list[str] = []  # What was done to the user's events, and who has looked at them, for the summary

    @property
    def resources(self) -> Any:
        """What a trial may use."""
        return self.config.resources

    def grid(self) -> list[Trial]:
        """All trials of a scan."""
        return []

    def asked(self, trial: Trial, given: frozenset[str]) -> list[Trial]:
        """What `raypipe search` runs, the trial in question last; ``given``: options that stood on the command line."""
        signals = getattr(getattr(self.config, "scan", None), "signals", [])
        if trial.signal != NO_SIGNAL and trial.signal not in signals:
            raise UserError(f"--signal {trial.signal!r} is not in scan.signals ({', '.join(signals) or 'empty'})")
        if (trial.signal == NO_SIGNAL) != (trial.strength == 0):
            found = f"--strength {trial.strength:g} does not fit --signal {trial.signal}"
            raise UserError(f"{found}: a signal needs a positive strength")
        return [trial]

    def nulls(self, count: int, retrained: int = 0, simulated: int = 0) -> list[Trial]:
        """What `raypipe calibrate` runs: pseudo-nulls, so many of them once more with all that is trained anew, and
        simulated data without a signal."""
        raise NotImplementedError

    def stages(self) -> tuple[Stage, ...]:
        """What is made before the trials, in order."""
        return (simulated(self.config),) if getattr(self.config, "simulate", None) is not None else ()

    def learns(self, trial: Trial) -> bool:
        """Whether the trial needs flows, which are trained for all trials before them."""
        return False

    def large(self, trial: Trial) -> bool:
        """Whether Ray's workers train the trees of the trial together (`Tools.train`): the driver runs it then."""
        return False

    def need(self, trial: Trial) -> str:
        """Name of the input of a trial."""
        return "tables"

    def materials(self, name: str, made: Made) -> dict[str, Any] | None:
        """By what the key of a trial knows its input ``name``, JSON-ready; None if that is not there."""
        return {}

    def inputs_key(self, name: str, made: Made) -> dict[str, Any] | None:
        """All that determines a trial with the input ``name``, besides the trial: its key holds this."""
        if (materials := self.materials(name, made)) is None:
            return None
        versions = {package: importlib.metadata.version(package) for package in self.versions}
        return {"inputs": materials, "code": self.code(), "versions": versions, "sections": self.handed().plain()}

    def own_key(self, trial: Trial) -> dict[str, Any]:
        """What, beside `inputs_key`, determines this trial alone."""
        return {}

    @classmethod
    def code(cls) -> str:
        """Hash of the code that makes a trial."""
        return code_of(cls.__module__)

    def inputs(self, name: str, folder: Path, tools: Tools) -> Iterator[Any]:
        """The parts of the input ``name``, each read when it is taken; ``folder``: of the run."""
        yield from ()

    def handed(self) -> Handed:
        """The configuration as the trials see it."""
        return Handed.of(self.config, self.sections)

    def run(self, inputs: Sequence[Any], trials: Sequence[Trial], tools: Tools) -> list[Result]:
        """Make trials: a function of its arguments and of `sections` alone; ``self.config`` holds no others."""
        raise NotImplementedError

    def answer(self, rows: list[dict[str, Any]], trials: Sequence[Trial]) -> tuple[list[str], Any]:
        """What `raypipe search` says: lines for the terminal, and a JSON-ready value."""
        lines = [", ".join(f"{k} {v}" for k, v in row.items() if k not in ("key", "status", "error")) for row in rows]
        return lines, [plain(row) for row in rows]

    def served(self, found: Found, flow: Path | None) -> dict[str, Served]:
        """Models to register, by name; ``flow``: the background model of a trial, if there is one."""
        return {}

    def costs(self) -> list[Any]:
        """What a scan is made of, for `raypipe plan`: see `raypipe.search.costs`."""
        return resolve(self.costing)(self)


def simulated(config: Any) -> Stage:
    """The stage of the simulated events of a configuration."""

    def items(made: Made, trials: Sequence[Trial]) -> list[Item]:
        plan, is_complete = (resolve(f"raypipe.simulate.dataset:{name}") for name in ("plan", "is_complete"))
        wanted = plan(config)
        return [Item("events", wanted.key, "events", "dataset.json", whole=partial(is_complete, wanted))]

    # Runs share the shards, not the data set that is made of them.
    return Stage("simulate", "tasks", "raypipe.cluster.simulate:simulate_events", items, shared=False)


def read_manifest(events: str | Path) -> dict[str, Any]:
    """What is known of a simulated data set; a missing one is a `UserError`."""
    return resolve("raypipe.simulate.dataset:read_manifest")(events)


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for JSON, which has no NaN, in lists neither."""

    def finite(value: Any) -> Any:
        return None if isinstance(value, float) and not np.isfinite(value) else value

    return {k: [finite(one) for one in v] if isinstance(v, list) else finite(v) for k, v in row.items()}


def search_of(config: Any) -> Search:
    """The search of a configuration."""
    return resolve(KINDS[config.search].search)(config)


def kind(name: str, config: type, **given: Any) -> Callable[[type[Search]], type[Search]]:
    """Class decorator: a search of one's own, under this value of the key `search`; its ``config`` is a subclass of
    `raypipe.config.run.Run`, ``given`` further fields of `raypipe.kinds.Kind`."""

    def register(made: type[Search]) -> type[Search]:
        KINDS[name] = Kind(config, search=made, **given)
        return made

    return register


def background(name: str, **given: bool) -> Callable[[Callable], Callable]:
    """Decorator: a way of one's own to know the background, a value of `scan.methods`; ``given``: see `Background`."""

    def register(make: Callable) -> Callable:
        BACKGROUNDS[name] = Background(make, **given)
        return make

    return register
