"""Small simulated shards, made once."""

from __future__ import annotations

import pytest

from raypipe.simulate import processes
from raypipe.simulate.card import load_card
from raypipe.simulate.shard import simulate_shard


@pytest.fixture(scope="session")
def card():
    return load_card("atlas")


@pytest.fixture(scope="session")
def ggf(card):
    """(table, sidecar) of 3000 generated gluon-fusion events."""
    return simulate_shard(processes.get("ggf"), card, seed=11, shard=3, n_generate=3000)


@pytest.fixture(scope="session")
def yy(card):
    """(table, sidecar) of 4000 generated continuum events."""
    return simulate_shard(processes.get("yy"), card, seed=12, shard=0, n_generate=4000, embedding_fraction=0.2)
