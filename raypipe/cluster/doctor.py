"""What is wrong with this machine, and how to mend it."""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from raypipe.cluster.machine import REMEDY, machine_memory_gib, objection, parents, usable_cores
from raypipe.cluster.runtime import cluster_address, has_token, hidden_modules, ray_session, total_cpus
from raypipe.config import Resources
from raypipe.config.load import flat
from raypipe.errors import UserError, first_line, redact
from raypipe.files import check_writable

OK, NOTE, WRONG = "ok", "note", "wrong"


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    status: str  # ``ok``, ``note`` (works, but look) or ``wrong``
    found: str
    remedy: str = ""


def examine(config: Any = None) -> Iterator[Check]:
    """All checks, as they end; those about a run folder, its storage and its tracking only with a ``config``."""
    yield from (_python(), *_packages(), *_machine(), _temporary(), _working_folder())
    yield _ray(config.resources if config else Resources())
    if config is not None:
        yield from (_disk(config), *([_storage(config)] if config.resources.storage else []), *_passwords(config))
        yield from [_tracking(config)] if hasattr(config, "tracking") else []


def _verdict(name: str, good: bool, found: str, remedy: str, bad: str = WRONG) -> Check:
    return Check(name, OK, found) if good else Check(name, bad, found, remedy)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return _verdict("python", (3, 11) <= sys.version_info < (3, 14), version, "use Python 3.11, 3.12 or 3.13")


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


def _machine() -> list[Check]:
    """Kernel, threads, memory and GPU."""
    import torch

    from raypipe.models import native

    built, cores, value = native.name(), usable_cores(), os.environ.get("OMP_NUM_THREADS", "")
    threads = f"{cores} of {os.cpu_count()} cores may be used, OMP_NUM_THREADS={value or 'unset'}"
    slow = "unset OMP_NUM_THREADS: more threads than cores are 5 to 20 times slower"
    gib, small = machine_memory_gib(), "8 GiB are advised; lower resources.object_store_gib"
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return [
        Check("kernel", NOTE, native.MISSING, native.REMEDY) if built == "torch" else Check("kernel", OK, built),
        _verdict("threads", not (value.isdigit() and int(value) > cores), threads, slow),
        _verdict("memory", gib >= 8, f"{gib:.1f} GiB", small, bad=NOTE),
        Check("gpu", OK, gpu) if gpu else Check("gpu", NOTE, "none: training runs on the CPU"),
    ]


def _ray(resources: Resources) -> Check:
    """Start Ray, or join the cluster, as a command would."""
    address = cluster_address()
    where = redact(address) if address else "embedded"
    if address and not has_token():
        where += " (no RAY_AUTH_TOKEN set)"
    try:
        with ray_session(resources):
            return Check("ray", OK, f"{where}, {total_cpus():g} cores")
    except UserError as error:
        found, _, remedy = str(error).rpartition("; ")
        return Check("ray", WRONG, redact(found, address), remedy)


def _temporary() -> Check:
    """Where an embedded Ray keeps sockets and logs, and why not where the user's variables say."""
    reasons = {parent: objection(parent) for parent in parents()}
    given = [(name, Path(path)) for name in ("RAY_TMPDIR", "TMPDIR") if (path := os.environ.get(name))]
    refused = [f"{name} = {path}: {reason}" for name, path in given if (reason := reasons[path.absolute()])]
    usable = [parent for parent, reason in reasons.items() if reason is None]
    if not usable:
        told = ", ".join(f"{parent} ({reason})" for parent, reason in reasons.items())
        return Check("temporary files", WRONG, f"no place for Ray's sockets and logs: {told}", REMEDY)
    found = "; ".join([*refused, f"Ray's sockets and logs go below {usable[0]}"])
    return _verdict("temporary files", not refused, found, REMEDY, bad=NOTE)


def _working_folder() -> Check:
    """Files that hide modules of Python's from whoever starts Python there; raypipe itself passes them by."""
    hidden = hidden_modules(folder := Path.cwd())
    found = f": {', '.join(hidden)} would be imported in place of Python's own modules" if hidden else ""
    remedy = "rename them, or work in another folder"
    return _verdict("working folder", not hidden, f"{folder}{found}", remedy, bad=NOTE)


def _disk(config: Any) -> Check:
    try:
        folder = check_writable(config.output)
    except UserError as error:
        return Check("output", WRONG, str(error), "choose another folder with output=...")
    free = shutil.disk_usage(folder).free / 2**30
    samples = simulate.samples.values() if (simulate := getattr(config, "simulate", None)) else ()
    # 230 B an event at most, kept twice (shards and tables), and the scan's ledger beside them.
    need = sum(s.events for s in samples) * 2 * 230 / 2**30 + 1
    found = f"{folder} writable, {free:.0f} GiB free, about {need:.1f} GiB needed"
    return _verdict("output", free > need, found, "free some space")


def _storage(config: Any) -> Check:
    """Where the ledger is."""
    from raypipe.store.ledger import open_ledger

    try:
        store = open_ledger(config).store
        store.check_writable()
    except Exception as error:  # every storage library has exceptions of its own
        where = config.resources.storage
        reason = str(error) if isinstance(error, UserError) else redact(f"{where}: {first_line(error)}", where)
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
        return _verdict("mlflow", os.access(path.parent, os.W_OK), str(path), f"make {path.parent} writable")
    from mlflow.tracking import MlflowClient

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    try:
        with mlflow_speaks(uri, tell=False):
            MlflowClient(uri).search_experiments(max_results=1)
    except Exception as error:  # whatever the client raises is the finding
        remedy = "start the server or unset MLFLOW_TRACKING_URI"
        return Check("mlflow", WRONG, redact(f"{uri}: {first_line(error)}", uri), remedy)
    return Check("mlflow", OK, redact(uri))
