"""`raypipe fit` through the real command line."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from raypipe.cli import main
from tests.conftest import ROOT

DATA = ROOT.parent / "shared" / "data"


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def masses(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "m.npy"
    np.save(path, np.r_[rng.uniform(0, 10, 1000), rng.normal(5, 0.2, 60)])
    return path


def test_fit_prints_one_json_object(masses):
    status, out, _ = run("fit", "--masses", masses, "--window", 0, 10, "--background", "poly:1", "--peak", "5:0.2",
                         "--signal-region", 4.6, 5.4, "--bins", 50, "--json")  # fmt: skip
    row = json.loads(out)
    assert status == 0
    assert row["status"] == "converged"
    assert row["s"] == pytest.approx(60, abs=3 * row["s_err"])
    assert row["z"] == pytest.approx(row["q0"] ** 0.5)
    assert row["signal_region"]["b"] == pytest.approx(80, abs=10)
    for key in ("s_err", "b", "b_err", "p0", "chi2", "ndf", "upper_limit", "background", "n_events", "window"):
        assert row[key] is not None


def test_bad_input_leaves_with_status_2_and_one_line(masses):
    for arguments, message in (
        (("--window", 20, 30, "--peak", "25:1"), "no event between 20 and 30"),
        (("--window", 0, 10, "--peak", "25:1"), "outside the window"),
        (("--window", 0, 10, "--peak", "25"), "write MASS:WIDTH"),
        (("--window", 0, 10, "--column", "mass"), "no column 'mass'"),
        (("--window", 10, 0), "low before high"),
    ):
        status, out, error = run("fit", "--masses", masses, *arguments)
        assert status == 2
        assert message in error
        assert not out
        assert len(error.strip().splitlines()) == 1


def test_hunt_writes_json_and_figure(masses, tmp_path):
    out_folder = tmp_path / "out"
    status, out, _ = run("hunt", "--masses", masses, "--window", 0, 10, "--background", "poly:1", "--widths", "0.2,0.4",
                         "--toys", 200, "--output", out_folder, "--json")  # fmt: skip
    row = json.loads(out)
    assert status == 0
    assert row["best"]["mass"] == pytest.approx(5, abs=0.2)
    assert row["best"]["z"] > 5
    assert row["global"]["toys"]["is_upper_bound"]
    assert row["global"]["asymptotic"]["z"] > 4
    assert json.loads((out_folder / "hunt.json").read_text())["best"] == row["best"]
    assert (out_folder / "hunt.png").read_bytes().startswith(b"\x89PNG")
    status, out, _ = run(
        "hunt", "--masses", masses, "--window", 0, 10, "--background", "poly:1", "--toys", 50, "--json"
    )
    row = json.loads(out)
    assert [scan["width"] for scan in row["scan"]["widths"]] == ["0.167", "0.333", "0.667"]
    assert row["best"]["width"] == "0.167"  # the peak has 0.2
    assert any("widths not given" in note for note in row["notes"])


@pytest.mark.skipif(not (DATA / "cms_4lepton").is_dir(), reason="the shared real data are not beside the checkout")
def test_hunt_over_the_simulated_background_of_cms():
    """Four leptons against the simulated ZZ, tt and DY histograms: the largest excess is the Higgs, at 125 GeV."""
    path = DATA / "cms_4lepton" / "m4l_70_181_normalised.json"
    _, out, _ = run("hunt", "--masses", path, "--column", "data", "--window", 70, 181, "--reference", path,
                    "--reference-column", "ZZ+TTbar+DY", "--widths", 2, "--toys", 200, "--json")  # fmt: skip
    row = json.loads(out)
    assert row["valid"]
    assert row["best"]["mass"] == pytest.approx(125, abs=2)
    assert row["best"]["z"] == pytest.approx(2.75, abs=0.1)


@pytest.mark.skipif(not (DATA / "readers").is_dir(), reason="the shared real data are not beside the checkout")
def test_z_to_muons_of_cms():
    """2304 CMS muon pairs: the Z stands at 91 GeV over little background."""
    _, out, _ = run("fit", "--masses", DATA / "readers" / "uproot-Zmumu.root", "--branch", "M", "--window", 70, 110,
                    "--background", "exp", "--peak", "91:2.5", "--json")  # fmt: skip
    row = json.loads(out)
    assert row["valid"]
    assert row["z"] > 40
    assert 1400 < row["s"] < 1900


def test_floating_peak_and_chosen_background_are_told(masses, tmp_path):
    _, out, error = run("fit", "--masses", masses, "--window", 0, 10, "--background", "poly:auto", "--peak", "4:0.3",
                        "--float-mass", 3, 7, "--float-width", 0.1, 0.6, "--toys", 100,
                        "--known", "8:0.2=5+-3")  # fmt: skip
    assert not error
    found = re.search(r"peak +mass ([\d.]+) ± ([\d.]+), width ([\d.]+) ± ([\d.]+)", out)
    mass, mass_err, width, width_err = (float(x) for x in found.groups())
    assert abs(mass - 5) < 3 * mass_err < 0.3
    assert abs(width - 0.2) < 3 * width_err < 0.3
    assert "global      p <" in out
    assert re.search(r"chosen +by F-test: poly:1 \(p", out)
    assert re.search(r"component +known 8: [\d.]+ ± ", out)


@pytest.mark.skipif(not (DATA / "cms_4lepton").is_dir(), reason="the shared real data are not beside the checkout")
def test_higgs_to_four_leptons_of_cms():
    """The published four-lepton histogram: about three sigma at 125 GeV over a line (real data, 2011-2012)."""
    _, out, _ = run("fit", "--masses", DATA / "cms_4lepton" / "m4l_70_181_normalised.json", "--column", "data",
                    "--window", 100, 181, "--background", "poly:1", "--peak", "125:2", "--json")  # fmt: skip
    row = json.loads(out)
    assert row["likelihood"] == "poisson"
    assert row["n_events"] == 54
    assert row["z"] == pytest.approx(3.2, abs=0.1)
    assert row["s"] == pytest.approx(8.6, abs=0.2)


def test_trees_of_one_file_are_data_and_simulation(tmp_path):
    """The reference is the other tree: 900 events of data over a shape of 9000, free normalisation."""
    import uproot

    rng = np.random.default_rng(2)
    path = tmp_path / "both.root"
    with uproot.recreate(path) as file:
        file["data"] = {"m": rng.uniform(0, 10, 900)}
        file["simulated"] = {"m": rng.uniform(0, 10, 9000), "w": np.full(9000, 0.2)}
    common = ["hunt", "--masses", path, "--tree", "data", "--branch", "m", "--window", 0, 10, "--bins", 20, "--widths",
              0.5, "--toys", 50, "--reference-column", "m", "--json"]  # fmt: skip
    status, out, error = run(*common, "--reference", path, "--reference-tree", "simulated", "--reference-weight", "w")
    assert status == 0, error
    assert json.loads(out)["n_events"] == 900
    status, _, error = run(*common, "--reference", path, "--reference-tree", "absent")
    assert status == 2
    assert "no tree 'absent'" in error
    status, _, error = run(*common)
    assert status == 2
    assert error.strip() == "raypipe: error: --reference-column m: there is no --reference FILE"
