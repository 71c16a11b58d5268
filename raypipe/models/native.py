"""The compiled spline: built once from the C source beside this module, where the machine has a C compiler.

Flows do not need it: `raypipe.models.spline` has a plain torch form of the same function.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

_FLAGS = ["-O3", "-march=native", "-fPIC", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"]
_POINTER, _LONG, _DOUBLE, _INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_double, ctypes.c_int
_SHAPE = [_LONG, _LONG, _LONG, _INT, *[_DOUBLE] * 5]
REALS = {torch.float32: "float", torch.float64: "double"}
MAX_BINS = 64
"""As in spline.c: more bins take the plain form."""


@functools.cache
def spline(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Kernels of spline layers for one precision; None without a compiler, or where RAYPIPE_NATIVE=0 asks for none.

    The library lies in the user's cache folder (``XDG_CACHE_HOME``), named by source, compiler and processor: it is
    built for the processor it runs on, and a changed source builds another.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or dtype not in REALS or os.environ.get("RAYPIPE_NATIVE") == "0":
        return None
    try:
        library = ctypes.CDLL(str(_build(Path(__file__).with_name("spline.c"), compiler, REALS[dtype])))
    except (OSError, subprocess.SubprocessError):
        return None  # no headers, no space, a compiler without these flags: the plain form serves
    library.spline_apply.argtypes = [*[_POINTER] * 4, *_SHAPE, _INT]
    library.spline_gradient.argtypes = [*[_POINTER] * 6, *_SHAPE]
    library.spline_apply.restype = library.spline_gradient.restype = None
    return library


def _build(source: Path, compiler: str, real: str) -> Path:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=60).stdout
    cpu = Path("/proc/cpuinfo")
    flags = (
        next((line for line in cpu.read_text().splitlines() if line.startswith("flags")), "") if cpu.exists() else ""
    )
    key = hashlib.sha256(source.read_bytes() + version + " ".join([*_FLAGS, platform.machine(), flags]).encode())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raypipe"
    path = folder / f"{source.stem}-{real}-{key.hexdigest()[:16]}.so"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            built = Path(work) / path.name
            subprocess.run(
                [compiler, *_FLAGS, f"-DREAL={real}", "-shared", str(source), "-o", str(built), "-lm"],
                capture_output=True,
                check=True,
                timeout=120,
            )
            built.replace(path)  # whole or absent, however many processes build at once
    return path
