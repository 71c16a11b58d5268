"""The steps of the GPU record: each in a process and with a time limit of its own, its part kept as it grows.

A run that is cut off keeps what it has; the same command skips what is complete.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gpurecord import correctness, events, ladder, sensitivity, speed
from raypipe.errors import UserError
from raypipe.files import read_json, write_json

RECORD = "gpu.json"
PACKAGES = ("numpy", "torch", "nflows", "xgboost", "xgboost-cpu", "scipy")


@dataclass(frozen=True)
class Options:
    """What a step is given."""

    device: str
    tiny: bool
    out: Path
    source: sensitivity.Source


Keep = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Step:
    """One part of the record."""

    make: Callable[[Options, Keep], dict[str, Any]]
    seconds: float
    """After which it is stopped on a GPU; a CPU gets three times as long."""


STEPS: dict[str, Step] = {
    "correctness": Step(lambda o, keep: correctness.run(o.device, o.tiny, keep), 150),
    "encoder speed": Step(lambda o, keep: speed.encoder(o.device, o.tiny, keep), 120),
    "flows": Step(lambda o, keep: speed.flows(o.device, o.tiny, keep), 120),
    "networks": Step(lambda o, keep: speed.networks(o.device, o.tiny, keep), 60),
    "encoders": Step(lambda o, keep: sensitivity.encoders(o.device, o.source, o.out, keep), 420),
    "sic": Step(lambda o, keep: sensitivity.run(o.source, o.out, keep), 300),
    "ladder": Step(lambda o, keep: ladder.run(o.device, o.source, o.out, keep), 560),
}


def card(device: str) -> dict[str, Any]:
    """What the record was made on."""
    found: dict[str, Any] = {"python": platform.python_version(), "date": str(datetime.date.today())}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found["card"] = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"
    if device == "cuda":
        found |= {"cuda": torch.version.cuda, "memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30}
    return found


def record_of(out: Path) -> dict[str, Any]:
    """The record so far."""
    path = out / RECORD
    return read_json(path) if path.is_file() else {"steps": {}}


def make(name: str, options: Options) -> None:
    """One step in this process; its part of the record grows on disk."""
    start = time.perf_counter()

    def keep(part: dict[str, Any], complete: bool = False) -> None:
        record = record_of(options.out)
        took = {"complete": complete, "seconds": time.perf_counter() - start, "machine": card(options.device)}
        record["steps"][name] = took | part
        write_json(options.out / RECORD, record)

    keep(STEPS[name].make(options, keep), complete=True)


def run(names: Sequence[str], options: Options, arguments: Sequence[str]) -> bool:
    """All steps that are not complete, one process each; whether all are complete now."""
    options.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        if record_of(options.out)["steps"].get(name, {}).get("complete"):
            print(f"{name}: done before", flush=True)
            continue
        limit = STEPS[name].seconds * (3 if options.device == "cpu" else 1)
        print(f"{name}: at most {limit:g} s", flush=True)
        command = [sys.executable, str(Path(__file__).parents[1] / "gpu_record.py"), *arguments, "--only", name]
        start = time.perf_counter()
        try:
            status = subprocess.run(command, timeout=limit, check=False).returncode
            how = "done" if status == 0 else f"failed with status {status}"
        except subprocess.TimeoutExpired:
            how = "stopped at its time limit; what it had is kept"
        print(f"{name}: {how}, {time.perf_counter() - start:.0f} s", flush=True)
    done = record_of(options.out)["steps"]
    return all(done.get(name, {}).get("complete") for name in names)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of `jobs/gpu_record.py`."""
    parser = argparse.ArgumentParser(
        prog="gpu_record.py",
        description=__doc__,
        epilog="Example: python jobs/gpu_record.py --input runs/gpu/events.npz --out runs/gpu/record",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--input", type=Path, default=Path("runs/gpu/events.npz"), help="events of `make gpu-input`")
    parser.add_argument("--configs", type=Path, default=Path("configs/contrastive"), help="folder of gpu.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu/record"), help=f"folder of {RECORD} and latents")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that everything runs")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), metavar="STEP", help=f"some of: {', '.join(STEPS)}")
    parser.add_argument("--pack", type=Path, metavar="EVENTS", help="only pack simulated events (a folder) to --input")
    parser.add_argument("--only", choices=list(STEPS), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    source = sensitivity.Source(given.input, given.configs, given.tiny)
    options = Options(given.device, given.tiny, given.out, source)
    try:
        if given.pack:
            size = events.pack(source.config("paper"), given.pack, given.input)
            print(f"{given.input}: {size / 1e6:.1f} MB")
            return 0
        if given.device == "cuda" and not torch.cuda.is_available():
            raise UserError("no GPU here: torch.cuda.is_available() is False; --device cpu --tiny shows that all runs")
        if given.only:
            make(given.only, options)
            return 0
        if not given.input.is_file():
            raise UserError(f"{given.input}: no such file; `make gpu-input` makes it")
        passed = _without_steps(sys.argv[1:] if arguments is None else arguments)
        return 0 if run(given.steps or list(STEPS), options, passed) else 1
    except UserError as error:
        print(f"gpu_record: {error}", file=sys.stderr)
        return 2


def _without_steps(arguments: Sequence[str]) -> list[str]:
    """The arguments that a step's own process gets."""
    kept, skipping = [], False
    for argument in arguments:
        skipping = argument == "--steps" or (skipping and not argument.startswith("--"))
        if not skipping:
            kept.append(argument)
    return kept
