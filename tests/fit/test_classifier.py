"""Out-of-fold scores: the right power, and none where there is none to be had."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raypipe.config import Classifier
from raypipe.fit.classifier import out_of_fold_scores
from raypipe.stats.roc import weighted_auc

CONFIG = Classifier(folds=5, ensemble=2, rounds=60)


def auc(scores) -> tuple[float, float]:
    values = -np.r_[scores.data, scores.template]
    return weighted_auc(values, np.arange(len(values)) < len(scores.data))


def test_two_gaussians_reach_the_optimal_auc():
    rng = np.random.default_rng(0)
    data, template = rng.normal(0.6, 1, (4000, 2)), rng.normal(0, 1, (8000, 2))
    value, error = auc(out_of_fold_scores(data, template, np.ones(8000), CONFIG, seed=1))
    best = 0.5 * (1 + math.erf(0.6 * math.sqrt(2) / 2))  # Phi(d'/sqrt 2), d' = 0.6 sqrt 2
    assert best - 0.02 < value < best + 4 * error


def test_pure_noise_gives_one_half():
    """In-fold scores would be far above one half here: 300 events in 6 dimensions are easily memorised."""
    rng = np.random.default_rng(1)
    values = [
        auc(out_of_fold_scores(rng.normal(size=(300, 6)), rng.normal(size=(300, 6)), np.ones(300), CONFIG, seed=s))
        for s in range(6)
    ]
    assert np.mean([v for v, _ in values]) == pytest.approx(0.5, abs=4 * values[0][1] / math.sqrt(6))


def test_percentile_is_the_template_share_and_other_sets_are_exchangeable():
    rng = np.random.default_rng(2)
    data = np.r_[rng.normal(size=(3800, 3)), rng.normal(2.5, 0.3, (200, 3))]
    template, weights = rng.normal(size=(8000, 3)), rng.uniform(0.5, 1.5, 8000)
    more = {"background": rng.normal(size=(20_000, 3)), "signal": rng.normal(2.5, 0.3, (500, 3))}
    scores = out_of_fold_scores(data, template, weights, CONFIG, seed=3, others=more)
    for f in (0.02, 0.2):
        assert weights[scores.template <= f].sum() / weights.sum() == pytest.approx(f, abs=0.002)
        spread = 4 * math.sqrt(f * (1 / 20_000 + 1 / 8000))
        assert (scores.others["background"] <= f).mean() == pytest.approx(f, abs=spread)
    assert (scores.others["signal"] <= 0.02).mean() > 0.9
    assert (scores.data[3800:] <= 0.02).mean() > 0.9


def test_every_fold_may_have_a_background_of_its_own():
    """Fold 1 trains against a background that lies elsewhere, and its models alone are the worse for it."""
    rng = np.random.default_rng(5)
    data, reference = np.r_[rng.normal(size=(2700, 2)), rng.normal(2, 0.3, (300, 2))], rng.normal(size=(6000, 2))
    home = np.arange(6000) % 3
    background = [(reference[home != k] + (6 if k == 1 else 0), np.full(4000, 0.25)) for k in range(3)]
    folds = {"data": np.arange(3000) % 3, "template": home, "more": np.zeros(500, int)}
    more = rng.normal(2, 0.3, (500, 2))
    config = CONFIG.model_copy(update={"folds": 3})
    scores = out_of_fold_scores(
        data, reference, np.ones(6000), config, seed=1, others={"more": more}, homes=folds, background=background
    )
    signal = np.arange(3000) >= 2700
    found = [(scores.data[signal & (folds["data"] == k)] <= 0.02).mean() for k in range(3)]
    assert found[0] > 0.8
    assert found[2] > 0.8
    assert found[1] < 0.3
    assert (scores.others["more"] <= 0.02).mean() > 0.8  # scored by fold 0


def test_rotated_models_know_no_axes():
    """A signal along the diagonal of features of very different scales is as easily found as one along an axis."""
    rng = np.random.default_rng(6)
    found = {}
    for name, towards in {"axis": [1, 0, 0, 0], "diagonal": [0.5, 0.5, 0.5, 0.5]}.items():
        scale = np.array([1.0, 1e3, 1e-3, 10.0])
        data = (rng.normal(size=(3000, 4)) + 0.8 * np.array(towards)) * scale
        template = rng.normal(size=(9000, 4)) * scale
        for rotate in (False, True):
            config = CONFIG.model_copy(update={"rotate": rotate, "depth": 1, "rounds": 40, "ensemble": 6})
            found[name, rotate] = auc(out_of_fold_scores(data, template, np.ones(9000), config, seed=2))[0]
    error = 0.006  # of an AUC with these numbers
    assert found["diagonal", True] == pytest.approx(found["axis", True], abs=3 * error)
    assert found["diagonal", False] < found["axis", False]
    again = out_of_fold_scores(data, template, np.ones(9000), config, seed=2)
    assert auc(again)[0] == found["diagonal", True]


def test_same_seed_same_scores():
    rng = np.random.default_rng(4)
    data, template = rng.normal(size=(500, 2)), rng.normal(size=(500, 2))
    a, b = (out_of_fold_scores(data, template, np.ones(500), CONFIG, seed=s) for s in (1, 1))
    assert (a.data == b.data).all()
    other = out_of_fold_scores(data, template, np.ones(500), CONFIG, seed=2)
    assert (a.data != other.data).any()
