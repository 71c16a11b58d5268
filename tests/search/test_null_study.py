"""The analyst's significance without a signal, over independent simulations (slow: `make test-slow`)."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.config import load_config
from raypipe.search.contrastive import search
from raypipe.search.diphoton import prepare_tables
from raypipe.search.result import NO_SIGNAL, Trial
from tests.conftest import ROOT
from tests.search.test_contrastive import OVERRIDES, events

INSTANCES = 120


@pytest.mark.slow
def test_no_signal_is_standard_normal_after_the_cut():
    """Each instance has its own simulation, so that nothing is shared and the spread is the true one."""
    config = load_config(ROOT / "configs/contrastive/laptop.yaml", OVERRIDES)
    z = []
    for i in range(INSTANCES):
        first = 1_000_000 * (i + 1)
        latents = {
            "search": {
                "yy": events(12_000, 900.0, first, 0.0, False, first),
                "ggf": events(2000, 20.0, first + 100_000, 1.5, True, first + 1),
                "wn_150": events(10, 1.0, first + 200_000, 3.0, True, first + 2),
            },
            "embedding": {"ggf": events(2000, 20.0, first + 300_000, 1.5, True, first + 3)},
        }
        rows = search(prepare_tables(latents, config), config, Trial(NO_SIGNAL, 0.0, i)).rows
        z.append([row["z_after"] for row in rows] + [rows[0]["z_before"]])
    mean, width = np.mean(z, axis=0), np.std(z, axis=0, ddof=1)
    print(f"\nz after the 2 % cut, the 10 % cut, and before: mean {mean.round(2)}, width {width.round(2)}")
    assert mean == pytest.approx([0, 0, 0], abs=3.5 / np.sqrt(INSTANCES))
    assert width == pytest.approx([1, 1, 1], abs=3.5 / np.sqrt(2 * INSTANCES))
    # 2.3 % beyond two sigma: at most 8 of 120 at 99 %.
    assert (np.array(z)[:, 0] > 2).sum() <= 8
