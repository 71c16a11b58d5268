"""Trees that Ray actors train together, against those of one process."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from raypipe.cluster.run import Run
from raypipe.cluster.trees import cores_each, engine_here, train_trees, tree_trainer
from raypipe.config import Classifier, Resources, load_config
from raypipe.errors import UserError
from raypipe.models.bdt import predict_bdt, train_bdt, train_here
from raypipe.search.confusion import tree_confusion
from raypipe.search.contrastive_search import Contrastive
from raypipe.search.diphoton import prepare_tables
from raypipe.search.result import Trial
from raypipe.stats.roc import weighted_auc
from tests.conftest import ROOT
from tests.search.test_contrastive import OVERRIDES, made_up_latents

pytestmark = pytest.mark.ray
LAPTOP = ROOT / "configs/contrastive/laptop.yaml"
ENGINES = ["xgboost_ray", "ray_train"]
CONFIG = Classifier(rounds=30, depth=4, learning_rate=0.5, early_stopping=5)


def gaussians(seed: int, events: int = 4000):
    """Two shifted Gaussians with weights: features, label, weight."""
    rng = np.random.default_rng(seed)
    label = np.arange(events) % 2
    features = rng.normal(0.5 * label[:, None], 1, (events, 4)).astype("f4")
    return features, label.astype("f4"), rng.uniform(0.5, 1.5, events).astype("f4")


def judged(booster):
    features, label, weight = gaussians(9)
    return weighted_auc(predict_bdt(booster, features), label > 0, weight)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_workers_reach_the_auc_of_one_process(ray_local, tmp_path, engine):
    sample, stop = gaussians(1), gaussians(2, 1000)
    here = train_bdt(sample, stop, CONFIG, seed=1)
    train = tree_trainer(CONFIG.model_copy(update={"engine": engine}), 2, Resources(), tmp_path)
    there = train_bdt(sample, stop, CONFIG, seed=1, train=train)
    (expected, error), (found, _) = judged(here), judged(there)
    assert 0.7 < expected < 0.8
    assert abs(found - expected) < error
    rounds = int(there.attr("best_iteration")) + 1
    assert rounds < there.num_boosted_rounds() < 30  # it stopped early
    assert not list(tmp_path.iterdir())


class Killer:
    """Ends one worker that trains, so many times; signal 0 only looks for it.

    In ``folder`` there is a checkpoint then: one of Ray Train that dies before it trains is replaced in any case.
    """

    def __init__(self, title: str, times: int, folder: Path | None = None, signal: int = signal.SIGKILL) -> None:
        self.title, self.times, self.folder, self.signal, self.killed = title, times, folder, signal, set()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while len(self.killed) < self.times and not self.stop.wait(0.02):
            if self.title == "RayTrainWorker" and self.folder and not any(self.folder.rglob("checkpoint*")):
                continue
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.pid not in self.killed and self.title in " ".join(process.cmdline()):
                        os.kill(process.pid, self.signal)
                        self.killed.add(process.pid)
                        break
                except (psutil.Error, ProcessLookupError):
                    continue

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


WORKERS = pytest.mark.parametrize(
    ("engine", "title"), [("xgboost_ray", "RemoteRayXGBoostActor.train"), ("ray_train", "RayTrainWorker")]
)
PARAMETERS = {"objective": "binary:logistic", "tree_method": "hist", "max_depth": 4, "eta": 0.1, "seed": 1}


@pytest.mark.slow
@WORKERS
def test_a_dead_worker_is_replaced_and_no_round_is_missing(ray_local, tmp_path, engine, title):
    sample = gaussians(1, 40_000)
    with Killer(title, 1, tmp_path) as killer:
        booster = train_trees(PARAMETERS, sample, 150, workers=2, engine=engine, folder=tmp_path, restarts=1)
    assert len(killer.killed) == 1
    assert booster.num_boosted_rounds() == 150
    here = train_here(PARAMETERS | {"nthread": 1}, sample, 150)
    (expected, error), (found, _) = judged(here), judged(booster)
    assert abs(found - expected) < error


@WORKERS
def test_workers_that_die_for_good_are_told_in_one_line_and_leave_their_cores(ray_local, tmp_path, engine, title):
    import ray

    given = {"workers": 2, "engine": engine, "folder": tmp_path, "restarts": 0}
    with (
        Killer(title, 1, tmp_path),
        pytest.raises(UserError, match=r"training the trees with 2 workers failed: .+") as caught,
    ):
        train_trees(PARAMETERS, gaussians(1, 40_000), 300, **given)
    assert "\n" not in str(caught.value)
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ray.available_resources()["CPU"] == 2
    assert not list(tmp_path.iterdir())


def test_more_workers_than_cores_are_refused(ray_local, tmp_path):
    assert [cores_each(1), cores_each(2)] == [2, 1]
    with pytest.raises(UserError, match=r"^3 workers for the trees: the cluster has cores for 2$"):
        tree_trainer(CONFIG.model_copy(update={"engine": "xgboost_ray"}), 3, Resources(), tmp_path)
    assert tree_trainer(CONFIG, 3, Resources(), tmp_path) is train_here


def test_a_newer_xgboost_gets_the_engine_that_works_with_it(monkeypatch):
    assert [engine_here(e) for e in ENGINES] == ENGINES
    monkeypatch.setattr("xgboost.__version__", "2.1.0")
    assert [engine_here(e) for e in ENGINES] == ["ray_train", "ray_train"]


class OnTables(Contrastive):
    """The search of paper C on tables that are there already."""

    def stages(self):
        return ()

    def materials(self, name, made):
        return {}

    def inputs(self, name, folder, tools):
        yield prepare_tables(made_up_latents(), self.config)


def on_tables(folder, engine, workers=2):
    asked = [f"classifier.engine={engine}", f"resources.train_workers={workers}", f"output={folder / engine}"]
    run = Run(load_config(LAPTOP, [*OVERRIDES, "classifier.folds=2", "flow.members=2", *asked]))
    run.search = OnTables(run.config)
    return run


BOTH = [Trial("wn_150", 2.0, 0, "id", method) for method in ("supervised", "idealised")]


def test_supervised_trials_of_a_search_are_trained_by_the_engine(ray_local, tmp_path):
    """Two workers reach what one process reaches; a trial beside them, of another method, is as it ever was."""
    rows = {}
    with Killer("RemoteRayXGBoostActor", 1, signal=0) as seen:
        for engine in ("xgboost", "xgboost_ray"):
            assert not seen.killed
            run = on_tables(tmp_path, engine)
            book = run.run_trials(keyed := run.keys(BOTH, {}))
            rows |= {(engine, trial.method): book.read(key)[0] for key, trial in keyed.items()}
    assert seen.killed  # there was such a worker
    here, there = (rows[engine, "supervised"] for engine in ("xgboost", "xgboost_ray"))
    assert abs(there["auc"] - here["auc"]) < np.sqrt(here["auc"] * (1 - here["auc"]) / 2000)  # so many signal events
    assert abs(there["sic"] / here["sic"] - 1) < 0.5 / np.sqrt(here["b_after"])
    assert there["auc"] != here["auc"]
    assert there["s_before"] == here["s_before"]
    assert rows["xgboost", "idealised"]["auc"] == rows["xgboost_ray", "idealised"]["auc"]


def test_a_supervised_trial_is_known_by_its_engine(tmp_path):
    runs = [on_tables(tmp_path, *way) for way in (("xgboost", 1), ("xgboost", 2), ("xgboost_ray", 2), ("ray_train", 2))]
    keys = [list(run.keys(BOTH, {})) for run in [*runs, on_tables(tmp_path, "ray_train", 3)]]
    assert keys[0] == keys[1]  # one process asks nobody how many workers there are
    assert [len({key[i] for key in keys}) for i in (0, 1)] == [4, 3]
    assert keys[3][1] == keys[4][1]
    assert [[run.search.large(trial) for trial in BOTH] for run in runs[1:3]] == [[False, False], [True, False]]


@pytest.mark.slow
def test_confusion_matrices_are_those_of_one_process(ray_local, tmp_path):
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1, -3], 2000)
    values = (rng.normal(0, 1, (6000, 2)) + 1.5 * np.repeat([0, 1, 2], 2000)[:, None]).astype("f4")
    train, test = np.split(rng.permutation(6000), 2)
    engine = tree_trainer(CONFIG.model_copy(update={"engine": "xgboost_ray"}), 2, Resources(), tmp_path)
    here, there = (
        tree_confusion(values, labels, train, test, seed=1, rounds=20, depth=3, engine=e) for e in (train_here, engine)
    )
    assert here.groups == there.groups == (-3, 0, 1)
    assert here.diagonal > 0.7
    assert abs(here.diagonal - there.diagonal) < np.sqrt(here.diagonal * (1 - here.diagonal) / 3000)
