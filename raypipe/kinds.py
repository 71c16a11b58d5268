"""What can be named in a configuration: kinds of searches, and ways to know the background.

Plugins, modules that use `raypipe.search.base.kind` or `background`, stand in the environment variable RAYPIPE_PLUGINS
(with commas), or in an entry point of the group ``raypipe.plugins``; workers must be able to import them too.
"""

import importlib
import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raypipe.errors import UserError

PLUGINS = "RAYPIPE_PLUGINS"


@dataclass(frozen=True)
class Kind:
    """One value of the key `search`. Things are named as ``module:name``: light commands import none of them."""

    config: str | type  # Model of the whole configuration
    commands: tuple[str, ...] = ("search", "scan", "plan", "status", "report")
    """Stages that it has (all kinds: `raypipe config` and `raypipe doctor`)."""
    search: str | type | None = None  # Subclass of `raypipe.search.base.Search`
    methods: bool = False  # Whether its trials take a way to know the background by name


@dataclass(frozen=True)
class Background:
    """One way to know the background, a value of `scan.methods`."""

    make: str | Callable[..., Any]  # (case, configuration, seed, tools) -> `raypipe.search.case.Judged`
    learns: bool = False  # Trains flows on the sidebands
    needs_signal: bool = False  # Says nothing of data without one
    large: bool = False
    """Trains its trees on all labelled events: by Ray's workers together if `classifier.engine` says so."""


_STAGES = ("simulate", "embed", "search", "scan", "plan", "status", "report", "calibrate")
KINDS: dict[str, Kind] = {
    "contrastive": Kind(
        "raypipe.config.run:Config", (*_STAGES, "latent"), "raypipe.search.contrastive_search:Contrastive", True
    ),
    "haxad": Kind("raypipe.config.haxad:HaxadConfig", _STAGES, "raypipe.search.haxad_search:Haxad", True),
    "multilepton": Kind(
        "raypipe.config.multilepton:MultileptonConfig",
        ("simulate", "search", "scan", "plan", "status", "report"),
        "raypipe.search.multilepton_search:Multilepton",
    ),
    "table": Kind(
        "raypipe.config.table:TableConfig",
        ("search", "scan", "status", "report"),
        "raypipe.search.table_search:TableSearch",
    ),
    "read": Kind("raypipe.config.read:ReadConfig", ("read",)),
    "none": Kind("raypipe.config.run:Simulation", ("simulate",), "raypipe.search.base:Search"),
}
BACKGROUNDS: dict[str, Background] = {
    "cathode": Background("raypipe.search.cathode:cathode", learns=True),
    "no_higgs": Background("raypipe.search.cathode:without_higgs", learns=True),
    "idealised": Background("raypipe.search.truth:idealised"),
    "supervised": Background("raypipe.search.truth:supervised", needs_signal=True, large=True),
    "cut": Background("raypipe.search.truth:best_cut", needs_signal=True),
}


def resolve(where: Any) -> Any:
    """What ``module:name`` names; anything else is itself."""
    if not isinstance(where, str):
        return where
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def load_plugins() -> None:
    """Import all plugins; one that cannot be imported is a `UserError`."""
    named = [name.strip() for name in os.environ.get(PLUGINS, "").split(",")]
    found = [(name, PLUGINS) for name in named if name]
    found += [
        (point.value, f"entry point {point.name}") for point in importlib.metadata.entry_points(group="raypipe.plugins")
    ]
    for module, source in found:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever the user's own code raises
            raise UserError(f"{source}: plugin {module} cannot be imported: {type(error).__name__}: {error}") from error


def background_modules() -> set[str]:
    """Modules of raypipe's own ways to know the background, whose code counts where trials take them by name."""
    return {one.make.partition(":")[0] for one in BACKGROUNDS.values() if isinstance(one.make, str)}


def background_of(name: str) -> Background:
    """The way to know the background of this name; one that nobody has added is a `UserError`."""
    if name not in BACKGROUNDS:  # a worker that has not needed any plugin yet
        load_plugins()
    if name not in BACKGROUNDS:
        raise UserError(f"background {name!r}: known are {', '.join(BACKGROUNDS)}")
    return BACKGROUNDS[name]
