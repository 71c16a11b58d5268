"""Trials that do to their process whatever a scan must survive."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raypipe import seeds
from raypipe.files import digest
from raypipe.search.result import Result, Tools


@dataclass(frozen=True)
class Probe:
    """A trial: which number to draw and how to misbehave."""

    number: int
    act: str = "work"
    seconds: float = 0.0

    def label(self) -> str:
        return f"{self.act} {self.number}"

    def key(self) -> str:
        return digest({"number": self.number, "act": self.act})


def probes(count: int, act: str = "work", seconds: float = 0.0) -> dict[str, Probe]:
    made = [Probe(i, act, seconds) for i in range(count)]
    return {probe.key(): probe for probe in made}


def _run_probe(inputs: dict[str, Any], trial: Probe, tools: Tools) -> Result:
    """Misbehave as asked; a trial that survives returns numbers that depend on it and on the inputs alone."""
    scratch = Path(inputs["scratch"]) if inputs.get("scratch") else None
    if scratch is not None:
        with open(scratch / f"ran-{trial.number}", "a") as handle:
            handle.write(f"{os.getpid()}\n")
    if trial.act == "raise":
        raise ValueError(f"trial {trial.number} cannot be done")
    if trial.act == "hang":
        time.sleep(600)
    if trial.act == "memory":
        np.ones(2**50)
    if trial.act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if trial.act == "flaky" and len((scratch / f"ran-{trial.number}").read_text().split()) == 1:
        raise OSError(errno.EIO, "the file server sneezed")
    if trial.act == "once" and len((scratch / f"ran-{trial.number}").read_text().split()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if trial.act == "spin":
        end = time.process_time() + trial.seconds
        while time.process_time() < end:
            pass
    elif trial.seconds:
        time.sleep(trial.seconds)
    rng = seeds.generator(7, "probe", trial.number)
    total = float(np.asarray(inputs["table"]).sum())
    rows = [{"number": trial.number, "draw": float(rng.standard_normal()), "total": total, "point": p} for p in (1, 2)]
    return Result(rows, {"noise": rng.standard_normal(3)}, metric="draw")


def run_probes(inputs: dict[str, Any], trials: Sequence[Probe], tools: Tools) -> list[Result]:
    """Each in turn; the number of them goes to a file ``together``."""
    if inputs.get("scratch"):
        with open(Path(inputs["scratch"]) / "together", "a") as handle:
            handle.write(f"{len(trials)}\n")
    return [_run_probe(inputs, trial, tools) for trial in trials]
