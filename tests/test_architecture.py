"""The house: rooms import only from rooms above them, and the physics knows neither Ray nor MLflow."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

ROOMS = ["events", "simulate", "stats", "models", "fit", "search", "report", "store", "cluster", "cli", "api", "run"]
FRONT = ROOT / "raypipe" / "__init__.py"
PURE = {"events", "simulate", "stats", "models", "fit", "search", "report", "store"}
SOURCES = sorted((ROOT / "raypipe").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "raypipe" and parts[1] in ROOMS else None


def file_of(module: str) -> Path | None:
    """The source file of a module; of a package its `__init__.py`."""
    place = ROOT.joinpath(*module.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def read_with(module: str) -> set[Path]:
    """Files that are read with a module: what it imports, anywhere in it, and in turn.

    ``from package import name`` leads to the module of that name, else to the package's `__init__.py`; empty ones count
    for nothing.
    """
    found, waiting = set(), [file_of(module)]
    while waiting:
        path = waiting.pop()
        if path is None or path in found or not path.read_text():
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                waiting += [file_of(alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                own = [file_of(f"{node.module}.{alias.name}") for alias in node.names]
                waiting += [file or file_of(node.module) for file in own]
    return found


def test_a_trial_is_read_in_few_files():
    files = sorted(str(path.relative_to(ROOT)) for path in read_with("raypipe.search.contrastive"))
    assert "raypipe/fit/classifier.py" in files
    assert len(files) <= 25, files


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    here = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    modules = imports(path)
    if path == FRONT:  # names for type checkers; at run time it imports nothing (tests/api/test_front.py)
        assert {room(m) for m in modules} <= {"api", "run", "search", None}
        return
    if here is None:  # config, seeds, files, errors: the ground, which imports no room at all
        assert not {m for m in modules if room(m)}
        return
    above = ROOMS[: ROOMS.index(here) + 1]
    assert not {m for m in modules if room(m) and room(m) not in above}
    if here in PURE:
        assert not {m for m in modules if m.split(".")[0] in {"ray", "mlflow", "click"}}


def test_modules_are_small_and_nothing_is_loaded_unsafely():
    for path in SOURCES:
        text = path.read_text()
        assert len(text.splitlines()) <= 350, path
        for word in ("weights_only=False", "pickle.load", "yaml.load(", "np.random.seed", "except:"):
            assert word not in text, f"{path}: {word}"


def test_functions_are_short_and_take_few_parameters():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = node.args
                taken = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
                told = f"{path}: {node.name}"
                assert node.end_lineno - node.lineno < 60, told
                commands = any("click." in ast.unparse(made) for made in node.decorator_list)
                assert commands or len([one for one in taken if one is not None]) <= 10, told
