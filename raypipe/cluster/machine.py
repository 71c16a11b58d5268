"""What this process may use of its machine: cores and memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows its control groups."""
MEMBERSHIP = Path("/proc/self/cgroup")
"""The groups of this process, a line a hierarchy: ``number:controllers:path``; version 2 has no controllers."""


def usable_cores() -> int:
    """Cores that this process may use: its affinity (taskset, Slurm) and the CPU quota of its control groups.

    A quota of two and a half cores counts as two.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *map(math.floor, _quotas())]))


def machine_memory_gib() -> float:
    """Memory of this machine, or of the control group that limits it, in GiB."""
    limits = [
        int(text)
        for name in ("memory.max", "memory.limit_in_bytes")
        for text in _settings("memory", name)
        if text.isdigit()
    ]
    return min([psutil.virtual_memory().total, *limits]) / 2**30


def _quotas() -> Iterator[float]:
    """CPU quotas in cores; a group without one says ``max`` or -1."""
    for text in _settings("cpu", "cpu.max"):
        quota, period = text.split()
        if quota != "max":
            yield int(quota) / int(period)
    pairs = zip(_settings("cpu", "cpu.cfs_quota_us"), _settings("cpu", "cpu.cfs_period_us"), strict=True)
    yield from (int(quota) / int(period) for quota, period in pairs if int(quota) > 0)


def _settings(controller: str, name: str) -> Iterator[str]:
    """A setting of every control group that this process is in: its own and those around it, of both versions.

    Inside a container the path of a group is often that of the host; then the root shown there is the container's.
    """
    if not MEMBERSHIP.exists():
        return
    for line in MEMBERSHIP.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        roots = [GROUPS / controllers, GROUPS / controller] if controllers else [GROUPS, GROUPS / "unified"]
        root = next((root for root in roots if root.is_dir()), GROUPS)
        here = root / path.lstrip("/")
        groups = [group for group in (here, *here.parents) if group == root or root in group.parents]
        for group in groups:
            if (group / name).is_file():
                yield (group / name).read_text().strip()
