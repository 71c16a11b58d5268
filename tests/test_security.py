"""What keeps strangers and careless configurations out: paths, loading, tokens, loopback."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

from raypipe.config import load_config
from raypipe.errors import UserError
from raypipe.files import check_writable, inside_output_root
from raypipe.store.ledger import open_ledger
from tests.conftest import ROOT

SOURCES = sorted([*(ROOT / "raypipe").rglob("*.py"), *(ROOT / "jobs").glob("*.py")])
CONFIG = ROOT / "configs" / "contrastive" / "laptop.yaml"


@pytest.mark.parametrize("way", ["outside", "dots", "link", "ledger", "ledger url"])
def test_nothing_is_written_outside_the_output_root(tmp_path, monkeypatch, way):
    root = tmp_path / "results"
    root.mkdir()
    monkeypatch.setenv("RAYPIPE_OUTPUT_ROOT", str(root))
    assert check_writable(root / "demo") == root / "demo"
    (root / "link").symlink_to(tmp_path)
    target = {
        "outside": tmp_path / "else",
        "dots": root / "demo" / ".." / ".." / "else",
        "link": root / "link" / "else",
    }.get(way)
    if target is not None:
        with pytest.raises(UserError, match="outside RAYPIPE_OUTPUT_ROOT"):
            check_writable(target)
    else:
        where = f"{'file://' if way == 'ledger url' else ''}{tmp_path}/else"
        with pytest.raises(UserError, match="outside RAYPIPE_OUTPUT_ROOT"):
            open_ledger(load_config(CONFIG, [f"output={root}/demo", f"resources.storage={where}"]))
    assert not (tmp_path / "else").exists()
    monkeypatch.delenv("RAYPIPE_OUTPUT_ROOT")
    assert inside_output_root(tmp_path / "else") == tmp_path / "else"


def test_the_command_refuses_an_output_outside_the_root_on_one_line(tmp_path):
    environment = os.environ | {"RAYPIPE_OUTPUT_ROOT": str(tmp_path / "results"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "raypipe.cli", "scan", "--config", str(CONFIG), "--output", str(tmp_path / "else")],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "outside RAYPIPE_OUTPUT_ROOT" in done.stderr
    assert not (tmp_path / "else").exists()


@pytest.mark.parametrize("override", ["simulate.card=../../../etc/passwd", "simulate.samples={'../x': {}}"])
def test_names_in_a_configuration_are_not_paths(tmp_path, override):
    from raypipe.simulate import dataset

    with pytest.raises(UserError):
        dataset.plan(load_config(CONFIG, [f"output={tmp_path}", override]))


def calls(path):
    """Dotted name and keywords of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}, ast.unparse(node)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_loading_is_safe_and_nothing_listens_everywhere(path):
    for name, keywords, text in calls(path):
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", text
        if name in {"np.load", "numpy.load"}:
            assert keywords.get("allow_pickle", "False") == "False", text
        assert name not in {
            "eval",
            "exec",
            "pickle.load",
            "pickle.loads",
            "yaml.load",
            "yaml.unsafe_load",
            "joblib.load",
            "pd.read_pickle",
            "os.system",
        }, text
        assert keywords.get("shell") != "True", text
        for key in ("host", "dashboard_host"):
            assert "0.0.0.0" not in keywords.get(key, ""), text
        if name == "ray.init":
            assert "address" in keywords, text  # never attach to whatever cluster happens to run


def test_the_authentication_mode_is_always_explicit(monkeypatch):
    """Joining a cluster: a token if one is given, and never a choice left to a file in the home folder."""
    code = (
        "import os, sys, types\n"
        "fake = types.ModuleType('ray'); fake.is_initialized = lambda: True; sys.modules['ray'] = fake\n"
        "from raypipe.cluster.runtime import ray_session\n"
        "from raypipe.config import Resources\n"
        "with ray_session(Resources()): print(os.environ['RAY_AUTH_MODE'])\n"
    )
    plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"PYTHONPATH": str(ROOT)}
    cases = [
        ({}, "token"),
        ({"RAY_AUTH_MODE": "disabled"}, "token"),
        ({"RAY_ADDRESS": "127.0.0.1:1", "RAY_AUTH_TOKEN": "x"}, "token"),
        ({"RAY_ADDRESS": "127.0.0.1:1"}, "disabled"),
        ({"RAY_ADDRESS": "127.0.0.1:1", "RAY_AUTH_MODE": "token"}, "token"),
    ]
    for given, expected in cases:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=plain | given,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert done.stdout.strip() == expected, given
