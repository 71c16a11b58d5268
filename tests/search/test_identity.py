"""What an excess looks like, on made-up latents: the planted family is named, a background alone names none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raypipe.config import load_config
from raypipe.events.latents import Events
from raypipe.events.pseudodata import PseudoData
from raypipe.fit.classifier import FoldScores
from raypipe.search.case import Case, Template
from raypipe.search.contrastive_search import Contrastive
from raypipe.search.counting import counting_row
from raypipe.search.identity import MOST, identify, labelled, posterior, read
from raypipe.search.result import ALONE
from tests.conftest import ROOT
from tests.search.test_contrastive import OVERRIDES, made_up_latents

PLACES = {-8: (-4.0, 0.0), -2: (0.0, 4.0), -1: (4.0, 0.0), 0: (0.0, 0.0), 4: (0.0, -4.0)}
"""Centres of the labels in the latent space; all are unit Gaussians, the background is that of label 0."""
BACKGROUND, SIGNAL, CUT = 4000, 60, 0.02
OFFSET = 284 << 48
"""Of event ids: no double holds them."""


@pytest.fixture(scope="module")
def config():
    return load_config(ROOT / "configs/contrastive/laptop.yaml", [f"selection.working_points=[{CUT}]"])


@pytest.fixture(scope="module")
def labels():
    rng = np.random.default_rng(1)
    return {label: rng.normal(size=(1500, 2)) + place for label, place in PLACES.items()}


def percentile(latent: np.ndarray) -> np.ndarray:
    """Share of the background that is further out: what a classifier that knows the background alone would say."""
    return np.exp(-(latent**2).sum(1) / 2)


def drawn(config, seed: int, family: int | None, higgs: int = 40) -> tuple[Case, FoldScores, Template, dict]:
    """Data of background, Higgs events (label 4), perhaps a family; scores, a true template, and the row of the cut."""
    rng, window = np.random.default_rng(seed), config.window

    def gaussians(*sizes: tuple[int, int]) -> np.ndarray:
        return np.concatenate([rng.normal(size=(n, 2)) + PLACES[label] for label, n in sizes])

    signal = 0 if family is None else rng.poisson(SIGNAL)
    inside = [(0, rng.poisson(BACKGROUND)), (4, rng.poisson(higgs)), (family or 0, signal)]
    beside = rng.poisson(3 * BACKGROUND)
    latent = gaussians(*inside, (0, beside)).astype("f4")
    n = len(latent) - beside
    mass = np.r_[rng.uniform(window.sr_low, window.sr_high, n), rng.uniform(window.low, window.sr_low, beside)]
    truth = np.zeros(len(latent), bool)
    truth[n - signal : n] = True
    features = rng.normal(100, 10, (len(latent), 9)).astype("f4")
    features[truth, 2] += 50
    ids = OFFSET + rng.permutation(len(latent))
    events = Events(ids, mass, np.ones(len(latent)), latent, features, np.stack([latent, 0 * latent], 1))
    none, at = events.take(np.arange(0)), np.arange(len(latent)) < n
    data = PseudoData(events, truth, none, np.empty(0), None)
    case = Case(data, at, ~at, none, np.empty(0), None, {}, 0)
    background = gaussians((0, 5 * BACKGROUND), (4, 5 * higgs))
    is_higgs = np.arange(len(background)) >= 5 * BACKGROUND
    template = Template(background, np.full(len(background), 0.2), is_higgs, None, BACKGROUND, 40.0)
    side = {"sideband_data": percentile(latent[~at]), "sideband_template": percentile(gaussians((0, 4 * beside)))}
    scores = FoldScores(percentile(latent[at]), percentile(background), side, (latent[at] ** 2).sum(1))
    return case, scores, template, {"working_point": CUT} | counting_row(scores, template, CUT, config.selection)


@pytest.mark.parametrize("family", [-1, -2, -8])
def test_a_planted_family_comes_first_with_its_events(config, labels, family):
    case, scores, template, row = drawn(config, 5, family)
    tables = read(identify(case, scores, template, row, labels))
    found = {entry["label"]: entry for entry in tables["labels"]}
    injected = (case.data.is_signal[case.inside] & scores.passes("data", CUT)).sum()
    first = max(found, key=lambda label: found[label]["excess"])
    assert first == family
    assert abs(found[first]["excess"] - injected) < 3 * found[first]["error"]
    assert found[first]["excess"] > 3.5 * found[first]["error"]
    assert all(abs(one["excess"]) < 3.5 * one["error"] for label, one in found.items() if label != family)
    for name, count in (("observed", "n_after"), ("expected", "expected_after")):
        assert sum(one[name] for one in found.values()) == pytest.approx(row[count])
    other = -2 if family == -1 else -1  # what stands under a label decides, not its place
    swapped = labels | {family: labels[other], other: labels[family]}
    found = {one["label"]: one for one in read(identify(case, scores, template, row, swapped))["labels"]}
    assert max(found, key=lambda label: found[label]["excess"]) == other


def test_without_a_signal_no_label_has_an_excess(config, labels):
    pulls = np.array(
        [
            [one["excess"] / one["error"] for one in read(identify(*drawn(config, seed, None), labels))["labels"]]
            for seed in range(100, 130)
        ]
    )
    assert pulls.max() < 3.5
    assert np.abs(pulls.mean(0)).max() < 3.5 / np.sqrt(30)
    assert 0.6 < pulls.std() < 1.2


def test_the_truth_is_not_looked_at(config, labels):
    case, *rest = drawn(config, 5, -1)
    arrays = identify(case, *rest, labels)
    for truth in (np.random.default_rng(0).permutation(case.data.is_signal), None):
        blind = replace(case, data=replace(case.data, is_signal=truth, left_over=None, left_over_scale=None), left=None)
        again = identify(blind, *rest, labels)
        assert again.keys() == arrays.keys()
        assert all(np.array_equal(again[name], values) for name, values in arrays.items())


def test_the_list_and_the_features_are_those_of_the_events(config, labels):
    case, scores, template, row = drawn(config, 5, -1)
    arrays = {name: np.asarray(v, np.float64) for name, v in identify(case, scores, template, row, labels).items()}
    assert all(values.ndim == 1 for values in arrays.values())
    tables, inside = read(arrays), case.data.events.take(case.inside)  # from the doubles of the ledger
    entries = tables["list"]
    assert len(entries) == 50
    assert [one["percentile"] for one in entries] == sorted(scores.data)[:50]
    at = [int(np.flatnonzero(inside.event_id == one["event_id"])[0]) for one in entries]
    assert [one["mass"] for one in entries] == inside.mass[at].tolist()
    assert [one["percentile"] for one in entries] == scores.data[at].tolist()
    nearest = [min(PLACES, key=lambda label: np.hypot(*(inside.latent[k] - PLACES[label]))) for k in at]
    assert np.mean([one["label"] == label for one, label in zip(entries, nearest, strict=True)]) > 0.9
    assert all(0.2 <= one["posterior"] <= 1 for one in entries)
    features = tables["features"]
    chosen = inside.features[scores.passes("data", CUT)]
    assert [one["selected"] for one in features] == pytest.approx(np.median(chosen, 0), rel=1e-6)
    assert [one["background"] for one in features] == pytest.approx(np.full(9, 100), abs=3)
    assert int(np.argmin([one["p"] for one in features])) == 2
    assert features[2]["p"] < 1e-6
    assert min(one["p"] for k, one in enumerate(features) if k != 2) > 1e-3


def test_nothing_selected_is_no_excess(config, labels):
    case, scores, template, row = drawn(config, 5, None)
    empty = replace(scores, data=np.ones_like(scores.data), better={"data": np.ones_like(scores.data)})
    tables = read(identify(case, empty, template, row, labels))
    assert all(one["observed"] == 0 and one["excess"] < 0 < one["error"] for one in tables["labels"])
    assert all(np.isnan(one["p"]) for one in tables["features"])
    assert read({"mass_edges": np.arange(3.0)}) == {}


def test_all_labels_are_equally_likely_before():
    rng = np.random.default_rng(3)
    labels = {-1: rng.normal(size=(2000, 2)), 0: rng.normal(size=(500, 2)), 1: rng.normal(size=(400, 2)) + 50}
    found = posterior(rng.normal(size=(2000, 2)), labels)
    assert found.sum(1) == pytest.approx(np.ones(2000))
    assert found.mean(0) == pytest.approx([0.5, 0.5, 0], abs=0.03)
    assert posterior(np.full((3, 2), 50.0), labels)[:, 2] == pytest.approx(1)
    assert posterior(np.empty((0, 2)), labels).shape == (0, 3)


def test_the_samples_of_a_label_count_alike(config):
    events = drawn(config, 1, None)[0].data.events
    simulated = {
        "wn_150": events.take(np.arange(3000)),
        "yy": events,
        "wn_300": events,
        "none": events.take(np.arange(0)),
    }
    found = labelled(simulated, {"wn_150": -1, "wn_300": -1, "yy": 0, "none": 4})
    assert {label: len(latent) for label, latent in found.items()} == {-1: MOST, 0: MOST}
    assert np.array_equal(found[-1], np.concatenate([events.latent[: MOST // 2]] * 2))


class InMemory(Contrastive):
    """The search on made-up latents instead of a file."""

    def read_latents(self, path: Path) -> dict[str, dict[str, Events]]:
        return made_up_latents()


def test_trials_get_the_labels_of_simulated_events_that_no_training_saw():
    search = InMemory(load_config(ROOT / "configs/contrastive/laptop.yaml", [*OVERRIDES, "embedding.encoders=2"]))
    first, second = search.inputs("id", Path("-"), ALONE)
    assert list(first.labels) == [1]
    assert np.array_equal(first.labels[1], first.higgs["ggf"].latent)  # the test part of the embedding split
    others = [second, *(one for name in ("raw", "ip:wn_150") for one in search.inputs(name, Path("-"), ALONE))]
    assert [one.labels for one in others] == [{}] * 4
