"""Who is alive and whose turn it is, told by files alone: no server, no lock that a killed process would keep."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

from raypipe.errors import UserError
from raypipe.progress import repeatedly
from raypipe.store.files import Store

BEAT = 5.0  # Seconds between two signs of life
ALIVE = 6 * BEAT  # A process silent for longer is taken for dead
SETTLE_LOCAL, SETTLE = 0.05, 2.0
"""Seconds after which claims written at the same time are seen by all: the resolution of times, and listings."""
WAIT = 1.0  # Seconds between two looks at what another process is making

T = TypeVar("T")


def place() -> str:
    """Where process ids mean the same as here: this host, and this container of it."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return f"{socket.gethostname()} {os.getpid()}"  # no way to know: nobody else is here


def may_live(process: dict[str, Any]) -> bool:
    """Whether the process of a sign could be there: one of this place that was killed is known to be dead at once."""
    if process["place"] != place():
        return True
    with contextlib.suppress(PermissionError):  # another user's is there
        try:
            os.kill(process["pid"], 0)
        except ProcessLookupError:
            return False
    return True


class Sign(contextlib.ExitStack):
    """The sign of life of this process: a file, written anew every `BEAT` seconds while the block lasts."""

    def __init__(self, store: Store, folder: str, prefix: str = "") -> None:
        super().__init__()
        self.store, self.folder = store, folder
        self.id = f"{prefix}{socket.gethostname()}-{os.getpid()}-{time.time_ns():x}"
        self.name = f"{folder}/{self.id}.json"

    def value(self) -> dict[str, Any]:
        """What the file says."""
        return {"place": place(), "pid": os.getpid()}

    def write(self) -> None:
        """Write the file now."""
        self.store.write(self.name, json.dumps(self.value()).encode())

    def _try(self, what: Callable[..., None], *given: Any) -> None:
        with contextlib.suppress(UserError):  # a full disk must not end the work from here; its results tell it
            what(*given)

    def __enter__(self) -> Self:
        self.write()
        self.callback(self._try, self.store.delete, self.name)
        self.enter_context(repeatedly(lambda: self._try(self.write), BEAT))
        return self


class Claim(Sign):
    """A place in the queue of those who would make the same thing; the first who is alive makes it.

    Beside the thing (``folder``/``key``) lie ``<key>.<id>.queued``, which has the time of arrival, and
    ``<key>.<id>.json``, which has that of the last sign of life. Both times are the storage's own, and are compared
    with each other only: the clocks of machines may be minutes apart.
    """

    def __init__(self, store: Store, folder: str, key: str) -> None:
        super().__init__(store, folder, f"{key}.")
        self.key = key

    def __enter__(self) -> Self:
        super().__enter__()
        self._queue()
        self.callback(self._try, self.store.delete, f"{self.folder}/{self.id}.queued")
        return self

    def _queue(self) -> None:
        self.store.write(f"{self.folder}/{self.id}.queued", b"")
        self._settled = time.monotonic() + (SETTLE if self.store.local is None else SETTLE_LOCAL)

    def is_first(self) -> bool:
        """Whether nobody alive came before; those who died on the way are removed."""
        time.sleep(max(0.0, self._settled - time.monotonic()))
        entries = self.store.listing(self.folder).items()
        there = {name: modified for name, modified in entries if name.startswith(f"{self.key}.")}
        if f"{self.id}.queued" not in there:  # swept away by one who took this process for dead
            self._queue()
            return False
        for _, one in sorted((t, n.removesuffix(".queued")) for n, t in there.items() if n.endswith(".queued")):
            if one == self.id:
                return True
            if self._lives(one, there):
                return False
            for kind in ("json", "queued"):
                self.store.delete(f"{self.folder}/{one}.{kind}")
        return False

    def _lives(self, one: str, there: dict[str, float]) -> bool:
        now, last = (there.get(f"{name}.json") for name in (self.id, one))
        if now is None:
            return True  # no sign of one's own to compare with: wait for the next
        if last is None or now - last > ALIVE:
            return False
        with contextlib.suppress(ValueError, KeyError):
            return may_live(json.loads(self.store.read(f"{self.folder}/{one}.json") or b"{}"))
        return True


def once_each(
    store: Store, folder: str, keys: Sequence[str], get: Callable[[str], T | None], make: Callable[[list[str]], Any]
) -> dict[str, T]:
    """What ``get`` finds of each key, else of what ``make`` makes of several, which ``get`` must find from then on.

    Of all processes that ask for the same at the same time one makes it, and the others wait; if that one dies, the
    next does. A `UserError` if what was made is not found.
    """
    found: dict[str, T] = {}
    made: set[str] = set()

    def look() -> list[str]:
        for key in keys:
            if key not in found and (value := get(key)) is not None:
                found[key] = value
        return [key for key in keys if key not in found]

    if not (waiting := look()):
        return found
    with contextlib.ExitStack() as stack:
        claims = {key: stack.enter_context(Claim(store, folder, key)) for key in waiting}
        while waiting := look():  # whoever was first may have just finished
            if lost := made.intersection(waiting):
                raise UserError(f"{store}/{folder}: {min(lost)} was made but is not there (run the same command again)")
            if mine := [key for key in waiting if claims[key].is_first()]:
                if mine := [key for key in mine if get(key) is None]:
                    make(mine)
                made.update(mine)
            else:
                time.sleep(WAIT)
    return found
