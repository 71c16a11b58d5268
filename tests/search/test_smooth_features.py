"""Features with zeros, steps, bounds and heavy tails: no excess without a signal, and a planted one is found."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from raypipe.config import load_config
from raypipe.errors import UserError
from raypipe.events.readers.features import FeatureTable
from raypipe.search.table import search_table
from tests.conftest import ROOT

SETTINGS = [
    "data.path=toy.npy",
    "data.columns.features=[1, 2]",
    "data.columns.label=null",
    "blind=false",
    "window.low=100",
    "window.sr_low=120",
    "window.sr_high=130",
    "window.high=160",
    "massfit.bin_width=1",
    "massfit.order=2",
    "flow.members=5",
    "flow.leave_out=1",
    "flow.layers=3",
    "flow.hidden=24",
    "flow.epochs=12",
    "flow.batch_size=512",
    "flow.learning_rate=0.005",
    "classifier.ensemble=2",
    "selection.working_points=[0.05, 0.01]",
]
EVENTS = 5000
CODES, SHARES = [11, 13, 15, 22, 211, 2212], [0.3, 0.05, 0.02, 0.4, 0.2, 0.03]
Draw = Callable[[np.random.Generator, int], np.ndarray]
KINDS: dict[str, tuple[Draw, float, str]] = {
    "zeros": (lambda rng, n: np.maximum(0, rng.normal(size=n)), 1.8, "2: .*% at 0"),
    "counts": (lambda rng, n: rng.poisson(3, n), 8, r"2: 1\d values"),
    "flag": (lambda rng, n: rng.random(n) < 0.1, 1, "2: 2 values"),
    "category": (lambda rng, n: rng.choice(CODES, n, p=SHARES), 2212, "2: 6 values"),
    "upper bound": (lambda rng, n: np.minimum(1, rng.normal(size=n)), -2.0, "2: .*% at 1"),
    "grid": (lambda rng, n: rng.normal(size=n).round(1), 2.2, r"2: \d+ values on a grid"),
    "heavy tails": (lambda rng, n: rng.standard_cauchy(n), 20.0, "2: heavy tails"),
    "constant": (lambda rng, n: np.full(n, 3.0), 3.0, "2: always 3, left out"),
    "default value": (lambda rng, n: np.where(rng.random(n) < 0.1, -999, rng.exponential(1, n)), 6.0, "at -999"),
}
"""Background, where the signal lies, what the user is told."""


def table(kind: str, signal: int, seed: int) -> FeatureTable:
    """A Gaussian feature and one of the kind; the signal is at 2.2 +- 0.3 in the first."""
    rng = np.random.default_rng([seed, *kind.encode()])
    draw, where, _ = KINDS[kind]
    mass = np.r_[100 - 40 * np.log(1 - rng.random(EVENTS) * (1 - np.exp(-60 / 40))), rng.normal(125, 1.5, signal)]
    first = np.r_[rng.normal(size=EVENTS), rng.normal(2.2, 0.3, signal)]
    second = np.r_[draw(rng, EVENTS).astype(float), np.full(signal, float(where))]
    n = EVENTS + signal
    return FeatureTable(np.arange(n), mass, np.c_[first, second], np.ones(n), None, ("1", "2"))


def rows_of(kind: str, signal: int, seed: int) -> list[dict]:
    config = load_config(ROOT / "configs/lhco/laptop.yaml", [*SETTINGS, f"seed={seed}"])
    return search_table(table(kind, signal, seed), config)[0].rows


def check_null(kind: str, tables: int) -> None:
    rows = [rows_of(kind, 0, seed) for seed in range(tables)]
    assert all(row["verdict"] == "" for some in rows for row in some)
    z, auc = (np.array([[row[k] for row in some] for some in rows]) for k in ("z_after", "sideband_auc"))
    print(f"\n{kind}: mean z {z.mean(0)}, width {z.std(0)}, sideband AUC {auc.mean():.3f}")
    assert (np.abs(z.mean(0)) < 0.5).all()
    assert abs(auc.mean() - 0.5) < 0.03


@pytest.mark.parametrize("kind", ["zeros", "counts"])
def test_no_signal_no_excess(kind):
    check_null(kind, 20)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"zeros", "counts"}])
def test_no_signal_no_excess_of_the_other_kinds(kind):
    check_null(kind, 40)


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_signal_is_found_and_the_user_told(kind):
    rows = rows_of(kind, 80, 1)
    assert max(row["z_after"] for row in rows) > 4
    assert max(row["z_after"] - row["z_before"] for row in rows) > 2
    assert all(row["verdict"] == "" for row in rows)
    assert re.search(KINDS[kind][2], rows[0]["features"])


def test_a_feature_that_varies_only_in_the_signal_region_is_refused():
    config = load_config(ROOT / "configs/lhco/laptop.yaml", SETTINGS)
    data = table("constant", 0, 1)
    inside = (data.mass > 120) & (data.mass < 130)
    data.features[inside, 1] = np.arange(inside.sum()) % 2
    with pytest.raises(UserError, match=r"x\.csv: feature '2' is 3 in every sideband event, not in the signal region"):
        search_table(data, config, source="x.csv")
    data.features[:] = 1.0
    with pytest.raises(UserError, match=r"x\.csv: no feature varies \(1, 2\)"):
        search_table(data, config, source="x.csv")
