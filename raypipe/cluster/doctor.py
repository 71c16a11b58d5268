"""What is wrong with this machine, and how to mend it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from dataclasses import dataclass
from typing import Any

from packaging.requirements import Requirement

from raypipe.cluster.memory import machine_memory_gib
from raypipe.config import Resources
from raypipe.config.load import flat
from raypipe.errors import UserError
from raypipe.redact import redact

OK, NOTE, WRONG = "ok", "note", "wrong"


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    status: str
    """``ok``, ``note`` (works, but look) or ``wrong``."""
    found: str
    remedy: str = ""


def examine(config: Any = None) -> list[Check]:
    """All checks; those about a run folder, its storage and its tracking only with a ``config`` of any kind."""
    checks = [_python(), *_packages(), _threads(), _memory(), _gpu(), _ray(config.resources if config else Resources())]
    if config is not None:
        checks += [_disk(config), *([_storage(config)] if config.resources.storage else []), *_passwords(config)]
        checks += [_tracking(config)] if hasattr(config, "tracking") else []
    return checks


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 11) <= sys.version_info < (3, 13)
    return Check("python", OK if good else WRONG, version, "" if good else "use Python 3.11 or 3.12")


def _packages() -> list[Check]:
    """Every requirement of the package, against what is installed."""
    wrong = []
    requirements = [Requirement(text) for text in importlib.metadata.requires("raypipe") or []]
    needed = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    for requirement in needed:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(Check(requirement.name, WRONG, "not installed", f"pip install '{requirement}'"))
            continue
        if not requirement.specifier.contains(version.split("+")[0], prereleases=True):
            remedy = f"pip install -c constraints.txt '{requirement}'"
            wrong.append(Check(requirement.name, WRONG, f"version {version}, needs {requirement.specifier}", remedy))
    return wrong or [Check("packages", OK, f"{len(needed)} requirements met")]


def _threads() -> Check:
    cores = len(os.sched_getaffinity(0))
    value = os.environ.get("OMP_NUM_THREADS")
    found = f"{cores} cores, OMP_NUM_THREADS={value or 'unset'}"
    if value and value.isdigit() and int(value) > cores:
        return Check("threads", WRONG, found, "unset OMP_NUM_THREADS: more threads than cores are 5 to 20 times slower")
    return Check("threads", OK, found)


def _memory() -> Check:
    gib = machine_memory_gib()
    if gib < 8:
        return Check("memory", NOTE, f"{gib:.1f} GiB", "8 GiB are advised; lower resources.object_store_gib")
    return Check("memory", OK, f"{gib:.1f} GiB")


def _gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("gpu", OK, torch.cuda.get_device_name(0))
    return Check("gpu", NOTE, "none: training runs on the CPU")


def _ray(resources: Resources) -> Check:
    from raypipe.cluster.runtime import ray_session, total_cpus

    address = os.environ.get("RAY_ADDRESS")
    where = redact(address) if address else "embedded"
    if address and not (os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")):
        where += " (no RAY_AUTH_TOKEN set)"
    try:
        with ray_session(resources):
            return Check("ray", OK, f"{where}, {total_cpus():g} cores")
    except Exception as error:  # Ray raises many kinds; each is a finding here
        remedy = (
            "check RAY_ADDRESS and the token, or unset RAY_ADDRESS"
            if address
            else "look into /tmp/ray/session_latest/logs"
        )
        return Check("ray", WRONG, f"{where}: {redact(_first_line(error), address)}", remedy)


def _disk(config: Any) -> Check:
    from raypipe.files import check_writable

    try:
        folder = check_writable(config.output)
    except UserError as error:
        return Check("output", WRONG, str(error), "choose another folder with output=...")
    free = shutil.disk_usage(folder).free / 2**30
    samples = simulate.samples.values() if (simulate := getattr(config, "simulate", None)) else ()
    # 230 B an event at most, kept twice (shards and tables), and the scan's ledger beside them.
    need = sum(s.events for s in samples) * 2 * 230 / 2**30 + 1
    found = f"{folder} writable, {free:.0f} GiB free, about {need:.1f} GiB needed"
    return Check("output", OK if free > need else WRONG, found, "" if free > need else "free some space")


def _storage(config: Any) -> Check:
    """Where the ledger is."""
    from raypipe.cluster.ledger import open_ledger

    try:
        store = open_ledger(config).store
        store.check_writable()
    except UserError as error:
        return Check("storage", WRONG, str(error), "look at resources.storage, and at the credentials for it")
    except Exception as error:  # every storage library has exceptions of its own
        reason = redact(f"{config.resources.storage}: {_first_line(error)}", config.resources.storage)
        return Check("storage", WRONG, reason, "look at resources.storage, and at the credentials for it")
    return Check("storage", OK, f"{store} writable")


def _passwords(config: Any) -> list[Check]:
    """Keys with a secret: raypipe shows none, but the file does."""
    shown = dict(flat(config.shown()))
    keys = [key for key, value in flat(config.model_dump(mode="json")) if value != shown[key]]
    remedy = "hidden in all that raypipe writes; better in the environment (MLFLOW_TRACKING_PASSWORD, AWS_PROFILE ...)"
    return [Check("passwords", NOTE, f"{', '.join(keys)} hold a password or a key", remedy)] if keys else []


def _tracking(config: Any) -> Check:
    from raypipe.cluster.tracking import mlflow_speaks, sqlite_path, tracking_uri

    if not config.tracking.enabled:
        return Check("mlflow", NOTE, "tracking is off")
    uri = tracking_uri(config)
    if (path := sqlite_path(uri)) is not None:
        good = os.access(path.parent, os.W_OK)
        return Check("mlflow", OK if good else WRONG, str(path), "" if good else f"make {path.parent} writable")
    from mlflow.tracking import MlflowClient

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    try:
        with mlflow_speaks(uri, tell=False):
            MlflowClient(uri).search_experiments(max_results=1)
    except Exception as error:  # whatever the client raises is the finding
        remedy = "start the server or unset MLFLOW_TRACKING_URI"
        return Check("mlflow", WRONG, redact(f"{uri}: {_first_line(error)}", uri), remedy)
    return Check("mlflow", OK, redact(uri))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300] or type(error).__name__
