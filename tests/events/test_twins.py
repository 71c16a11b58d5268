"""Equal rows are the same event where a column is continuous, and chance or a category where none is."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.errors import UserError
from raypipe.events.fields import fingerprint
from raypipe.events.twins import first_twin, rows_of_files, settle

N = 5000


def masses(rng, n=N):
    return 100 + rng.exponential(40, n)


def again(values: np.ndarray, share: float) -> np.ndarray:
    return np.concatenate([values, values[: round(share * len(values))]])


def repeated(values: np.ndarray) -> int:
    return int((first_twin(values) != np.arange(len(values))).sum())


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_equal_rows_have_equal_fingerprints_and_others_do_not(kind):
    rows = np.random.default_rng(0).normal(size=(50_000, 4)).astype(kind)
    prints = fingerprint(rows)
    assert len(np.unique(prints)) == len(rows)
    assert (fingerprint(rows[::-1]) == prints[::-1]).all()
    swapped = rows[:, [1, 0, 2, 3]]
    assert not np.isin(fingerprint(swapped), prints).any()
    assert fingerprint(np.array([[0.0, 1.0]])) == fingerprint(np.array([[-0.0, 1.0]]))


@pytest.mark.parametrize("share", [0.002, 0.3, 1.0])
def test_repeated_events_are_found_whatever_their_columns(share):
    rng = np.random.default_rng(1)
    normal = lambda d: rng.normal(size=(N, d))  # noqa: E731
    padded = np.where(rng.random((N, 1)) < 0.4, 0.0, normal(2))
    for values in (
        np.c_[masses(rng), normal(2)],
        np.c_[masses(rng), normal(2)].astype(np.float32),
        np.round(np.c_[masses(rng), normal(3)], 2),  # a text file: masses alone repeat by chance
        np.c_[np.round(masses(rng)), normal(1)],
        np.c_[masses(rng), rng.poisson(3, N), rng.integers(0, 2, N)],
        np.c_[masses(rng), padded],
        masses(rng)[:, None],
        np.linspace(100, 180, N)[:, None],
        np.c_[np.linspace(100, 180, N), normal(1)],
        np.c_[np.arange(N), normal(1)],
    ):
        twice = again(values, share)
        first = first_twin(twice)
        assert (first[:N] == np.arange(N)).all()
        assert (first[N:] == np.arange(len(twice) - N)).all()


def test_five_copies_of_a_file_are_one():
    values = np.random.default_rng(2).normal(size=(400, 2))
    assert (first_twin(np.tile(values, (5, 1))) == np.tile(np.arange(400), 5)).all()


def test_tables_that_repeat_by_themselves_have_no_twins():
    rng = np.random.default_rng(3)
    mass = np.round(masses(rng), 2)
    honest = {
        "categories": rng.integers(0, 8, (N, 1)),
        "many codes": rng.integers(0, 2000, (N, 1)),
        "three codes": rng.integers(0, 20, (N, 3)),
        "counts": rng.poisson(100, (N, 2)),
        "unit masses and a flag": np.c_[np.round(masses(rng)), rng.integers(0, 2, N)],
        "padding": np.where(rng.random((N, 1)) < 0.4, 0.0, rng.normal(size=(N, 2))),
        "padding, column by column": np.where(rng.random((N, 2)) < 0.4, 0.0, rng.normal(size=(N, 2))),
        "rounded": np.round(np.c_[masses(rng, 20_000), rng.normal(size=20_000)], 2),
        "rounded mass alone": mass[:, None],
        "a column and its square": np.c_[mass, mass**2],
        "masses in single precision and a flag": np.c_[masses(rng, 200_000), rng.integers(0, 2, 200_000)].astype("f4"),
        "masses and a padding": np.c_[masses(rng, 200_000), np.zeros(200_000)],
    }
    assert {name: repeated(np.asarray(values, float)) for name, values in honest.items()} == dict.fromkeys(honest, 0)


def test_the_share_decides_and_the_policy_settles():
    first = np.arange(3000)
    first[[2000, 2001, 2002]] = [5, 6, 7]
    name = rows_of_files([("a.npy", 1500), ("b.npy", 1500)])
    assert settle(first, None, name, "data.duplicates").all()  # 0.1 %: not above
    first[2003] = 8
    words = r"4 of 3000 events \(0\.13%\) repeat .*: b\.npy row 500 = a\.npy row 5, .*; data\.duplicates=drop"
    with pytest.raises(UserError, match=words):
        settle(first, None, name, "data.duplicates")
    assert settle(first, "keep", name, "").all()
    assert np.flatnonzero(~settle(first, "drop", name, "")).tolist() == [2000, 2001, 2002, 2003]
