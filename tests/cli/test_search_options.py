"""`raypipe search` refuses, before any work, options that would change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from raypipe.cli import main
from tests.conftest import ROOT
from tests.search.test_table import OVERRIDES
from tests.search.toys import toy_table

TABLE, HAXAD, MULTI, CONTRASTIVE = (
    ROOT / f"configs/{name}/laptop.yaml" for name in ("lhco", "haxad", "multilepton", "contrastive")
)


def refused(*arguments: object, begun: tuple[str, ...] = ()) -> str:
    """The one line of a refusal, after the lines that say what had begun."""
    done = CliRunner().invoke(main, ["search", *(str(a) for a in arguments)])
    assert done.exit_code == 2, done.output
    *said, error = done.output.strip().splitlines()
    assert tuple(said) == begun
    return error


@pytest.mark.parametrize(
    "option",
    [
        ("--method", "cathode"),
        ("--method", "supervised"),
        ("--embedding", "ip"),
        ("--instance", "0"),
        ("--instance", "3"),
        ("--strength", "2"),
        ("--signal", "xsh_500_100"),
        ("--signal", "none"),
    ],
)
def test_a_table_search_takes_none_of_the_options_of_an_injection(option):
    assert f"{option[0]} has no effect: a search on a table" in refused("--config", TABLE, *option, "data.path=x.npy")


def test_searches_refuse_what_they_do_not_know(tmp_path):
    assert "--method has no effect in a multilepton search" in refused("--config", MULTI, "--method", "cut")
    assert "--embedding has no effect in a multilepton search" in refused("--config", MULTI, "--embedding", "raw")
    assert "--embedding has no effect: a haxad search" in refused("--config", HAXAD, "--embedding", "id")
    own = ["files.data=d.csv", "simulate=null", "files.reference=r.csv", "compare.expected=100", "scan.signals=[]"]
    words = refused("--config", MULTI, "--instance", "1", *own)
    assert "the search of the recorded data (files.data) takes no --instance" in words


@pytest.mark.parametrize(
    ("strength", "words"),
    [
        ("nan", "'nan' is not a finite number"),
        ("inf", "'inf' is not a finite number"),
        ("-1", "not in the range"),
        ("0", "a signal needs a positive strength"),
    ],
)
@pytest.mark.parametrize(("config", "signal"), [(CONTRASTIVE, "wn_150"), (MULTI, "abc_250")])
def test_a_strength_that_is_none(config, signal, strength, words):
    assert words in refused("--config", config, "--signal", signal, "--strength", strength)


def test_a_cut_finer_than_the_background_is_one_line(ray_local, tmp_path):
    table = toy_table(20_000, 0, 1)
    inside = table[(table[:, 0] >= 3.3) & (table[:, 0] < 3.7)]
    np.save(tmp_path / "data.npy", inside[::2])
    np.save(tmp_path / "background.npy", inside[1::2])
    words = refused(
        "--config",
        TABLE,
        "--output",
        tmp_path / "run",
        *OVERRIDES,
        f"data.path={tmp_path / 'data.npy'}",
        f"background.path={tmp_path / 'background.npy'}",
        "selection.working_points=[0.0001]",
        "resources.cpus=2",
        begun=(f"search: {tmp_path / 'run'}, {len(inside[::2])} events",),
    )
    assert "selection.working_points: a cut at 0.01% cannot be made with" in words


def test_too_few_nulls_for_a_p_value_are_refused_before_any_work(tmp_path):
    arguments = ["calibrate", "--config", str(CONTRASTIVE), "--output", str(tmp_path / "x"), "--nulls", "20"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    told = "with 20 nulls no p-value is below 0.048; 0.01 needs 99 or more (--nulls)"
    assert done.output == f"raypipe: error: calibrate: {told}\n"
    none = CliRunner().invoke(main, [*arguments, "--smallest-p", "0.1", "scan.background_instances=0", "scan.more=[]"])
    assert none.exit_code == 2
    assert "scan.background_instances is 0" in none.output
    assert len(none.output.strip().splitlines()) == 1
