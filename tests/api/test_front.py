"""`import raypipe`: light, lazy, typed, and its examples run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import subprocess
import sys

import numpy as np
import pytest

import raypipe as rp
from tests.conftest import ROOT

PUBLIC = ("raypipe", "raypipe.api", "raypipe.run")
HEAVY = {"ray", "torch", "mlflow", "pandas", "numpy", "pyarrow", "xgboost", "matplotlib", "click", "pydantic"}
IMPORT = """
import json, sys, time
before, began = set(sys.modules), time.process_time()
import raypipe as rp
seconds = time.process_time() - began
print(json.dumps([seconds, sorted({name.partition(".")[0] for name in set(sys.modules) - before})]))
"""


def alone(code: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light():
    seconds, loaded = json.loads(alone(IMPORT))
    assert seconds < 0.1
    assert not HEAVY & set(loaded)


def test_every_name_is_there_when_it_is_used():
    found = json.loads(
        alone(
            "import json, raypipe as rp; print(json.dumps([dir(rp), [callable(getattr(rp, n)) for n in rp.__all__]]))"
        )
    )
    assert set(found[0]) >= {"load", "Run", "fit", "hunt", "classify", "background", "UserError"}
    assert all(found[1])
    with pytest.raises(AttributeError, match=r"no attribute 'fitt': there are .*fit"):
        rp.fitt  # noqa: B018


@pytest.mark.parametrize("first", ["", "import raypipe.fit.classifier; "])
def test_fit_is_a_function_and_a_package(first):
    code = "import numpy as np, raypipe as rp; m = np.r_[np.linspace(0, 10, 500), np.full(50, 5.0)]; "
    code += "print(rp.fit(m, (0, 10), 'flat', '5:0.1').s); from raypipe.fit.classifier import deal_folds"
    assert float(alone(first + code)) == pytest.approx(50, abs=15)


@pytest.mark.parametrize("name", PUBLIC)
def test_examples_run(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0
    assert found.failed == 0


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "raypipe" / "py.typed").is_file()
    assert '"py.typed"' in (ROOT / "pyproject.toml").read_text()


def test_public_names_have_a_docstring():
    modules = [importlib.import_module(name) for name in PUBLIC]
    own = [o for m in modules for n, o in vars(m).items() if getattr(o, "__module__", "") == m.__name__ and n[0] != "_"]
    methods = [f for o in own if inspect.isclass(o) for n, f in vars(o).items() if n[0] != "_" and callable(f)]
    assert len(own) + len(methods) > 8
    assert not [o for o in [*modules, *own, *methods] if not inspect.getdoc(o)]


def test_what_was_found_is_shown_as_text_and_as_a_small_table():
    found = rp.fit(np.r_[np.linspace(0, 10, 500), np.full(50, 5.0)], (0, 10), "flat", "5:0.1")
    assert repr(found).startswith("status      converged")
    page = found._repr_html_()
    assert page.count("<tr>") == page.count("</tr>") == len(found.lines)
    assert "z" in dir(found)
    with pytest.raises(AttributeError, match="there is no 'zz', but status, valid"):
        found.zz  # noqa: B018
