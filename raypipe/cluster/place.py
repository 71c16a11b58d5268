"""A folder for the sockets and logs of an embedded Ray."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from raypipe.errors import UserError

ADDRESS_BYTES = 107
"""Longest path of a Unix socket on Linux."""
INSIDE_BYTES = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
"""Of those, what Ray needs below its folder."""
PREFIX = "ray-"
LONGEST = ADDRESS_BYTES - INSIDE_BYTES - len(f"/{PREFIX}abcdefgh")
"""Longest path, in bytes, that can hold the folder."""
FREE_BYTES = 32 * 2**20
"""What a session writes there at first: logs, and settings of its parts."""

REMEDY = f"set RAY_TMPDIR to a folder of yours with a path of at most {LONGEST} bytes and {FREE_BYTES >> 20} MiB free"


def parents() -> list[Path]:
    """Where the folder may be, best first."""
    named = [os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR")]
    found = [*named, "/tmp", "/var/tmp", "/dev/shm", os.environ.get("XDG_RUNTIME_DIR")]
    return list(dict.fromkeys(Path(path).absolute() for path in found if path))


def objection(parent: Path) -> str | None:
    """Why Ray's folder cannot be in ``parent``; None where it can."""
    length = len(os.fsencode(parent))
    if length > LONGEST:
        return f"its path has {length} bytes, of at most {LONGEST}"
    try:
        with tempfile.TemporaryFile(dir=parent) as probe:
            os.posix_fallocate(probe.fileno(), 0, FREE_BYTES)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def make_folder() -> Path:
    """A new folder that only this user can enter.

    Not TMPDIR itself: batch systems give paths in which the name of a socket does not fit. Not Ray's /tmp/ray, either:
    where another user made it first, nobody else can write.

    Raises:
        UserError: no place for it.
    """
    tried = []
    for parent in parents():
        reason = objection(parent)
        if reason is None:
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        tried.append(f"{parent} ({reason})")
    raise UserError(f"Ray finds no folder for its sockets and logs: {', '.join(tried)}; {REMEDY}")
