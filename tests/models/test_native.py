"""The spline kernel as the installation builds it, and what serves without it."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys

import pytest
import torch

from raypipe.models import native, spline
from tests.conftest import ROOT


def fresh() -> None:
    for cached in (native.spline, native.tell_if_missing):
        cached.cache_clear()


@pytest.fixture
def built(monkeypatch, tmp_path):
    """Builds as `pip install` does, with a given compiler, into a folder that the loader then looks into."""

    def build(compiler: str):
        command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path), "--build-temp"]
        environment = {"PATH": "/usr/bin:/bin", "CC": compiler}
        subprocess.run([*command, str(tmp_path / "work")], cwd=ROOT, env=environment, check=True, capture_output=True)
        folder = tmp_path / "raypipe" / "models"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "raypipe" / "models" / "spline.c", folder)
        monkeypatch.setattr(native, "_HERE", folder)
        monkeypatch.delenv("RAYPIPE_NATIVE", raising=False)
        fresh()
        return folder

    yield build
    monkeypatch.undo()
    fresh()


def draw() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, rows, 50, generator=generator, dtype=torch.float64) for rows in (3, 3 * 23)]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
def test_what_the_installation_builds_is_used_while_its_source_is_the_same(built, caplog):
    folder = built("cc")
    assert native.name().startswith("spline.c ")
    found = spline.apply_rows(*draw(), bins=8, bound=5.0, scale=8.0)
    for one, two in zip(found, spline._plain(*draw(), 8, 5.0, 8.0, False), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
    assert not caplog.records
    (folder / "spline.c").write_text("/* another source */")
    native._source.cache_clear()
    fresh()
    assert native.name() == "torch"
    native._source.cache_clear()


def test_without_a_compiler_the_installation_works_and_the_fallback_is_told_once(built, caplog):
    built("/nowhere/cc")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert spline.apply_rows(*draw(), bins=8, bound=5.0, scale=8.0)[0].shape == (2, 3, 50)
    assert native.name() == "torch"
    (record,) = caplog.records
    assert record.getMessage() == f"{native.MISSING}; {native.REMEDY}"
