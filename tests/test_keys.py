"""Keys hold what code does: not its comments, docstrings and line breaks, and no module that is not imported."""

from __future__ import annotations

import ast
import importlib
import shutil
from pathlib import Path

import pytest

from raypipe import files
from raypipe.files import code_digest, code_of, imported, plain_code
from raypipe.search import contrastive_search, diphoton, haxad_search
from raypipe.search.base import search_of
from raypipe.store.ledger import made_by
from tests.conftest import ROOT

SEARCHES = ("contrastive", "haxad", "multilepton", "table")
BY_NAME = ("raypipe.search.cathode", "raypipe.search.truth")  # Backgrounds that the trials of these take by name:
DIPHOTON = ("contrastive", "haxad")
ENCODER = ("raypipe.fit.encoder", "raypipe.events.diphoton")
CODE = ("config", "events", "models", "fit", "stats", "search")
ROOMS = (*CODE, "simulate")


@pytest.fixture
def package(tmp_path) -> Path:
    """A copy of the package."""
    shutil.copytree(ROOT / "raypipe", tmp_path / "raypipe", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "raypipe"


def modules_of(search: str) -> tuple[str, ...]:
    """Modules whose code is in the key of a trial, with all that they import."""
    return (f"raypipe.search.{search}_search", *(BY_NAME if search in DIPHOTON else ()))


def keys(package: Path) -> dict[str, str]:
    """The code in the keys of an encoder, a set of flows, the trials of every search, and the rooms."""
    files._read_code.cache_clear()
    found = {"encoder": code_of(*ENCODER, root=package), "flows": code_of("raypipe.fit.flows", root=package)}
    found |= {search: code_of(*modules_of(search), root=package) for search in SEARCHES}
    return found | {"rooms": code_digest(*CODE, root=package), "simulate": code_digest("simulate", root=package)}


def changed(package: Path, path: str, old: str, new: str) -> set[str]:
    """Which keys another text of a file changes."""
    before, source = keys(package), package / path
    assert source.read_text().count(old) >= 1
    source.write_text(source.read_text().replace(old, new, 1))
    after = keys(package)
    return {name for name in before if before[name] != after[name]}


READER, ROOMS_ONLY = "events/readers/hdf5.py", {"table", "rooms"}
SECTIONS = {"flows", *SEARCHES, "rooms"}


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        (READER, "\n", "\n# a comment\n", set()),
        (READER, '"""', '"""Another word. ', set()),
        (READER, "import ", "import abc\nimport ", ROOMS_ONLY),
        ("config/sections.py", "learning_rate: float = ", "learning_rate: float = 2 * ", SECTIONS),
        ("config/sections.py", "    @property\n", "    # a comment\n    @property\n", set()),
        ("config/inputs.py", "learning_rate: float = ", "learning_rate: float = 2 * ", {"encoder", *SEARCHES, "rooms"}),
        ("search/truth.py", "import ", "import abc\nimport ", {*DIPHOTON, "rooms"}),
        ("search/cathode.py", "import ", "import abc\nimport ", {*DIPHOTON, "table", "rooms"}),
        ("search/haxad.py", "import ", "import abc\nimport ", {"haxad", "rooms"}),
        ("fit/flows.py", "import ", "import abc\nimport ", {"flows", "contrastive", "haxad", "table", "rooms"}),
        ("models/spline.c", "(", "( ", {"flows", "contrastive", "haxad", "table", "rooms"}),
        ("models/encoder.py", "import ", "import abc\nimport ", {"encoder", "rooms"}),
        ("simulate/yields.yaml", ":", " :", {"simulate", "contrastive", "haxad", "table"}),
        ("report/figures.py", "import ", "import abc\nimport ", set()),
        ("__init__.py", "import ", "import abc\nimport ", set()),
    ],
)
def test_a_change_moves_the_keys_of_what_uses_it_and_no_others(package, path, old, new, expected):
    assert changed(package, path, old, new) == expected


def test_the_layout_of_a_statement_does_not_count():
    one = 'def f(a, b):\n    return g(a, b["x"]) + 1\n'
    two = 'def f(\n    a, b\n):\n    """What."""\n\n    return g(  # why\n        a, b["x"]\n    ) + \\\n        1\n'
    assert plain_code(one) == plain_code(two) == 'def f(a, b):\n    return g(a, b["x"]) + 1'
    for another in (
        one.replace("    return", "        return"),
        one.replace('"x"', '"# x"'),
        one.replace("+ 1", "- 1"),
    ):
        assert plain_code(another) != plain_code(one)


def without_strings(tree: ast.AST) -> str:
    """The tree of a program without the strings that stand alone."""
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            if isinstance(body := getattr(node, field, None), list):
                kept = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
                setattr(node, field, kept or ([ast.Pass()] if field == "body" else []))
    return ast.dump(tree)


def test_plain_code_is_the_same_program():
    """To the last node; where a docstring was a whole body, it needs a statement again."""
    for path in (path for room in ROOMS for path in sorted((ROOT / "raypipe" / room).rglob("*.py"))):
        lines = plain_code(path.read_text()).split("\n")
        indents = [len(line) - len(line.lstrip()) for line in [*lines, ""]]
        for at in reversed(range(len(lines))):
            if lines[at].endswith(":") and indents[at + 1] <= indents[at]:
                lines.insert(at + 1, f"{' ' * indents[at]}    pass")
        assert without_strings(ast.parse("\n".join(lines))) == without_strings(ast.parse(path.read_text())), path


def test_what_is_imported_is_found():
    names = {str(path.relative_to(ROOT / "raypipe")) for path in imported(*ENCODER)}
    assert {"fit/encoder.py", "models/encoder.py", "config/inputs.py", "seeds.py", "events/schema.py"} <= names
    assert not {name for name in names if name.startswith(("events/readers", "search", "simulate", "models/spline"))}
    table = {str(path.relative_to(ROOT / "raypipe")) for path in imported("raypipe.search.table_search")}
    readers = {f"events/readers/{path.name}" for path in (ROOT / "raypipe/events/readers").glob("*.py")}
    assert readers <= table  # its registry names them in a text
    assert "fit/flows.py" in table  # inside a function
    with pytest.raises(ModuleNotFoundError):
        code_of("raypipe.search.absent")


def test_a_plugin_counts_with_what_it_imports(package, tmp_path, monkeypatch):
    (tmp_path / "my_plugin.py").write_text("from raypipe.stats.sideband import fit_sidebands\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("my_plugin")
    found = {path.name for path in imported("my_plugin", root=package)}
    assert {"my_plugin.py", "sideband.py", "massfit.py"} <= found
    assert "flows.py" not in found
    before = code_of("my_plugin", root=package)
    for text, same in (("# a comment\n", True), ("STEPS = 3\n", False)):
        with open(module.__file__, "a") as handle:
            handle.write(text)
        files._read_code.cache_clear()
        assert (code_of("my_plugin", root=package) == before) == same


def test_hashing_all_rooms_takes_a_third_of_a_second():
    import time

    best = 9.0
    for _ in range(5):
        files._read_code.cache_clear()
        began = time.process_time()
        code_digest(*ROOMS)
        best = min(best, time.process_time() - began)
    assert best < 0.3


@pytest.mark.parametrize("search", ["contrastive", "haxad"])
def test_keys_hold_the_code_of_their_search_and_encoder(monkeypatch, search):
    from raypipe.config import load_config

    config = load_config(ROOT / f"configs/{search}/laptop.yaml")
    ours = search_of(config)
    made = {"simulate": {"events": {"key": "e"}}, "latents": {name: {"digest": "d"} for name in ("id", "id 0")}}
    assert ours.inputs_key("id", made)["code"] == code_of(*modules_of(search)) == made_by(config)[search]
    _, encoders, latents = ours.stages()
    trials = ours.grid()[:1]
    before = encoders.items(made, trials)[0].key, latents.items(made, trials)[0].key
    for module in (diphoton, contrastive_search, haxad_search):
        monkeypatch.setattr(module, "code_of", lambda *modules: "of " + " ".join(modules))
    after = encoders.items(made, trials)[0].key, latents.items(made, trials)[0].key
    assert before[0] != after[0]
    assert before[1] != after[1]
