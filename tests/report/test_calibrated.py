"""``calibration.json``: made of rows of nulls, and laid on the rows of a scan if it is of the same search."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from raypipe.cluster.run import Run
from raypipe.config import load_config
from raypipe.errors import UserError
from raypipe.files import write_json
from raypipe.report.calibrated import (
    FILE,
    calibrated_rows,
    calibration_record,
    null_lines,
    p_p_plot,
    read_calibration,
    search_key,
)
from raypipe.report.contrastive import TEXTS
from raypipe.report.html import table_of
from raypipe.report.summary import SHARED, build_summary
from raypipe.search.contrastive_search import Contrastive
from raypipe.search.result import DRAWN, NO_SIGNAL, RETRAINED, SIMULATED, Null, Result, Trial
from raypipe.stats.calibration import Calibration
from tests.conftest import ROOT

POINTS = (0.02, 0.01)
MADE = {"latents": {"id 0": {"digest": "made up"}}}


def null_rows(n: int, retrained: int = 0, simulated: int = 0) -> list[dict]:
    """Of a search whose z is 1.5 times too large; flows of their own add 0.25. Simulated nulls are other ones of it."""
    z = 1.5 * np.random.default_rng(1).normal(size=(n, 2))
    z[0, 1] = math.nan
    both = [(k, DRAWN, z[k]) for k in range(n)] + [(k, RETRAINED, z[k] + 0.25) for k in range(retrained)]
    both += [
        (k, SIMULATED, values) for k, values in enumerate(1.5 * np.random.default_rng(2).normal(size=(simulated, 2)))
    ]
    return [
        {"embedding": "id", "kind": own, "number": k, "working_point": point, "z_after": value, "status": "ok"}
        for k, own, of in both
        for point, value in zip(POINTS, of, strict=True)
    ]


def scan_rows(z: dict[float, float], **other) -> list[dict]:
    same = {"key": "k", "status": "ok", "signal": NO_SIGNAL, "strength": 0.0, "instance": 0, "embedding": "id"}
    same |= {"method": "cathode", "verdict": "", "closure_auc": 0.5} | other
    return [same | {"working_point": point, "z_after": value, "z_before": 0.0} for point, value in z.items()]


@pytest.fixture(scope="module")
def record():
    return json.loads(json.dumps(calibration_record(null_rows(400, retrained=5), {"id": "key"}), allow_nan=False))


def test_the_record_says_how_often_nulls_report_what(record):
    by_cut = {(of["working_point"], of["reported"]): of for of in record["tails"]}
    assert {point for point, _ in by_cut} == {*POINTS, None}
    assert {p for _, p in by_cut} == {0.1, 0.01}
    at = by_cut[0.02, 0.01]
    assert at["low"] < at["empirical"] < at["high"]
    assert at["empirical"] == pytest.approx(0.06, abs=0.035)  # 2.33 / 1.5 sigma
    assert by_cut[None, 0.01]["empirical"] > at["empirical"]
    assert by_cut[0.01, 0.01]["nulls"] == 399  # one is withheld
    assert len(table_of(SHARED["tails"], record["tails"]).rows) == 6
    first, second = record["retrained"]
    assert (first["nulls"], second["nulls"]) == (5, 4)
    assert first["shift"] == pytest.approx(0.25)
    assert "z of a null by +0.25 ± 0.00" in null_lines(record)[0]


def test_simulated_nulls_say_whether_the_map_is_right():
    record = calibration_record(null_rows(4000, simulated=1000), {"id": "key"})
    for of in record["simulated"]:
        assert of["nulls"] == 1000
        assert of["mean"] == pytest.approx(0, abs=4 * of["mean_error"])
        assert of["width"] == pytest.approx(1.5, abs=0.14)
        assert of["ks_reported"] < 1e-4 < 0.01 < of["ks_calibrated"]
        assert of["below_1%_reported"] == pytest.approx(60, abs=31)  # 2.33 / 1.5 sigma
        assert of["below_1%_calibrated"] == pytest.approx(10, abs=14)
    told = null_lines(record)
    assert len(told) == 2
    assert "1000 simulated data sets without a signal have z = " in told[0]


def test_the_significance_of_the_search_is_calibrated():
    rows = [row | {"fit_z_after": 2 * row["z_after"]} for row in null_rows(200)]
    record = calibration_record(rows, {"id": "key"}, "fit_z_after")
    assert record["metric"] == "fit_z_after"
    maps = {"id": Calibration.of(record["maps"]["id"])}
    scan = [row | {"fit_z_after": 2 * row["z_after"]} for row in scan_rows({0.02: 3.0, 0.01: 1.0})]
    doubled = calibrated_rows(scan, maps, "fit_z_after")[0]["z_calibrated"]
    plain = {"id": Calibration.of(calibration_record(null_rows(200), {"id": "key"})["maps"]["id"])}
    assert doubled == pytest.approx(calibrated_rows(scan, plain)[0]["z_calibrated"], abs=1e-3)


def test_rows_get_calibrated_and_global_significances(record):
    maps = {"id": Calibration.of(record["maps"]["id"])}
    rows = scan_rows({0.02: 3.0, 0.01: 9.0}) + scan_rows({0.02: math.nan, 0.01: 1.0}, key="l", instance=1)
    others = scan_rows({0.02: 3.0}, key="m", method="supervised") + scan_rows({0.02: 3.0}, key="n", embedding="raw")
    failed = {"key": "f", "status": "failed", "embedding": "id", "method": "cathode"}
    found = calibrated_rows([*rows, *others, failed], maps)
    assert found[0]["z_calibrated"] == pytest.approx(2.0, abs=0.3)
    assert not found[0]["z_calibrated_bound"]
    assert found[1]["z_calibrated_bound"]
    assert found[0]["z_global_bound"]
    assert found[0]["z_global"] == found[1]["z_global"] <= found[1]["z_calibrated"]
    assert "z_calibrated" not in found[2]  # withheld
    assert found[3]["z_global"] < found[3]["z_calibrated"]
    assert found[4:] == [*others, failed]

    summary = build_summary(found, working_point=0.01, target=5.0)
    table = table_of(TEXTS["tables"]["results"], summary["results"])
    cells = dict(zip(table.head, table.rows[0], strict=True))
    assert cells["z calibrated"].startswith("≥ ")
    plain = build_summary([*rows, *others], working_point=0.01, target=5.0)
    assert "z_calibrated" not in plain["results"][0]
    assert "z calibrated" not in table_of(TEXTS["tables"]["results"], plain["results"]).head
    assert len(p_p_plot(maps).axes) == 1


def test_a_map_is_applied_to_its_own_search_alone(tmp_path):
    config = load_config(ROOT / "configs/contrastive/laptop.yaml", [])
    search, trial = Contrastive(config), Trial(NO_SIGNAL, 0.0, 0)
    found = SimpleNamespace(folder=tmp_path, trials={"k": trial}, made=MADE)
    assert read_calibration(search, found) == (None, {}, [])
    write_json(tmp_path / FILE, calibration_record(null_rows(20), {"id": search_key(search, trial, MADE)}))
    _, maps, notes = read_calibration(search, found)
    assert (list(maps), notes) == (["id"], [])
    other = Contrastive(load_config(ROOT / "configs/contrastive/laptop.yaml", ["flow.epochs=3"]))
    _, maps, notes = read_calibration(other, found)
    assert maps == {}
    assert notes[0].startswith("calibration.json: made with another configuration")


def test_what_many_nulls_share_is_hashed_once(tmp_path, monkeypatch):
    """A hash of the search reads all of the code: once a null, it would take longer than all else."""
    config = load_config(ROOT / "configs/contrastive/laptop.yaml", ["scan.embeddings=[id]", "scan.more=[]"])
    with Run(config.model_copy(update={"output": tmp_path}), alone=True) as run:
        monkeypatch.setattr(run, "make", lambda trials: MADE)
        keyed = run.keys(run.search.nulls(40), MADE)
        rows = null_rows(40)
        for key, trial in keyed.items():
            own = [row for row in rows if row["number"] == trial.number]
            run.ledger().record(key, trial, Result(own))
        hashed, inputs_key = [], run.search.inputs_key
        monkeypatch.setattr(run.search, "inputs_key", lambda *given: hashed.append(given) or inputs_key(*given))
        record = run.calibrate(40)
        assert len(hashed) == 2  # for the keys of the nulls, and for that of the map
        expected = calibration_record(rows, {"id": search_key(run.search, trial, MADE)}, run.search.metric)
        assert json.dumps(record) == json.dumps(expected)


def test_nulls_take_turns_with_encoders_and_pseudo_data():
    overrides = ["embedding.encoders=2", "scan.background_instances=3", "scan.embeddings=[id, raw]", "scan.more=[]"]
    search = Contrastive(load_config(ROOT / "configs/contrastive/laptop.yaml", overrides))
    nulls = search.nulls(12, 2)
    assert set(search.nulls(5, 1)) < set(nulls)  # more nulls go on where fewer ended
    assert len(set(nulls)) == len(nulls) == 2 * 12 + 2 * 2
    assert all(isinstance(null, Null) for null in nulls)
    mine = [null for null in nulls if null.embedding == "id" and null.kind == DRAWN]
    assert {(null.number % 2, null.instance) for null in mine} == {(e, i) for e in (0, 1) for i in (0, 1, 2)}
    assert [null.number for null in nulls if null.kind == RETRAINED] == [0, 0, 1, 1]
    with pytest.raises(UserError, match=r"^calibrate: 4 simulated nulls .*pseudodata.disjoint = true$"):
        search.nulls(12, simulated=4)
    apart = Contrastive(load_config(ROOT / "configs/contrastive/laptop.yaml", [*overrides, "pseudodata.disjoint=true"]))
    simulated = [null for null in apart.nulls(1, simulated=3) if null.kind == SIMULATED and null.embedding == "id"]
    assert [(null.number, null.instance) for null in simulated] == [(0, 0), (1, 1), (2, 2)]  # each set once
    none = load_config(ROOT / "configs/contrastive/laptop.yaml", ["scan.background_instances=0", "scan.more=[]"])
    with pytest.raises(UserError, match=r"^calibrate: .*scan.background_instances is 0"):
        Contrastive(none).nulls(12)
