"""Configuration: every bad value is one line that names file, key, value and what is allowed."""

from __future__ import annotations

import pytest
import yaml
from pydantic import BaseModel

from raypipe.cluster.scan import grid_of
from raypipe.config import Config, Section, load_config
from raypipe.errors import UserError
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("flow.epochz=3", ["flow.epochz", "unknown key", "did you mean 'epochs'"]),
        ("nope.x=1", ["unknown key 'nope'", "allowed:", "pseudodata"]),
        ("simulate.samples.yy.evts=3", ["simulate.samples.yy.evts", "allowed: events, embedding_fraction"]),
        ("pseudodata.luminosity=-1", ["pseudodata.luminosity = -1", "greater than 0"]),
        ("pseudodata.luminosity=.inf", ["pseudodata.luminosity = inf", "finite"]),
        ("flow.epochs=many", ["flow.epochs = 'many'", "integer"]),
        ("window.sr_high=170", ["signal region 120-170 GeV", "mass window 105-160 GeV"]),
        ("window.sr_low=131", ["signal region 131-130"]),
        ("scan.signals=[higgsino]", ["scan.signals", "'higgsino'", "xsh_500_100"]),
        ("selection.working_points=[0.01, 2]", ["working point 2"]),
        ("scan.strengths=[0]", ["strength 0", "background_instances"]),
        ("embedding.encoder.heads=5", ["heads (5) must divide width (64)"]),
        ("embedding.train_fraction=0.9", ["must leave a test part"]),
        ("flow", ["KEY=VALUE"]),
        ("flow.epochs.deep=1", ["'epochs' is a value"]),
    ],
)
def test_bad_values_are_one_line(laptop_yaml, override, words):
    with pytest.raises(UserError) as error:
        load_config(laptop_yaml, [override])
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_bad_files(tmp_path):
    with pytest.raises(UserError, match="no such configuration"):
        load_config(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(UserError, match=r"broken\.yaml: not valid YAML"):
        load_config(broken)
    broken.write_text("- 1\n- 2\n")
    with pytest.raises(UserError, match="expected a mapping"):
        load_config(broken)
    broken.write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(broken)


def test_a_file_may_extend_another(tmp_path, laptop_yaml):
    (tmp_path / "deep").mkdir()
    (tmp_path / "base.yaml").write_text(laptop_yaml.read_text(encoding="utf-8"), encoding="utf-8")
    small = tmp_path / "deep" / "small.yaml"
    small.write_text("extends: ../base.yaml\nflow: { epochs: 3 }\nscan: { strengths: [2.0] }\n", encoding="utf-8")
    first, second = load_config(laptop_yaml), load_config(small, ["flow.batch_size=64"])
    assert (second.flow.epochs, second.flow.batch_size, second.flow.layers) == (3, 64, first.flow.layers)
    assert (second.scan.strengths, second.scan.instances) == ([2.0], first.scan.instances)
    assert second.simulate == first.simulate
    small.write_text("extends: nowhere.yaml\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"nowhere.yaml: no such configuration file \(extended by .*small.yaml\)"):
        load_config(small)
    small.write_text("extends: small.yaml\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"small\.yaml: extends itself"):
        load_config(small)
    small.write_text("extends: [a, b]\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"extends = \['a', 'b'\]: expected the name"):
        load_config(small)


def test_overrides_apply_in_order_and_resources_do_not_change_the_hash(laptop_yaml):
    config = load_config(laptop_yaml, ["flow.epochs=7", "flow.epochs=11", "output=elsewhere", "resources.cpus=1"])
    assert config.flow.epochs == 11
    assert config.physics_hash() == load_config(laptop_yaml, ["flow.epochs=11"]).physics_hash()
    assert config.physics_hash() != load_config(laptop_yaml).physics_hash()


ORIGINS = ("paper", "default", "code", "derived")


def _fields(model: type[BaseModel], prefix: str = ""):
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _fields(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info


def test_every_number_says_where_it_comes_from():
    silent = [
        name
        for name, info in _fields(Config)
        if not info.description
        or (not info.is_required() and not any(f"[{word}" in info.description for word in ORIGINS))
    ]
    # Names and places of this run, not numbers of a paper.
    assert set(silent) <= {"search", "output", "seed"}


@pytest.mark.parametrize(
    "path",
    sorted(p for name in ("contrastive", "haxad") for p in (ROOT / "configs" / name).rglob("*.yaml")),
    ids=lambda p: f"{p.parent.name}/{p.stem}",
)
def test_search_configurations_are_valid(path):
    config = load_config(path)
    assert config.output.startswith("runs/")
    assert config.physics_hash() == load_config(path, ["output=elsewhere"]).physics_hash()


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "multilepton").glob("*.yaml")), ids=lambda p: p.stem)
def test_multilepton_configurations_load(path):
    assert load_config(path).search == "multilepton"


def test_a_scan_in_parts_is_the_union_of_its_grids(laptop_yaml):
    parts = [{"embeddings": ["ip", "raw"], "strengths": [1.0]}, {"instances": 3, "background_instances": 2}]
    more = yaml.safe_dump(parts, default_flow_style=True, width=1000).strip()
    grid = "scan.signals=[wn_150]", "scan.strengths=[1.0, 2.0]", "scan.instances=2", "scan.background_instances=4"
    config = load_config(laptop_yaml, [*grid, f"scan.more={more}"])
    trials = grid_of(config)
    assert len(trials) == len(set(trials)) == 4 + 2 * 2 + 2 * 2 + 2 * 1  # the last part adds one instance a strength
    assert sum(t.embedding == "ip" for t in trials) == 2
    with pytest.raises(UserError, match=r"more\[0\].signals: 'zp' is not in scan.signals"):
        load_config(laptop_yaml, [*grid, "scan.more=[{signals: [zp]}]"])
    with pytest.raises(UserError, match=r"strength -1\.0 is not positive"):
        load_config(laptop_yaml, [*grid, "scan.more=[{strengths: [-1]}]"])
