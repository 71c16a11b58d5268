"""Processes that want shared stages: ``python -m tests.store.claimants FOLDER COUNT KIND`` forks so many of them.

The first that makes ``victim`` kills itself on the way. Each make leaves a line in ``FOLDER/made-<key>``. With KIND
``url`` the ledger is on a file system of `pyarrow.fs`, else on a path.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from pyarrow import fs

from raypipe.store.files import Store
from raypipe.store.ledger import Ledger

KEYS = ("first", "second", "victim")


def want(book: Ledger, folder: Path, key: str) -> None:
    """Ask for a stage, and check what comes."""

    def make() -> dict[str, Any]:
        with open(folder / f"made-{key}", "a") as handle:
            handle.write(f"{os.getpid()}\n")
        time.sleep(0.5)
        if key == "victim" and len((folder / f"made-{key}").read_text().split()) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"value": torch.full((3,), 7.0)}

    assert book.stage("flow", key, make)["value"].tolist() == [7.0, 7.0, 7.0]


def main(folder: Path, count: int, kind: str) -> None:
    """Fork, wait for all, and say how many were killed and how many failed."""
    where: Any = folder / "ledger"
    if kind == "url":
        (folder / "bucket").mkdir()
        where = Store("ledger", fs.SubTreeFileSystem(str(folder / "bucket"), fs.LocalFileSystem()))
    for number in range(count):
        if os.fork() == 0:
            try:
                want(Ledger(where), folder, KEYS[number % len(KEYS)])
            except BaseException as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(count)]
    print(codes.count(-signal.SIGKILL), sum(code > 0 for code in codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
