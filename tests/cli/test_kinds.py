"""Every kind of configuration with every command: a result, or one line with status 2; never a traceback."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from raypipe.cli import main
from raypipe.config import load_config
from raypipe.kinds import KINDS
from tests.conftest import ROOT

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
STAGES = {
    "simulate": [],
    "embed": [],
    "search": [],
    "scan": [],
    "status": [],
    "plan": [],
    "report": [],
    "latent": [],
    "calibrate": [],
    "read": ["file.root"],
}
NO_DATA = ["data.path=absent.npy"]
NEEDED = {"configs/lhco/laptop.yaml": NO_DATA, "configs/collisions/dielectron.yaml": NO_DATA}
OWN_TABLES = """\
search: multilepton
files: { data: absent.csv, reference: absent.csv }
compare: { expected: 50 }
"""


def kind_of(path):
    overrides = NEEDED.get(str(path.relative_to(ROOT)), [])
    return load_config(path, overrides).search


REFUSED = [
    (path, command) for path in CONFIGS for command in STAGES if command.split()[0] not in KINDS[kind_of(path)].commands
]


def one_line(result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("raypipe: error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_every_kind_is_shipped_and_every_search_has_commands():
    assert {kind_of(path) for path in CONFIGS} == set(KINDS)
    assert len(REFUSED) > 40


@pytest.mark.parametrize(
    ("path", "command"), REFUSED, ids=lambda v: v if isinstance(v, str) else str(v.relative_to(ROOT / "configs"))
)
def test_a_command_that_a_configuration_does_not_serve_is_refused(tmp_path, monkeypatch, path, command):
    monkeypatch.chdir(tmp_path)
    name = command.split()[0]
    output = ["--output", str(tmp_path / "out")]
    told = one_line(CliRunner().invoke(main, [name, "--config", str(path), *output, *STAGES[command]]))
    search = kind_of(path)
    assert f"search = {search}: " in told
    for served in KINDS[search].commands:
        assert f"raypipe {served}" in told
    assert list(tmp_path.iterdir()) == []  # and nothing was written


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_served_commands_without_work_to_show_are_one_line(tmp_path, path):
    search = kind_of(path)
    output = ["--output", str(tmp_path / "out")]
    if "scan" in KINDS[search].commands:
        needed = NEEDED.get(str(path.relative_to(ROOT)), [])
        told = one_line(CliRunner().invoke(main, ["status", "--config", str(path), *output, *needed]))
        assert "no scan was started here yet" in told
    if search == "table":
        arguments = ["search", "--config", str(path), *output, "data.path=absent.npy"]
        assert "absent.npy" in one_line(CliRunner().invoke(main, arguments))
    if search == "read":
        told = one_line(CliRunner().invoke(main, ["read", "--config", str(path), *output, "absent.npy"]))
        assert "absent.npy" in told


@pytest.mark.parametrize("command", ["simulate", "search", "scan", "report"])
def test_a_multilepton_search_of_own_tables(tmp_path, command):
    path = tmp_path / "own.yaml"
    path.write_text(OWN_TABLES, encoding="utf-8")
    arguments = [command, "--config", str(path), "--output", str(tmp_path / "out")]
    told = one_line(CliRunner().invoke(main, arguments))
    assert ("nothing to simulate" if command == "simulate" else "absent.csv") in told


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_config_lists_the_keys_of_every_kind_with_their_values(path):
    overrides = [*NEEDED.get(str(path.relative_to(ROOT)), []), "resources.cpus=7"]
    result = CliRunner().invoke(main, ["config", "--config", str(path), *overrides])
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert any(line.startswith("resources.cpus = 7 (None): ") for line in lines)
    config = load_config(path, overrides).model_dump(mode="json")
    for line in lines:  # what is listed is a key of the configuration
        node = config
        for part in line.split(" ")[0].split("."):
            if part in ("NAME", "N") or not isinstance(node, dict):
                break
            assert part in node, line
            node = node[part]
    assert {line.split(".")[0].split(" ")[0] for line in lines} == set(config)


def test_config_without_a_file_lists_all_searches_or_one():
    everything = CliRunner().invoke(main, ["config"]).stdout
    for search in KINDS:
        assert f"# search: {search}\n" in everything
    for key in (
        "hunt.bin_width (1.0)",
        "networks.members (10)",
        "bootstrap.count (100)",
        "files.data (required)",
        "data.columns.mass (required)",
        "source.luminosity (None)",
        "scan.more.N.embeddings (None)",
        "simulate.samples.NAME.events (10000)",
    ):
        assert f"\n{key}: " in everything
    one = CliRunner().invoke(main, ["config", "search=haxad", "hunt.bin_width=2"])
    assert one.exit_code == 0
    assert "\nhunt.bin_width = 2 (1.0): " in one.stdout
    assert "networks." not in one.stdout
    # The defaults are those of the search: a table search has an ensemble of its own.
    assert "\nclassifier.ensemble (10): " in CliRunner().invoke(main, ["config", "search=table"]).stdout
    assert "\nclassifier.ensemble (2): " in one.stdout
    for bad, words in (
        ("flow.epochz=3", "did you mean 'epochs'"),
        ("search=foo", "known searches"),
        ("flow.epochs=yes", "are booleans"),
        ("flow.epochs=-1", "greater than or equal to 1"),
    ):
        assert words in one_line(CliRunner().invoke(main, ["config", bad]))


def test_config_and_doctor_show_no_password():
    path = str(ROOT / "configs" / "contrastive" / "laptop.yaml")
    secret = ["tracking.uri=http://me:s3cret@host:1/", "resources.storage=s3://b/x?secret_key=s3cret"]
    shown = CliRunner().invoke(main, ["config", "--config", path, *secret]).output
    assert "tracking.uri = http://***@host:1/" in shown
    assert "resources.storage = s3://b/x?secret_key=***" in shown
    assert "s3cret" not in shown


@pytest.fixture(autouse=True)
def _no_tracking_server(monkeypatch):
    """Loading a model leaves its tracking URI in the environment of the process."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.ray
@pytest.mark.parametrize("path", [p for p in CONFIGS if p.stem in ("laptop", "delphes")], ids=lambda p: p.parent.name)
def test_doctor_knows_every_kind(ray_local, tmp_path, path):
    overrides = [*NEEDED.get(str(path.relative_to(ROOT)), []), f"output='{tmp_path}/a #1?'"]
    result = CliRunner().invoke(main, ["doctor", "--config", str(path), "--json", *overrides])
    checks = {check["name"]: check for check in json.loads(result.stdout)}
    assert checks["output"]["status"] == "ok"
    assert f"{tmp_path}/a #1? writable" in checks["output"]["found"]
    tracking = getattr(load_config(path, overrides), "tracking", None)
    assert ("mlflow" in checks) == (tracking is not None)
    if tracking is not None:
        place = f"{tmp_path}/a #1?/mlflow.db" if tracking.enabled else "tracking is off"
        assert checks["mlflow"]["found"] == place


@pytest.mark.ray
def test_doctor_tells_of_passwords_without_showing_them(ray_local, tmp_path):
    path = str(ROOT / "configs" / "contrastive" / "laptop.yaml")
    secret = ["tracking.uri=http://me:s3cret@127.0.0.1:9/", "resources.storage=s3://k:s3cret@b/x"]
    result = CliRunner().invoke(main, ["doctor", "--config", path, "--json", f"output={tmp_path}", *secret])
    assert "s3cret" not in result.output
    checks = {check["name"]: check for check in json.loads(result.stdout)}
    assert checks["passwords"]["found"].startswith("resources.storage, tracking.uri hold")
    assert checks["mlflow"]["status"] == checks["storage"]["status"] == "wrong"
    assert "http://***@127.0.0.1:9/" in checks["mlflow"]["found"]


def test_a_haxad_search_has_one_embedding(tmp_path):
    """Told before anything is simulated or trained."""
    given = ["search", "--config", str(ROOT / "configs/haxad/laptop.yaml"), "--output", str(tmp_path / "run")]
    result = CliRunner().invoke(main, [*given, "--signal", "wn_150", "--strength", "2", "--embedding", "raw"])
    assert "--embedding has no effect: a haxad search has one embedding" in one_line(result)
    assert not (tmp_path / "run" / "events").exists()
