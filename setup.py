"""The compiled part: the spline kernel, loaded with ctypes. Without a C compiler raypipe installs without it.

No ``-march=native``: one wheel serves all nodes of a cluster.
"""

import hashlib
from pathlib import Path

from setuptools import Extension, setup

SOURCE = "raypipe/models/spline.c"
FLAGS = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"]
DIGEST = hashlib.sha256(Path(SOURCE).read_bytes()).hexdigest()[:16]

setup(
    ext_modules=[
        Extension(
            f"raypipe.models._spline_{real}",
            [SOURCE],
            define_macros=[("REAL", real), ("SOURCE", f'"{DIGEST}"')],
            extra_compile_args=FLAGS,
            libraries=["m"],
            optional=True,
        )
        for real in ("float", "double")
    ]
)
