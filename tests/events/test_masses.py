"""Every kind of file gives the same masses or the same histogram; what cannot be read says why in one line."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import uproot

from raypipe.errors import UserError
from raypipe.events.masses import Masses, load_masses
from raypipe.events.spectra import Spectrum, edges_from_centres
from raypipe.stats.spectrum import bin_spectrum

M = np.array([100.0, 110.5, 125.0, 130.25, 150.0])
W = np.array([1.0, 0.5, 2.0, 1.0, 1.0])


def write(folder, kind):
    path = folder / f"events.{kind}"
    frame = pd.DataFrame({"m_yy": M, "w": W, "label": list("abcde")})
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "txt":
        path.write_text("# m_yy w\n" + "\n".join(f"{m} {w}" for m, w in zip(M, W, strict=True)))
    elif kind == "npz":
        np.savez(path, m_yy=M, w=W)
    elif kind == "json":
        path.write_text(json.dumps({"m_yy": list(M), "w": list(W)}))
    elif kind == "root":
        with uproot.recreate(path) as file:
            file["Events"] = {"m_yy": M, "w": W}
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv", "txt", "npz", "json", "root"])
def test_events_of_every_format(tmp_path, kind):
    path = write(tmp_path, kind)
    data = load_masses(path, column="m_yy", weight="w")
    assert isinstance(data, Masses)
    np.testing.assert_array_equal(data.values, M)
    np.testing.assert_array_equal(data.weights, W)
    with pytest.raises(UserError, match=rf"{path.name}: no (column|branch) 'mass'.*m_yy") as caught:
        load_masses(path, column="mass")
    assert "\n" not in str(caught.value)


def test_plain_arrays_and_missing_masses(tmp_path):
    path = tmp_path / "m.npy"
    np.save(path, np.r_[M, np.nan, np.inf])
    data = load_masses(path)
    np.testing.assert_array_equal(data.values, M)
    assert data.missing == 2
    np.save(path, np.stack([W, M], 1))
    np.testing.assert_array_equal(load_masses(path, column="1").values, M)
    np.save(path, np.full(3, np.nan))
    with pytest.raises(UserError, match="no finite mass"):
        load_masses(path)


HISTOGRAMS = {
    "centres.csv": "x,y,err\n101,4,2\n103,9,3\n105,1,1\n107,0,0\n",
    "bare.txt": "101 4 2\n103 9 3\n105 1 1\n107 0 0\n",
    "edges.csv": "low,high,events,error\n100,102,4,2\n102,104,9,3\n104,106,1,1\n106,108,0,0\n",
    "hepdata.csv": "#: table_doi: x\n#: name: Table 1\nM [GEV],M [GEV] LOW,M [GEV] HIGH,EVENTS,stat +,stat -\n"
    "101,100,102,4,2,-2\n103,102,104,9,3,-3\n105,104,106,1,1,-1\n107,106,108,0,0,-0\n\nM [GEV],OTHER\n101,5\n",
    "dict.json": json.dumps({"edges": [100, 102, 104, 106, 108], "counts": [4, 9, 1, 0], "errors": [2, 3, 1, 0]}),
    "hepdata.yaml": "independent_variables:\n- header: {name: M}\n  values:\n"
    + "".join(f"  - {{low: {a}, high: {a + 2}}}\n" for a in (100, 102, 104, 106))
    + "dependent_variables:\n- header: {name: EVENTS}\n  values:\n"
    + "".join(f"  - {{value: {n}, errors: [{{symerror: {n**0.5}}}]}}\n" for n in (4, 9, 1, 0)),
}


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_histograms_are_found_by_their_usual_names(tmp_path, name):
    path = tmp_path / name
    path.write_text(HISTOGRAMS[name])
    data = load_masses(path)
    assert isinstance(data, Spectrum)
    np.testing.assert_allclose(data.low, [100, 102, 104, 106])
    np.testing.assert_allclose(data.high, [102, 104, 106, 108])
    np.testing.assert_array_equal(data.counts, [4, 9, 1, 0])
    np.testing.assert_allclose(data.errors, [2, 3, 1, 0])
    assert bin_spectrum(data, (100, 108)).likelihood == "poisson"


def test_root_histogram(tmp_path):
    path = tmp_path / "h.root"
    with uproot.recreate(path) as file:
        file["h"] = np.histogram(M, [100, 120, 140, 160])
    data = load_masses(path)
    assert isinstance(data, Spectrum)
    np.testing.assert_array_equal(data.counts, [2, 2, 1])
    np.testing.assert_array_equal(data.low, [100, 120, 140])


def test_histograms_of_one_file_add(tmp_path):
    path = tmp_path / "stack.json"
    path.write_text(
        json.dumps(
            {
                "edges": [0, 1, 2],
                "a": {"values": [1.5, 2], "stat_variance": [0.09, 0]},
                "b": {"values": [2.5, 3], "stat_variance": [0.16, 4]},
            }
        )
    )
    data = load_masses(path, column="a+b")
    np.testing.assert_allclose(data.counts, [4, 5])
    np.testing.assert_allclose(data.errors, [0.5, 2])


def test_densities_become_counts_and_keep_their_statistics(tmp_path):
    """dN/dm with errors from counts is recognised: (content/error)^2 are whole numbers."""
    rng = np.random.default_rng(1)
    edges = np.r_[np.arange(0, 10.0), np.arange(10, 41, 3.0)]
    widths = np.diff(edges)
    n = rng.poisson(12 * widths * np.exp(-edges[:-1] / 15))
    path = tmp_path / "rate.csv"
    frame = {"low": edges[:-1], "high": edges[1:], "y": n / widths / 20.3, "error": np.sqrt(n) / widths / 20.3}
    pd.DataFrame(frame).to_csv(path, index=False)
    bins = bin_spectrum(load_masses(path, density=True, scale=20.3), (0, 40))
    assert bins.likelihood == "poisson"
    np.testing.assert_allclose(bins.counts, n, atol=1e-9)
    unscaled = bin_spectrum(load_masses(path, density=True), (0, 40))
    assert unscaled.likelihood == "scaled poisson"
    np.testing.assert_allclose(unscaled.scale, 1 / 20.3, rtol=1e-6)


def test_unequal_bins_from_centres():
    edges = np.array([1.0, 2, 3, 5, 7, 10, 14])
    low, high = edges_from_centres((edges[1:] + edges[:-1]) / 2, "x")
    np.testing.assert_allclose((low + high) / 2, (edges[1:] + edges[:-1]) / 2)
    np.testing.assert_allclose(low[1:], high[:-1])
    assert np.abs(np.r_[low, high[-1]] - edges).max() < 0.35  # the one edge that centres leave open is near
    low, high = edges_from_centres(np.array([1.0, 2, 5, 6]), "x")  # bins left out, not wide ones
    np.testing.assert_allclose(high - low, 1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "x,y\n1,2\n1,3\n", "ascending"),
        ("a.csv", "low,high,y\n0,2,5\n1,3,5\n", "overlap"),
        ("a.csv", "x,y,err\n1,2,1\n2,3,-1\n3,4,1\n", "error is negative"),
        ("a.csv", "x,y\n1,2\n2,nan\n3,4\n", "not a number"),
        ("a.csv", "", "no table"),
        ("a.json", "{", "cannot be read"),
        ("a.json", '{"m": [1, 2], "m": [3, 4]}', "a.json: the name 'm' stands twice"),
        ("a.json", '{"m": [1, 2, "x", 4], "w": [1, 1, 1, 1]}', "a.json: column 'm', row 2: 'x' is not a number"),
        ("a.root", "not root", "cannot be read"),
        ("a.parquet", "not parquet", "cannot be read"),
        ("a.docx", "x", "unknown kind of file"),
        ("a.json", '{"edges": [0, 1, 2], "y": [1, 2, 3]}', "must have 2 values"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_masses(path)
    assert "\n" not in str(caught.value)
