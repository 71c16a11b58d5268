"""The compiled spline (``spline.c``, ``setup.py``); `raypipe.models.spline` has a plain torch form of the same."""

import ctypes
import functools
import hashlib
import logging
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

_POINTER, _LONG, _DOUBLE, _INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_double, ctypes.c_int
_SHAPE = [_LONG, _LONG, _LONG, _INT, *[_DOUBLE] * 5]
_HERE = Path(__file__).parent
REALS = {torch.float32: "float", torch.float64: "double"}
MAX_BINS = 64  # As in spline.c: more bins take the plain form
MISSING = "spline kernel not built: flows sample about 2 times slower"
REMEDY = "install a C compiler, then raypipe again (make install)"


@functools.cache
def spline(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Kernels of spline layers for one precision; None where not built of this ``spline.c``, or RAYPIPE_NATIVE=0."""
    if dtype not in REALS or os.environ.get("RAYPIPE_NATIVE") == "0":
        return None
    paths = (_HERE / f"_spline_{REALS[dtype]}{suffix}" for suffix in EXTENSION_SUFFIXES)
    try:
        library = ctypes.CDLL(str(next(path for path in paths if path.is_file())))
        built_from = ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(library, "spline_source"))).decode()
    except (StopIteration, OSError, ValueError):
        return None
    if built_from != _source():
        return None
    library.spline_apply.argtypes = [*[_POINTER] * 4, *_SHAPE, _INT]
    library.spline_gradient.argtypes = [*[_POINTER] * 6, *_SHAPE]
    library.spline_apply.restype = library.spline_gradient.restype = None
    return library


def name() -> str:
    """Which form serves here, for keys of results: the source of the kernel, or ``torch``."""
    return f"spline.c {_source()}" if all(spline(dtype) for dtype in REALS) else "torch"


@functools.cache
def tell_if_missing() -> None:
    """Log once that the plain form serves, unless it was asked for."""
    if name() == "torch" and os.environ.get("RAYPIPE_NATIVE") != "0":
        logging.getLogger(__name__).warning("%s; %s", MISSING, REMEDY)


@functools.cache
def _source() -> str:
    return hashlib.sha256((_HERE / "spline.c").read_bytes()).hexdigest()[:16]
