"""The compiled part: the spline kernel, loaded with ctypes. Without a C compiler raypipe installs without it.

A wheel also holds the configurations, which `raypipe new` begins with; an editable installation has the checkout's.
No ``-march=native``: one wheel serves all nodes of a cluster.
"""

import hashlib
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

SOURCE = "raypipe/models/spline.c"
FLAGS = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"]
DIGEST = hashlib.sha256(Path(SOURCE).read_bytes()).hexdigest()[:16]


class WithConfigs(build_py):
    """Copies configs/FOLDER/NAME.yaml into the package."""

    def run(self):
        super().run()
        for path in [] if self.editable_mode else sorted(Path("configs").glob("*/*.yaml")):
            target = Path(self.build_lib, "raypipe", path)
            self.mkpath(str(target.parent))
            self.copy_file(str(path), str(target))


setup(
    cmdclass={"build_py": WithConfigs},
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
    ],
)
