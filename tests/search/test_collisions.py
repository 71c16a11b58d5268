"""A blind search in recorded collisions of CMS, from the ROOT file to the Z boson, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raypipe.cli import main
from tests.conftest import ROOT
from tests.events.readers.test_tables import real

CONFIGS = ROOT / "configs" / "collisions"
M_Z = 91.19  # GeV (PDG)


def invoke(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def electrons() -> Path:
    return real("readers", "skim_Run2012B_DoubleElectron.root")


def test_the_z_boson_is_found_blind(electrons, tmp_path):
    asked = ["search", "--config", CONFIGS / "dielectron.yaml", "--output", tmp_path, "--json", "resources.cpus=1"]
    asked += [f"data.path={electrons}"]
    blind = json.loads(invoke(*asked).stdout)["rows"]
    assert not [row for row in blind if "n_before" in row]
    expected, error = blind[0]["expected_before"], blind[0]["expected_before_error"]
    assert blind[0]["massfit_chi2"] < 2 * blind[0]["massfit_ndf"]
    invoke("unblind", tmp_path, "--reason", "a test")
    seen = json.loads(invoke(*asked).stdout)["rows"]
    assert [row["working_point"] for row in seen] == [0.2, 0.05]
    for row in seen:
        assert row["expected_before"] == pytest.approx(expected)
        assert row["n_before"] - expected > 20 * (expected + error**2) ** 0.5
        assert row["n_after"] > 2 * row["expected_after"]


def test_its_mass_is_that_of_the_particle_data_group(electrons, tmp_path):
    invoke("read", "--config", CONFIGS / "read.yaml", "--output", tmp_path, electrons)
    asked = ["--column", "mass", "--window", 75, 106, "--background", "exp", "--peak", "91:2.5"]
    floating = ["--float-mass", 85, 97, "--float-width", 1, 5, "--toys", 0, "--json"]
    fitted = json.loads(invoke("fit", "--masses", tmp_path / f"{electrons.stem}.parquet", *asked, *floating).stdout)
    assert fitted["z"] > 20
    # The energy scale of electrons as they were reconstructed, without later corrections, is known to half a per cent.
    assert fitted["peak"]["mass"] == pytest.approx(M_Z, abs=0.5)
