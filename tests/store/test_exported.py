"""What `raypipe export` writes of real searches is read back by others: pyhf, HEPData's validator, a card's grammar."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyhf
import pytest
from click.testing import CliRunner
from hepdata_validator.full_submission_validator import FullSubmissionValidator, SchemaType
from scipy import stats

from raypipe.cli import main
from raypipe.search.result import Result, Trial
from raypipe.stats.workspace import ScoreBins
from raypipe.store.ledger import Ledger
from tests.test_golden import contrastive_rows, table_rows

TRIALS = [Trial("wn_150", 2.0, 0), Trial("none", 0.0, 1)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with two finished trials of a tiny contrastive search."""
    folder = tmp_path_factory.mktemp("run")
    for trial, result in zip(TRIALS, contrastive_rows(*TRIALS), strict=True):
        Ledger(folder / "ledger").record(f"{trial.instance}" * 20, trial, result)
    return folder


def exported(run, *arguments: str) -> dict:
    done = CliRunner().invoke(main, ["export", str(run), *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["export", *arguments])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    return done.stderr


def bins_of_trial(run) -> ScoreBins:
    return ScoreBins.of(Ledger(run / "ledger").arrays("0" * 20))


def test_pyhf_on_the_exported_file_says_what_we_say(run):
    found = exported(run, "--pyhf", "--signal", "wn_150")
    with open(found["path"]) as file:
        book = pyhf.Workspace(json.load(file))  # which checks it against the published schema
    pyhf.set_backend("numpy", "minuit")
    model = book.model()
    data = book.data(model)
    z = stats.norm.isf(float(pyhf.infer.hypotest(0.0, data, model, test_stat="q0")))
    at_limit = float(pyhf.infer.hypotest(found["limit"]["observed"], data, model))
    at_one, expected = pyhf.infer.hypotest(1.0, data, model, return_expected_set=True)
    pyhf.set_backend("numpy", "scipy")
    assert found["z"] == pytest.approx(z, abs=0.02)
    assert at_limit == pytest.approx(0.05, abs=2e-3)
    assert book.observations["signal_region"] == bins_of_trial(run).observed.tolist()
    command = [Path(sys.executable).with_name("pyhf"), "cls", found["path"], "--optimizer", "minuit"]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert said["CLs_obs"] == pytest.approx(float(at_one), abs=2e-3)
    assert said["CLs_exp"] == pytest.approx([float(one) for one in expected], abs=2e-3)


def test_the_row_has_the_significance_of_its_bins(run):
    rows = Ledger(run / "ledger").read("1" * 20)
    assert rows[0]["z_likelihood"] == rows[1]["z_likelihood"] or rows[0]["verdict"] != rows[1]["verdict"]
    result = table_rows()[0]
    bins = ScoreBins.of(result.arrays)
    assert bins.observed.sum() == result.rows[0]["n_before"]
    assert bins.continuum.sum() == pytest.approx(result.rows[0]["expected_before"])
    assert bins.sideband.sum() == pytest.approx(bins.sideband_template.sum())
    assert (bins.sideband >= 5).all()


def test_the_family_s_signal_is_its_simulated_cross_section(run):
    """One fb of wn_150 in ten inverse femtobarn: ten events, all of them in the signal region's percentiles."""
    arrays = Ledger(run / "ledger").arrays("0" * 20)
    assert arrays["likelihood_family"].sum() == pytest.approx(10.0, rel=0.02)
    by_excess, by_family = (exported(run, "--pyhf", "--signal", "wn_150", *more) for more in ([], ["--family"]))
    assert by_family["unit"] == "fb"
    assert by_family["z"] > 0
    assert by_family["mu"] != pytest.approx(by_excess["mu"], rel=0.1)


def card(text: str) -> tuple[dict, dict, dict, dict]:
    """Observations and rates of a counting card, log-normals by name and column, rate parameters by column."""
    lines = [line.split() for line in text.splitlines() if line and not line.startswith(("#", "---"))]
    named = defaultdict(list)
    for name, *cells in lines:
        named[name].append(cells)
    channels, of_column = named["bin"]
    columns = list(zip(of_column, named["process"][0], strict=True))
    assert len(channels) == int(named["imax"][0][0])
    assert len(set(named["process"][0])) == int(named["jmax"][0][0]) + 1
    assert {int(n) <= 0 for n, p in zip(named["process"][1], named["process"][0], strict=True) if p == "signal"} == {
        True
    }
    assert {int(n) > 0 for n, p in zip(named["process"][1], named["process"][0], strict=True) if p != "signal"} == {
        True
    }
    observed = dict(zip(channels, map(float, named["observation"][0]), strict=True))
    rates = dict(zip(columns, map(float, named["rate"][0]), strict=True))
    lognormal = {name: dict(zip(columns, of[0][1:], strict=True)) for name, of in named.items() if of[0][:1] == ["lnN"]}
    parameters = {(c[1], c[2]): (name, float(c[3])) for name, of in named.items() for c in of if c[:1] == ["rateParam"]}
    return observed, rates, lognormal, parameters


def test_the_datacard_is_read_back(run):
    with open(exported(run, "--datacard", "--signal", "wn_150")["path"]) as file:
        observed, rates, lognormal, parameters = card(file.read())
    bins = bins_of_trial(run)
    for k, n in enumerate(bins.observed):
        assert observed[f"sr{k}"] == n
        assert observed[f"sb{k}"] == bins.sideband[k]
        for name in ("signal", "continuum", "higgs"):
            assert rates[f"sr{k}", name] == pytest.approx(getattr(bins, name)[k], rel=1e-8)
        # One floating factor in both regions, with which the sidebands are as observed.
        name, kappa = parameters[f"sb{k}", "continuum"]
        assert parameters[f"sr{k}", "continuum"] == (name, kappa)
        assert kappa * rates[f"sb{k}", "continuum"] == pytest.approx(bins.sideband[k], rel=1e-6)
        assert float(lognormal["higgs_yield"][f"sr{k}", "higgs"]) == 1.1
        assert float(lognormal["normalisation"][f"sr{k}", "continuum"]) == pytest.approx(1 + bins.normalisation[0])
        assert lognormal["normalisation"][f"sb{k}", "continuum"] == "-"


def test_hepdata_s_own_validator_passes_the_submission(run):
    found = exported(run, "--hepdata", "--signal", "wn_150")
    folder = run / "export" / "hepdata"
    assert found["path"] == str(folder / "submission.yaml")
    validator = FullSubmissionValidator(schema_version="1.1.0")
    valid = validator.validate(directory=str(folder))
    assert valid, validator.get_messages()
    assert {str(path.name) for path in folder.iterdir()} == {
        "submission.yaml",
        *(f"{name}.yaml" for name in ("significances", "selection", "limits")),
    }
    assert SchemaType.SUBMISSION in validator.valid_files


def test_what_cannot_be_exported_is_one_line(run, tmp_path):
    assert "no such run" in refused(str(tmp_path / "absent"), "--pyhf")
    assert "one of --pyhf, --datacard, --hepdata" in refused(str(run))
    assert "2 trials with any; there are signal wn_150" in refused(str(run), "--pyhf")
    assert "0 trials with signal zp_400" in refused(str(run), "--pyhf", "--signal", "zp_400")
    assert "no signal was injected" in refused(str(run), "--pyhf", "--signal", "none", "--family")
    other = Ledger(tmp_path / "other" / "ledger")
    result = Result([{"signal": "none", "strength": 0.0, "instance": 0}], {"loss_edges": np.ones(2)})
    other.record("a" * 20, Trial("none", 0.0, 0), result)
    assert "a search without scores" in refused(str(tmp_path / "other"), "--pyhf")
