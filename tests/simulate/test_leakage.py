"""What the encoder is shown must not tell m_yy: else the latent space would sculpt the mass spectrum.

Objects and pt_yy tell nothing. The paper's second event-level input, dr_yy, does together with a transverse momentum,
because dr_yy is about 2 m / pT of a boosted pair: the slow test states how much.
"""

from __future__ import annotations

import numpy as np
import pytest
import xgboost

from raypipe.events.schema import tensor_values
from raypipe.simulate import processes
from raypipe.simulate.shard import simulate_shard


def r_squared(inputs: np.ndarray, mass: np.ndarray) -> float:
    """Out-of-fold explained variance of boosted trees that regress ``mass`` from ``inputs``, two folds."""
    fold, predicted = np.arange(len(mass)) % 2, np.empty(len(mass))
    for k in (0, 1):
        trees = xgboost.XGBRegressor(
            n_estimators=200, max_depth=4, learning_rate=0.05, subsample=0.7, min_child_weight=20, n_jobs=1,
            random_state=k,
        )  # fmt: skip
        predicted[fold == k] = trees.fit(inputs[fold != k], mass[fold != k]).predict(inputs[fold == k])
    return 1 - np.sum((mass - predicted) ** 2) / np.sum((mass - mass.mean()) ** 2)


def columns(table):
    objects = tensor_values(table["objects"])
    return (
        objects.reshape(len(objects), -1),
        *(table[name].to_numpy() for name in ("m_yy", "pt_yy", "dr_yy", "y1_pt")),
    )


def test_few_events(yy):
    objects, mass, pt, _, photon = columns(yy[0])
    assert r_squared(np.column_stack([objects, pt]), mass) < 0.02
    # The regression would see it if there were something: one photon's momentum is enough.
    assert r_squared(np.column_stack([objects, pt, photon]), mass) > 0.3


@pytest.mark.slow
def test_many_events(card):
    table, _ = simulate_shard(processes.get("yy"), card, seed=31, shard=0, n_generate=60_000)
    objects, mass, pt, dr, _ = columns(table)
    assert len(mass) > 28_000
    found = {
        "objects": r_squared(objects, mass), "objects, pt": r_squared(np.column_stack([objects, pt]), mass),
        "objects, pt, dr": r_squared(np.column_stack([objects, pt, dr]), mass),
        "all, pt_yy < 60 GeV": r_squared(np.column_stack([objects, pt, dr])[pt < 60], mass[pt < 60]),
    }  # fmt: skip
    print({name: round(float(value), 4) for name, value in found.items()})
    assert found["objects"] < 0.02
    assert found["objects, pt"] < 0.02
    assert found["objects, pt, dr"] < 0.2
