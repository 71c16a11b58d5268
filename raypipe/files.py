"""Files that are either whole or absent, and hashes that name what made them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raypipe.errors import UserError


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that is renamed to it on success and removed on failure.

    A reader therefore never sees half a file, and a killed writer leaves only a ``.tmp-`` file behind.
    """
    path = Path(path)
    make_directory(path.parent)
    temporary = path.parent / f".tmp-{path.stem}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}"
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path`` atomically; NaN is refused (it is not JSON)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a damaged one is a `UserError` naming the file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error


def make_directory(path: str | Path) -> Path:
    """Create ``path`` and its parents; a place that cannot be written is a `UserError`."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, FileExistsError) as error:
        raise UserError(f"{path}: cannot create this folder: {error.strerror or error}") from error
    return path


def inside_output_root(path: str | Path) -> Path:
    """``path``, unless RAYPIPE_OUTPUT_ROOT is set and it leads outside that folder (``..``, a link): a `UserError`.

    On a shared cluster the configuration comes from whoever submits a job; what it may write is decided here.
    """
    root = os.environ.get("RAYPIPE_OUTPUT_ROOT")
    if root and not Path(path).resolve().is_relative_to(Path(root).resolve()):
        raise UserError(f"{path}: outside RAYPIPE_OUTPUT_ROOT = {root}")
    return Path(path)


def check_writable(path: str | Path) -> Path:
    """Create ``path`` if needed and prove that a file can be written there; else, or outside the root, `UserError`."""
    path = make_directory(inside_output_root(path))
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix=".tmp-write-test-"):
            return path
    except OSError as error:
        raise UserError(f"{path}: this output folder is not writable: {error.strerror or error}") from error


def check_file_writable(path: str | Path) -> Path:
    """As `check_writable`, for a file: its folder is created if needed; a folder of that name is a `UserError`."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: this is a folder; name a file")
    check_writable(path.parent)
    return path


def digest(value: Any, length: int = 20) -> str:
    """A hash of any JSON-serialisable value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_digest(path: str | Path, length: int = 20) -> str:
    """A hash of the bytes of one file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:length]


def code_digest(*rooms: str, length: int = 12) -> str:
    """A hash of the source of raypipe's ``rooms`` (sub-packages), so that old code's results are not taken for new.

    Only the rooms that determine a result belong in its key: a new figure must not throw away a finished scan.
    """
    root = Path(__file__).parent
    total = hashlib.sha256()
    sources = [p for room in rooms for p in (root / room).rglob("*") if p.suffix in {".py", ".c", ".yaml"}]
    for source in sorted([*sources, root / "seeds.py"]):
        total.update(str(source.relative_to(root)).encode())
        total.update(source.read_bytes())
    return total.hexdigest()[:length]
