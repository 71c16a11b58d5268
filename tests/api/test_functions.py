"""`fit`, `hunt` and `classify` give the numbers of the commands, whatever they are handed."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import raypipe as rp
from raypipe.cli import main
from tests.search.toys import toy_table


def command(*arguments: object) -> str:
    done = CliRunner().invoke(main, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def masses(tmp_path_factory):
    rng = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("masses") / "m.npy"
    np.save(path, np.r_[105 + rng.exponential(25, 4000), rng.normal(125, 1.7, 150)])
    return path


WINDOW = ("--window", 105, 160)


def test_a_fit_is_that_of_the_command(masses):
    options = ("--known", "140:2", "--signal-region", 120, 130, "--bins", 110)
    told = json.loads(command("fit", "--masses", masses, *WINDOW, "--peak", "125:1.7", *options, "--json"))
    asked = {"window": (105, 160), "peak": (125, 1.7), "known": ["140:2"], "region": (120, 130), "bins": 110}
    assert rp.fit(masses, **asked).row == told
    from_array = rp.fit(np.load(masses), **asked)
    assert from_array.row == told | {"data": "masses"}
    assert (from_array.z, from_array.s_err) == (told["z"], told["s_err"])


def test_a_floating_peak_is_that_of_the_command(masses):
    floating = ("--float-mass", 120, 130, "--toys", 20, "--seed", 5)
    told = json.loads(command("fit", "--masses", masses, *WINDOW, "--peak", "124:1.7", *floating, "--json"))
    found = rp.fit(str(masses), (105, 160), peak="124:1.7", float_mass=(120, 130), toys=20, seed=5)
    assert found.row == told
    assert found.peak["mass"] == pytest.approx(125, abs=1)


def test_a_histogram_is_the_fit_of_its_bins(masses):
    asked = {"window": (105, 160), "peak": "125:1.7"}
    binned = rp.fit(np.load(masses), bins=55, **asked)
    assert rp.fit(np.histogram(np.load(masses), 55, (105, 160)), **asked).s == pytest.approx(binned.s, rel=1e-9)


def test_weights_and_missing_masses_are_those_of_an_array():
    values = np.r_[np.linspace(0, 10, 400), np.nan]
    found = rp.fit(values, (0, 10), "flat", weight=np.full(401, 2.0))
    assert found.b == pytest.approx(800)


def test_a_hunt_is_that_of_the_command_and_draws_itself(masses):
    told = json.loads(command("hunt", "--masses", masses, *WINDOW, "--widths", "1.7,2%", "--toys", 20, "--json"))
    found = rp.hunt(masses, (105, 160), widths=[1.7, "2%"], toys=20)
    assert {name: found.row[name] for name in told} == told
    assert (found.mass, found.z) == (told["best"]["mass"], told["best"]["z"])
    assert found.plot()._repr_png_().startswith(b"\x89PNG")


def test_what_cannot_be_fitted_is_one_line(masses):
    with pytest.raises(rp.UserError, match="peak at 200 lies outside the window"):
        rp.fit(masses, (105, 160), peak="200:1")
    with pytest.raises(TypeError, match="binns"):
        rp.fit(masses, (105, 160), binns=3)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    tables = {"data": toy_table(900, 100, 1), "background": toy_table(1000, 0, 2), "score": toy_table(500, 50, 3)}
    for name, table in tables.items():
        np.save(folder / f"{name}.npy", table)
    return folder, tables


def forms(value: np.ndarray, path: object) -> dict[str, object]:
    """One table in every form that the API takes."""
    frame = pd.DataFrame(value, columns=list("0123"))
    return {"file": path, "files": [path], "array": value, "frame": frame, "arrow": pa.Table.from_pandas(frame)}


@pytest.mark.parametrize("form", ["file", "files", "array", "frame", "arrow"])
def test_scores_are_those_of_the_command(tables, form, tmp_path_factory):
    folder, arrays = tables
    output = folder / "scores.parquet"
    if not output.exists():
        files = [word for name in arrays for word in (f"--{name}", folder / f"{name}.npy")]
        command("classify", *files, "--mass", 0, "--folds", 3, "--ensemble", 2, "--output", output)
    given = [forms(value, str(folder / f"{name}.npy"))[form] for name, value in arrays.items()]
    found = rp.classify(*given, mass="0" if form == "arrow" else 0, folds=3, ensemble=2)
    told, summary = pq.read_table(output), json.loads(output.with_suffix(".json").read_text())
    for name in ("score", "background_percentile", "label", "mass"):
        assert found.table[name].to_pylist() == told[name].to_pylist()
    assert found.auc == summary["auc_data_background"]
    assert found.evaluation == summary["evaluation"]
    assert found.evaluation["auc"] > 0.9


def test_the_data_are_scored_where_nothing_else_is_asked(tables):
    _, arrays = tables
    found = rp.classify(arrays["data"], arrays["background"], folds=2, ensemble=1)
    assert found.table["out_of_fold"].to_numpy(zero_copy_only=False).all()
    assert len(found.score) == 1000


def test_wrong_tables_and_settings_are_one_line(tables):
    _, arrays = tables
    bad = arrays["data"].copy()
    bad[7, 1] = np.inf
    with pytest.raises(rp.UserError, match="data: column '1', row 7: inf is not finite"):
        rp.classify(bad, arrays["background"])
    with pytest.raises(rp.UserError, match="classify: unknown key 'fold': did you mean 'folds'"):
        rp.classify(arrays["data"], arrays["background"], fold=3)
