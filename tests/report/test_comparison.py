"""Required injections on constructed curves."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.report.comparison import crossing, curve, required_table


def rows(z_per_strength: dict[float, list[float]], **more) -> list[dict]:
    return [
        {"embedding": "id", "method": "cathode", "signal": "s", "strength": s, "working_point": 0.01, "instance": i,
         "z_after": z, "sic": z / s} | more
        for s, values in z_per_strength.items() for i, z in enumerate(values)
    ]  # fmt: skip


def test_crossing_of_a_line_is_exact_and_an_unreached_target_is_infinite():
    assert crossing(np.array([1.0, 2.0]), np.array([3.0, 7.0]), 5.0) == pytest.approx(1.5)
    assert crossing(np.array([1.0, 2.0]), np.array([8.0, 16.0]), 4.0) == pytest.approx(0.5)  # through the origin
    assert crossing(np.array([1.0]), np.array([3.0]), 5.0) == np.inf


def test_curve_is_mean_and_standard_error_over_instances():
    x, mean, error = curve(rows({1.0: [2.0, 4.0], 0.5: [1.0]}), "z_after", ("id", "cathode"), "s", 0.01).T
    np.testing.assert_allclose(x, [0.5, 1.0])
    np.testing.assert_allclose(mean, [1.0, 3.0])
    assert np.isnan(error[0])
    assert error[1] == pytest.approx(1.0)  # sqrt(2)/sqrt(2)


def test_required_table_has_one_entry_a_signal_and_way():
    both = rows({1.0: [3.0], 2.0: [7.0]}) + rows({1.0: [1.0], 2.0: [2.0]}, embedding="raw")
    table = required_table(both, 0.01, 5.0)
    assert [(e["embedding"], e["required"]) for e in table] == [("id", pytest.approx(1.5)), ("raw", np.inf)]
