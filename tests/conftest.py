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


def long_tests() -> list[str]:
    """Beginnings of the ids of tests that `make test` leaves to `make test-all` (tests/long.txt)."""
    lines = (ROOT / "tests" / "long.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them."""
    beginnings = tuple(long_tests())
    for item in items:
        if item.nodeid.startswith(beginnings):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def ray_local():
    """One embedded Ray with two cores for all tests that need it."""
    from raypipe.cluster.runtime import ray_session
    from raypipe.config import Resources

    with ray_session(Resources(cpus=2, object_store_gib=0.25)):
        yield


@pytest.fixture
def laptop_yaml() -> Path:
    """The contrastive search at the size of a laptop."""
    return ROOT / "configs" / "contrastive" / "laptop.yaml"
