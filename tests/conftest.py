"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """One thread a library, before any test imports NumPy or torch: two cores must not fight over each other."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


@pytest.fixture(scope="session")
def ray_local():
    """One embedded Ray with two cores for all tests that need it."""
    from raypipe.cluster.runtime import ray_session
    from raypipe.config import Resources

    with ray_session(Resources(cpus=2, object_store_gib=0.25)):
        yield


@pytest.fixture
def laptop_yaml() -> Path:
    """The configuration that drives the demo."""
    return ROOT / "configs" / "contrastive" / "laptop.yaml"
