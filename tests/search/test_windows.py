"""A signal region that slides: its windows, what each finds, and what they say together."""

from __future__ import annotations

import csv
import json
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scipy import stats

import raypipe as rp
from raypipe import seeds
from raypipe.cli import main
from raypipe.config import load_config
from raypipe.errors import UserError
from raypipe.search.base import search_of
from raypipe.search.result import DATA, Trial
from raypipe.search.table import SharedFlows, interpolated, search_table
from raypipe.search.table_search import regions_of, search_window, together
from raypipe.stats.lookelsewhere import sidak
from raypipe.store.looks import opened
from tests.conftest import ROOT
from tests.search.test_blinding import numbers_of_the_signal_region, search
from tests.search.test_table import OVERRIDES, as_features
from tests.search.toys import toy_table

LHCO = ROOT / "configs/lhco/laptop.yaml"
SLIDING = [
    *OVERRIDES,
    "window.sr_low=2.9",
    "window.sr_high=4.1",
    "windows={width: 0.4, step: 0.4}",
    "flow.members=2",
    "flow.epochs=8",
    "classifier.folds=2",
    "classifier.ensemble=1",
]
"""Three windows side by side; the signal of the toys, at 3.5, is in the second."""


def configured(*more: str):
    return load_config(LHCO, [*SLIDING, *more])


@pytest.mark.parametrize(
    ("given", "edges"),
    [
        ("{width: 0.4, step: 0.4}", [(2.9, 3.3), (3.3, 3.7), (3.7, 4.1)]),
        ("{width: 0.4}", [(2.9, 3.3), (3.1, 3.5), (3.3, 3.7), (3.5, 3.9), (3.7, 4.1)]),
        ("{width: 0.4, step: 0.5}", [(2.9, 3.3), (3.4, 3.8)]),
        ("{width: 1.2, step: 0.1}", [(2.9, 4.1)]),
        ("{width: 0.1, step: 0.1}", [(2.9 + k / 10, 3 + k / 10) for k in range(12)]),
    ],
)
def test_windows_begin_and_end_with_the_signal_region(given, edges):
    config = configured(f"windows={given}")
    regions = regions_of(config)
    assert np.array([(r.sr_low, r.sr_high) for r in regions]) == pytest.approx(np.array(edges))
    assert {(r.low, r.high) for r in regions} == {(config.window.low, config.window.high)}
    assert max(r.sr_high for r in regions) <= config.window.sr_high
    trials = search_of(config).grid()
    assert trials == [Trial(DATA, 0.0, number) for number in range(len(edges))]
    assert len({trial.key({}) for trial in trials}) == len(edges)


def test_without_windows_there_is_one_trial_of_the_signal_region():
    config = configured("windows=null")
    assert search_of(config).grid() == [Trial(DATA, 0.0, 0)]
    assert regions_of(config) == [config.window]
    assert search_of(config).here


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{width: 1.3}", r"windows\.width = 1\.3: wider than the signal region 2\.9-4\.1 \(window\.sr_low, .*slide$"),
        ("{width: 0.4, step: 0}", r"windows\.step = 0: input should be greater than 0$"),
        ("{width: 0.4, step: -1}", r"windows\.step = -1: input should be greater than 0$"),
        ("{width: 0}", r"windows\.width = 0: input should be greater than 0$"),
        ("{step: 0.1}", r"key 'windows\.width' is missing$"),
        ("{width: 0.4, steps: 0.1}", r"unknown key 'windows\.steps': did you mean 'step'\?"),
    ],
)
def test_windows_that_cannot_be_are_refused(given, words):
    with pytest.raises(UserError, match=words) as error:
        configured(f"windows={given}")
    assert "\n" not in str(error.value)


def test_a_window_without_enough_events_beside_it_is_named():
    table = toy_table(8000, 0, 3)
    right = as_features(table[table[:, 0] >= 2.9])
    with pytest.raises(UserError, match=r"^window 2\.9-3\.3: x: 0 events in the lower sideband 2\.5-2\.9 and \d+ in"):
        search_window(0, right, configured(), source="x")
    inside = as_features(table[(table[:, 0] < 3.7) | (table[:, 0] >= 4.1)])
    with pytest.raises(UserError, match=r"^window 3\.7-4\.1: x: 0 events in the signal region 3\.7-4\.1 "):
        search_window(2, inside, configured(), source="x")


def without_times(row: dict) -> dict:
    return {k: repr(v) for k, v in row.items() if not k.startswith("seconds")}


def test_one_window_as_wide_as_the_signal_region_is_the_search_of_it():
    data, pure = as_features(toy_table(6000, 60, 5)), as_features(toy_table(20_000, 0, 6))
    wide, plain = configured("windows={width: 1.2}"), configured("windows=null")
    of_one, (whole, scores) = search_window(0, data, wide, background=pure), search_table(data, plain, background=pure)
    own = {"window_low": 2.9, "window_high": 4.1}
    assert list(map(without_times, of_one.rows)) == [without_times(row | own) for row in whole.rows]
    assert of_one.tables["scores_0"].equals(scores)
    # Of several windows each has random numbers of its own.
    three = [search_window(k, data, configured(), background=pure) for k in (0, 1)]
    assert [result.rows[0]["instance"] for result in three] == [0, 1]
    assert {result.rows[0]["seed"] for result in three} == {1}


@pytest.mark.parametrize(
    ("given", "sets"), [("{width: 0.2, step: 0.2}", 3), ("{width: 0.2}", 6), ("{width: 0.1, step: 0.25}", 2)]
)
def test_windows_that_share_flows_lie_two_widths_apart(given, sets):
    windows = configured(f"windows={given[:-1]}, flows: shared}}").windows
    regions = windows.regions(configured("windows=null").window.model_copy(update={"sr_low": 2.6, "sr_high": 4.8}))
    groups = [windows.together(regions, number) for number in range(len(regions))]
    assert all(regions[number] in group for number, group in enumerate(groups))
    assert len({group[0].sr_low for group in groups}) == sets
    gaps = [b.sr_low - a.sr_high for group in groups for a, b in pairwise(group)]
    assert min(gaps) >= 2 * windows.width - 1e-9
    own = windows.model_copy(update={"flows": "own"})
    assert [own.together(regions, number) for number in range(len(regions))] == [[region] for region in regions]


class Kept(dict):
    """A stage in memory."""

    def __call__(self, kind, key, make):
        return self[key] if key in self else self.setdefault(key, make())


def test_shared_flows_know_none_of_their_windows():
    """Whatever lies in these windows, the flows are the same to the bit, and are trained once."""
    table = toy_table(9000, 60, 4)
    config = configured("windows={width: 0.2, step: 0.2, flows: shared}", "window.sr_low=2.8", "window.sr_high=4.0")
    mass, kept = table[:, 0], Kept()
    group = config.windows.together(regions_of(config), 0)
    assert [region.sr_low for region in group] == pytest.approx([2.8, 3.4])
    unknown = group[0].inside(mass) | group[1].inside(mass)
    results = [search_window(k, as_features(table), config, kept).rows[0] for k in (0, 3)]
    other = np.where(unknown[:, None] & [False, True, True, False], np.roll(table, 1, 0), table)
    results.append(search_window(3, as_features(other), config, kept).rows[0])
    ((key, state),) = kept.items()
    assert {row["flow_stage"] for row in results} == {key}
    assert len({row["auc_data_template"] for row in results}) == 3
    beside = (mass >= config.window.low) & (mass < config.window.high)
    assert len(state["part"]) == (beside & ~unknown).sum()
    # A sideband event is judged by flows that do not know it.
    data, side = as_features(table), group[0].beside(mass)
    shared = SharedFlows(group, seeds.integer(config.seed, "windows", 0, bits=62), kept)
    background = interpolated(data, side, config.model_copy(update={"window": group[0]}), 5, shared)
    assert background.flow_stage == key
    assert (background.template.sideband_home[~unknown[side]] == state["part"].numpy()).all()
    # Of other windows they know all.
    table[(mass >= 3.0) & (mass < 3.2), 1] += 0.01
    search_window(0, as_features(table), config, kept)
    assert len(kept) == 2


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A search in three windows by this process alone, and its run."""
    folder = tmp_path_factory.mktemp("windows")
    np.save(folder / "toy.npy", toy_table(16_000, 100, 1))
    run = rp.Run(rp.load(LHCO, *SLIDING, f"data.path={folder / 'toy.npy'}", f"output={folder / 'run'}"), ray=False)
    return run, run.search()


def test_a_resonance_is_found_in_the_window_that_holds_it(found):
    _, result = found
    assert list(result.rows["window_low"]) == pytest.approx([2.9, 3.3, 3.7])
    assert list(result.rows["window_high"]) == pytest.approx([3.3, 3.7, 4.1])
    below, near, above = result.rows["z_likelihood"]
    assert near > 5
    assert max(below, above) < 3
    assert (result.best, result.instance, result.window_low) == (1, 1, pytest.approx(3.3))
    assert result.z_likelihood == near
    # The global p is that of three windows.
    assert result.p_global == pytest.approx(3 * stats.norm.sf(near), rel=1e-3)
    assert 0 < near - result.z_global < 0.5
    assert result.plot.windows()._repr_png_().startswith(b"\x89PNG")
    assert "window_low" in repr(result)


def test_page_summary_and_files_tell_of_all_windows(found):
    run, result = found
    rows = {path: path.stat().st_mtime_ns for path in (run.folder / "ledger" / "rows").iterdir()}
    assert len(rows) == 3
    (run.folder / "scores_1.parquet").unlink()
    summary = run.scan().summary
    assert {path: path.stat().st_mtime_ns for path in rows} == rows  # nothing is made again
    told = json.loads((run.folder / "summary.json").read_text())
    assert [row["instance"] for row in told["rows"]] == [0, 1, 2]
    assert told["windows"] == summary["windows"] == result.windows
    assert (told["best"], told["p_global"], told["z_global"]) == (1, result.p_global, result.z_global)
    assert told["scores"].endswith("scores_1.parquet")
    for entry in told["windows"]:
        scores = pq.read_table(run.folder / f"scores_{entry['instance']}.parquet")
        mass = scores["mass"].to_numpy()
        assert len(scores) == entry["n_before"]
        assert mass.min() >= entry["window_low"]
        assert mass.max() < entry["window_high"]
        assert entry["p_local"] == pytest.approx(stats.norm.sf(entry["z_likelihood"]))
    page = (run.folder / "report.html").read_text()
    for words in ("global p", "3.3-3.7 (one of 3 windows)", "it is then too large"):
        assert words in page
    with open(run.folder / "figures" / "windows.csv") as file:
        lines = [line for line in csv.DictReader(one for one in file if not one.startswith("#"))]
    drawn = [line for line in lines if line["curve"] == "windows"]
    assert [float(line["x"]) for line in drawn] == pytest.approx([2.9, 3.3, 3.7])
    assert [float(line["x_high"]) for line in drawn] == pytest.approx([3.3, 3.7, 4.1])
    assert [float(line["y"]) for line in drawn] == pytest.approx([e["p_local"] for e in told["windows"]], rel=1e-4)
    levels = {line["curve"]: float(line["y"]) for line in lines if line["curve"] != "windows"}
    assert levels["local 3σ"] == pytest.approx(stats.norm.sf(3), rel=1e-4)
    assert sidak(stats.norm.isf(levels["global 3σ"]), 3).z == pytest.approx(3, abs=1e-4)


def test_a_run_trains_shared_flows_once(tmp_path):
    np.save(tmp_path / "toy.npy", toy_table(16_000, 120, 1))
    given = [f"data.path={tmp_path / 'toy.npy'}", f"output={tmp_path / 'run'}", "window.sr_low=2.8"]
    given += ["windows={width: 0.2, step: 0.2, flows: shared}", "window.sr_high=4.0"]
    result = rp.Run(rp.load(LHCO, *SLIDING, *given), ray=False).search()
    assert len(list((tmp_path / "run" / "ledger" / "stages" / "flow").glob("*.pt"))) == 3
    stages = list(result.rows["flow_stage"])
    assert stages[:3] == stages[3:]
    assert len(set(stages)) == 3
    assert result.best == 3  # 3.4 to 3.6; the signal is at 3.5
    assert result.z_likelihood > 5
    assert result.rows["z_likelihood"].drop(3).max() < 3


def test_a_blind_search_in_windows_tells_nothing_of_the_signal_region(tmp_path):
    given = ["windows={width: 0.2, step: 0.2}"]
    told = search(tmp_path, "run", *given)
    assert told.exit_code == 0, told.output
    assert numbers_of_the_signal_region(tmp_path / "run", toy_table(6000, 60, 1)) == []
    rows = json.loads((tmp_path / "run" / "summary.json").read_text())["rows"]
    assert not [name for row in rows for name in row if name.startswith("window_")]
    assert not list((tmp_path / "run").glob("scores*"))
    config = load_config(LHCO, [*SLIDING, "data.columns.label=null"], tmp_path / "other")
    assert [trial.signal for trial in search_of(opened(config)[0]).grid()] == ["validation"]
    for k in range(3):
        with pytest.raises(UserError, match="blind until"):
            search_window(k, as_features(toy_table(3000, 0, 1)), config)


@pytest.mark.ray
def test_a_cluster_makes_windows_side_by_side(ray_local, tmp_path):
    data = toy_table(6000, 60, 4)
    np.save(tmp_path / "data.npy", data[(data[:, 0] < 4.1) | (data[:, 0] >= 4.7)])
    np.save(tmp_path / "background.npy", toy_table(20_000, 0, 5))
    given = [*SLIDING, "windows={width: 0.6, step: 0.6}", "window.sr_high=4.7", f"data.path={tmp_path / 'data.npy'}"]
    common = ["--config", str(LHCO), "--output", str(tmp_path / "run"), *given]
    common.append(f"background.path={tmp_path / 'background.npy'}")
    done = CliRunner().invoke(main, ["search", *common])
    # The last window has no events: the others are reported.
    assert done.exit_code == 2, done.output
    assert "window 4.1-4.7: " in done.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["count"], len(summary["windows"]), len(summary["failed_trials"])) == (3, 2, 1)
    assert summary["failed_trials"][0]["instance"] == 2
    assert sorted(path.stem for path in (tmp_path / "run").glob("*.parquet")) == ["scores_0", "scores_1"]
    status = CliRunner().invoke(main, ["status", "--json", *common])
    assert status.exit_code == 0, status.output
    told = json.loads(status.stdout)
    assert (told["total"], told["done"], told["failed"]) == (3, 2, 1)


@pytest.mark.parametrize(("z", "tests"), [(2.0, 1), (2.0, 9), (4.0, 50), (7.0, 20), (0.0, 3)])
def test_sidak_is_its_closed_form(z, tests):
    found, p = sidak(z, tests), stats.norm.sf(z)
    assert found.p == pytest.approx(1 - (1 - p) ** tests, rel=1e-3 if z > 6 else 1e-9)
    assert found.z == pytest.approx(stats.norm.isf(found.p))
    assert found.trials == pytest.approx(found.p / p)


def test_sidak_where_p_underflows():
    assert sidak(40.0, 10).z == pytest.approx(40 - np.log(10) / 40, abs=1e-3)


def test_sidak_against_independent_normals_and_those_that_go_together():
    rng, tests, n = np.random.default_rng(1), 8, 200_000
    alone = rng.normal(size=(n, tests))
    alike = np.sqrt(0.5) * alone + np.sqrt(0.5) * rng.normal(size=(n, 1))
    for z in (1.0, 2.0, 2.5):
        p = sidak(z, tests).p
        error = np.sqrt(p * (1 - p) / n)
        assert (alone.max(1) >= z).mean() == pytest.approx(p, abs=4 * error)
        assert (alike.max(1) >= z).mean() < p - 4 * error


def test_windows_that_are_withheld_or_failed_count():
    row = {"key": "", "window_low": 1.0, "window_high": 2.0, "n_before": 5, "expected_before": 5.0}
    row |= {"expected_before_error": 1.0, "z_before": 0.0, "z_after": 0.1, "working_point": 0.01}
    good = [row | {"instance": k, "z_likelihood": float(k), "verdict": ""} for k in (1, 3)]
    bad = row | {"instance": 2, "z_likelihood": float("nan"), "z_after": float("nan"), "verdict": "does not close"}
    told = together([*good, bad], 5)  # numbers 0 and 4 failed
    assert [entry["instance"] for entry in told["windows"]] == [1, 2, 3]
    assert (told["best"], told["count"], told["windows"][1]["p_local"]) == (3, 5, None)
    assert told["windows"][1]["cuts"] == {"0.01": None}
    assert told["p_global"] == pytest.approx(1 - stats.norm.cdf(3) ** 5)
    assert json.loads(json.dumps(told)) == told
    none = together([bad], 5)
    assert (none["best"], none["p_global"], none["z_global"]) == (None, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("flows", ["own", "shared"])
def test_local_p_of_windows_without_a_signal_are_uniform(flows):
    """Of toys without a signal; half of them are deficits, whose p is 0.5."""
    narrow = ["windows={width: 0.2, step: 0.4}", f"windows.flows={flows}"]  # the first and the third share theirs
    config, p = configured("flow.members=3", "classifier.folds=3", *narrow), []
    for seed in range(30):
        data, changed, kept = (
            as_features(toy_table(12_000, 0, 100 + seed)),
            config.model_copy(update={"seed": seed}),
            Kept(),
        )
        p += [stats.norm.sf(search_window(k, data, changed, kept).rows[0]["z_likelihood"]) for k in range(3)]
    p = np.array(p)[np.isfinite(p)]
    assert len(p) > 80
    assert 0.3 < (p >= 0.499).mean() < 0.7
    assert stats.kstest(2 * p[p < 0.499], "uniform").pvalue > 0.01
