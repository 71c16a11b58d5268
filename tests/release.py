"""What is checked before a release: ``python -m tests.release`` (`make release-check`), ``--resolve`` (`make resolve`).

The wheel is built and installed with the pinned versions into an empty environment, and tried from an empty folder.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
KERNELS = """
from pathlib import Path
import raypipe, torch
from raypipe.models.native import spline
assert Path(raypipe.__file__).is_relative_to({environment!r}), raypipe.__file__
assert all(spline(real) for real in (torch.float32, torch.float64)), "no compiled kernels"
"""
"""What the installed package must do: it is the installed one, and its compiled kernels load."""
COMMANDS = ["--version"], ["config"], ["simulate", "--list"], ["fit", "--help"], ["scan", "--help"], ["new", "haxad"]
SDIST = "nflows"
"""Has no wheel, so that `pip install --only-binary` needs one that was built here."""


def project() -> dict:
    """The table ``project`` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def versions() -> dict[str, set[str]]:
    """Where the version stands, and which one: they must agree."""
    found = {"pyproject.toml": {project()["version"]}}
    places = {"raypipe/__init__.py": r'__version__ = "(.+)"', "CITATION.cff": r"^version: (.+)$"}
    for name, pattern in places.items():
        found[name] = set(re.findall(pattern, (ROOT / name).read_text(), re.MULTILINE))
    for path in sorted((ROOT / "k8s").rglob("*.yaml")):
        if tags := re.findall(r"image: raypipe(?:-\w+)?:([\d.]+)", path.read_text()):
            found[str(path.relative_to(ROOT))] = set(tags)
    return found


def released(version: str) -> str | None:
    """The date of a version in CHANGELOG.md, with something said of it; None where it is missing."""
    text = (ROOT / "CHANGELOG.md").read_text()
    found = re.search(rf"^## \[{re.escape(version)}\] - (\d{{4}}-\d\d-\d\d)\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return found[1] if found and "\n- " in found[2] else None


def missing(wheel: Path) -> list[str]:
    """Files of the package that a wheel lacks: modules, package data, kernels."""
    with zipfile.ZipFile(wheel) as archive:
        there = set(archive.namelist())
    tracked = run(["git", "ls-files", "raypipe"], ROOT).splitlines()
    wanted = [name for name in tracked if not name.endswith(".md")]
    kernels = [f"raypipe/models/_spline_{real}." for real in ("float", "double")]
    return [name for name in wanted if name not in there] + [
        kernel for kernel in kernels if not any(name.startswith(kernel) for name in there)
    ]


def run(command: Iterable[object], folder: Path) -> str:
    """What a command prints; `SystemExit` with its errors where it fails."""
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def check() -> None:
    """All of it, with a line each."""
    found = versions()
    (version,) = found["pyproject.toml"]
    if others := {name: said for name, said in found.items() if said != {version}}:
        raise SystemExit(f"pyproject.toml says {version}; {others}")
    if (date := released(version)) is None:
        raise SystemExit(f"CHANGELOG.md: no dated section of {version}, or nothing in it")
    print(f"version {version} of {date}: {len(found)} files agree", flush=True)
    with tempfile.TemporaryDirectory(prefix="raypipe-release-") as scratch:
        folder, environment = Path(scratch), Path(scratch).resolve() / "venv"
        source = folder / "source"  # what is tracked, without what an earlier build left
        run(["git", "checkout-index", "--all", f"--prefix={source}/"], ROOT)
        run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source], folder)
        (wheel,) = folder.glob("raypipe-*.whl")
        if lacks := missing(wheel):
            raise SystemExit(f"{wheel.name} lacks {', '.join(lacks)}")
        print(f"{wheel.name}: every module, the package data and both kernels, {wheel.stat().st_size / 1e3:.0f} kB")
        run([sys.executable, "-m", "venv", environment], folder)
        python = environment / "bin" / "python"
        run([python, "-m", "pip", "install", "--quiet", "--no-compile", "--constraint", CONSTRAINTS, wheel], folder)
        run([python, "-c", KERNELS.format(environment=str(environment))], folder)
        for command in COMMANDS:
            run([environment / "bin" / "raypipe", *command], folder)
        print(f"installed: kernels load; {len(COMMANDS)} commands run in an empty folder")


def resolve(pythons: Iterable[str]) -> None:
    """Ask pip whether the pins go together for versions of Python that need not be here."""
    with tempfile.TemporaryDirectory(prefix="raypipe-resolve-") as scratch:
        folder = Path(scratch)
        pin = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith(f"{SDIST}=="))
        run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, pin], folder)
        extras = project()["optional-dependencies"]
        own = [name for name in extras if f"raypipe[{name}]" in extras["test"]]  # pip would look for it in the index
        wanted = {*project()["dependencies"], *extras["test"], *(one for name in own for one in extras[name])}
        wanted -= {f"raypipe[{name}]" for name in own}
        asked = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--only-binary", ":all:"]
        asked += ["--target", folder / "none", "--find-links", folder, "--constraint", CONSTRAINTS]
        for version in pythons:
            run([*asked, "--python-version", version, *wanted], folder)
            print(f"Python {version}: constraints.txt resolves", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolve", nargs="+", metavar="PYTHON", help="Only this, of these versions of Python.")
    given = parser.parse_args()
    resolve(given.resolve) if given.resolve else check()
