"""`raypipe simulate`: what needs no simulation."""

from __future__ import annotations

import json

from click.testing import CliRunner

from raypipe.cli import main
from raypipe.cli.samples import _resized
from raypipe.config import load_config
from tests.conftest import ROOT


def _run(*arguments: str):
    return CliRunner().invoke(main, ["simulate", *arguments])


def test_list_for_people_and_programs():
    table = _run("--list")
    assert table.exit_code == 0
    rows = json.loads(_run("--list", "--json").stdout)
    assert {row["sample"] for row in rows} == {
        line.split()[0] for line in table.stdout.split("\n\n")[0].splitlines()[1:]
    }
    by_name = {row["sample"]: row for row in rows}
    stop = by_name["stop_1000"]
    assert stop["masses"] == {"stop": 1000.0, "chi2^0": 400.0, "chi1^0": 0.5}
    assert stop["group"] == -8
    # YR4 (arXiv:1610.07922): 48.58 pb x 2.27e-3
    assert by_name["ggf"]["expected_yield_per_fb"] == 48.58e3 * 2.27e-3 * by_name["ggf"]["efficiency"]
    assert all(row["approximations"] and row["source"] for row in rows)


def test_bad_requests_are_one_line(laptop_yaml, tmp_path):
    missing = _run()
    assert (missing.exit_code, missing.stderr.count("\n")) == (2, 1)
    assert "--config is missing" in missing.stderr
    unknown = _run("--config", str(laptop_yaml), "simulate.samples.wn_151.events=10", "--output", str(tmp_path))
    assert unknown.exit_code == 2
    assert _run("--config", str(laptop_yaml), "--target", "0").exit_code == 2


def test_target_replaces_every_size(laptop_yaml):
    config = _resized(load_config(laptop_yaml), 77)
    assert {size.events for size in config.simulate.samples.values()} == {77}
    assert config.simulate.samples["yy"].embedding_fraction == 0.2


def test_a_configuration_without_a_search_only_simulates():
    path = str(ROOT / "configs" / "fourlepton" / "laptop.yaml")
    for command in ("search", "scan", "embed"):
        result = CliRunner().invoke(main, [command, "--config", path])
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert "search = none: this configuration only simulates" in result.stderr


def test_four_lepton_samples_are_listed():
    rows = {row["sample"]: row for row in json.loads(_run("--list", "--json").stdout)}
    assert rows["abc_150"]["masses"] == {"A": 150.0, "B": 25.0, "C": 15.0}
    assert rows["qq4l"]["family"] == "4l continuum"
    # 55.13 pb (YR4) x 5.93e-5
    assert rows["h4l"]["expected_yield_per_fb"] == 55.13e3 * 5.93e-5 * rows["h4l"]["efficiency"]
