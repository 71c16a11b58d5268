"""`raypipe new`: what it writes is what the search takes, and nothing in it comes from the signal region."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import uproot
from click.testing import CliRunner, Result

from raypipe.cli import main
from raypipe.config import load_config
from raypipe.config.load import parse
from raypipe.config.shipped import plain, shipped
from raypipe.kinds import KINDS
from tests.cli.test_kinds import one_line
from tests.conftest import ROOT
from tests.events.readers.test_tables import real
from tests.search.toys import WINDOW, toy_table

REGION = ("--window", "3.3", "3.7")
SIZES = [
    (search, size) for search in KINDS for size in shipped(search) if search in ("contrastive", "haxad", "multilepton")
]


def frame(seed: int = 1) -> pd.DataFrame:
    """4100 toy events in the mass m_jj with two features, one that follows the mass, and what cannot be one."""
    table, rng = toy_table(4000, 100, seed), np.random.default_rng(seed)
    mass, n = table[:, 0], len(table)
    columns = {"event": np.arange(n) * 7, "m_jj": mass, "tau_1": table[:, 1], "tau_2": table[:, 2]}
    columns |= {"m_gev": 1000 * mass, "ht": mass + rng.normal(0, 0.5, n), "flat": np.full(n, 7.0)}
    columns |= {"hole": np.where(np.arange(n) == 12, np.nan, rng.random(n)), "trigger": ["mu", "e"] * (n // 2)}
    return pd.DataFrame(columns | {"truth": table[:, 3].astype(int), "weight": rng.random(n)})


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["new", *map(str, arguments)])


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, with the table as Parquet."""
    monkeypatch.chdir(tmp_path)
    frame().to_parquet("events.parquet")
    return tmp_path


def test_a_table_is_looked_into(here):
    done = invoke("table", "events.parquet", "-o", "mine.yaml")
    assert done.exit_code == 0, done.output
    assert "raypipe search --config mine.yaml" in done.output
    config, text = load_config("mine.yaml"), (here / "mine.yaml").read_text()
    mass = frame()["m_jj"].to_numpy()
    assert (config.search, config.output, config.data.path) == ("table", "runs/mine", "events.parquet")
    assert (config.data.columns.mass, config.data.columns.features) == ("m_jj", ["tau_1", "tau_2", "ht"])
    assert (config.data.columns.label, config.blind, config.recorded) == (None, None, ["events.parquet"])
    edges = [config.window.low, config.window.sr_low, config.window.sr_high, config.window.high]
    assert edges == pytest.approx(np.quantile(mass, [0.01, 0.45, 0.55, 0.99]), rel=1e-3)
    lhco = load_config(shipped("table")["laptop"], ["data.path=x"])
    assert (config.flow, config.preprocess) == (lhco.flow, lhco.preprocess)
    for line in (
        "# PROPOSAL, by its name.",
        "# Left out: event: whole numbers, called like an id or all different.",
        "# Left out: m_gev: a copy of the mass (rank correlation 1.0000).",
        "# Left out: flat: always 7.",
        "# Left out: hole: row 12: the value is missing.",
        "string, expected numbers.",
        "# Left out: truth: perhaps the truth",
        "# Left out: weight: weights, but recorded events count one each.",
        "# In the unit of the mass. The signal region is a PROPOSAL, yours to choose before you look;",
    ):
        assert line in text
    side = config.window.beside(mass)
    rank = frame()[side][["m_jj", "ht"]].corr("spearman").loc["m_jj", "ht"]
    assert f"# ht: rank correlation {rank:+.2f} with the mass" in text


def test_options_are_taken_as_they_are(here):
    given = [*REGION, "--mass", "m_gev", "--features", "tau_2, ht", "-o", "mine.yaml"]
    assert "signal region 3.3-3.7" in one_line(invoke("table", "events.parquet", *given))
    given[1:3] = ["3300", "3700"]
    assert invoke("table", "events.parquet", *given).exit_code == 0
    config, text = load_config("mine.yaml"), (here / "mine.yaml").read_text()
    assert (config.data.columns.mass, config.data.columns.features) == ("m_gev", ["tau_2", "ht"])
    assert (config.window.sr_low, config.window.sr_high, config.massfit.bin_width) == (3300, 3700, 47)
    assert "The signal region is as given" in text
    assert text.count("# As given.") == 2


def test_the_signal_region_has_no_part_in_it(here):
    """Its features may be anything: the file stays the same."""
    table = frame().astype({"truth": float})
    inside = table["m_jj"].between(3.3, 3.7)
    texts = []
    for value in (None, 0.5, 1e6):
        if value is not None:
            table.loc[inside, ["tau_1", "tau_2", "ht", "flat", "truth"]] = value
        table.to_parquet("events.parquet")
        assert invoke("table", "events.parquet", *REGION, "--force").exit_code == 0
        texts.append((here / "search.yaml").read_text())
    assert texts[0] == texts[1] == texts[2]


def test_every_format_gives_the_same_search(here):
    table = frame()[["m_jj", "tau_1", "ht"]]
    table.to_csv("t.csv", index=False)
    np.save("t.npy", table.to_numpy())
    np.save("s.npy", table.to_records(index=False).view(np.ndarray))
    with h5py.File("t.h5", "w") as file:
        file["one"], file["two"] = table.to_numpy(), np.ones((3, 2))
    with uproot.recreate("t.root") as file:
        file.mktree("events", {name: "float64" for name in table}).extend(
            {name: table[name].to_numpy() for name in table}
        )
    assert "holds one, two" in one_line(invoke("table", "t.h5"))
    dumps = []
    for name, *more in (
        ("t.csv",),
        ("t.npy", "--mass", 0),
        ("s.npy",),
        ("t.h5", "--key", "one", "--mass", "0"),
        ("t.root",),
    ):
        done = invoke("table", name, *more, "--force")
        assert done.exit_code == 0, done.output
        dumps.append(load_config("search.yaml").model_dump(exclude={"data"}))
        columns = load_config("search.yaml").data.columns
        assert (columns.mass, columns.features) == ((0, [1, 2]) if more else ("m_jj", ["tau_1", "ht"]))
    assert all(dump == dumps[0] for dump in dumps)


def test_the_last_column_without_a_name_may_be_the_truth(here):
    np.save("t.npy", toy_table(2000, 50, 1))
    assert invoke("table", "t.npy", "--mass", 0).exit_code == 0
    assert load_config("search.yaml").data.columns.features == [1, 2]
    assert "# Left out: 3: perhaps the truth" in (here / "search.yaml").read_text()


def test_a_real_tree(here):
    """CMS Z -> mumu: M is the mass, run and event are ids; E1 follows M."""
    path = real("readers", "uproot-Zmumu.root")
    done = invoke("table", path, "--key", "events", "--window", 80, 100)
    assert done.exit_code == 0, done.output
    config = load_config("search.yaml")
    assert config.data.columns.mass == "M"
    assert not {"Run", "Event", "M", "Type"} & set(config.data.columns.features)
    assert {"pt1", "eta1", "pt2", "eta2"} <= set(config.data.columns.features)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["table"], "raypipe new table: expected FILE, your table"),
        (["table", "absent.csv"], "absent.csv: no such file"),
        (["table", "empty.csv"], "empty.csv: the file is empty"),
        (["table", "head.csv"], "head.csv: the file holds no events"),
        (["table", "unnamed.npy"], "which column is the mass? Name it with --mass (columns: 0, 1, 2)"),
        (["table", "unnamed.npy", "--mass", "3"], "column 3 is missing (the file has 3 columns)"),
        (["table", "events.parquet", "--mass", "m_xx"], "column 'm_xx' is missing (present: event, m_jj, "),
        (["table", "events.parquet", "--mass", "hole"], "mass column 'hole': row 12: the value is missing"),
        (["table", "events.parquet", "--features", "tau_1,x"], "column 'x' is missing"),
        (["table", "events.parquet", "--features", "flat"], "feature 'flat': always 7"),
        (["table", "events.parquet", "--features", "m_jj"], "feature 'm_jj': it is the mass"),
        (
            ["table", "events.parquet", "--window", "8", "9"],
            "signal region 8-9: LOW must be below HIGH, with masses on both",
        ),
        (
            ["table", "events.parquet", "--window", "1", "3"],
            "signal region 1-3: LOW must be below HIGH, with masses on both",
        ),
        (
            ["table", "events.parquet", "--window", "3", "7"],
            "signal region 3-7: LOW must be below HIGH, with masses on both",
        ),
        (["table", "events.parquet", "--window", "4", "3"], "signal region 4-3: LOW must be below HIGH"),
        (["table", "negative.csv"], "(masses: none above zero)"),
        (["table", "alone.csv"], "no feature is left beside the mass 'm'. Left out: x: always 1."),
        (["contrastive", "events.parquet"], "events.parquet: this search reads no table"),
        (["haxad", "--mass", "m"], "--mass has no effect: the search haxad reads no table"),
        (["contrastive", "--size", "huge"], "--size huge: the search contrastive has demo, "),
        (["bump"], "search 'bump': known searches: contrastive, haxad, multilepton, table"),
        (["read"], "search 'read': known searches: "),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(here, arguments, words):
    (here / "empty.csv").write_text("")
    (here / "head.csv").write_text("m,x\n")
    (here / "negative.csv").write_text("m,x\n-1,2\n-2,3\n")
    pd.DataFrame({"m": np.linspace(1, 2, 200), "x": 1.0}).to_csv("alone.csv")
    alone = pd.read_csv("alone.csv")[["m", "x"]]
    alone.to_csv("alone.csv", index=False)
    np.save("unnamed.npy", np.random.default_rng(1).random((50, 3)))
    assert words in one_line(invoke(*arguments))
    assert not list(here.glob("*.yaml"))


def test_whole_events_are_no_table(here):
    path = real("readers", "nanoAOD_2015_CMS_Open_Data_ttbar.root")
    assert "holds whole events, not a table" in one_line(invoke("table", path))


def test_long_values_are_whole(here):
    """A path without a blank and a list that needs several lines."""
    folder = here / ("x" * 150)
    folder.mkdir()
    rng, names = np.random.default_rng(1), [f"a rather long name {k}" for k in range(20)]
    pd.DataFrame(rng.random((900, 21)), columns=["m", *names]).to_parquet(folder / "t.parquet")
    assert invoke("table", folder / "t.parquet").exit_code == 0
    data = load_config("search.yaml").data
    assert (data.path, data.columns.features) == (str(folder / "t.parquet"), names)


def test_a_file_is_never_overwritten_unasked(here):
    (here / "search.yaml").write_text("mine\n")
    assert "search.yaml: is there already" in one_line(invoke("table", "events.parquet"))
    assert (here / "search.yaml").read_text() == "mine\n"
    assert invoke("table", "events.parquet", "--force").exit_code == 0
    assert load_config("search.yaml").search == "table"


@pytest.mark.parametrize(("search", "size"), SIZES, ids=["-".join(one) for one in SIZES])
def test_a_shipped_configuration_is_extended(tmp_path, search, size):
    """All keys but the run folder are those of the shipped file, and the text says what they mean."""
    done = invoke(search, "--size", size, "-o", tmp_path / "my.yaml")
    assert done.exit_code == 0, done.output
    found, base = load_config(tmp_path / "my.yaml"), load_config(shipped(search)[size])
    assert found.output == "runs/my"
    assert found.model_dump(exclude={"output"}) == base.model_dump(exclude={"output"})
    text = (tmp_path / "my.yaml").read_text()
    assert f"extends: {shipped(search)[size]}\n" in text
    assert "  # Signal samples injected one at a time.\n  signals: [" in text
    assert "embedding_fraction: " in text
    assert max(map(len, text.splitlines()[4:])) < 120


def test_values_come_back_as_they_were():
    values = [
        "yes",
        "1e5",
        "1",
        "",
        "a b",
        "#x",
        "- x",
        "m_jj",
        "null",
        "ä: {b}",
        "'",
        '"',
        "a\nb",
        "12:30",
        None,
        True,
    ]
    values += [1, 2.5, 1e-7, 1e22, [], [1, "no", [2.0]], {"a b": {"c": [None, "off"]}}]
    for value in values:
        assert parse(f"key: {plain(value)}", "text") == {"key": value}


def test_on_a_terminal_mass_and_signal_region_are_asked_for(here):
    """An empty answer takes what is proposed."""
    main_end, other = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "raypipe.cli", "new", "table", "events.parquet"]
    process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=environment)
    said = ""
    for answer in ("", "3.2", "3.6"):
        asked = said.count("]: ")
        while said.count("]: ") == asked:
            said += os.read(main_end, 10_000).decode()
        os.write(main_end, f"{answer}\n".encode())
    while "written" not in said:
        said += os.read(main_end, 10_000).decode()
    assert process.wait(300) == 0
    os.close(main_end)
    os.close(other)
    assert "Mass column (event, m_jj, tau_1, " in said
    assert ") [m_jj]: " in said
    config = load_config("search.yaml")
    assert (config.window.sr_low, config.window.sr_high) == (3.2, 3.6)
    assert "The signal region is as given" in (here / "search.yaml").read_text()


HANDWRITTEN = """\
search: table
data:
  path: events.parquet
  columns: { mass: m_jj, features: [tau_1, tau_2] }
window: { low: LOW, sr_low: 3.3, sr_high: 3.7, high: HIGH }
massfit: { bin_width: 0.047, order: 3 }
flow:
  { members: 5, leave_out: 1, layers: 4, hidden: 48, blocks: 1, patience: 8, batch_size: 1024, learning_rate: 2.0e-3 }
selection: { working_points: [0.01] }
"""
SMALL = ["flow.epochs=2", "classifier.folds=5", "classifier.ensemble=2", "classifier.rounds=10", "resources.cpus=1"]


@pytest.mark.parametrize("blind", ["null", "false"])
def test_the_search_finds_what_it_finds_with_a_file_by_hand(here, blind):
    events = str(here / "events.parquet")  # a Ray that another test has started works in another folder
    assert invoke("table", events, *REGION, "--features", "tau_1,tau_2").exit_code == 0
    low, high = np.quantile(frame()["m_jj"], [0.01, 0.99])
    by_hand = HANDWRITTEN.replace("LOW", f"{low:.4g}").replace("HIGH", f"{high:.4g}").replace("events.parquet", events)
    (here / "hand.yaml").write_text(by_hand)
    found = []
    for name in ("search", "hand"):
        given = ["search", "--config", f"{name}.yaml", "--output", f"run/{name}", "--json", *SMALL, f"blind={blind}"]
        done = CliRunner().invoke(main, given)
        assert done.exit_code == 0, done.output
        found.append([{k: v for k, v in row.items() if "seconds" not in k} for row in json.loads(done.stdout)["rows"]])
    assert found[0] == found[1]
    if blind == "false":
        inside = frame()["m_jj"].between(WINDOW["sr_low"], WINDOW["sr_high"], inclusive="left")
        assert found[0][0]["n_before"] == inside.sum()
    else:
        assert not found[0][1]["refused"]
