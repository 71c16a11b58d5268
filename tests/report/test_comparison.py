"""Required injections on constructed curves."""

from __future__ import annotations

import json

import numpy as np
import pytest

from raypipe.report.contrastive import required_rows
from raypipe.report.html import with_error
from raypipe.report.summary import (
    crossing,
    curve,
    jackknife,
    quote,
    required_strength,
    required_table,
    steered,
)
from raypipe.search.base import plain
from tests.search.record_figures import required_compared


def rows(z_per_strength: dict[float, list[float]], **more) -> list[dict]:
    return [
        {
            "embedding": "id",
            "method": "cathode",
            "signal": "s",
            "strength": s,
            "working_point": 0.01,
            "instance": i,
            "z_after": z,
            "sic": z / s,
        }
        | more
        for s, values in z_per_strength.items()
        for i, z in enumerate(values)
    ]


def test_crossing_of_a_line_is_exact_and_an_unreached_target_is_infinite():
    assert crossing(np.array([1.0, 2.0]), np.array([3.0, 7.0]), 5.0) == pytest.approx(1.5)
    assert crossing(np.array([1.0, 2.0]), np.array([8.0, 16.0]), 4.0) == pytest.approx(0.5)  # through the origin
    assert crossing(np.array([1.0]), np.array([3.0]), 5.0) == np.inf


def test_curve_is_mean_standard_error_and_deviation_over_instances():
    x, mean, error, deviation = curve(rows({1.0: [2.0, 4.0], 0.5: [1.0]}), "z_after", ("id", "cathode"), "s", 0.01).T
    np.testing.assert_allclose(x, [0.5, 1.0])
    np.testing.assert_allclose(mean, [1.0, 3.0])
    assert np.isnan(error[0])
    assert error[1] == pytest.approx(1.0)  # sqrt(2)/sqrt(2)
    assert deviation[1] == pytest.approx(np.sqrt(2))


def test_required_table_has_one_entry_a_signal_way_and_cut():
    both = rows({1.0: [3.0], 2.0: [7.0]}) + rows({1.0: [1.0], 2.0: [2.0]}, embedding="raw")
    tight = rows({1.0: [6.0], 2.0: [9.0]}, working_point=0.002)
    table = required_table(both + tight, [0.01, 0.002], 5.0)
    assert [(e["embedding"], e["working_point"], e["required"]) for e in table] == [
        ("id", 0.01, pytest.approx(1.5)),
        ("id", 0.002, pytest.approx(5 / 6)),
        ("raw", 0.01, None),
    ]
    assert table[-1]["largest"] == 2.0
    head, body = required_rows(table)
    assert head[3:] == ["S/√B for 5σ, cut at 1.0%", "S/√B for 5σ, cut at 0.2%"]
    assert body == [["s", "id", "cathode", "1.50", "0.83"], ["s", "raw", "cathode", "> 2", "-"]]


def test_jackknife_of_a_mean_is_its_standard_error():
    """A closed form: the jackknife of a mean gives its standard error."""
    values = np.array([2.0, 3.0, 4.5, 7.0])
    less = (values.sum() - values) / 3
    mean, error = jackknife(np.r_[values.mean(), less])
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / 2)
    assert jackknife(np.array([1.0, 2.0])) == (1.0, None)
    assert jackknife(np.array([1.0, 0.9, np.inf])) == (1.0, None)


def test_errors_of_instances_that_share_events():
    """A mean of k counts of which a share rho is common varies by sqrt(rho + (1 - rho)/k); so does its jackknife."""
    values = [2.0, 3.0, 4.5, 7.0]
    some = rows({1.0: values}, instance_overlap=0.2)
    sigma = np.std(values, ddof=1) / np.sqrt(0.8)
    assert quote(some, "z_after")["standard_error"] == pytest.approx(sigma * np.sqrt(0.2 + 0.8 / 4))
    less = (np.sum(values) - np.array(values)) / 3
    assert jackknife(np.r_[np.mean(values), less], 0.2)[1] == pytest.approx(sigma * np.sqrt(0.2 + 0.8 / 4))


def test_errors_of_what_is_judged_on_the_same_simulation():
    """Instances whose classifiers agree know a SIC no better than one: the error is that of the simulated events."""
    rng = np.random.default_rng(1)
    drawn = 8 + 0.3 * rng.normal(size=400)
    some = [row | {"sic": 8.0, "sic_replicas": drawn.tolist()} for row in rows({1.0: [2.0] * 6}, instance_overlap=0.2)]
    assert quote(some, "sic")["standard_error"] == pytest.approx(drawn.std(ddof=1))
    apart = [row | {"sic": 8.0 + (-1) ** k} for k, row in enumerate(some)]
    assert quote(apart, "sic")["standard_error"] == pytest.approx(np.hypot(drawn.std(ddof=1), np.sqrt(1.2 / 6)))


def test_too_few_simulated_events_give_no_error_and_stay_json():
    """A replica of which no background passes has no SIC: there is a mean without an error, and nothing fails."""
    some = [row | {"sic": 8.0 + i, "sic_replicas": [8.0, float("nan")]} for i, row in enumerate(rows({1.0: [2.0] * 2}))]
    found = quote(some, "sic")
    assert (found["mean"], found["standard_error"]) == (8.5, None)
    assert with_error(found) == "8.50"
    assert json.loads(json.dumps([plain(row) for row in some], allow_nan=False))[0]["sic_replicas"] == [8.0, None]
    assert np.isnan(curve(some, "sic", ("id", "cathode"), "s", 0.01)[0, 2])


def test_required_strength_without_each_instance():
    found = required_strength(rows({1.0: [4.0, 6.0, 10.0]}), ("id", "cathode"), "s", 0.01, 2.0)
    np.testing.assert_allclose(found, [2 / (20 / 3), 2 / 8, 2 / 7, 2 / 5])
    (entry,) = required_table(rows({1.0: [4.0, 6.0, 10.0]}), [0.01], 2.0)
    assert entry["standard_error"] == pytest.approx(np.sqrt(2 * np.var(found[1:])))


def test_required_injections_are_compared_on_common_instances():
    """Where one always needs half of what the other does, the difference is half, whatever the instances outside do."""
    one = rows({1.0: [8.0, 10.0, 12.0, 90.0]}, embedding="ep")
    other = rows({1.0: [4.0, 5.0, 6.0]}, embedding="background")
    (entry,) = required_compared(one + other, 2.0)
    assert entry["required"] == [pytest.approx(0.2), pytest.approx(0.4)]
    assert entry["difference"] == pytest.approx(-0.2)
    assert entry["error"] == pytest.approx(np.sqrt(2 * np.var([2 / 11, 2 / 10, 2 / 9])))


def test_steered_background_has_the_pull_of_its_counts():
    """Poisson counts over an expectation that its own error smears: a unit Gaussian, with the error over instances."""
    rng = np.random.default_rng(1)
    expected, error, instances, signals = 100.0, 8.0, 200, 3
    true = rng.poisson(expected + error * rng.normal(size=(instances, signals)))
    pulls = (true - expected) / np.hypot(np.sqrt(expected), error)
    # What is true of all simulated events is 1.1 of the expectation, off by its error and by a quarter beside it.
    ratio = 1.1 + np.hypot(0.08, 0.25) * rng.normal(size=(instances, signals))
    known = {"b_expected_sr": 1e4, "expected_after": expected, "expected_after_error": error}
    made = [
        row
        | {"signal": str(k), "instance": i, "background_pull": float(pulls[i, k]), "kappa": 1.2}
        | known
        | {"background_efficiency": ratio[i, k] * expected / 1e4}
        for i in range(instances)
        for k in range(signals)
        for row in rows({1.0: [0.0]})
    ]
    found = steered(made, 0.01)
    assert (found["rows"], found["instances"]) == (600, 200)
    assert found["pull_mean"] == pytest.approx(pulls.mean())
    assert found["pull_mean_error"] == pytest.approx(pulls.mean(1).std(ddof=1) / np.sqrt(instances))
    assert found["pull_width"] == pytest.approx(1, abs=0.1)
    assert found["coverage_68"] == pytest.approx(0.683, abs=0.06)
    assert found["kappa"]["mean"] == pytest.approx(1.2)
    assert found["transfer"] == pytest.approx(1.1, abs=0.04)
    assert found["transfer_error"] == pytest.approx(np.hypot(0.1, 0.25), rel=0.1)
    assert steered([row | {"signal": "none"} for row in made], 0.01) is None
