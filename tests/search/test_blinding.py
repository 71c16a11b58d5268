"""A search of recorded data tells nothing of its signal region until it is unblinded, and then what it always would."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import raypipe as rp
from raypipe.cli import main
from raypipe.cluster.run import Run
from raypipe.config import load_config
from raypipe.config.multilepton import MultileptonConfig
from raypipe.errors import UserError
from raypipe.events.readers.features import FeatureTable
from raypipe.search.base import search_of
from raypipe.search.multilepton import BOOTSTRAP, compare, divide
from raypipe.search.multilepton_search import Multilepton
from raypipe.search.result import ALONE, DATA, NO_SIGNAL, Trial
from raypipe.search.table import search_table
from raypipe.search.table_search import TableSearch
from raypipe.store.ledger import open_ledger
from raypipe.store.looks import note, opened, unblind
from tests.conftest import ROOT
from tests.search.test_table import OVERRIDES
from tests.search.toys import WINDOW, toy_table

SMALL = ["flow.epochs=1", "classifier.rounds=5", "data.columns.label=null", "resources.cpus=1"]


def settings(folder: Path) -> list[str]:
    """Overrides of a small search on the table of `folder`, without labels."""
    np.save(folder / "toy.npy", toy_table(6000, 60, 1)[:, :3])
    return [*OVERRIDES, *SMALL, f"data.path={folder / 'toy.npy'}"]


def configured(folder: Path, *more: str):
    return load_config(ROOT / "configs/lhco/laptop.yaml", [*settings(folder), *more], folder / "run")


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def search(folder: Path, output: str, *more: str) -> Result:
    config = ROOT / "configs/lhco/laptop.yaml"
    return invoke("search", "--config", config, "--output", folder / output, *settings(folder), *more)


def values(node) -> list:
    """All keys and leaves of a JSON value."""
    if isinstance(node, dict):
        return [*node, *(v for one in node.values() for v in values(one))]
    return [v for one in node for v in values(one)] if isinstance(node, list) else [node]


def rows_of(folder: Path) -> dict[str, list[dict]]:
    """Ledger rows by key, without times."""
    found = {path.stem: json.loads(path.read_text()) for path in (folder / "ledger" / "rows").glob("*.json")}
    return {
        key: [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]
        for key, rows in found.items()
    }


def numbers_of_the_signal_region(run: Path, table: np.ndarray) -> list:
    """Everything in a run folder that can only come from an event inside the window."""
    inside = (table[:, 0] >= WINDOW["sr_low"]) & (table[:, 0] < WINDOW["sr_high"])
    ids, masses, found = set(np.flatnonzero(inside)), set(table[inside, 0]), []
    for path in run.rglob("*"):
        if path.suffix == ".json":
            told = values(json.loads(path.read_text()))
            found += [v for v in told if v in ("n_before", "n_after") or v == inside.sum() or v in masses]
        elif path.suffix == ".parquet":
            events = pq.read_table(path)
            found += [*(ids & set(events["event_id"].to_pylist())), *(masses & set(events["mass"].to_pylist()))]
        elif path.suffix == ".npz":
            found += np.load(path).files
        elif path.is_file():
            found.append(path)  # a format that this test does not know
    return found


def test_from_blind_to_the_result_of_a_run_that_never_was(tmp_path):
    run, table = tmp_path / "run", toy_table(6000, 60, 1)
    told = search(tmp_path, "run")
    assert told.exit_code == 0, told.output
    for words in (
        "sideband fit: χ²",
        "validation in the lower sideband",
        "validation in the upper",
        "closure AUC",
        "κ",
    ):
        assert words in told.output
    assert f'looks before: 0; to look: raypipe unblind {run} --reason "..."' in told.output
    assert numbers_of_the_signal_region(run, table) == []
    scored = pq.read_table(run / "validation.parquet")
    validated = [row for row in json.loads((run / "summary.json").read_text())["rows"] if row["sideband"] != "both"]
    assert len(scored) == sum(row["observed_before"] for row in validated) > 1000
    # Looking early is refused.
    early = search(tmp_path, "run", "blind=false")
    assert (early.exit_code, len(early.output.splitlines())) == (2, 1)
    assert "began blind" in early.output
    assert numbers_of_the_signal_region(run, table) == []
    # Unblinded, it is what it always would have been.
    looked = invoke("unblind", run, "--reason", "closure is fine")
    assert looked.exit_code == 0, looked.output
    told = search(tmp_path, "run")
    assert told.exit_code == 0, told.output
    assert 'reason "closure is fine", looks before: 0' in told.output
    assert 'reason "closure is fine"' in json.loads((run / "summary.json").read_text())["notes"][0]
    never = search(tmp_path, "never", "blind=false")
    assert never.exit_code == 0, never.output
    assert "not blind (blind: false), looks before: 0" in never.output
    assert pq.read_table(run / "scores.parquet").equals(pq.read_table(tmp_path / "never" / "scores.parquet"))
    (expected,) = rows_of(tmp_path / "never").items()
    assert expected in rows_of(run).items()
    assert len(numbers_of_the_signal_region(run, table)) > 100  # the test above can see them
    again = invoke("unblind", run, "--reason", "once more")
    assert (again.exit_code, len(again.output.splitlines())) == (2, 1)
    assert "already unblinded by" in again.output


def test_python_and_ledger_refuse(tmp_path):
    config = configured(tmp_path)
    table = toy_table(6000, 60, 1)
    data = FeatureTable(np.arange(6060), table[:, 0], table[:, 1:3], np.ones(6060), None, ("1", "2"))
    for one in (config, opened(config)[0]):
        with pytest.raises(UserError, match=r"^data: blind until `raypipe unblind RUN`"):
            search_table(data, one)
        with pytest.raises(UserError, match="blind until"):
            TableSearch(one).run([data, None], [Trial(DATA, 0.0, 0)], ALONE)
    with Run(config) as run:
        assert [trial.signal for trial in run.search.grid()] == ["validation"]
        keys = run.keys([Trial(DATA, 0.0, 0)], {})
        assert open_ledger(config).rows(keys) == []
        with pytest.raises(UserError, match="blind until"):
            run.run_trials(keys)
        assert open_ledger(config).rows(keys) == []


def test_a_run_that_is_unblinded_meanwhile_tells_its_result(tmp_path):
    run = rp.Run(configured(tmp_path), ray=False)
    blind = run.search()
    assert "n_before" not in blind.rows
    unblind(run.folder, "a test")
    seen = run.search()
    assert seen.n_before > 100
    assert "validation" not in set(seen.rows["signal"])


def test_what_changes_is_blind_again_and_looks_are_counted(tmp_path, monkeypatch):
    config, trials = configured(tmp_path), [Trial("validation", 0.0, 0)]
    run = config.output
    with pytest.raises(UserError, match="no search began blind here"):
        unblind(run, "too early")
    for _ in range(2):  # the second says nothing new
        note(run, opened(config)[2], trials)
    with pytest.raises(UserError, match="empty --reason"):
        unblind(run, " ")
    assert unblind(run, "first").endswith('reason "first", looks before: 0')
    assert opened(config)[0].blind is False
    # Resources and folders are free, everything else is frozen.
    assert opened(configured(tmp_path, "resources.cpus=2"))[0].blind is False
    changed, said, entry = opened(configured(tmp_path, "flow.epochs=2"))
    assert changed.blind is True
    assert said[0].startswith("blind again (configuration changed since the last look): ")
    assert "looks before: 1" in said[0]
    note(run, entry, trials)
    assert unblind(run, "second").endswith('reason "second", looks before: 1')
    entries = json.loads((Path(run) / "looks.json").read_text())
    assert [one["what"] for one in entries] == ["blind", "look", "blind", "look"]
    assert len({one["user"] for one in entries}) == 1
    assert opened(config)[0].blind is False  # the first look still holds
    monkeypatch.setattr(TableSearch, "code", classmethod(lambda cls: "another"))
    assert opened(config)[1][0].startswith("blind again (configuration and code changed")
    note(run, opened(config)[2], trials)
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"the code changed since this search was run blind \(another then, "):
        unblind(run, "third")
    np.save(tmp_path / "toy.npy", toy_table(6000, 60, 2)[:, :3])
    same = load_config(
        ROOT / "configs/lhco/laptop.yaml", [*OVERRIDES, *SMALL, f"data.path={tmp_path / 'toy.npy'}"], run
    )
    assert "recorded data changed" in opened(same)[1][0]


def test_a_look_without_blindness_is_counted(tmp_path):
    config = configured(tmp_path, "blind=false")
    found, said, entry = opened(config)
    assert (found.blind, said) == (False, ["not blind (blind: false), looks before: 0"])
    note(config.output, entry, [Trial(NO_SIGNAL, 0.0, 0)])
    assert not (tmp_path / "run" / "looks.json").exists()
    note(config.output, entry, [Trial(DATA, 0.0, 0)])
    assert 'reason "blind: false", looks before: 0' in opened(config)[1][0]
    assert "looks before: 1" in opened(configured(tmp_path, "seed=3"))[1][0]


def test_only_recorded_data_are_blind(tmp_path):
    labelled = configured(tmp_path, "data.columns.label=3")
    assert opened(labelled) == (labelled, [], {})
    assert opened(configured(tmp_path, "data.columns.label=3", "blind=true"))[0].blind is True
    for name in ("contrastive", "haxad", "multilepton"):
        config = load_config(ROOT / f"configs/{name}/laptop.yaml", [], tmp_path / name)
        assert opened(config) == (config, [], {})


def test_a_blind_multilepton_search_reads_no_recorded_event(tmp_path):
    rng = np.random.default_rng(1)
    for name, n in (("data", 150), ("reference", 2000)):
        np.savetxt(tmp_path / f"{name}.csv", rng.normal(size=(n, 2)), delimiter=",", header="x,y", comments="")
    files = {name: str(tmp_path / f"{name}.csv") for name in ("data", "reference")}
    given = {"output": str(tmp_path / "run"), "features": ["x", "y"], "files": files, "compare": {"expected": 150}}
    given["networks"] = {"hidden": [4], "members": 1, "epochs": 1}
    config = MultileptonConfig.model_validate(given)
    search = search_of(opened(config)[0])
    assert {trial.signal for trial in search.grid()} == {BOOTSTRAP}
    asked = search.asked(Trial(NO_SIGNAL, 0.0, 0), frozenset())
    assert asked == search.grid()
    assert search.answer([], asked)[0] == ["100 bootstraps"]
    tables = search.pools(tmp_path / "run")[0]
    assert tables.data is None
    with pytest.raises(UserError, match="or the search is blind"):
        compare(tables, config, [Trial(DATA, 0.0, 0)])
    with pytest.raises(UserError, match=r"files\.data: blind until"):
        divide(tables.null, None, {}, np.zeros((150, 2)), config)
    note(config.output, opened(config)[2], asked)
    unblind(config.output, "bootstraps are fine")
    seen = Multilepton(opened(config)[0])
    assert seen.grid() == [*asked, Trial(DATA, 0.0, 0)]
    # Reference and bootstraps are the same as before, and so are their keys.
    assert seen.inputs_key("tables", {}) == search.inputs_key("tables", {})
    assert len(seen.pools(tmp_path / "run")[0].data) == 150
    assert (seen.pools(tmp_path / "run")[0].reference.values == tables.reference.values).all()
