"""Histograms as people bring them: whatever the names, the order and the file, the same bins, contents and errors."""

from __future__ import annotations

import gzip

import h5py
import numpy as np
import pandas as pd
import pytest
import uproot

from raypipe.errors import UserError
from raypipe.events.masses import Masses, load_masses
from raypipe.events.spectra import Spectrum, edges_from_centres
from raypipe.events.tables1d import _graph

LOW = np.array([100.0, 102, 104, 106, 108])
HIGH = LOW + 2
MID = LOW + 1
N = np.array([4.0, 9, 1, 16, 25])
E = np.sqrt(N)
HALF, WRONG = np.ones(5), np.full(5, 77.0)


def rows(*columns, separator=","):
    return "\n".join(separator.join(f"{v:g}" for v in row) for row in zip(*columns, strict=True)) + "\n"


TEXTS = {
    "units.csv": "m_gg [GeV],Events / GeV,stat. unc.\n" + rows(MID, N, E),
    "sides.csv": "x,y,err_up,err_down\n" + rows(MID, N, E, E),
    "signs.csv": "x,y,+error,-error\n" + rows(MID, N, E, -E),
    "root_names.csv": "bin_center,bin_content,bin_error\n" + rows(MID, N, E),
    "stem.csv": "mjj_low,mjj_high,data,background,yerr\n" + rows(LOW, HIGH, N, WRONG, E),
    "half_widths.csv": "x,xerr,y,yerr\n" + rows(MID, HALF, N, E),
    "x_dx_y_dy.dat": rows(MID, HALF, N, E, separator=" "),
    "x_y_dx_dy.dat": rows(MID, N, HALF, E, separator="\t"),
    "x_low_high_y_sides.txt": rows(MID, LOW, HIGH, N, E, E, separator="  "),
    "descending.csv": "x,y,err\n" + rows(MID[::-1], N[::-1], E[::-1]),
    "systematics.csv": "M,M LOW,M HIGH,N,sys +,sys -,stat +,stat -\n" + rows(MID, LOW, HIGH, N, WRONG, -WRONG, E, -E),
    "quoted.csv": '"x";"y";"err"\n' + rows(MID, N, E, separator=";"),
    "windows.csv": "\ufeffx,y,err\r\n" + rows(MID, N, E).replace("\n", "\r\n"),
}


def check(data):
    assert isinstance(data, Spectrum)
    np.testing.assert_allclose(data.low, LOW)
    np.testing.assert_allclose(data.high, HIGH)
    np.testing.assert_array_equal(data.counts, N)
    np.testing.assert_allclose(data.errors, E, rtol=1e-5)


@pytest.mark.parametrize("name", TEXTS)
def test_columns_are_understood(tmp_path, name):
    path = tmp_path / name
    path.write_text(TEXTS[name], encoding="utf-8")
    check(load_masses(path))


def test_second_column_of_a_hepdata_table_has_its_own_errors(tmp_path):
    path = tmp_path / "two.csv"
    path.write_text(
        "M,M LOW,M HIGH,MC,stat +,stat -,N,stat +,stat -\n" + rows(MID, LOW, HIGH, WRONG, WRONG, -WRONG, N, E, -E)
    )
    check(load_masses(path, y="N"))
    check(load_masses(path, column="N"))  # beside edges --column names contents
    np.testing.assert_array_equal(load_masses(path).counts, WRONG)


def test_hepdata_yaml_with_several_variables(tmp_path):
    """Statistical errors alone, percents, two-sided ones, missing bins; other variables by their names."""
    values = [
        f"  - {{value: {n}, errors: [{{symerror: {e}, label: stat}}, {{symerror: 9, label: sys}}]}}"
        for n, e in zip(N, E, strict=True)
    ]
    model = ["  - {value: 10, errors: [{asymerror: {plus: 3, minus: -1}}, {symerror: '40%'}]}"] * 5
    axis = [f"  - {{low: {a}, high: {b}}}" for a, b in zip(LOW, HIGH, strict=True)]
    bare = ["  - {value: 7}"] * 5

    def table(first):
        lines = ["independent_variables:", "- header: {name: M}", "  values:", *axis, "dependent_variables:"]
        for name, rows_of in (("Data", first), ("Model", model), ("Bare", bare)):
            lines += [f"- header: {{name: {name}}}", "  values:", *rows_of]
        path = tmp_path / "table.yaml"
        path.write_text("\n".join(lines))
        return path

    path = table(values)
    check(load_masses(path))
    check(load_masses(path, column="Data"))
    other = load_masses(path, y="Model")
    np.testing.assert_allclose(other.errors, (np.hypot(3, 4) + np.hypot(1, 4)) / 2)
    np.testing.assert_allclose(other.upper, 5)
    assert load_masses(path, y="Bare").errors is None
    missing = load_masses(table(["  - {value: '-'}", *values[1:]]))
    np.testing.assert_array_equal(missing.low, LOW[1:])


def test_arrays_and_compressed_text(tmp_path):
    np.savez(tmp_path / "numpy.npz", *np.histogram(np.repeat(MID, N.astype(int)), np.r_[LOW, 110]))
    data = load_masses(tmp_path / "numpy.npz")
    np.testing.assert_array_equal(data.counts, N)
    np.testing.assert_array_equal(data.low, LOW)
    with h5py.File(tmp_path / "h.h5", "w") as file:
        file["x"], file["y"], file["err"] = MID, N, E
    check(load_masses(tmp_path / "h.h5"))
    with gzip.open(tmp_path / "h.csv.gz", "wt") as file:
        file.write("x,y,err\n" + rows(MID, N, E))
    check(load_masses(tmp_path / "h.csv.gz"))
    tiled = np.vstack([MID[0] + 2 * np.arange(30), np.tile(N, 6), np.tile(E, 6)])  # rows instead of columns
    np.save(tmp_path / "rows.npy", tiled)
    np.testing.assert_array_equal(load_masses(tmp_path / "rows.npy").counts, tiled[1])


def test_points_of_a_root_graph():
    frame = pd.DataFrame(
        {"x": MID, "y": N, "x_errors_low": HALF, "x_errors_high": HALF, "y_errors_low": E, "y_errors_high": E + 1}
    )
    found = _graph(uproot.as_TGraph(frame))
    np.testing.assert_array_equal(found["low"], LOW)
    np.testing.assert_array_equal(found["high"], HIGH)
    np.testing.assert_array_equal(found["err_up"] - found["err_down"], 1)


def test_event_tables_stay_event_tables(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "events.csv"
    pd.DataFrame({"m_yy": 100 + rng.random(50), "y": rng.normal(size=50), "n": np.arange(50)}).to_csv(path, index=False)
    assert isinstance(load_masses(path, column="m_yy"), Masses)
    with pytest.raises(UserError, match="say which column is the mass"):
        load_masses(path)


@pytest.mark.parametrize(
    ("edges", "tolerance"),
    [
        ([0, 1, 2, 3, 4, 5, 8, 11], 0),
        ([0, 5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200], 0),
        ([1530, 1607, 1687, 1770, 1856, 1945, 2037, 2132, 2231, 2332, 2438, 2546], 0),  # CMS dijets, 1911.03947
        ([500, 506, 513, 519, 526, 533, 540, 547, 554], 0),  # CMS diphotons, 2405.09320
        (list(np.geomspace(100, 1000, 20)), 0.03),
    ],
)
def test_published_edges_follow_from_their_centres(edges, tolerance):
    edges = np.array(edges, float)
    low, high = edges_from_centres((edges[1:] + edges[:-1]) / 2, "x")
    np.testing.assert_allclose(np.r_[low, high[-1]], edges, atol=tolerance + 1e-9)


def test_bad_columns_say_why(tmp_path):
    path = tmp_path / "h.csv"
    path.write_text("x,y\n1,2\n2,3\n3,4\n")
    with pytest.raises(UserError, match="--weight w is for event masses"):
        load_masses(path, weight="w", y="y")
    np.save(tmp_path / "c.npy", MID + 1j)
    with pytest.raises(UserError, match="column '0' is not numeric"):
        load_masses(tmp_path / "c.npy")
    np.save(tmp_path / "b.npy", MID > 3)
    with pytest.raises(UserError, match="column '0' is not numeric"):
        load_masses(tmp_path / "b.npy")
