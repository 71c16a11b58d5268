"""The exported model of a fit: pyhf finds the significance, the yield and the limit that the fit has told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyhf
import pytest
from click.testing import CliRunner

import raypipe as rp
from raypipe.cli import main
from raypipe.errors import UserError
from raypipe.stats.workspace import Fits

EDGES = np.linspace(105, 160, 56)
CASES = {
    "a line": {"background": "poly:1"},
    "a polynomial without a signal": {"background": "bernstein:3", "signal": 0},
    "an exponential": {"background": "exp"},
    "a bent exponential of few events": {"background": "exppoly:2", "events": 600, "signal": 25},
    "a known resonance": {"background": "exp", "known": ["115:1.5"]},
    "a known yield": {"background": "exp", "known": ["123:2=80+-30"]},
    "what the background may feign": {"background": "exp", "spurious": 25.0},
}


def histogram(events: int, signal: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts of a falling spectrum with a peak at 125."""
    rng = np.random.default_rng(3)
    masses = 105 + rng.exponential(30, 4 * events)
    masses = np.r_[masses[masses < 160][:events], rng.normal(125, 1.7, signal), rng.normal(115, 1.5, events // 200)]
    return np.histogram(masses, EDGES)[0], EDGES


@pytest.mark.parametrize("name", CASES)
def test_pyhf_finds_what_the_fit_has_told(name, tmp_path):
    case = dict(CASES[name])
    spectrum = histogram(case.pop("events", 12_000), case.pop("signal", 180))
    path = tmp_path / "deeper" / "workspace.json"
    found = rp.fit(spectrum, window=(105, 160), peak="125:1.7", export=path, **case)
    fits = Fits(json.loads(path.read_text()))
    assert fits.z == pytest.approx(max(found.z, 0.0), abs=0.02)
    assert (found.export["z"], found.export["s"]) == (fits.z, fits.mu)
    if found.s > 0:
        assert fits.mu == pytest.approx(found.s, abs=0.02 * found.s_err)
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer())
    excluded = pyhf.infer.hypotest(found.upper_limit, fits.data, fits.model, test_stat="qtilde")
    assert float(excluded) == pytest.approx(0.05, abs=0.004)


def test_the_command_tells_what_pyhf_finds(tmp_path):
    counts, edges = histogram(12_000, 180)
    np.save(tmp_path / "m.npy", np.repeat((edges[1:] + edges[:-1]) / 2, counts))
    given = ["fit", "--masses", tmp_path / "m.npy", "--window", 105, 160, "--peak", "125:1.7", "--bins", 55, "--binned"]
    done = CliRunner().invoke(main, [*map(str, given), "--export", str(tmp_path / "w.json")])
    fits = Fits(json.loads((tmp_path / "w.json").read_text()))
    assert f"export      {tmp_path / 'w.json'}: Z {fits.z:.3f}, s {fits.mu:.5g} with pyhf" in done.output.splitlines()


def test_a_likelihood_that_cannot_be_fitted_is_told(tmp_path):
    rp.fit(histogram(12_000, 180), window=(105, 160), peak="125:1.7", export=tmp_path / "w.json")
    spec = json.loads((tmp_path / "w.json").read_text())
    spec["observations"][0]["data"][0] = float("nan")
    with pytest.raises(UserError, match="did not converge"):
        Fits(spec)


def test_what_pyhf_cannot_fit_is_refused(tmp_path):
    counts, edges = histogram(12_000, 180)
    masses = np.repeat((edges[1:] + edges[:-1]) / 2, counts)
    asked = {"window": (105, 160), "export": tmp_path / "w.json"}
    with pytest.raises(UserError, match="binned fit of a peak"):
        rp.fit(masses, **asked, peak="125:1.7", unbinned=True)
    with pytest.raises(UserError, match="binned fit of a peak"):
        rp.fit(masses, **asked, region=(120, 130))
    with pytest.raises(UserError, match="plain counts"):
        rp.fit(masses, **asked, peak="125:1.7", bins=55, unbinned=False, weight=np.full(len(masses), 0.5))
    weights = np.where(np.arange(len(masses)) % 4, 0.5, 1.5)  # their squares add up to their sum
    with pytest.raises(UserError, match="plain counts"):
        rp.fit(masses, **asked, peak="125:1.7", bins=55, unbinned=False, weight=weights)
    assert not Path(asked["export"]).exists()
