"""The multilepton comparison on Gaussian events: calibration, limits, independence of chunks, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raypipe.config.multilepton import MultileptonConfig
from raypipe.errors import UserError
from raypipe.events.pools import Pool
from raypipe.search.exclusion import Values, analyse
from raypipe.search.multilepton import (
    BOOTSTRAP,
    Trial,
    compare,
    data_set,
    divide,
    labelled,
    scale_masses,
)
from raypipe.search.multilepton_search import Multilepton
from raypipe.search.result import DATA, NO_SIGNAL
from raypipe.stats.calibration import calibration


def pool(seed: int, n: int, name: str = "background", mean: float = 0.0, spread: float = 1.0) -> Pool:
    values = np.random.default_rng(seed).normal(mean, spread, size=(n, 2))
    return Pool(values, np.full(n, 2.0 / n), np.zeros(n, dtype=int), (name,))


def config(**changes) -> MultileptonConfig:
    values = {
        "features": ["x", "y"],
        "files": {"data": "-", "reference": "-", "signals": {"bump": "-"}},
        "compare": {"expected": 150},
        "networks": {"hidden": [16, 16], "members": 3, "epochs": 8},
        "bootstrap": {"count": 40},
        "scan": {"signals": ["bump"], "strengths": [20, 60], "instances": 3, "calibration": 40},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        values[section] = {**values[section], name: value} if name else value
    return MultileptonConfig.model_validate(values)


def tables(given: MultileptonConfig, simulated: int = 20_000):
    signals = {"bump": pool(9, 400, "bump", 2.0, 0.1)}
    return divide(pool(1, simulated), pool(2, 8000), signals, None, given)


def comparisons(given):
    return [trial for trial in Multilepton(given).grid() if trial.signal != DATA]


def rows_of(results):
    return [{"status": "ok", **row} for result in results for row in result.rows]


@pytest.fixture(scope="module")
def searched():
    given = config()
    prepared = tables(given)
    return given, rows_of(compare(prepared, given, comparisons(given)))


def test_reference_bootstraps_and_pseudo_data_share_no_event():
    given = config()
    prepared = tables(given)
    reference = {tuple(v) for v in prepared.reference.values}
    assert len(reference) == 150
    assert not reference & {tuple(v) for v in prepared.null.values}
    bootstrap, _ = data_set(prepared, given, Trial(BOOTSTRAP, 0.0, 3))
    assert {tuple(v) for v in bootstrap} <= {tuple(v) for v in prepared.null.values}
    none, injected = data_set(prepared, given, Trial(NO_SIGNAL, 0.0, 3))
    assert injected == 0
    assert len({tuple(v) for v in none}) == len(none)  # nature repeats no event
    sample, _ = labelled(prepared, given, Trial(NO_SIGNAL, 0.0, 3))
    assert sample.weights[~sample.is_data].sum() == pytest.approx(150)


def test_injections_of_an_instance_share_their_background_and_are_nested():
    given = config(compare__counts="fixed")
    prepared = tables(given)
    weak, strong = (data_set(prepared, given, Trial("bump", s, 1)) for s in (20.0, 60.0))
    assert (weak[1], strong[1]) == (20, 60)
    np.testing.assert_array_equal(weak[0], strong[0][:170])


def test_results_do_not_depend_on_chunks():
    given = config()
    prepared = tables(given)
    trials = [Trial(BOOTSTRAP, 0.0, 0), Trial("bump", 60.0, 1), Trial(NO_SIGNAL, 0.0, 2)]
    together = compare(prepared, given, trials)
    for trial, result in zip(trials, together, strict=True):
        alone = compare(prepared, given, [trial])[0]
        for one, other in zip(result.rows, alone.rows, strict=True):
            assert one.keys() == other.keys()
            for name in set(one) - {"seconds", "signal", "loss"}:
                assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-5), name


def test_without_signal_mlc_scores_go_to_zero_and_bce_loss_to_log_2(searched):
    given, rows = searched
    values = Values(rows, given)
    score = values.of(NO_SIGNAL, 0.0, ("mlc", "mean_score"), 40)
    loss = values.of(NO_SIGNAL, 0.0, ("bce", "mean_loss"), 40)
    strong = values.injected("bump", ("mlc", "mean_score"))[-1]
    # 150 against 150 events leave sqrt(2/150) = 0.12 on the rate; training on the data pulls the loss down a little.
    assert abs(score.mean()) < 0.1 < strong.mean()
    assert loss.mean() == pytest.approx(math.log(2), abs=0.02)
    assert values.injected("bump", ("bce", "mean_loss"))[-1].mean() < loss.mean() - 0.02
    spread = values.of(NO_SIGNAL, 0.0, ("bce", "std_score"), 40)
    assert values.injected("bump", ("bce", "std_score"))[-1].min() > spread.max()


def test_analysis_finds_the_limit_and_calibrated_p_values(searched):
    given, rows = searched
    found = analyse(rows, given, {"bump": 0.5})
    by_test = {(t["loss"], t["statistic"]): t for t in found["tests"]}
    assert len(by_test) == 12
    limit = by_test["bce", "std_score"]["limits"]["bump"]["crossing"]
    assert 0 < limit["events"]["value"] < 60
    # 150 fb^-1 and an acceptance of one half: an event is 1/75 fb.
    assert limit["fb"]["value"] == pytest.approx(limit["events"]["value"] / 75)
    assert found["combined"]["median_p"]["bump"]["60"] == pytest.approx(1 / 41)
    for test in by_test.values():
        assert abs(test["calibration"]["type_i"] - 0.05) < 4 * test["calibration"]["error"]


def test_scale_of_lepton_momenta_is_exact_for_massless_leptons():
    rng = np.random.default_rng(5)
    p = rng.normal(size=(50, 4, 3)) * 30
    four = np.concatenate([np.linalg.norm(p, axis=2, keepdims=True), p], axis=2)

    def masses(v):
        def m(x):
            return np.sqrt(x[:, 0] ** 2 - (x[:, 1:] ** 2).sum(1))

        return np.column_stack([m(v.sum(1)), m(v[:, 0] + v[:, 1]), m(v[:, 2] + v[:, 3])])

    scaled = four * np.array([1.02, 1.02, 0.97, 0.97])[:, None]
    order = ["m_mumu", "m_4l", "m_ee"]
    given = masses(four)[:, [2, 0, 1]]
    np.testing.assert_allclose(scale_masses(given, order, 1.02, 0.97), masses(scaled)[:, [2, 0, 1]], rtol=1e-9)


def test_uncertainties_widen_the_null():
    rng = np.random.default_rng(1)
    masses = rng.normal([120, 60, 50], [20, 10, 5], size=(20_000, 3))
    background = Pool(masses, np.full(20_000, 1e-4), np.zeros(20_000, dtype=int), ("b",))
    counts, means = {}, {}
    for name, change in {"none": {}, "all": {"normalisation": 0.2, "electron_scale": 0.02, "muon_scale": 0.02}}.items():
        given = config(features=["m_4l", "m_ee", "m_mumu"], bootstrap={"count": 60, **change}, scan={})
        prepared = divide(background, None, {}, None, given)
        sets = [data_set(prepared, given, Trial(BOOTSTRAP, 0.0, i))[0] for i in range(60)]
        counts[name], means[name] = np.std([len(s) for s in sets]), np.std([s.mean(0) for s in sets], axis=0)
    # sqrt(150) = 12 alone, with 20 % of 150 = 30 in quadrature 32; scale 2 % of 120 GeV against 20/sqrt(150) = 1.6.
    assert counts["none"] == pytest.approx(12.2, rel=0.35)
    assert counts["all"] == pytest.approx(32, rel=0.35)
    assert (means["all"] > 1.1 * means["none"]).all()


@pytest.mark.parametrize(
    ("changes", "simulated", "words"),
    [
        ({"compare__expected": 8000}, 20_000, "at least twice as many"),
        ({"compare__expected": 150000}, 20_000, "needs 150000 events"),
        ({"bootstrap__electron_scale": 0.01}, 20_000, "m_4l, m_ee, m_mumu only"),
    ],
)
def test_bad_divisions_are_one_line(changes, simulated, words):
    with pytest.raises(UserError, match=words) as error:
        tables(config(**changes), simulated)
    assert "\n" not in str(error.value)


def test_bad_events_are_one_line():
    given = config(compare__expected=10)
    with pytest.raises(UserError, match=r"fewer than one batch \(networks.batch_size = 32\)"):
        labelled(tables(given), given, Trial(BOOTSTRAP, 0.0, 0))
    flat = pool(1, 2000)
    flat.values[:, 1] = 7.0
    with pytest.raises(UserError, match="feature 'y' is constant"):
        divide(flat, None, {}, None, config())
    zero = Pool(flat.values, np.zeros(2000), flat.sample, flat.names)
    with pytest.raises(UserError, match="weights are all zero"):
        divide(zero, None, {}, None, config(compare={"luminosity": 150}))
    nothing = {"bump": Pool(np.empty((0, 2)), np.empty(0), np.empty(0, dtype=int), ("bump",))}
    prepared = divide(pool(1, 5000), pool(2, 2000), nothing, None, config())
    with pytest.raises(UserError, match="acceptance is zero"):
        data_set(prepared, config(), Trial("bump", 20.0, 0))


@pytest.mark.slow
def test_bootstraps_of_the_reference_itself_are_not_calibrated():
    """Why the bootstraps come from other events: drawn from the reference, null data look anomalous."""
    given = config(scan__calibration=200, bootstrap__count=200, networks__epochs=20)
    prepared = tables(given)
    trials = [t for t in comparisons(given) if t.signal in (BOOTSTRAP, NO_SIGNAL)]
    values = Values(rows_of(compare(prepared, given, trials)), given)
    naive = type(prepared)(prepared.reference, prepared.reference, prepared.nature, {}, None, prepared.expected)
    wrong = Values(rows_of(compare(naive, given, [t for t in trials if t.signal == BOOTSTRAP])), given)
    for test in (("mlc", "likelihood_ratio"), ("bce", "std_score")):
        checks = values.of(NO_SIGNAL, 0.0, test, 200)
        good, bad = calibration(checks, values.null(test)), calibration(checks, wrong.null(test))
        print(test, good, bad)
        assert abs(good["type_i"] - 0.05) < 3 * good["error"]
        assert bad["type_i"] > 0.15


@pytest.mark.slow
def test_type_one_errors_of_every_statistic_and_loss():
    """200 null data sets against 400 bootstraps: 5 % of them have p <= 5 %, whatever the statistic."""
    given = config(scan__calibration=200, bootstrap__count=400, networks__epochs=20)
    prepared = tables(given)
    trials = [t for t in comparisons(given) if t.signal in (BOOTSTRAP, NO_SIGNAL)]
    found = analyse(rows_of(compare(prepared, given, trials)), given, {})
    for test in found["tests"]:
        check = test["calibration"]
        print(test["loss"], test["statistic"], check)
        assert abs(check["type_i"] - 0.05) < 3 * check["error"]
        assert check["ks_p"] > 0.001
    combined = found["combined"]["calibration"]
    assert abs(combined["type_i"] - 0.05) < 3 * combined["error"]
