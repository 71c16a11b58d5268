"""The house: rooms import only from rooms above them, and the physics knows neither Ray nor MLflow."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

ROOMS = ["events", "simulate", "stats", "models", "fit", "search", "report", "store", "cluster", "cli"]
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


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    here = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    modules = imports(path)
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
