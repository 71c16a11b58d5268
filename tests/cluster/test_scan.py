"""Ray Tune over trials: the ledger decides what runs, failures are kept and tried again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raypipe.cluster.ledger import Ledger
from raypipe.cluster.scan import plan_scan, run_scan, trial_inputs
from raypipe.config import load_config
from raypipe.report.summary import build_summary, summarise
from raypipe.search.contrastive import prepare_tables
from raypipe.search.result import Result, Trial
from tests.conftest import ROOT
from tests.search.test_contrastive import OVERRIDES, events

LATENTS = {"digest": "made up"}
SCAN = ["scan.strengths=[2.0, 500.0]", "scan.instances=1", "scan.background_instances=1", "flow.epochs=3"]


@pytest.fixture(scope="module")
def config():
    return load_config(ROOT / "configs/contrastive/laptop.yaml", [*OVERRIDES, *SCAN])


@pytest.fixture(scope="module")
def tables(config):
    higgs = [events(1000, 20.0, f, 1.5, True, f) for f in (200_000, 300_000)]
    search = {"yy": events(10_000, 600.0, 0, 0.0, False, 1), "ggf": higgs[0],
              "wn_150": events(1500, 1.0, 100_000, 3.0, True, 2)}  # fmt: skip
    return prepare_tables({"search": search, "embedding": {"ggf": higgs[1]}}, config)


@pytest.mark.ray
def test_failed_trials_are_recorded_and_only_missing_ones_run(ray_local, config, tables, tmp_path):
    trials = plan_scan(config, LATENTS)
    ended = []
    run_scan(config, tables, trials, tmp_path, on_trial=lambda key, trial: ended.append(trial))
    assert sorted(t.label() for t in ended) == sorted(t.label() for t in trials.values())
    book = Ledger(tmp_path)
    state = {t.strength: book.finished(k) for k, t in trials.items()}
    # Strength 500 asks for more signal than was simulated.
    assert state == {0.0: True, 2.0: True, 500.0: False}
    rows = book.rows(list(trials))
    failed = [r for r in rows if r["status"] == "failed"]
    assert len(failed) == 1
    assert "strength 500 needs" in failed[0]["error"]
    assert "Traceback" in failed[0]["error"]
    summary = build_summary(rows, working_point=0.02, stages={"scan": 1.0}, peak_rss_gib=1.0, provenance={})
    assert summary["failed_trials"][0]["strength"] == 500.0
    assert {e["strength"] for e in summary["results"]} == {0.0, 2.0}
    assert not (tmp_path / "tune").exists()

    stamps = {k: book._path("rows", k).stat().st_mtime_ns for k in trials}
    ended.clear()
    run_scan(config, tables, trials, tmp_path, on_trial=lambda key, trial: ended.append(trial))
    assert [t.strength for t in ended] == [500.0]
    for key, trial in trials.items():
        if trial.strength != 500.0:
            assert book._path("rows", key).stat().st_mtime_ns == stamps[key]


def test_keys_follow_everything_that_changes_a_result(config):
    trial = Trial("wn_150", 1.0, 0)

    def key(*overrides: str, latents=LATENTS) -> str:
        changed = load_config(ROOT / "configs/contrastive/laptop.yaml", [*OVERRIDES, *overrides])
        return trial.key(trial_inputs(changed, latents))

    base = key()
    same = key("scan.instances=9", "output=other", "resources.cpus=1", "tracking.enabled=false")
    assert same == base
    others = [key("flow.epochs=4"), key("seed=5"), key("window.high=145"), key("selection.working_points=[0.01]"),
              key("pseudodata.luminosity=11"), key(latents={"digest": "other"})]  # fmt: skip
    assert len({base, *others}) == 7


def test_ledger_keeps_rows_and_arrays(tmp_path):
    book, trial = Ledger(tmp_path), Trial("s", 1.0, 2)
    assert book.read("k") is None
    book.record_failure("k", trial, "boom")
    assert not book.finished("k")
    rows = [
        {"signal": "s", "strength": 1.0, "instance": 2, "working_point": w, "sic": np.float64(w)} for w in (0.1, 0.2)
    ]
    book.record("k", trial, Result(rows, {"x": np.arange(3), "nan": np.array([1.0, math.nan])}))
    assert Ledger(tmp_path).finished("k")
    assert [r["sic"] for r in book.rows(["k", "absent"])] == [0.1, 0.2]
    arrays = book.arrays("k")
    assert arrays["x"].tolist() == [0, 1, 2]
    assert math.isnan(arrays["nan"][1])
    # What a killed writer leaves behind is not a result.
    (tmp_path / "rows" / ".tmp-other.parquet").write_bytes(b"half")
    assert book.read("other") is None


def test_summary_means_and_errors():
    rows = [
        {"status": "ok", "signal": "s", "strength": 1.0, "working_point": 0.1, "instance": i, "closure_auc": 0.5,
         **{q: float(v) for q in ("z_before", "z_after", "truth_before", "truth_after", "auc", "n_after",
                                  "expected_after", "kappa", "background_efficiency", "signal_efficiency")},
         "sic": math.nan if i == 2 else float(v)}
        for i, v in enumerate((1, 2, 6))
    ]  # fmt: skip
    (entry,) = summarise(rows)
    assert entry["instances"] == 3
    assert entry["z_after"]["mean"] == pytest.approx(3)
    assert entry["z_after"]["standard_error"] == pytest.approx(math.sqrt(7 / 3))
    assert entry["sic"]["values"] == [1.0, 2.0]
