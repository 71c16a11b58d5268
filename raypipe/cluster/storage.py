"""A folder on any file system: a path, or a URL such as ``s3://bucket/folder``. Files are whole or absent."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlparse

from raypipe.errors import UserError
from raypipe.redact import redact

OBJECT_STORES = {"s3", "gcs", "abfs"}
"""File systems where a write is seen only when it is complete, and where a rename would be a copy."""


FULL = {errno.ENOSPC, errno.EDQUOT}


class DiskFull(UserError):
    """No space is left where results go: nothing finished is lost, but nothing more can be kept."""


@dataclass(frozen=True)
class Stamp:
    """What a listing tells about a file."""

    size: int
    """Bytes."""
    modified: float
    """Unix seconds."""


class Store:
    """Bytes by relative name below one root.

    A local root (a path or ``file://`` URL) is written with plain system calls: a temporary file, flushed to disk,
    renamed. Any other URL goes through `pyarrow.fs`, or through fsspec where pyarrow does not know the scheme; an
    object store gets one PUT of the final name, which is atomic, every other file system a temporary name and a move.

    Args:
        root: path or URL.
        filesystem: a `pyarrow.fs.FileSystem` to use with ``root`` as the path inside it.

    Raises:
        UserError: a URL whose scheme or host nobody knows.
    """

    def __init__(self, root: str | os.PathLike[str], filesystem: Any = None) -> None:
        self.root = str(root)
        self.filesystem, self.local = filesystem, None
        self._made: set[str] = set()
        if filesystem is not None:
            self.path = self.root.rstrip("/")
            return
        parsed = urlparse(self.root)
        if parsed.scheme == "file" or "://" not in self.root:
            if parsed.scheme == "file" and (parsed.query or parsed.fragment or parsed.netloc not in ("", "localhost")):
                raise UserError(f"{self.root}: expected file:///FOLDER, with %3F for ? and %23 for #")
            self.local = Path(unquote(parsed.path) if parsed.scheme == "file" else self.root).absolute()
            self.path = str(self.local)
            return
        self.filesystem, self.path = _open_url(self.root)

    def __str__(self) -> str:
        return redact(self.root)

    def _full(self, name: str) -> str:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or name.startswith("/"):
            raise UserError(f"{self.root}: {name!r} would leave this folder")
        return f"{self.path}/{name}"

    def _parent(self, name: str) -> None:
        folder = os.path.dirname(self._full(name))
        if folder in self._made:
            return
        try:
            if self.local is not None:
                os.makedirs(folder, exist_ok=True)
            elif self.filesystem.type_name not in OBJECT_STORES:
                self.filesystem.create_dir(folder, recursive=True)
        except OSError as error:
            raise _told(error, folder, "cannot create this folder", self.root) from error
        self._made.add(folder)

    def write(self, name: str, data: bytes) -> None:
        """Store ``data`` under ``name``, wholly or not at all; a full disk is `DiskFull`."""
        self._parent(name)
        target = self._full(name)
        folder, base = os.path.split(target)
        temporary = f"{folder}/.tmp-{os.getpid()}-{secrets.token_hex(4)}-{base}"
        try:
            if self.local is not None:
                _write_local(temporary, target, data)
            elif self.filesystem.type_name in OBJECT_STORES:
                with self.filesystem.open_output_stream(target) as stream:
                    stream.write(data)
            else:
                with self.filesystem.open_output_stream(temporary) as stream:
                    stream.write(data)
                self.filesystem.move(temporary, target)
        except OSError as error:
            with contextlib.suppress(OSError):
                self.filesystem.delete_file(temporary) if self.filesystem else os.unlink(temporary)
            raise _told(error, target, "cannot be written", self.root) from error

    def read(self, name: str) -> bytes | None:
        """The bytes of ``name``, or None where there are none."""
        try:
            if self.local is not None:
                return Path(self._full(name)).read_bytes()
            with self.filesystem.open_input_stream(self._full(name)) as stream:
                return stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _told(error, self._full(name), "cannot be read", self.root) from error

    def check_writable(self) -> None:
        """Prove that something can be written here.

        Raises:
            UserError: nothing can.
        """
        name = f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
        self.write(name, b"")
        self.delete(name)

    def exists(self, name: str) -> bool:
        """Whether ``name`` is there."""
        if self.local is not None:
            return os.path.isfile(self._full(name))
        return self.filesystem.get_file_info(self._full(name)).is_file

    def delete(self, name: str) -> None:
        """Remove ``name`` if it is there."""
        with contextlib.suppress(FileNotFoundError):
            if self.local is not None:
                os.unlink(self._full(name))
            else:
                self.filesystem.delete_file(self._full(name))

    def folders(self, folder: str) -> set[str]:
        """Names of the folders in ``folder``."""
        if self.local is not None:
            with contextlib.suppress(FileNotFoundError), os.scandir(self._full(folder)) as entries:
                return {entry.name for entry in entries if entry.is_dir()}
            return set()
        from pyarrow.fs import FileSelector, FileType

        found = self.filesystem.get_file_info(FileSelector(self._full(folder), allow_not_found=True))
        return {info.base_name for info in found if info.type == FileType.Directory}

    def drop(self, folder: str) -> None:
        """Remove ``folder`` with all that is in it."""
        if self.local is not None:
            shutil.rmtree(self._full(folder), ignore_errors=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                self.filesystem.delete_dir(self._full(folder))

    def listing(self, folder: str) -> dict[str, Stamp]:
        """Names in ``folder`` (not below it) with their stamps; unfinished and hidden files are left out."""
        return {name: stamp for name, stamp in self._entries(folder) if not name.startswith(".")}

    def names(self, folder: str) -> set[str]:
        """Names in ``folder``; cheaper than `listing` where files are local."""
        if self.local is None:
            return set(self.listing(folder))
        try:
            return {name for name in os.listdir(self._full(folder)) if not name.startswith(".")}
        except FileNotFoundError:
            return set()

    def _entries(self, folder: str) -> Iterator[tuple[str, Stamp]]:
        if self.local is not None:
            try:
                with os.scandir(self._full(folder)) as entries:
                    for entry in entries:
                        with contextlib.suppress(FileNotFoundError):
                            if entry.is_file():
                                status = entry.stat()
                                yield entry.name, Stamp(status.st_size, status.st_mtime)
            except FileNotFoundError:
                return
            return
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._full(folder), allow_not_found=True)
        for info in self.filesystem.get_file_info(selector):
            if info.is_file:
                yield info.base_name, Stamp(info.size or 0, (info.mtime_ns or 0) / 1e9)


def _write_local(temporary: str, target: str, data: bytes) -> None:
    with open(temporary, "wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, target)


def _open_url(url: str) -> tuple[Any, str]:
    import pyarrow as pa
    from pyarrow import fs

    try:
        filesystem, path = fs.FileSystem.from_uri(url)
        return filesystem, path.rstrip("/")
    except (pa.ArrowException, OSError):  # a scheme that Arrow does not know may be one of fsspec's
        pass
    try:
        import fsspec

        found, path = fsspec.core.url_to_fs(url)
    except Exception as error:  # every storage library has exceptions of its own
        reason = redact(str(error).partition("\n")[0], url)
        raise UserError(f"{url}: cannot open this storage: {reason}") from None  # whose text may hold a password
    return fs.PyFileSystem(fs.FSSpecHandler(found)), path.rstrip("/")


def is_full(error: BaseException) -> bool:
    """Whether an exception says that a disk or a quota is full."""
    return (
        isinstance(error, DiskFull) or getattr(error, "errno", None) in FULL or "No space left on device" in str(error)
    )


def _told(error: OSError, path: str, what: str, root: str) -> UserError:
    """The `UserError` for a failed system call below ``root``."""
    reason = redact(error.strerror or str(error).partition("\n")[0] or type(error).__name__, root)
    if is_full(error):
        return DiskFull(f"{path}: no space left on this disk; what is finished is kept: free some, run the same again")
    return UserError(f"{path}: {what}: {reason}")
