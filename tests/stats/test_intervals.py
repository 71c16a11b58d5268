"""Efficiency intervals against SciPy's and their coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from raypipe.stats.intervals import ONE_SIGMA, clopper_pearson, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (250, 1000)])
def test_equal_scipys(k, n):
    exact = stats.binomtest(k, n).proportion_ci(0.9, method="exact")
    assert clopper_pearson(k, n, 0.9) == pytest.approx((exact.low, exact.high), abs=1e-9)
    score = stats.binomtest(k, n).proportion_ci(0.9, method="wilson")
    assert wilson(k, n, 0.9) == pytest.approx((score.low, score.high), abs=1e-9)


def test_coverage():
    """Exactly summed: Clopper-Pearson never undercovers, Wilson is right on average."""
    n, mean = 30, []
    for p in np.linspace(0.05, 0.95, 37):
        weights = stats.binom.pmf(np.arange(n + 1), n, p)
        both = ([f(k, n) for k in range(n + 1)] for f in (clopper_pearson, wilson))
        inside = [[low <= p <= high for low, high in intervals] for intervals in both]
        assert weights @ inside[0] >= ONE_SIGMA - 1e-9
        mean.append(weights @ inside[1])
    assert np.mean(mean) == pytest.approx(ONE_SIGMA, abs=0.02)
    with pytest.raises(ValueError, match="efficiency"):
        wilson(3, 2)
