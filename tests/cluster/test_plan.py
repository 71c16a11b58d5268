"""The plan of a scan: its arithmetic against numbers done by hand, and its estimate against a real scan."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys

import pytest
from raypipe.cluster.scan import grid_of, plan_scan

from raypipe.cluster import calibrate_networks, calibrate_worker
from raypipe.cluster.calibrate import calibrate
from raypipe.cluster.calibrate_cathode import synthetic_tables, window_events
from raypipe.cluster.calibration import Calibration, Line, timed
from raypipe.cluster.engine import worker_starts
from raypipe.cluster.plan import DISPATCH, START, plan
from raypipe.cluster.work import trial_seconds
from raypipe.config import load_config
from raypipe.errors import UserError
from raypipe.events.regions import in_sidebands
from raypipe.search import haxad
from raypipe.search.multilepton import BOOTSTRAP, compare, divide
from raypipe.search.result import Trial
from tests.conftest import ROOT

CONFIG = ROOT / "configs" / "contrastive" / "laptop.yaml"
MADE_UP = Calibration(
    search="contrastive",
    machine="paper",
    simulate={"yy": Line(2.0, 0.001), "ggf": Line(4.0, 0.003)},
    efficiency={"yy": 0.5},
    yield_per_fb={"yy": 990.0, "ggf": 10.0, "vbf": 0.0, "vh": 0.0, "tth": 0.0},
    train_event=1e-4,
    train_pair=1e-8,
    embed_event=1e-5,
    epoch_event=1e-5,
    trial={"classifier": Line(1.0, 1e-4), "closure": Line(0.5, 2e-4)},
    event_bytes=100.0,
    trial_bytes=1e6,
    worker_start=3.0,
    first_trial=1.0,
    worker_bytes=2.0**29,
    measured_seconds=1.0,
    largest=10_000.0,
    measured=["by hand"],
)
"""Round numbers."""


def config(*overrides: str):
    return load_config(
        CONFIG,
        [
            "pseudodata.luminosity=10",
            "scan.signals=[wn_150, zp_400]",
            "scan.strengths=[1, 2, 3]",
            "scan.instances=10",
            "scan.background_instances=40",
            "resources.cpus=2",
            "flow.share=false",
            *overrides,
        ],
    )


def test_hours_cost_and_wall_time_by_hand():
    given = config("flow.epochs=10")
    found = plan(given, MADE_UP, configurations=4, price=0.05)
    assert found.trials == 4 * (2 * 3 * 10 + 40)
    assert found.events_per_trial == pytest.approx(10_000)
    # flow 1e-5 x 10000 x 10, classifier 1 + 1; closure 0.5 + 2 in the 160 without signal
    assert trial_seconds(given, MADE_UP) == pytest.approx({"flow": 1.0, "classifier": 2.0})
    # Each of four scans of 100 trials: two processes for the first four trials, two for the other 96 in packs of 10.
    assert found.processes == 4 * (2 + 2)
    assert found.hours["trials"] == pytest.approx((400 * 3.0 + 160 * 2.5 + 16 * 1.0) / 3600)
    assert found.hours["workers"] == pytest.approx(16 * 3.0 / 3600)
    assert found.seconds_per_trial == pytest.approx(3.0 + 16 * 1.0 / 400)
    # 200k yy in 50 shards, 12k ggf in 3, six samples of 8000 (two shards) and one of 8000 with the mean of both lines
    others = 7 * (2 * 3.0 + 8000 * 0.002)
    assert found.hours["simulate"] * 3600 == pytest.approx(50 * 2 + 200 + 3 * 4 + 36 + others)
    steps = 14 * 50 + 8 * 14 / 3
    assert found.hours["encoder"] * 3600 == pytest.approx(4 * steps * (1e-4 * 1024 + 1e-8 * 1024**2))
    assert found.cpu_hours == pytest.approx(sum(found.hours.values()))
    assert found.cost == pytest.approx(0.05 * found.cpu_hours)
    assert found.gpu_hours == 0
    assert found.saved["one encoder a configuration"] == pytest.approx(found.hours["encoder"] / 4 * (400 - 4))
    before = 3600 * (found.hours["simulate"] + found.hours["encoder"] + found.hours["embed"])
    assert found.wall_seconds[1] == pytest.approx(START + before + 400 * 4.0 + 4 * 2 * (3.0 + 1.0))
    assert found.wall_seconds[1000] > START + 4.0  # no number of workers beats one encoder, one trial and the driver
    assert found.wall_seconds[1000] - START < found.wall_seconds[1] / 10
    assert list(found.wall_seconds.values()) == sorted(found.wall_seconds.values(), reverse=True)
    assert found.storage_gib["ledger"] == pytest.approx(400e6 / 2**30)
    many = plan(config("scan.instances=1000", "flow.epochs=10"), MADE_UP, configurations=4)
    assert many.wall_seconds[1000] > DISPATCH * many.trials


def test_only_trials_that_train_a_flow_pay_for_it():
    given = config("flow.epochs=10", "scan.methods=[cathode, idealised, cut]", "scan.embeddings=[id, raw]")
    found = plan(given, MADE_UP)
    trained, light = 2 * (60 + 40), 2 * (2 * 60 + 40)  # no cut without a signal
    assert found.trials == trained + light
    closure = 2 * (40 + 40) * 2.5  # of cathode and idealised
    assert found.hours["trials"] * 3600 == pytest.approx(trained * 3.0 + light * 2.0 + closure + 4 * 1.0)
    assert found.configurations == 1  # raw features need no encoder
    assert found.saved["kept flows, when only what follows them changes"] * 3600 == pytest.approx(trained * 1.0)


def test_shared_flows_are_paid_once_a_pseudo_data_set():
    given = config("flow.epochs=10", "flow.share=true", "scan.embeddings=[id, ip]")
    found = plan(given, MADE_UP)
    trainings = 40 + 2 * 10  # forty sets seen by `id`, ten by each encoder that holds a signal out
    assert found.hours["trials"] * 3600 == pytest.approx((120 + 40) * 2.0 + trainings * 1.0 + 40 * 2.5 + 4 * 1.0)


def test_beyond_the_sizes_measured_costs_grow_with_the_events():
    given = config("flow.epochs=10", "pseudodata.luminosity=30")
    assert trial_seconds(given, MADE_UP) == pytest.approx({"flow": 3.0, "classifier": 3 * 2.0})
    assert any("3.0 times the largest measured" in text for text in plan(given, MADE_UP).assumptions)


def test_every_trial_would_need_all_its_encoders():
    one = plan(config("flow.epochs=10"), MADE_UP)
    five = plan(config("flow.epochs=10", "embedding.encoders=5"), MADE_UP)
    assert five.configurations == 5
    first = 4 * 1.0 / 100  # of four processes in a hundred trials
    assert five.seconds_per_trial - first == pytest.approx(5 * (one.seconds_per_trial - first))
    assert five.hours["encoder"] == pytest.approx(5 * one.hours["encoder"])
    reuse = "one encoder a configuration"
    assert five.saved[reuse] == pytest.approx(5 * one.saved[reuse])
    for name in ("a node's tables", "all tables"):
        assert five.memory_gib[name] == pytest.approx(5 * one.memory_gib[name])


def test_a_node_holds_what_its_trials_need_and_not_everything():
    given = config("flow.epochs=10", "embedding.encoders=2", "scan.embeddings=[id, ip]")
    found = plan(given, MADE_UP)  # `id`, and one encoder for each of two signals held out
    assert found.memory_gib["all tables"] == pytest.approx(3 * found.memory_gib["a node's tables"])


def test_tables_that_no_node_can_hold_are_refused():
    given = config("flow.epochs=10", "embedding.encoders=5")
    needed = plan(given, MADE_UP).memory_gib["a node's tables"]
    tight = config("flow.epochs=10", "embedding.encoders=5", f"resources.object_store_gib={needed / 2}")
    with pytest.raises(UserError, match=r"resources\.object_store_gib = .*: the 5 latent table\(s\) of a trial take"):
        plan(tight, MADE_UP)


def test_haxad_by_hand():
    sizes = {"yy": (200_000, 0.2), "ggf": (12_000, 0.5), "wn_150": (8000, 0.5), "xsh_500_100": (8000, 0.5)}
    sizes |= dict.fromkeys(("vbf", "vh", "tth"), (8000, 0.5))
    samples = [f"simulate.samples.{k}={{events: {n}, embedding_fraction: {f}}}" for k, (n, f) in sizes.items()]
    given = load_config(
        ROOT / "configs/haxad/laptop.yaml",
        [
            *samples,
            "pseudodata.luminosity=10",
            "resources.train_workers=2",
            "flow.epochs=9",
            "scan.signals=[wn_150, xsh_500_100]",
            "scan.strengths=[1, 2, 3]",
            "scan.instances=3",
            "scan.background_instances=12",
            "resources.cpus=2",
            "scan.methods=[cathode]",
            "scan.more=[]",
            "embedding.epochs=30",
            "embedding.train_fraction=0.6",
            "embedding.samples=[yy, ggf, vbf, vh, tth]",
        ],
    )
    measured = dataclasses.replace(MADE_UP, search="haxad", trial={"fits": Line(0.5, 0.0)})
    found = plan(given, measured)
    assert found.trials == 2 * 3 * 3 + 12
    assert found.trial_seconds == pytest.approx({"flow": 1e-5 * 10_000 * 9, "fits": 0.5})
    # Thirty epochs over the training part (0.6) of the rarest sample's embedding half, five times.
    assert found.hours["encoder"] * 3600 == pytest.approx(30 * 5 * 0.6 * 4000 * 1e-4)
    assert found.hours["embed"] * 3600 == pytest.approx(252_000 * 1e-5)
    assert any("9 epochs of the flow" in text for text in found.assumptions)
    assert found.measured == ["by hand"]
    # More workers cannot train one autoencoder: the driver does.
    both = 3600 * (found.hours["encoder"] + found.hours["embed"])
    assert found.wall_seconds[1000] > START + both
    with pytest.raises(UserError, match="calibration: of a contrastive search, not of search = 'haxad'"):
        plan(given, MADE_UP)


MULTILEPTON = dataclasses.replace(
    MADE_UP,
    search="multilepton",
    simulate={"qq4l": Line(2.0, 0.001), "h4l": Line(4.0, 0.003)},
    train_event=0.0,
    yield_per_fb={"qq4l": 7.0, "h4l": 1.0},
    trial={"statistics": Line(0.1, 1e-5)},
    train_pair=0.0,
    embed_event=0.0,
)


def test_multilepton_by_hand():
    path = ROOT / "configs/multilepton/laptop.yaml"
    sizes = {"qq4l": 40_000, "h4l": 4000, "abc_125": 3000, "abc_150": 3000, "abc_250": 3000}
    small = [
        *(f"simulate.samples.{name}.events={n}" for name, n in sizes.items()),
        "simulate.shard_events=2500",
        "scan.strengths=[10, 20]",
        "scan.calibration=40",
        "scan.instances=10",
        "bootstrap.count=100",
        "networks.epochs=20",
        "chunk=3",
        "compare.luminosity=150",
        "resources.cpus=2",
    ]
    given = load_config(path, small)
    found = plan(given, MULTILEPTON, price=0.05)
    assert found.trials == 100 + 40 + 3 * 2 * 10
    assert found.events_per_trial == pytest.approx(150 * 8)
    assert found.trial_seconds == pytest.approx({"networks": 1e-5 * 1200 * 20, "statistics": 0.1 + 0.012})
    # 40k qq4l in 16 shards, 4k h4l in 2, three signals of 3k in 2 with the mean of both lines
    assert found.hours["simulate"] * 3600 == pytest.approx(16 * 2 + 40 + 2 * 4 + 12 + 3 * (2 * 3 + 3000 * 0.002))
    assert (found.configurations, found.hours["encoder"], found.hours["embed"]) == (0, 0, 0)
    assert set(found.saved) == {"one simulation"}
    assert found.cost == pytest.approx(0.05 * found.cpu_hours)
    # Chunks of three: 67 of them on 64 workers take two rounds.
    assert found.wall_seconds[64] == pytest.approx(
        START + found.hours["simulate"] * 3600 / 24 + 2 * 3 * (0.24 + 0.112) + (3.0 + 1.0)
    )
    # Ray keeps the processes of its tasks: two cores, two of them.
    assert found.hours["trials"] * 3600 == pytest.approx(200 * (0.24 + 0.112) + 2 * 1.0)
    assert found.hours["workers"] * 3600 == pytest.approx(2 * 3.0)
    # On a GPU a trial holds it all the time, also while the statistics are computed.
    fast = plan(load_config(path, [*small, "resources.gpu=true"]), MULTILEPTON, gpu_speedup=100)
    assert fast.gpu_hours * 3600 == pytest.approx(200 * (0.24 / 100 + 0.112) + 2 * (3.0 + 1.0))


def test_what_cannot_be_planned_is_one_line(tmp_path):
    own = load_config(ROOT / "configs/lhco/laptop.yaml", ["data.path=events.h5"])
    with pytest.raises(UserError, match="search = 'table': it has no scan to plan"):
        calibrate(own)
    cms = ["files.data=x.csv", "files.reference=y.csv", "simulate=null", "compare.expected=null"]
    tables = load_config(ROOT / "configs/multilepton/cms_open_data.yaml", cms)
    with pytest.raises(UserError, match=r"compare\.expected: how many background events"):
        plan(tables, MULTILEPTON)
    with pytest.raises(UserError, match="written by another version of raypipe"):
        Calibration.of({"machine": "x"})


def test_comparisons_cost_what_their_calibration_says():
    """Between the sizes and beyond the epochs that were measured: core seconds of the real component within 30 %."""
    small = [
        "compare.expected=700",
        "compare.counts=fixed",
        "networks.members=5",
        "networks.epochs=6",
        "scan.signals=[]",
        "scan.calibration=0",
    ]
    given = load_config(ROOT / "configs/multilepton/laptop.yaml", small)
    tables = divide(calibrate_networks._pool(given, 9000, "other"), None, {}, None, given)
    chunk = [Trial(BOOTSTRAP, 0.0, k) for k in range(given.chunk)]
    found = []
    for _ in range(3):  # whoever shares the machine slows down one of the two measurements, not the same one each time
        measured = dataclasses.replace(MULTILEPTON, **calibrate_networks.trials(given))
        runs = [timed(lambda: compare(tables, given, chunk)) for _ in range(3)]
        assert runs[0][1][0].rows[0]["n_data"] == 700
        spent = statistics.median(run[0] for run in runs) / given.chunk
        found.append(sum(trial_seconds(given, measured).values()) / spent)
        if found[-1] == pytest.approx(1, rel=0.3):
            return
    raise AssertionError(f"planned over spent: {found}")


def test_fresh_processes_by_window():
    assert worker_starts(4, 2.0, 2, 60) == [2]
    assert worker_starts(1, 2.0, 8, 60) == [1]
    # Four alone to learn how long they take, then (596 / 8) = 74 in packs of 30.
    assert worker_starts(600, 2.0, 2, 60) == [2, 2]
    # Long trials go one by one, 256 a window.
    assert worker_starts(600, 200.0, 2, 60) == [2, 2, 2, 2]
    assert worker_starts(600, 200.0, 100, 60) == [100, 100]


def test_a_fresh_process_starts_in_the_time_that_its_imports_take():
    """Against the same imports in a process of our own, which the kernel's accounting times."""
    given = load_config(ROOT / "configs/multilepton/laptop.yaml", [])
    start, first = calibrate_worker.fresh(given, {})
    before = os.times()
    modules = ", ".join(calibrate_worker.IMPORTS["multilepton"])
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert start == pytest.approx(spent, rel=0.4)
    assert 0 <= first < start


def test_networks_move_to_gpus():
    cores = plan(config("flow.epochs=10"), MADE_UP)
    whole = plan(config("flow.epochs=10", "resources.gpu=true"), MADE_UP, gpu_price=2.0, gpu_speedup=100)
    networks = cores.hours["encoder"] + cores.hours["embed"]
    assert whole.gpu_hours == pytest.approx(networks / 100)
    assert whole.cpu_hours == pytest.approx(cores.cpu_hours - networks)
    assert whole.cost == pytest.approx(2.0 * whole.gpu_hours)
    # A quarter of a GPU is held while the trees grow, too.
    quarter = plan(config("flow.epochs=10", "resources.trial_gpus=0.25"), MADE_UP, gpu_speedup=100)
    assert quarter.gpu_hours == pytest.approx(
        (100 * (1.0 / 100 + 0.25 * 2.0) + 40 * 0.25 * 2.5 + 0.25 * 4 * (3.0 + 1.0)) / 3600
    )
    assert any("assumed" in text for text in quarter.assumptions)
    # Its flow runs at a quarter of the GPU's speed; the trees at that of a core.
    assert cores.wall_seconds[1] - quarter.wall_seconds[1] == pytest.approx(100 * (1.0 - 1.0 / 25))


def test_a_calibration_is_kept_as_json():
    assert Calibration.of(MADE_UP.as_dict()) == MADE_UP


def test_line_through_two_points_is_never_negative():
    assert Line.through((10, 2.0), (20, 3.0)) == Line(1.0, 0.1)
    assert Line.through((10, 2.0), (20, 1.0)) == Line(2.0, 0.0)
    assert Line.through((10, 1.0), (20, 4.0)) == Line(0.0, pytest.approx(0.3))


def test_synthetic_tables_have_the_events_that_would_be_simulated():
    given = config()
    tables = synthetic_tables(given, MADE_UP.yield_per_fb, 0.1)
    assert window_events(given, MADE_UP.yield_per_fb) == pytest.approx(10_000)
    drawn = sum(tables.search[n].weight.sum() for n in given.pseudodata.background) * given.pseudodata.luminosity
    assert drawn == pytest.approx(1000)
    yy = tables.search["yy"]
    assert len(yy) == pytest.approx(0.1 * 0.8 * 200_000, rel=0.01)
    assert 0.6 < in_sidebands(yy.mass, given.window).mean() < 0.95


SMALL = [
    *(f"simulate.samples.{name}.events=1500" for name in ("ggf", "vbf", "vh", "tth", "wn_150", "xsh_500_100")),
    *(f"simulate.samples.{name}.events=300" for name in ("wn_300", "zp_400")),
    "simulate.samples.yy.events=24000",
    "simulate.shard_events=3000",
    "pseudodata.luminosity=2.5",
    "embedding.epochs=3",
    "embedding.steps_per_epoch=30",
    "embedding.batch_size=256",
    "embedding.warmup_epochs=1",
    "scan.signals=[wn_150]",
    "scan.strengths=[3.0]",
    "scan.instances=3",
    "scan.background_instances=1",
    "resources.cpus=2",
    "tracking.enabled=false",
]


@pytest.mark.slow
@pytest.mark.ray
def test_the_estimate_holds_for_a_real_scan(ray_local, tmp_path):
    """Everything of a small scan: planned before anything is simulated, then run; core seconds within 30 %."""
    from raypipe.cluster.pipeline import Run

    given = load_config(CONFIG, [*SMALL, f"output={tmp_path}"])
    estimate = plan(given, calibrate(given))
    with Run(given) as run:
        trials = plan_scan(given, run.prepare(grid_of(given)))
        book = run.run_trials(trials)
    rows = {row["key"]: row for row in book.rows(trials)}
    assert len(rows) == estimate.trials == 4
    spent = statistics.mean(row["seconds_cpu"] for row in rows.values())
    walls = {k: statistics.mean(r[f"seconds_{k}"] for r in rows.values()) for k in estimate.trial_seconds}
    print(
        f"\na trial: planned {estimate.seconds_per_trial:.2f}, took {spent:.2f} core seconds; by stage "
        f"{ {k: (round(v, 2), round(walls[k], 2)) for k, v in estimate.trial_seconds.items()} }"
    )
    sidecars = [json.loads(path.read_text()) for path in (tmp_path / "events" / "shards").rglob("*.json")]
    simulated = sum(sidecar["cpu_seconds"] for sidecar in sidecars)
    print(f"generator: planned {3600 * estimate.hours['simulate']:.0f}, took {simulated:.0f} core seconds")
    size = sum(path.stat().st_size for path in (tmp_path / "ledger").rglob("*") if path.is_file())
    print(f"ledger: planned {estimate.storage_gib['ledger'] * 1024:.2f}, took {size / 2**20:.2f} MiB")
    assert estimate.seconds_per_trial == pytest.approx(spent, rel=0.3)
    assert 3600 * estimate.hours["simulate"] == pytest.approx(simulated, rel=0.3)
    assert estimate.storage_gib["ledger"] * 2**30 == pytest.approx(size, rel=0.3)


@pytest.mark.slow
def test_the_estimate_holds_for_a_haxad_trial():
    """At a size and with epochs that were not measured: core seconds of the real search within 30 %."""
    given = load_config(ROOT / "configs/haxad/laptop.yaml", ["flow.epochs=5", "flow.patience=5"])
    measured = calibrate(given)
    whole = window_events(given, measured.yield_per_fb)
    tables = synthetic_tables(given, measured.yield_per_fb, 12_000 / whole)
    runs = [timed(lambda k=k: haxad.search(tables, given, Trial("wn_150", 2.0, k)))[0] for k in range(5)]
    spent = statistics.median(runs)
    at_that_size = {name: value * 12_000 / whole for name, value in measured.yield_per_fb.items()}
    planned = trial_seconds(given, dataclasses.replace(measured, yield_per_fb=at_that_size))
    print(f"\na trial: planned {sum(planned.values()):.2f} ({planned}), took {spent:.2f} core seconds")
    assert sum(planned.values()) == pytest.approx(spent, rel=0.3)
