"""Random streams keyed by what they are for, never by who runs them.

The spawn key of a `numpy.random.SeedSequence` is made of names such as ``("pseudodata", instance)``: the same names
give the same numbers on any number of workers, in any order, after any restart.
"""

import hashlib

import numpy as np


def _word(part: str | int) -> int:
    """A 64-bit integer for one part of a key; integers and strings cannot collide."""
    text = f"{type(part).__name__}:{part}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def sequence(root: int, *key: str | int) -> np.random.SeedSequence:
    """The `SeedSequence` of the stream named by ``key`` under the run's ``root`` seed."""
    return np.random.SeedSequence(entropy=root, spawn_key=tuple(_word(part) for part in key))


def generator(root: int, *key: str | int) -> np.random.Generator:
    """A NumPy generator for the stream named by ``key``."""
    return np.random.default_rng(sequence(root, *key))


def integer(root: int, *key: str | int, bits: int = 31) -> int:
    """A positive integer seed (for torch, XGBoost or Pythia) for the stream named by ``key``."""
    return int(sequence(root, *key).generate_state(1, np.uint64)[0] >> np.uint64(64 - bits)) or 1


def uniform_by_id(ids: np.ndarray, root: int, *key: str | int) -> np.ndarray:
    """A uniform number in (0, 1) for each integer id, (n,) float64: splitmix64 of the id and the stream's seed."""
    with np.errstate(over="ignore"):
        x = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(integer(root, *key, bits=63))
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        x = x ^ (x >> np.uint64(31))
    return ((x >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
