"""`raypipe fit` through the real command line."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from raypipe.cli import main
from raypipe.cli.fits import failure
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
    status, out, _ = run(
        "fit",
        "--masses",
        masses,
        "--window",
        0,
        10,
        "--background",
        "poly:1",
        "--peak",
        "5:0.2",
        "--signal-region",
        4.6,
        5.4,
        "--bins",
        50,
        "--json",
    )
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
    status, out, _ = run(
        "hunt",
        "--masses",
        masses,
        "--window",
        0,
        10,
        "--background",
        "poly:1",
        "--widths",
        "0.2,0.4",
        "--toys",
        200,
        "--output",
        out_folder,
        "--json",
    )
    row = json.loads(out)
    assert status == 0
    assert row["best"]["mass"] == pytest.approx(5, abs=0.2)
    assert row["best"]["z"] > 5
    assert row["global"]["toys"]["is_upper_bound"]
    assert row["global"]["asymptotic"]["z"] > 4
    assert json.loads((out_folder / "hunt.json").read_text())["best"] == row["best"]
    assert "<svg" in (out_folder / "hunt.svg").read_text()
    assert (out_folder / "hunt.csv").stat().st_size > 100
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
    _, out, _ = run(
        "hunt",
        "--masses",
        path,
        "--column",
        "data",
        "--window",
        70,
        181,
        "--reference",
        path,
        "--reference-column",
        "ZZ+TTbar+DY",
        "--widths",
        2,
        "--toys",
        200,
        "--json",
    )
    row = json.loads(out)
    assert row["valid"]
    assert row["best"]["mass"] == pytest.approx(125, abs=2)
    assert row["best"]["z"] == pytest.approx(2.75, abs=0.1)


@pytest.mark.skipif(not (DATA / "readers").is_dir(), reason="the shared real data are not beside the checkout")
def test_z_to_muons_of_cms():
    """2304 CMS muon pairs: the Z stands at 91 GeV over little background."""
    _, out, _ = run(
        "fit",
        "--masses",
        DATA / "readers" / "uproot-Zmumu.root",
        "--branch",
        "M",
        "--window",
        70,
        110,
        "--background",
        "exp",
        "--peak",
        "91:2.5",
        "--json",
    )
    row = json.loads(out)
    assert row["valid"]
    assert row["z"] > 40
    assert 1400 < row["s"] < 1900


def test_floating_peak_and_chosen_background_are_told(masses, tmp_path):
    _, out, error = run(
        "fit",
        "--masses",
        masses,
        "--window",
        0,
        10,
        "--background",
        "poly:auto",
        "--peak",
        "4:0.3",
        "--float-mass",
        3,
        7,
        "--float-width",
        0.1,
        0.6,
        "--toys",
        100,
        "--known",
        "8:0.2=5+-3",
    )
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
    _, out, _ = run(
        "fit",
        "--masses",
        DATA / "cms_4lepton" / "m4l_70_181_normalised.json",
        "--column",
        "data",
        "--window",
        100,
        181,
        "--background",
        "poly:1",
        "--peak",
        "125:2",
        "--json",
    )
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
    common = [
        "hunt",
        "--masses",
        path,
        "--tree",
        "data",
        "--branch",
        "m",
        "--window",
        0,
        10,
        "--bins",
        20,
        "--widths",
        0.5,
        "--toys",
        50,
        "--reference-column",
        "m",
        "--json",
    ]
    status, out, error = run(*common, "--reference", path, "--reference-tree", "simulated", "--reference-weight", "w")
    assert status == 0, error
    assert json.loads(out)["n_events"] == 900
    status, _, error = run(*common, "--reference", path, "--reference-tree", "absent")
    assert status == 2
    assert "no tree 'absent'" in error
    status, _, error = run(*common)
    assert status == 2
    assert error.strip() == "raypipe: error: --reference-column has no effect without --reference: leave it out"


def write_th1(path, counts, squares, low=100.0, high=180.0):
    """A TH1D with Sumw2, as ROOT writes it."""
    import uproot
    from uproot.writing.identify import to_TAxis, to_TH1x

    bins, flow = len(counts), lambda v: np.r_[0.0, v, 0.0]
    centres = low + (np.arange(bins) + 0.5) * (high - low) / bins
    with uproot.recreate(path) as file:
        file["h"] = to_TH1x(
            fName="h",
            fTitle="h",
            data=flow(counts),
            fEntries=float(bins),
            fTsumw=counts.sum(),
            fTsumw2=squares.sum(),
            fTsumwx=(counts * centres).sum(),
            fTsumwx2=(counts * centres**2).sum(),
            fSumw2=flow(squares),
            fXaxis=to_TAxis("x", "x", bins, low, high),
        )


@pytest.mark.parametrize("n", [400, 4000])
@pytest.mark.parametrize("negative", [0.0, 0.15])
def test_a_th1_with_sumw2_is_the_fit_of_its_events(tmp_path, n, negative):
    rng = np.random.default_rng(3)
    m = np.r_[100 + rng.exponential(40, n), rng.normal(125, 1.7, int(0.03 * n))]
    w = rng.gamma(4, 0.25, len(m)) * np.where(rng.random(len(m)) < negative, -1, 1)
    inside = m < 180
    m, w = m[inside], w[inside]
    counts, squares = (np.histogram(m, 80, (100, 180), weights=x)[0] for x in (w, w**2))
    write_th1(tmp_path / "h.root", counts, squares)
    np.savetxt(tmp_path / "m.csv", np.c_[m, w], delimiter=",", header="m,w", comments="")
    options = ("--window", 100, 180, "--background", "exp", "--peak", "125:1.7", "--json")
    rows = [
        json.loads(run("fit", "--masses", tmp_path / name, *more, *options)[1])
        for name, more in (("h.root", ()), ("m.csv", ("--column", "m", "--weight", "w")))
    ]
    for row in rows:
        assert row["b"] + row["s"] == pytest.approx(w.sum(), rel=1e-3)
        assert row["b_err"] == pytest.approx(np.sqrt((w**2).sum()), rel=0.08)
    assert rows[0]["s"] == pytest.approx(rows[1]["s"], abs=0.35 * rows[1]["s_err"])
    assert rows[0]["s_err"] == pytest.approx(rows[1]["s_err"], rel=0.06)


@pytest.fixture
def histogram(tmp_path):
    path = tmp_path / "h.csv"
    edges = np.linspace(0, 10, 51)
    counts, _ = np.histogram(np.random.default_rng(1).uniform(0, 10, 2000), edges)
    rows = "\n".join(f"{a:g},{b:g},{n}" for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True))
    path.write_text("low,high,y\n" + rows + "\n")
    return path


READING = [
    "--scale 2",
    "--density",
    "--error 0",
    "--x 0",
    "--y 0 --column 0",
    "--tree t",
    "--likelihood poisson",
    "--sqrt-s 8000",
    "--column 0 --branch 0",
]
FITTING = ["--toys 10", "--seed 3", "--simulation-column a", "--simulation-weight a"]
HUNTING = [
    "--reference-column a",
    "--reference-weight a",
    "--reference-order 1",
    "--widths 1 --signal-region 4 6",
    "--points 3 --signal-region 4 6",
    "--scan 3 7 --signal-region 4 6",
    "--tails 1:2:1:2 --signal-region 4 6",
    "--seed 3 --toys 0",
]


@pytest.mark.parametrize(
    ("command", "text"),
    [("fit", text) for text in READING + FITTING] + [("hunt", text) for text in READING + HUNTING],
)
def test_options_without_effect_are_refused(masses, command, text):
    options = text.split()
    peak = ("--peak", "5:0.2") if command == "fit" else ()
    status, out, error = run(command, "--masses", masses, "--window", 0, 10, "--background", "poly:1", *peak, *options)
    assert status == 2
    assert not out
    assert len(error.strip().splitlines()) == 1
    assert f"{options[0]} has no effect" in error
    assert "leave it out" in error


def test_more_options_without_effect(masses, histogram):
    for command, arguments, message in (
        ("fit", ("--masses", masses, "--level", 0.9), "--level has no effect without --peak or --signal-region"),
        ("fit", ("--masses", masses, "--signal-region", 4, 6, "--unbinned"), "--unbinned has no effect"),
        ("fit", ("--masses", masses, "--signal-region", 4, 6, "--float-mass", 4, 6), "needs a peak to begin with"),
        ("hunt", ("--masses", masses, "--reference", masses, "--background", "exp"), "--background has no effect with"),
        ("hunt", ("--masses", histogram, "--bins", 10), "a histogram keeps its own bins"),
        ("hunt", ("--masses", masses, "--mask", 20, 30), "mask 20-30 lies outside the window 0-10: leave it out"),
    ):
        status, _, error = run(command, *arguments, "--window", 0, 10)
        assert status == 2, arguments
        assert message in error
    # A density is that of the reference too.
    status, _, error = run(
        "hunt", "--masses", masses, "--reference", histogram, "--density", "--window", 0, 10, "--bins", 50, "--toys", 0
    )
    assert status == 0, error


def test_columns_of_a_histogram_without_columns_are_refused(tmp_path):
    path = tmp_path / "h.json"
    path.write_text(json.dumps({"edges": [0, 1, 2, 3, 4], "data": [5, 4, 3, 2], "mine": [9, 9, 9, 9]}))
    status, _, error = run("fit", "--masses", path, "--window", 0, 4, "--error", "mine", "--background", "flat")
    assert status == 2
    assert "--error mine has no effect" in error


def test_a_bound_is_printed_as_a_bound_and_one_number_is_to_be_quoted(masses):
    arguments = ("--masses", masses, "--window", 0, 10, "--background", "poly:1", "--toys", 100)
    floating = ("--peak", "5:0.2", "--float-mass", 3, 7)
    for command, more, where in (("fit", floating, ("global",)), ("hunt", ("--widths", 0.2), ("global", "toys"))):
        _, out, _ = run(command, *arguments, *more)
        (line,) = (line for line in out.splitlines() if "toys)" in line and line.startswith("global") and "<" in line)
        assert re.fullmatch(r"global +p < 0\.0099 \((100 )?toys\)", line)
        (quote,) = (line for line in out.splitlines() if line.startswith("quote"))
        assert quote.startswith("quote       p < 0.0099 (global, toys")
        _, out, _ = run(command, *arguments, *more, "--json")
        row = json.loads(out)
        found = row
        for key in where:
            found = found[key]
        assert found["is_upper_bound"]
        assert found["z"] is None
        assert found["p_err"] is None
        assert found["p"] == pytest.approx(1 / 101)
        assert row["quote"]["key"] == ".".join(where)
        assert (row["quote"]["p"], row["quote"]["z"]) == (found["p"], None)
    _, out, _ = run("fit", "--masses", masses, "--window", 0, 10, "--background", "poly:1", "--signal-region", 4.4, 5.6)
    assert re.search(r"quote +p = \S+, Z [\d.]+ \(profile likelihood of sidebands and count\)", out)
    _, out, _ = run("fit", *arguments[:-1], 0, *floating)
    assert "quote       nothing yet" in out


def test_a_hunt_that_fails_says_where_and_gives_no_advice_that_cannot_apply(tmp_path):
    """Weights that nearly cancel (200 events, sum 8): no fit at most masses."""
    rng = np.random.default_rng(11)
    m = 100 - 40 * np.log(1 - rng.random(200) * (1 - np.exp(-2)))
    w = np.where(rng.random(200) < 0.42, -1.0, 1.0)
    np.savetxt(tmp_path / "m.csv", np.c_[m, w], delimiter=",", header="m,w", comments="")
    status, out, error = run(
        "hunt",
        "--masses",
        tmp_path / "m.csv",
        "--column",
        "m",
        "--weight",
        "w",
        "--window",
        100,
        180,
        "--widths",
        3,
        "--bins",
        40,
        "--toys",
        0,
    )
    assert status == 1
    assert "not converged" in out
    assert re.search(r"no convergence at mass 103 \(width 3\), .* and \d+ more: do not use these numbers", error)
    assert "another background" in error
    row = {"notes": ["no convergence at mass 120 (width 3)"]}
    assert failure(row, reference=True, events=False) == (
        "raypipe: no convergence at mass 120 (width 3): do not use these numbers; try a larger simulation, or --mask "
        "that range"
    )
    assert "background" not in failure(row, reference=True, events=True)
    assert "--bins" not in failure(row, reference=False, events=False)
