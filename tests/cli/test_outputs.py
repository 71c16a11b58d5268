"""What cannot be written is told before anything is read, simulated or trained; bad numbers are one line."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from raypipe.cli import main
from raypipe.errors import UserError
from raypipe.files import check_file_writable
from tests.conftest import ROOT

CONFIGS = {
    "contrastive": ROOT / "configs/contrastive/laptop.yaml",
    "haxad": ROOT / "configs/haxad/laptop.yaml",
    "multilepton": ROOT / "configs/multilepton/laptop.yaml",
    "table": ROOT / "configs/lhco/laptop.yaml",
    "none": ROOT / "configs/fourlepton/laptop.yaml",
    "read": ROOT / "configs/read/lhco.yaml",
}
STAGES = [
    ("simulate", "contrastive"),
    ("simulate", "none"),
    ("embed", "contrastive"),
    ("embed", "haxad"),
    ("search", "contrastive"),
    ("search", "haxad"),
    ("search", "multilepton"),
    ("search", "table"),
    ("scan", "contrastive"),
    ("scan", "haxad"),
    ("scan", "multilepton"),
    ("report", "contrastive"),
    ("report", "haxad"),
    ("report", "multilepton"),
    ("latent", "contrastive"),
    ("read", "read"),
]


def one_line(arguments) -> str:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("raypipe: error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.fixture(params=["below a file", "no file system"])
def unwritable(request, tmp_path):
    """A folder that nobody can make, not even root."""
    (tmp_path / "file").write_text("not a folder")
    return {"below a file": tmp_path / "file" / "run", "no file system": "/proc/nowhere"}[request.param]


@pytest.mark.parametrize(("command", "kind"), STAGES)
def test_a_stage_tells_at_once_that_its_output_cannot_be_written(unwritable, command, kind):
    extra = {"table": ["data.path=absent.npy"], "read": ["absent.h5"]}.get(kind, [])
    told = one_line([command, "--config", CONFIGS[kind], "--output", unwritable, *extra])
    assert f"{unwritable}: cannot create this folder" in told


def test_other_commands_tell_before_they_read_their_input(unwritable):
    """The inputs do not exist: whoever reads them first would say that."""
    classify = ["classify", "--data", "absent.npy", "--background", "absent.npy", "--score", "absent.npy"]
    for arguments in (
        [*classify, "--output", f"{unwritable}/scores.parquet"],
        ["hunt", "--masses", "absent.csv", "--window", 100, 160, "--output", unwritable],
        ["plan", "--config", CONFIGS["contrastive"], "--calibration", f"{unwritable}/c.json"],
    ):
        assert f"{unwritable}: cannot create this folder" in one_line(arguments)


def test_a_validation_tells_before_it_measures(unwritable, tmp_path):
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "dataset.json").write_text("no manifest")
    told = one_line(["report", "--events", tmp_path / "events", "--output", unwritable])
    assert f"{unwritable}: cannot create this folder" in told
    (tmp_path / "events" / "validation").write_text("in the way")
    assert "validation: cannot create this folder" in one_line(["report", "--events", tmp_path / "events"])


@pytest.mark.parametrize("name", ["events", "encoder", "ledger", "figures"])
def test_a_run_folder_with_something_in_the_way_is_told_at_once(tmp_path, name):
    (tmp_path / name).write_text("in the way")
    told = one_line(["scan", "--config", CONFIGS["contrastive"], "--output", tmp_path])
    assert f"{tmp_path / name}: cannot create this folder" in told


def test_a_storage_that_cannot_be_written_is_told_at_once(tmp_path, unwritable):
    told = one_line(
        ["scan", "--config", CONFIGS["contrastive"], "--output", tmp_path, f"resources.storage={unwritable}"]
    )
    assert f"{unwritable}: cannot create this folder" in told


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "scores.parquet").mkdir()
    classify = ["classify", "--data", "absent.npy", "--background", "absent.npy", "--score", "absent.npy"]
    assert "this is a folder; name a file" in one_line([*classify, "--output", tmp_path / "scores.parquet"])
    assert "name a .parquet file" in one_line([*classify, "--output", tmp_path / "scores.json"])
    search = ["search", "--config", CONFIGS["table"], "data.path=absent.npy", "--output", tmp_path]
    assert "scores.parquet: this is a folder; name a file" in one_line(search)
    with pytest.raises(UserError, match="this is a folder"):
        check_file_writable(tmp_path)
    assert check_file_writable(tmp_path / "new" / "file.json") == tmp_path / "new" / "file.json"


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "NaN", "1e400"])
@pytest.mark.parametrize(
    "option",
    ["--sqrt-s", "--scale", "--level", "--window", "--signal-region", "--float-mass", "--float-width"],
)
def test_numbers_of_a_fit_are_finite(tmp_path, option, value):
    np.save(tmp_path / "m.npy", np.linspace(100, 160, 50))
    given = [
        option,
        value,
        *([170] if option in ("--window", "--signal-region", "--float-mass", "--float-width") else []),
    ]
    told = one_line(["fit", "--masses", tmp_path / "m.npy", "--window", 100, 160, "--peak", "125:2", *given])
    assert option in told


@pytest.mark.parametrize(
    ("command", "option", "values"),
    [
        ("fit", "--seed", [-1, 1.5, "nan"]),
        ("fit", "--toys", [-1, "nan"]),
        ("fit", "--bins", [0, -3, "nan"]),
        ("fit", "--scale", [0, -1]),
        ("fit", "--sqrt-s", [0, -13000]),
        ("fit", "--level", [0, 1, 2]),
        ("hunt", "--seed", [-1]),
        ("hunt", "--toys", [-1]),
        ("hunt", "--bins", [0]),
        ("hunt", "--points", [0, -2]),
        ("hunt", "--reference-order", [-1]),
        ("hunt", "--level", ["nan"]),
        ("hunt", "--sqrt-s", ["nan", 0]),
        ("search", "--strength", ["nan", "inf", -1]),
        ("search", "--instance", [-1]),
        ("scan", "--price", ["nan", "inf", -1]),
        ("scan", "--gpu-price", ["nan", -1]),
        ("scan", "--gpu-speedup", ["nan", "inf", 0]),
        ("scan", "--configurations", [0]),
        ("simulate", "--target", [0, -1]),
        ("classify", "--seed", [-1]),
        ("classify", "--folds", [1]),
        ("classify", "--cpus", [0]),
    ],
)
def test_numbers_that_make_no_sense_are_refused(tmp_path, command, option, values):
    np.save(tmp_path / "m.npy", np.linspace(100, 160, 50))
    spectrum = ["--masses", tmp_path / "m.npy", "--window", 100, 160]
    first = {
        "fit": [*spectrum, "--peak", "125:2"],
        "hunt": spectrum,
        "classify": ["--data", "a.npy", "--background", "b.npy", "--score", "c.npy"],
    }.get(command, ["--config", CONFIGS["contrastive"], "--output", tmp_path])
    for value in values:
        told = one_line([command, *first, option, value])
        assert option in told
        assert f"raypipe {command} --help" in told


@pytest.mark.parametrize(
    "given",
    [
        ["--peak", "nan:2"],
        ["--peak", "125:nan"],
        ["--peak", "125:0"],
        ["--peak", "125:-1"],
        ["--peak", "inf:1"],
        ["--peak", "125:2:nan:1:1:1"],
        ["--known", "nan:2"],
        ["--known", "91:inf"],
        ["--known", "91:2=nan"],
        ["--known", "91:2=10+-nan"],
        ["--known", "91:0"],
        ["--background", "poly:-1"],
        ["--background", "poly:nan"],
        ["--window", 160, 100],
        ["--window", 100, 100],
    ],
)
def test_numbers_inside_a_text_option_are_checked_too(tmp_path, given):
    np.save(tmp_path / "m.npy", np.linspace(100, 160, 50))
    peak = [] if given[0] == "--peak" else ["--peak", "125:2"]
    one_line(["fit", "--masses", tmp_path / "m.npy", "--window", 100, 160, *peak, *given])


@pytest.mark.parametrize(
    "given",
    [
        ["--widths", "nan"],
        ["--widths", "0"],
        ["--widths", "-1"],
        ["--widths", "inf"],
        ["--widths", "nan%"],
        ["--tails", "nan:1:1:1"],
        ["--tails", "0:1:1:1"],
        ["--mask", "nan", 110],
        ["--mask", 110, 105],
        ["--scan", "nan", 150],
        ["--scan", 150, 110],
    ],
)
def test_numbers_of_a_hunt_are_checked(tmp_path, given):
    np.save(tmp_path / "m.npy", np.linspace(100, 160, 50))
    widths = [] if given[0] == "--widths" else ["--widths", "2"]
    one_line(["hunt", "--masses", tmp_path / "m.npy", "--window", 100, 160, "--toys", 0, *widths, *given])


def test_a_shell_completes_commands_and_options():
    def completed(words: str) -> list[str]:
        asked = {"_RAYPIPE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        out = CliRunner(env=asked).invoke(main, prog_name="raypipe", standalone_mode=True).output
        return [line.removeprefix("plain,") for line in out.splitlines()]

    assert {"scan", "search", "simulate"} <= set(completed("raypipe s"))
    assert completed("raypipe cal") == ["calibrate"]
    assert "--output" in completed("raypipe scan --")
