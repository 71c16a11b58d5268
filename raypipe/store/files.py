"""A folder on any file system: a path, or a URL such as ``s3://bucket/folder``. Files are whole or absent."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlparse

import pyarrow as pa
from pyarrow import fs

from raypipe.errors import UserError, redact
from raypipe.files import atomic_path, check_writable, file_digest, make_directory, read_json, write_json

OBJECT_STORES = {"s3", "gcs", "abfs"}
"""File systems where a write is seen only when it is complete, and where a rename would be a copy."""
FULL = {errno.ENOSPC, errno.EDQUOT}


class DiskFull(UserError):
    """No space is left where results go: nothing finished is lost, but nothing more can be kept."""


class Store:
    """Bytes by relative name below one root.

    A file is written under a temporary name, flushed to disk where that is local, and moved; an object store gets one
    PUT of the final name, which is atomic. Whatever the file system refuses is a `UserError` of one line.
    ``root`` is a path or a URL (fsspec opens those that `pyarrow.fs` does not know), or a path in ``filesystem``.
    """

    def __init__(self, root: str | os.PathLike[str], filesystem: Any = None) -> None:
        self.root = str(root)
        self.local: Path | None = None
        self._made: set[str] = set()
        parsed = urlparse(self.root)
        if filesystem is not None:
            self.filesystem, self.path = filesystem, self.root.rstrip("/")
        elif parsed.scheme == "file" or "://" not in self.root:
            if parsed.scheme == "file" and (parsed.query or parsed.fragment or parsed.netloc not in ("", "localhost")):
                raise UserError(f"{self.root}: expected file:///FOLDER, with %3F for ? and %23 for #")
            self.local = Path(unquote(parsed.path) if parsed.scheme == "file" else self.root).absolute()
            self.filesystem, self.path = fs.LocalFileSystem(), str(self.local)
        else:
            self.filesystem, self.path = _open_url(self.root)

    def __str__(self) -> str:
        return redact(self.root)

    def _full(self, name: str) -> str:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or name.startswith("/"):
            raise UserError(f"{self.root}: {name!r} would leave this folder")
        return f"{self.path}/{name}"

    @contextlib.contextmanager
    def _telling(self, path: str, what: str) -> Iterator[None]:
        """Turn what the file system says into one line."""
        try:
            yield
        except OSError as error:
            if is_full(error):
                told = "no space left on this disk; what is finished is kept: free some, run the same again"
                raise DiskFull(f"{path}: {told}") from error
            said = os.strerror(error.errno) if error.errno else str(error).partition("\n")[0] or type(error).__name__
            raise UserError(f"{path}: {what}: {redact(said, self.root)}") from error

    def write(self, name: str, data: bytes) -> None:
        """Store ``data`` under ``name``, wholly or not at all; a full disk is `DiskFull`."""
        target, in_place = self._full(name), self.filesystem.type_name in OBJECT_STORES
        folder, _, base = target.rpartition("/")
        if folder not in self._made and not in_place:
            with self._telling(folder, "cannot create this folder"):
                self.filesystem.create_dir(folder, recursive=True)
            self._made.add(folder)
        written = target if in_place else f"{folder}/.tmp-{os.getpid()}-{secrets.token_hex(4)}-{base}"
        with self._telling(target, "cannot be written"):
            try:
                with self.filesystem.open_output_stream(written, compression=None) as stream:
                    stream.write(data)
                if self.local is not None:
                    flush(written)
                if not in_place:
                    self.filesystem.move(written, target)
            except OSError:
                with contextlib.suppress(OSError):
                    self.filesystem.delete_file(written)
                raise

    def read(self, name: str) -> bytes | None:
        """The bytes of ``name``, or None where there are none."""
        path = self._full(name)
        with self._telling(path, "cannot be read"):
            try:
                with self.filesystem.open_input_stream(path, compression=None) as stream:
                    return stream.read()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def check_writable(self) -> None:
        """Prove that something can be written here."""
        name = f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
        self.write(name, b"")
        self.delete(name)

    def delete(self, name: str) -> None:
        """Remove ``name`` if it is there."""
        path = self._full(name)
        with self._telling(path, "cannot be removed"), contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(path)

    def drop(self, folder: str) -> None:
        """Remove ``folder`` with all that is in it."""
        with contextlib.suppress(OSError):
            self.filesystem.delete_dir(self._full(folder))

    def _entries(self, folder: str) -> list[Any]:
        with self._telling(path := self._full(folder), "cannot be listed"):
            return self.filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))

    def folders(self, folder: str) -> set[str]:
        """Names of the folders in ``folder``."""
        return {info.base_name for info in self._entries(folder) if info.type == fs.FileType.Directory}

    def listing(self, folder: str) -> dict[str, float]:
        """Files in ``folder`` (not below it) with the Unix seconds of their last change, by the storage's own clock.

        Unfinished and hidden files are left out.
        """
        entries = ((info.base_name, info) for info in self._entries(folder) if info.is_file)
        return {name: (info.mtime_ns or 0) / 1e9 for name, info in entries if not name.startswith(".")}


def flush(path: str | Path) -> None:
    """Wait until a local file is on its disk."""
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


def is_full(error: BaseException) -> bool:
    """Whether an exception says that a disk or a quota is full."""
    full = isinstance(error, DiskFull) or getattr(error, "errno", None) in FULL
    return full or "No space left on device" in str(error)


def _open_url(url: str) -> tuple[Any, str]:
    with contextlib.suppress(pa.ArrowException, OSError):  # a scheme that Arrow does not know may be one of fsspec's
        filesystem, path = fs.FileSystem.from_uri(url)
        return filesystem, path.rstrip("/")
    try:
        import fsspec

        found, path = fsspec.core.url_to_fs(url)
    except Exception as error:  # every storage library has exceptions of its own
        reason = redact(str(error).partition("\n")[0], url)
        raise UserError(f"{url}: cannot open this storage: {reason}") from None  # whose text may hold a password
    return fs.PyFileSystem(fs.FSSpecHandler(found)), path.rstrip("/")


DIGESTS = "digests.json"  # File of an artefact with the hashes of the others


class Artefacts:
    """What runs share: a folder ``root`` of artefacts, ``<kind>/<key>/`` with files that appear whole or not at all.

    The key is the hash of all that determines them. A run takes what it needs by a link where the file system has
    links, and leaves what it has made; nothing is ever changed in place. Kinds: ``shards``, ``encoder``, ``latents``.
    Of two runs that give the same artefact one is first, and the other's is dropped. None shares nothing; a URL is a
    `UserError`, since links and folders need a file system.
    """

    def __init__(self, root: str | Path | None) -> None:
        if root is not None and "://" in str(root):
            raise UserError(f"resources.artefacts = {root}: expected a folder that all machines see, not a URL")
        self.root = None if root is None else check_writable(root)

    def take(self, kind: str, key: str, files: Mapping[str, Path]) -> bool:
        """Put the files of an artefact where ``files`` says, in that order; False if it is not there.

        A damaged artefact is removed and counts as absent.
        """
        if self.root is None or not (place := self.root / kind / key).exists():
            return False
        if not _whole(place, files):
            gone = _beside(place)  # out of sight first: nobody sees half of it
            with contextlib.suppress(FileNotFoundError):
                os.rename(place, gone)
            shutil.rmtree(gone, ignore_errors=True)
            return False
        for name, path in files.items():
            _put(place / name, path)
        return True

    def give(self, kind: str, key: str, files: Mapping[str, Path]) -> bool:
        """Leave finished files for others; False if somebody else was first (theirs stays)."""
        if self.root is None:
            return True
        place = self.root / kind / key
        if place.exists():
            return False
        make_directory(place.parent)
        temporary = _beside(place)
        try:
            temporary.mkdir()
            for name, path in files.items():
                _put(path, temporary / name)
            write_json(temporary / DIGESTS, {name: file_digest(temporary / name) for name in files})
            os.rename(temporary, place)  # refuses a folder that is not empty
            return True
        except OSError as error:
            if place.exists():
                return False
            if is_full(error):
                raise DiskFull(f"{place}: no space left on this disk; free some, run the same again") from error
            raise UserError(f"{place}: cannot be written: {error.strerror or error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _whole(place: Path, names: Iterable[str]) -> bool:
    """Whether all files of an artefact have the hashes of its record, which may be absent or damaged itself."""
    with contextlib.suppress(UserError, LookupError, TypeError, OSError):
        found = read_json(place / DIGESTS)
        return all(file_digest(place / name) == found[name] for name in names)
    return False


def _beside(path: Path) -> Path:
    """A temporary name in the same folder."""
    return path.parent / f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}"


def _put(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, or a copy where there are no links; whole or not at all."""
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, temporary)
            flush(temporary)
