"""Configuration: every bad value is one line that names file, key, value and what is allowed."""

from __future__ import annotations

import pytest
import yaml
from pydantic import BaseModel

from raypipe.config import Config, Section, load_config
from raypipe.config.base import fields, leaves
from raypipe.config.load import given_values, model_of
from raypipe.errors import UserError
from raypipe.kinds import KINDS
from raypipe.report.base import look
from raypipe.search.base import search_of
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


def test_a_first_look_is_the_same_choice_on_another_seed(laptop_yaml):
    tuned, first = load_config(laptop_yaml), load_config(laptop_yaml, ["seed=4711"])
    assert (look(tuned), look(first)) == ("tuned", "first")
    assert tuned.choice_hash() == first.choice_hash()
    assert tuned.physics_hash() != first.physics_hash()
    assert look(load_config(laptop_yaml, ["tuned_on=[]"])) is None
    assert tuned.physics_hash() == load_config(laptop_yaml, ["tuned_on=[1, 20260]"]).physics_hash()
    assert load_config(laptop_yaml, ["seed=4711", "flow.epochs=11"]).choice_hash() != first.choice_hash()


TABLE = """\
search: table
output: runs/x
data:
  path: x.csv
  columns: {{ mass: m, features: {features}{columns} }}
window: {{ low: 2.5, sr_low: 3.3, sr_high: 3.7, high: 6.0 }}
selection: {{ working_points: [0.01] }}
{more}
"""
"""The search sections of a user's own table."""


def table_yaml(folder, more="", columns="", features="[a, b]"):
    path = folder / "table.yaml"
    path.write_text(TABLE.format(more=more, columns=columns, features=features), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("flow: { epochs: 3 }\nmassfit: { order: 2 }\nflow: { layers: 2 }", "flow", (10, 8)),
        ("flow:\n  epochs: 3\n  layers: 2\n  epochs: 30", "epochs", (11, 9)),
        ("classifier: { folds: 5, rounds: 9, folds: 2 }", "folds", (8, 8)),
        ('flow:\n  "epochs": 3\n  epochs: 30', "epochs", (10, 9)),
        ("output: elsewhere", "output", (8, 2)),
        ("flow: { <<: { epochs: 3 }, <<: { layers: 2 } }", "<<", (8, 8)),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path, text, key, lines):
    path = table_yaml(tmp_path, text)
    with pytest.raises(UserError) as error:
        load_config(path)
    assert str(error.value) == f"{path}: line {lines[0]}: key {key!r} stands twice (first in line {lines[1]})"
    small = tmp_path / "small.yaml"  # also where another file extends it
    small.write_text("extends: table.yaml\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"table\.yaml: line"):
        load_config(small)


def test_keys_may_be_merged_and_extended(tmp_path):
    path = table_yaml(tmp_path, "flow: &f\n  { <<: { epochs: 3, layers: 2 }, epochs: 7 }")
    assert (load_config(path).flow.epochs, load_config(path).flow.layers) == (7, 2)
    small = tmp_path / "small.yaml"
    small.write_text("extends: table.yaml\nflow: { epochs: 9 }\n", encoding="utf-8")
    assert (load_config(small).flow.epochs, load_config(small).flow.layers) == (9, 2)


@pytest.mark.parametrize(
    "override",
    [
        "flow={epochs: 1, epochs: 2}",
        "flow.epochs=3 # three",
        "output=runs/a #1",
        "flow= # nothing",
        "1=2: 3",
        "flow={1: 2}",
        "flow={on: 2}",
    ],
)
def test_overrides_are_read_as_strictly(tmp_path, override):
    with pytest.raises(UserError, match=r"stands twice|read as a comment|is no text|unknown key"):
        load_config(table_yaml(tmp_path), [override])


def test_an_override_that_undoes_another_is_refused(tmp_path):
    path = table_yaml(tmp_path)
    assert load_config(path, ["flow={epochs: 3}", "flow.layers=2"]).flow.layers == 2
    with pytest.raises(UserError, match=r"it would undo flow\.layers"):
        load_config(path, ["flow.layers=2", "flow={epochs: 3}"])


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "true", "False", "NO"])
@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("flow.epochs", "not numbers"),
        ("flow.learning_rate", "not numbers"),
        ("seed", "not numbers"),
        ("massfit.bin_width", "not numbers"),
        ("data.columns.mass_scale", "not numbers"),
        ("data.columns.mass", "needs quotes"),
        ("output", "needs quotes"),
        ("data.path", "needs quotes"),
        ("preprocess.kind", "needs quotes"),
        ("flow", "no section"),
    ],
)
def test_booleans_are_neither_numbers_nor_names(tmp_path, word, key, hint):
    with pytest.raises(UserError, match=f"{key} = (True|False): yes, no, .* are booleans.*{hint}"):
        load_config(table_yaml(tmp_path), [f"{key}={word}"])


@pytest.mark.parametrize("key", ["data.columns.features", "data.path", "selection.working_points"])
def test_booleans_in_a_list_are_refused(tmp_path, key):
    with pytest.raises(UserError, match=f"{key} = .*are booleans"):
        load_config(table_yaml(tmp_path), [f"{key}=[yes]"])


@pytest.mark.parametrize("word", ["no", "NO", "off", "false", "null", "~"])
def test_no_means_none_where_a_key_may_be_left_out(tmp_path, word):
    path = table_yaml(tmp_path, f"classifier: {{ early_stopping: {word} }}", f", weight: {word}, label: {word}")
    keys = ("data.columns.event_id", "resources.cpus", "background.path")
    config = load_config(path, [f"{key}={word}" for key in keys])
    columns = config.data.columns
    assert (columns.weight, columns.label, columns.event_id) == (None, None, None)
    assert (config.classifier.early_stopping, config.resources.cpus, config.background.path) == (None, None, None)
    for name in ("weight", "label"):
        with pytest.raises(UserError, match=f"data.columns.{name} = True.*needs quotes"):
            load_config(table_yaml(tmp_path), [f"data.columns.{name}=yes"])
    assert load_config(table_yaml(tmp_path), ["data.columns.weight='no'"]).data.columns.weight == "no"


def test_quoted_words_and_switches_stay_what_they_are(tmp_path):
    config = load_config(table_yaml(tmp_path, "flow: { redraw: no }", features='["yes", "NO", "on", y, n]'))
    assert config.data.columns.features == ["yes", "NO", "on", "y", "n"]
    assert config.flow.redraw is False


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("1e2", 100),
        ("1.0e2", 100),
        ("0x1F", 31),
        ("1_000", 1000),
        ("+7", 7),
        ("1:30", None),
        ("0o17", None),
        ("2024-01-01", None),
        ("1.5", None),
        ("nan", None),
        (".inf", None),
        ("", None),
        ("!!int abc", None),
    ],
)
def test_whole_numbers_are_what_people_mean(tmp_path, text, value):
    path = table_yaml(tmp_path)
    if value is None:
        with pytest.raises(UserError):
            load_config(path, [f"flow.epochs={text}"])
    else:
        assert load_config(path, [f"flow.epochs={text}"]).flow.epochs == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("2.5E-3", 2.5e-3), (".5", 0.5), ("1:30.5", None), (".nan", None), ("inf", None)],
)
def test_numbers_are_what_people_mean(tmp_path, text, value):
    path = table_yaml(tmp_path)
    if value is None:
        with pytest.raises(UserError, match=r"flow\.learning_rate"):
            load_config(path, [f"flow.learning_rate={text}"])
    else:
        assert load_config(path, [f"flow.learning_rate={text}"]).flow.learning_rate == value


def test_text_that_looks_like_something_else(tmp_path):
    path = table_yaml(tmp_path)
    assert load_config(path, ["output=2024-01-01"]).output == "2024-01-01"
    assert load_config(path, ["output=runs/a#1?100%"]).output == "runs/a#1?100%"
    assert load_config(path, output="runs/\N{GRINNING FACE} #1: é").output == "runs/\N{GRINNING FACE} #1: é"
    assert load_config(path, ["data.columns.weight='3'"]).data.columns.weight == 3  # a place
    with pytest.raises(UserError, match="output = 2024: input should be a valid string, in quotes: '2024'"):
        load_config(path, ["output=2024"])
    for text in ("1e5", "1.5"):
        with pytest.raises(UserError, match="a column is a name or a whole number"):
            load_config(path, [f"data.columns.weight={text}"])
    for search in ("[a]", "no", "{a: 1}"):
        with pytest.raises(UserError, match="known searches"):
            load_config(path, [f"search={search}"])


NUMBERS = [
    (search, key, type(None) in leaves(info.annotation))
    for search in KINDS
    for key, info, _ in fields(model_of(search))
    if leaves(info.annotation) & {int, float} and not leaves(info.annotation) & {str, bool}
]


@pytest.mark.parametrize(("search", "key", "optional"), NUMBERS, ids=lambda v: str(v))
def test_every_number_is_finite_and_in_range(search, key, optional):
    """Of all searches: not a number, infinities, booleans, text, and what is negative."""
    key = key.replace(".NAME.", ".yy.").replace(".N.", ".")
    plain = key.replace("scan.more.", "scan.")
    for text in (
        ".nan",
        ".inf",
        "-.inf",
        "yes",
        "true",
        "many",
        *([] if optional else ["no"]),
        *([] if key in ("source.group", "source.sample") else ["-1"]),
    ):
        for value in (text, f"[{text}]", f"[1, {text}]", f"{{a: {text}}}"):
            path = key if "scan.more." not in key else "scan.more"
            given = value if path == key else f"[{{{key.removeprefix('scan.more.')}: {value}}}]"
            with pytest.raises(UserError) as error:
                given_values(None, [f"search={search}", f"{path}={given}"])
            assert plain.rsplit(".", 1)[-1] in str(error.value) or "yy" in str(error.value)
            assert "\n" not in str(error.value)


def test_the_keys_of_a_section_that_may_be_left_out_are_named():
    path = ROOT / "configs" / "multilepton" / "cms_open_data.yaml"
    with pytest.raises(UserError, match=r"'files\.dat': did you mean 'data'\? allowed: data, lepton_pt"):
        load_config(path, ["files.dat=x.csv"])


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
    trials = search_of(config).grid()
    assert len(trials) == len(set(trials)) == 4 + 2 * 2 + 2 * 2 + 2 * 1  # the last part adds one instance a strength
    assert sum(t.embedding == "ip" for t in trials) == 2
    with pytest.raises(UserError, match=r"more\[0\].signals: 'zp' is not in scan.signals"):
        load_config(laptop_yaml, [*grid, "scan.more=[{signals: [zp]}]"])
    with pytest.raises(UserError, match=r"strength -1\.0 is not positive"):
        load_config(laptop_yaml, [*grid, "scan.more=[{strengths: [-1]}]"])


def test_haxad_has_one_embedding_in_every_part_of_the_scan():
    path = ROOT / "configs/haxad/laptop.yaml"
    assert load_config(path, ["scan.more=[{embeddings: [id]}, {instances: 2}]"]).scan.more[0].embeddings == ["id"]
    refused = {
        "scan.embeddings=[raw]": r"scan\.embeddings: raw: ",
        "scan.more=[{instances: 2}, {embeddings: [raw, id]}]": r"scan\.more\[1\]\.embeddings: raw: ",
        "scan.more=[{embeddings: [id, id]}]": r"scan\.more\[0\]\.embeddings: the same twice: ",
    }
    for text, told in refused.items():
        with pytest.raises(UserError, match=rf"{told}a haxad search has one embedding, `id`"):
            load_config(path, [text])
