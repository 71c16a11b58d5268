"""What runs share: finished work by the hash of all that determines it, in one folder that no run owns.

Layout of ``resources.artefacts``::

    shards/<key>/       simulated events of one shard and their sidecar (key: `raypipe.simulate.dataset.Shard.key`)
    encoder/<key>/      encoder and its record
    latents/<key>/      all events in the latent space of an encoder, and their record
    stages/flow/        background models (`raypipe.store.ledger.Ledger.stage`)

A run takes what it needs into its output folder, by a link where the file system has links, and leaves there what it
has made. Nothing is ever changed in place, so that a link can be shared.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from raypipe.errors import UserError
from raypipe.files import atomic_path, check_writable, file_digest, make_directory, read_json, write_json
from raypipe.store.files import DiskFull, flush, is_full

DIGESTS = "digests.json"  # File of an artefact with the hashes of the others


class Artefacts:
    """A folder ``root`` of artefacts, each a folder of files that appears whole or not at all: by one rename.

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
