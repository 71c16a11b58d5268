"""Ray Tune over trials: the ledger decides what runs, failures are kept and tried again."""

from __future__ import annotations

import math

import pytest

from raypipe.cluster.attempt import run_some
from raypipe.cluster.fanout import Scan
from raypipe.config import Config, load_config
from raypipe.report.summary import build_summary, summarise
from raypipe.search.contrastive import search
from raypipe.search.contrastive_search import Contrastive
from raypipe.search.diphoton import prepare_tables
from raypipe.search.result import Trial
from raypipe.store.ledger import Ledger
from tests.cluster.drivers import keyed
from tests.conftest import ROOT
from tests.search.test_contrastive import OVERRIDES, events

SCAN = ["scan.strengths=[2.0, 500.0]", "scan.instances=1", "scan.background_instances=1", "flow.epochs=3"]


@pytest.fixture(scope="module")
def config():
    return load_config(ROOT / "configs/contrastive/laptop.yaml", [*OVERRIDES, *SCAN])


@pytest.fixture(scope="module")
def tables(config):
    higgs = [events(1000, 20.0, f, 1.5, True, f) for f in (200_000, 300_000)]
    search = {
        "yy": events(10_000, 600.0, 0, 0.0, False, 1),
        "ggf": higgs[0],
        "wn_150": events(1500, 1.0, 100_000, 3.0, True, 2),
    }
    return prepare_tables({"search": search, "embedding": {"ggf": higgs[1]}}, config)


def test_every_trial_has_a_key_of_its_own():
    """The raw features come from the latent table of `id`: equal digests, different trials."""
    both = load_config(ROOT / "configs/contrastive/laptop.yaml", [*OVERRIDES, *SCAN, "scan.embeddings=[id, raw]"])
    trials = keyed(both)
    assert set(trials.values()) == set(Contrastive(both).grid())
    assert len(trials) == 2 * 3


@pytest.mark.ray
def test_failed_trials_are_recorded_and_only_missing_ones_run(ray_local, config, tables, tmp_path):
    trials = keyed(config)
    book, ended = Ledger(tmp_path), []

    def run(which: Config = config) -> None:
        ended.clear()
        Scan(
            run_some,
            ({"id": [tables]}, "contrastive", which),
            keyed(which),
            book,
            which.resources,
            lambda trial, told: ended.append((trial.strength, told["status"])),
        ).run()

    run()
    # Strength 500 asks for more signal than was simulated.
    assert sorted(ended) == [(0.0, "ok"), (2.0, "ok"), (500.0, "failed")]
    rows = book.rows(trials)
    failed = [r for r in rows if r["status"] == "failed"]
    assert len(failed) == 1
    assert "strength 500 needs" in failed[0]["error"]
    assert "Traceback" in failed[0]["error"]
    summary = build_summary(rows, working_point=0.02, target=5)
    assert {e["strength"] for e in summary["results"]} == {0.0, 2.0}
    assert not book.store.folders("tune")

    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()}
    assert len(stamps) == 2
    run()
    assert ended == [(500.0, "failed")]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps

    # A change behind the background model makes new trials, and they find the model that was trained before.
    flows = {path: path.stat().st_mtime_ns for path in (tmp_path / "stages" / "flow").iterdir()}
    assert len(flows) == 1  # one pseudo-data set: the injection shares its flows (flow.share)
    changed = config.model_copy(update={"classifier": config.classifier.model_copy(update={"rounds": 40})})
    run(changed)
    assert sorted(ended) == [(0.0, "ok"), (2.0, "ok"), (500.0, "failed")]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "stages" / "flow").iterdir()} == flows
    # Bit for bit what a search without any stage gives.
    key, trial = next((k, t) for k, t in keyed(changed).items() if t.strength == 2.0)
    for kept, fresh in zip(book.rows([key]), search(tables, changed, trial).rows, strict=True):
        assert {k: repr(v) for k, v in kept.items() if k in fresh and not k.startswith("seconds")} == {
            k: repr(v.item() if hasattr(v, "item") else v) for k, v in fresh.items() if not k.startswith("seconds")
        }


def test_keys_follow_everything_that_changes_a_result(config):
    trial = Trial("wn_150", 1.0, 0)

    def key(*overrides: str, latents="made up") -> str:
        changed = load_config(ROOT / "configs/contrastive/laptop.yaml", [*OVERRIDES, *overrides])
        made = {"latents": {"id 0": {"digest": latents}}}
        return trial.key(Contrastive(changed).inputs_key("id", made))

    base = key()
    same = key("scan.instances=9", "output=other", "resources.cpus=1", "tracking.enabled=false")
    assert same == base
    others = [
        key("flow.epochs=4"),
        key("seed=5"),
        key("window.high=145"),
        key("selection.working_points=[0.01]"),
        key("pseudodata.luminosity=11"),
        key(latents="other"),
    ]
    assert len({base, *others}) == 7


def test_summary_means_and_errors():
    rows = [
        {
            "status": "ok",
            "embedding": "id",
            "method": "cathode",
            "signal": "s",
            "strength": 1.0,
            "instance": i,
            "working_point": 0.1,
            "closure_auc": 0.5,
            **{
                q: float(v)
                for q in (
                    "z_before",
                    "z_after",
                    "truth_before",
                    "truth_after",
                    "auc",
                    "n_after",
                    "expected_after",
                    "kappa",
                    "background_efficiency",
                    "signal_efficiency",
                )
            },
            "sic": math.nan if i == 2 else float(v),
        }
        for i, v in enumerate((1, 2, 6))
    ]
    (entry,) = summarise(rows)
    assert entry["instances"] == 3
    assert entry["z_after"]["mean"] == pytest.approx(3)
    assert entry["z_after"]["standard_error"] == pytest.approx(math.sqrt(7 / 3))
    assert entry["sic"]["values"] == [1.0, 2.0]
