"""The validation page of a data set: its numbers against NumPy and closed forms, its errors, its command."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from raypipe.cli import main
from raypipe.errors import UserError
from raypipe.events.schema import FEATURES, FOUR_LEPTON_SCHEMA, LEPTON_COLUMNS, tensor_values
from raypipe.events.table import ROW_GROUP, stream_table, write_table
from raypipe.files import write_json
from raypipe.report.html import resource
from raypipe.report.validation import make_validation, measure, panels
from raypipe.report.validation_numbers import Mean, Spectrum, collect, peak, smoothness
from raypipe.report.validation_page import headlines
from raypipe.report.validation_quantities import DIPHOTON
from raypipe.simulate.processes import PROCESSES
from tests.events.helpers import event_table, replace


def data_set(folder, samples: dict[str, dict[str, pa.Table]], **extra):
    """A finished data set folder of the given tables, sample -> split -> table."""
    entries = {}
    for name, splits in samples.items():
        files = {}
        for split, table in splits.items():
            write_table(table, folder / split / f"{name}.parquet")
            files[f"{split}/{name}.parquet"] = (folder / split / f"{name}.parquet").stat().st_size
        table = next(iter(splits.values()))
        entries[name] = {"group": table["group"][0].as_py(), "title": name, "files": files, **extra.get(name, {})}
    write_json(folder / "dataset.json", {"format": 1, "mpi": False, "samples": entries})
    return folder


def weighted(n: int, seed: int, **kwargs) -> pa.Table:
    """An event table with weights that differ from event to event."""
    weights = np.random.default_rng(seed).uniform(0.1, 2.0, n)
    return replace(event_table(n, seed=seed, **kwargs), "weight", pa.array(weights))


def joined(tables) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns of all tables, and weights that average the splits in proportion to their events."""
    total = sum(t.num_rows for t in tables)
    names = ("m_yy", "pt_yy", "objects", "features")
    columns = {}
    for name in names:
        parts = [tensor_values(t[name]) if name in {"objects", "features"} else t[name].to_numpy() for t in tables]
        columns[name] = np.concatenate(parts).astype(float)
    return columns, np.concatenate([t["weight"].to_numpy() * t.num_rows / total for t in tables])


def test_numbers_agree_with_numpy(tmp_path):
    tables = {"embedding": weighted(700, 1, split="embedding"), "search": weighted(1900, 2, first=10_000)}
    _, numbers = measure(data_set(tmp_path / "events", {"yy": tables}))
    columns, weights = joined(tables.values())
    found = numbers["samples"]["yy"]
    assert found["yield"]["per_fb"] == pytest.approx(weights.sum(), rel=1e-12)
    for split, table in tables.items():
        assert found["yield"]["sum_of_weights"][split] == pytest.approx(table["weight"].to_numpy().sum(), rel=1e-12)
    for name, values in (
        ("m_yy", columns["m_yy"]),
        ("pt_yy", columns["pt_yy"]),
        ("met", columns["features"][:, FEATURES.index("met")]),
    ):
        spectrum = found["spectra"][name]
        edges = np.array(spectrum["edges"])
        np.testing.assert_allclose(spectrum["counts"], np.histogram(values, edges, weights=weights)[0], rtol=1e-10)
        squares = np.histogram(values, edges, weights=weights**2)[0]
        np.testing.assert_allclose(np.square(spectrum["errors"]), squares, rtol=1e-10)
        assert spectrum["below"] == pytest.approx(weights[values < edges[0]].sum())
        assert spectrum["above"] == pytest.approx(weights[values > edges[-1]].sum())
    fat = (columns["objects"][:, 4:6, 0] > 0).sum(axis=1)
    mean = np.average(fat, weights=weights)
    assert found["means"]["n_fatjet"]["value"] == pytest.approx(mean, rel=1e-12)
    error = np.sqrt(np.sum(weights**2 * (fat - mean) ** 2)) / weights.sum()
    assert found["means"]["n_fatjet"]["error"] == pytest.approx(error, rel=1e-6)
    assert found["bytes_per_event"] == pytest.approx(
        sum(p.stat().st_size for p in (tmp_path / "events").glob("*/*.parquet")) / 2600
    )


def test_a_file_in_pieces_gives_the_same(tmp_path, monkeypatch):
    path = tmp_path / "yy.parquet"
    write_table(weighted(2 * ROW_GROUP + 100, 3), path)
    pieces = list(stream_table(path, ("weight", "m_yy"), rows=5000))
    assert max(p.num_rows for p in pieces) <= 5000
    np.testing.assert_array_equal(np.concatenate([p["m_yy"].to_numpy() for p in pieces]), pq.read_table(path)["m_yy"])

    def all_numbers():
        sums = collect("yy", 0, {"search": [path]}, DIPHOTON)
        return np.r_[sums.spectra["m_yy_fine"].sums, sums.means["n_fatjet"].as_dict()["value"], sums.weight["search"]]

    whole = all_numbers()
    monkeypatch.setattr("raypipe.report.validation_numbers.stream_table", lambda p, c: stream_table(p, c, rows=1777))
    np.testing.assert_allclose(all_numbers(), whole, rtol=1e-9)


def test_mean_of_a_mask_is_a_share_with_a_binomial_error():
    mask = np.arange(400) < 100
    mean = Mean()
    mean.add(mask, np.full(400, 0.3))
    assert mean.as_dict() == pytest.approx({"value": 0.25, "error": np.sqrt(0.25 * 0.75 / 400)})
    assert Mean().as_dict() == {"value": None, "error": None}


def test_peak_of_a_resonance_and_on_a_slope():
    rng = np.random.default_rng(5)
    spectrum = Spectrum(np.linspace(105, 160, 1101))
    values = rng.normal(125, 1.6, 20_000)
    spectrum.add(values, rng.uniform(0.5, 1.5, len(values)))
    found = peak(spectrum)
    assert abs(found["position"] - 125) < 3 * found["error"]
    assert found["error"] == pytest.approx(1.2533 * 1.6 / np.sqrt(20_000), rel=0.25)
    assert found["sigma68"] == pytest.approx(1.6, rel=0.03)
    slope = rng.exponential(30, 60_000) + 105
    spectrum.add(slope, np.full(len(slope), 1.0))
    assert abs(peak(spectrum, 115, 140)["position"] - 125) < 0.2
    assert peak(spectrum)["position"] == pytest.approx(125, abs=0.3)
    assert peak(Spectrum(np.linspace(0, 1, 11))) is None


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_a_smooth_fall_fits_and_an_edge_does_not(scale):
    rng = np.random.default_rng(6)
    values = 105 + rng.exponential(30, 300_000)
    for cut, smooth in ((0.0, True), (0.15, False)):
        kept = values[(values > 112) | (rng.random(len(values)) > cut)]
        spectrum = Spectrum(np.linspace(105, 160, 56))
        spectrum.add(kept, np.full(len(kept), scale))
        found = smoothness(spectrum)
        assert (found["p_value"] > 0.01) == smooth
        assert found["ndf"] == 51
    assert smoothness(Spectrum(np.linspace(105, 160, 56))) is None


def test_references_name_samples_that_exist():
    found = resource("references")
    named = {*found["yields"], *found["k_factors"], *found["means"], *found["widths"]}
    assert named <= PROCESSES.keys()
    numbers = [entry["per_fb"] for entry in found["yields"].values()]
    assert all(isinstance(value, float) for value in numbers)  # YAML reads 2.1e3 as text


def test_wrong_weights_are_seen(tmp_path):
    reference = {"efficiency": 0.5, "reference_cross_section_fb": 200.0, "pythia_cross_section_fb": 100.0}
    tables = {"search": event_table(500, weight=0.2), "embedding": event_table(500, weight=0.3, split="embedding")}
    folder = data_set(tmp_path, {"yy": tables}, yy=reference)
    _, numbers = measure(folder)
    found = numbers["samples"]["yy"]["yield"]
    assert found["of_reference"] == pytest.approx({"search": 1.0, "embedding": 1.5})
    assert found["k_factor"] == pytest.approx(2.0)
    assert any("DISAGREE" in line and "5.0e-01" in line for line in headlines(numbers))


def test_many_signals_share_panels_by_family(tmp_path):
    path = tmp_path / "x.parquet"
    write_table(event_table(50), path)
    named = [("yy", 0), ("ggf", 1), *((f"a_{m}", -1) for m in range(4)), *((f"b_{m}", -2) for m in range(8))]
    found = panels([collect(name, group, {"search": [path]}, DIPHOTON) for name, group in named])
    assert [[s.name for s in members] for _, members in found] == [
        ["yy", "ggf"],
        ["a_0", "a_1", "a_2", "a_3"],
        ["b_0", "b_1", "b_2", "b_3", "b_4", "b_5"],
        ["b_6", "b_7"],
    ]


def test_imported_tables_and_their_skipped_files(tmp_path):
    rng = np.random.default_rng(7)
    for name, shift in (("a", 0.0), ("b", 50.0)):
        masses = rng.normal(3500 + shift, 100, 900)
        table = pa.table({"event_id": np.arange(900), "weight": np.ones(900), "m_jj": masses, "label": masses > 3500})
        write_table(table, tmp_path / f"{name}.parquet")
    files = [
        {"path": f"x/{n}.h5", "events": 1000, "written": 900, "table": str(tmp_path / f"{n}.parquet")} for n in "ab"
    ]
    skipped = [{"path": "x/bad.root", "reason": "x/bad.root: not a readable ROOT file"}]
    write_json(tmp_path / "read.json", {"files": files, "skipped": skipped, "config": {"source": {"group": 0}}})
    numbers = make_validation(tmp_path)
    assert numbers["samples"]["a"]["kind"] == "table"
    assert numbers["samples"]["a"]["means"]["m_jj"]["value"] == pytest.approx(3500, abs=15)
    edges = [numbers["samples"][n]["spectra"]["m_jj"]["edges"] for n in "ab"]
    assert edges[0] == edges[1]  # overlaid shapes need one axis
    assert "1 input files could not be read and were skipped." in headlines(numbers)
    page = (tmp_path / "validation" / "validation.html").read_text()
    assert "not a readable ROOT file" in page
    assert "90.00%" in page
    write_json(tmp_path / "read.json", {"files": files})
    with pytest.raises(UserError, match=r"read.json: not a sidecar of `raypipe read`"):
        measure(tmp_path)


def four_leptons(n: int, masses: dict[str, np.ndarray], sample: str, group: int) -> pa.Table:
    """A four-lepton table with given masses."""
    values = {
        "event_id": pa.array(np.arange(n)),
        "sample": pa.array([sample] * n).dictionary_encode(),
        "group": pa.array(np.full(n, group, np.int8)),
        "split": pa.array(["search"] * n).dictionary_encode(),
        "weight": pa.array(np.full(n, 0.01)),
    }
    floats = {name: np.full(n, 20.0) for name in LEPTON_COLUMNS} | masses
    values |= {name: pa.array(column.astype(np.float32)) for name, column in floats.items()}
    return pa.table([values[f.name] for f in FOUR_LEPTON_SCHEMA], schema=FOUR_LEPTON_SCHEMA)


def test_four_lepton_peaks_and_shares(tmp_path):
    rng = np.random.default_rng(8)
    n = 4000
    z = rng.normal(91.2, 2.5, (3, n))
    continuum = {"m_4l": np.where(np.arange(n) < n // 8, z[0], rng.uniform(185, 400, n)), "m_ee": z[1], "m_mumu": z[2]}
    signal = {"m_4l": rng.normal(250, 3.6, n), "m_ee": rng.normal(25, 0.5, n), "m_mumu": rng.normal(15, 0.2, n)}
    tables = {
        "qq4l": {"search": four_leptons(n, continuum, "qq4l", 10)},
        "abc_250": {"search": four_leptons(n, signal, "abc_250", -10)},
    }
    samples, numbers = measure(data_set(tmp_path, tables))
    assert {s.kind.name for s in samples} == {"four-lepton"}
    background, found = (numbers["samples"][name] for name in ("qq4l", "abc_250"))
    near = background["peaks"]["m_4l near Z"]
    assert abs(near["position"] - 91.2) < 4 * near["error"]
    share = np.mean((continuum["m_4l"] > 85) & (continuum["m_4l"] < 97))
    assert background["means"]["z_to_4l"]["value"] == pytest.approx(share, abs=1e-3)
    assert background["means"]["two_z"]["value"] == pytest.approx(1.0)
    for mass, position, width in (("m_4l", 250, 3.6), ("m_ee", 25, 0.5), ("m_mumu", 15, 0.2)):
        assert abs(found["peaks"][mass]["position"] - position) < 4 * found["peaks"][mass]["error"]
        assert found["peaks"][mass]["sigma68"] == pytest.approx(width, rel=0.06)


def test_bad_values_are_named(tmp_path):
    path = tmp_path / "yy.parquet"
    table = event_table(50)
    masses = table["m_yy"].to_numpy().copy()
    masses[7] = np.nan
    for column, values, message in (
        ("m_yy", masses, "column 'm_yy', row 7: nan is not finite"),
        ("weight", np.r_[np.ones(30), -2.0, np.ones(19)], r"column 'weight', row 30: -2.0 is negative"),
    ):
        write_table(replace(table, column, pa.array(values)), path)
        with pytest.raises(UserError, match=re.escape(str(path)) + ": " + message):
            collect("yy", 0, {"search": [path]}, DIPHOTON)


def invoke(*arguments):
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


def test_command(tmp_path):
    events = data_set(
        tmp_path / "events",
        {
            name: {"search": event_table(300, sample=name, group=group, first=1000 * k)}
            for k, (name, group) in enumerate((("yy", 0), ("ggf", 1), ("tth", 4), ("wn_150", -1), ("zp_400", -6)))
        },
    )
    result = invoke("--events", events, "--output", tmp_path / "page", "--json")
    assert result.exit_code == 0, result.output
    numbers = json.loads(result.stdout)
    assert set(numbers["samples"]) == {"yy", "ggf", "tth", "wn_150", "zp_400"}
    assert json.loads((tmp_path / "page" / "validation.json").read_text()) == numbers
    page = (tmp_path / "page" / "validation.html").read_text()
    assert page.count("<svg ") == page.count('href="data:text/csv') == 10
    assert "src=" not in page  # nothing outside the file
    assert "http" not in page
    for text in ("Shapes", "zp_400", "numbers.md 2.4", "Yields"):
        assert text in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--events", "{empty}"], "no finished data set here"),
        (["--events", "{gone}"], "no such file"),
        (["--events", "{damaged}"], "not a readable Parquet file"),
        (["--events", "{nameless}"], "the manifest names no samples"),
        (["--events", "{empty}", "seed=3"], "--events takes no --config and no overrides"),
        ([], "--config is missing"),
    ],
)
def test_errors_are_one_line(tmp_path, arguments, message):
    table = {"yy": {"search": event_table(20)}}
    places = {name: tmp_path / name for name in ("empty", "gone", "damaged", "nameless")}
    places["empty"].mkdir()
    data_set(places["gone"], table)
    (places["gone"] / "search" / "yy.parquet").unlink()
    data_set(places["damaged"], table)
    (places["damaged"] / "search" / "yy.parquet").write_bytes(b"PAR1 cut short")
    write_json(places["nameless"] / "dataset.json", {"samples": {}})
    result = invoke(*(a.format(**places) for a in arguments))
    assert result.exit_code == 2
    begun = [f"report: {places[name]}, 1 samples" for name in ("gone", "damaged") if f"{{{name}}}" in arguments]
    *said, error = result.stderr.strip().splitlines()
    assert said == begun  # what is found only by reading comes after the line that says what is read
    assert error.startswith("raypipe: error: ")
    assert message in error
