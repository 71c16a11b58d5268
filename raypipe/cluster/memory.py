"""Peak memory of this process and its children."""

from __future__ import annotations

import threading
from typing import Any

import psutil


class MemoryWatch:
    """Samples, twice a second, the memory of this process and all its descendants.

    Private resident memory is summed over processes; shared memory (the object store, mapped by every worker) is
    counted once, by the largest share of one process.
    """

    def __init__(self, interval: float = 0.5) -> None:
        self.peak_gib = 0.0
        self._interval, self._stop = interval, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(self._interval):
            private, shared = 0, 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    memory = process.memory_info()
                except psutil.NoSuchProcess:
                    continue
                private += memory.rss - memory.shared
                shared = max(shared, memory.shared)
            self.peak_gib = max(self.peak_gib, (private + shared) / 2**30)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop.set()
        self._thread.join()
