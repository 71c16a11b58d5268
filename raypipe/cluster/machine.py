"""What this process may use of its machine: cores, memory, and a folder for the sockets and logs of an embedded Ray."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psutil

from raypipe.errors import UserError
from raypipe.progress import repeatedly

GROUPS = Path("/sys/fs/cgroup")  # Where Linux shows its control groups
MEMBERSHIP = Path("/proc/self/cgroup")
"""The groups of this process, a line a hierarchy: ``number:controllers:path``; version 2 has no controllers."""
LONGEST = 107 - len("/ray-abcdefgh/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
"""Longest path, in bytes, that can hold Ray's folder: that of a Unix socket on Linux, less what Ray needs below it."""
FREE_BYTES = 32 * 2**20  # What a session writes there at first: logs, and settings of its parts
REMEDY = f"set RAY_TMPDIR to a folder of yours with a path of at most {LONGEST} bytes and {FREE_BYTES >> 20} MiB free"


def usable_cores() -> int:
    """Cores that this process may use: its affinity and the CPU quota of its control groups, rounded down."""
    return max(1, min([len(os.sched_getaffinity(0)), *map(math.floor, _quotas())]))


def machine_memory_gib() -> float:
    """Memory of this machine, or of the control group that limits it, in GiB."""
    found = [*_settings("memory", "memory.max"), *_settings("memory", "memory.limit_in_bytes")]
    return min([psutil.virtual_memory().total, *(int(text) for text in found if text.isdigit())]) / 2**30


def _quotas() -> Iterator[float]:
    """CPU quotas in cores; a group without one says ``max`` or -1."""
    for text in _settings("cpu", "cpu.max"):
        quota, period = text.split()
        if quota != "max":
            yield int(quota) / int(period)
    pairs = zip(_settings("cpu", "cpu.cfs_quota_us"), _settings("cpu", "cpu.cfs_period_us"), strict=True)
    yield from (int(quota) / int(period) for quota, period in pairs if int(quota) > 0)


def _settings(controller: str, name: str) -> Iterator[str]:
    """A setting of every control group that this process is in, and of those around it, of both versions."""
    if not MEMBERSHIP.exists():
        return
    for line in MEMBERSHIP.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        roots = [GROUPS / controllers, GROUPS / controller] if controllers else [GROUPS, GROUPS / "unified"]
        root = next((root for root in roots if root.is_dir()), GROUPS)
        here = root / path.lstrip("/")
        for group in (here, *here.parents):
            if group.is_relative_to(root) and (group / name).is_file():
                yield (group / name).read_text().strip()


def parents() -> list[Path]:
    """Where the folder may be, best first."""
    named = [os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR")]
    found = [*named, "/tmp", "/var/tmp", "/dev/shm", os.environ.get("XDG_RUNTIME_DIR")]
    return list(dict.fromkeys(Path(path).absolute() for path in found if path))


def objection(parent: Path) -> str | None:
    """Why Ray's folder cannot be in ``parent``; None where it can."""
    if (length := len(os.fsencode(parent))) > LONGEST:
        return f"its path has {length} bytes, of at most {LONGEST}"
    try:
        with tempfile.TemporaryFile(dir=parent) as probe:
            os.posix_fallocate(probe.fileno(), 0, FREE_BYTES)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def make_folder() -> Path:
    """A new folder that only this user can enter, with a short path; a `UserError` where there is no place for it."""
    tried = []
    for parent in parents():
        if (reason := objection(parent)) is None:
            return Path(tempfile.mkdtemp(prefix="ray-", dir=parent))
        tried.append(f"{parent} ({reason})")
    raise UserError(f"Ray finds no folder for its sockets and logs: {', '.join(tried)}; {REMEDY}")


class MemoryWatch(contextlib.ExitStack):
    """Samples the private memory of this process and its descendants, and the largest share of the object store."""

    peak_gib, interval = 0.0, 0.5  # Seconds between two looks

    def _look(self) -> None:
        me, private, shared = psutil.Process(), 0, 0
        for process in [me, *me.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                memory = process.memory_info()
                private += memory.rss - memory.shared
                shared = max(shared, memory.shared)
        self.peak_gib = max(self.peak_gib, (private + shared) / 2**30)

    def __enter__(self) -> Self:
        self.enter_context(repeatedly(self._look, self.interval))
        return self
