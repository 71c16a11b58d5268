"""Every README says what the records say, is as short as it should be, and names only what exists."""

from __future__ import annotations

import importlib.util
import re
import shlex

import matplotlib
import pytest

from raypipe.cli import main
from raypipe.config.base import fields
from raypipe.kinds import KINDS, resolve
from tests.conftest import ROOT
from tests.readme.pages import MARKED, filled, pages
from tests.readme.parts import PARTS
from tests.readme.picture import PICTURE, drawn
from tests.readme.studies import targets

PAGES = pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def code(text: str) -> list[str]:
    """Lines of code of a page: those of its fences without comments, joined where they go on, and its inline code."""
    blocks = [found.group(2).replace("\\\n", " ") for found in FENCE.finditer(text)]
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


@PAGES
def test_a_page_says_what_the_records_say(path):
    text = path.read_text()
    assert filled(text) == text, "make readme"


def test_the_picture_is_that_of_the_record_and_small():
    if f"Matplotlib v{matplotlib.__version__}," not in PICTURE.read_text():
        pytest.skip(f"the picture is of another version of Matplotlib than {matplotlib.__version__}")
    assert PICTURE.read_text() == drawn(), "make readme"
    assert PICTURE.stat().st_size < 200_000


def test_the_first_page_is_read_in_ten_minutes():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.encode()) <= 10_000


@PAGES
def test_numbers_with_errors_are_generated(path):
    by_hand = MARKED.sub("", path.read_text())
    assert "±" not in by_hand.replace("±1σ", "")  # a band of the picture


@PAGES
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if not link.startswith(("http:", "https:")):
            assert (path.parent / link.split("#")[0]).exists(), link


@PAGES
def test_make_targets_exist(path):
    named = {word for line in code(path.read_text()) for word in re.findall(r"\bmake ([a-z][a-z-]*)", line)}
    assert named <= set(targets())


@PAGES
def test_commands_options_and_files_exist(path):
    for line in code(path.read_text()):
        if re.match(r"raypipe [a-z]", line):
            name, *words = shlex.split(line)[1:]
            command = main.commands.get(name)
            assert command is not None, line
            options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
            assert {word for word in words if word.startswith("--")} <= options, line
        elif line.startswith("--"):
            known = {o for c in main.commands.values() for p in c.params for o in p.opts}
            assert line.split()[0] in known, line
        for name in re.findall(r"(?<!\S)(?:configs|jobs|k8s|tests|raypipe)/[\w./-]*\w", line):
            assert (ROOT / name).exists(), line
        for module in re.findall(r"python -m (tests[\w.]+)", line):
            assert importlib.util.find_spec(module), line


@PAGES
def test_configuration_keys_exist(path):
    models = [resolve(kind.config) for kind in KINDS.values()]
    keys = {re.sub(r"\.(NAME|N)\b.*", "", name) for model in models for name, _, _ in fields(model)}
    sections = {key.split(".")[0] for key in keys if "." in key}
    dotted = r"[a-z_]+(?:\.[a-z_]+)+"
    for line in code(path.read_text()):
        for name in re.findall(rf"(?<!\S)({dotted})=", line) + re.findall(rf"^({dotted})(?::|$)", line):
            if name.split(".")[0] in sections and not name.endswith((".py", ".json")):
                assert any(name == key or name.startswith(f"{key}.") or key.startswith(f"{name}.") for key in keys), (
                    line
                )


def test_every_part_is_shown():
    shown = {name for path in pages() for _, name, _ in MARKED.findall(path.read_text())}
    assert shown == set(PARTS)


def test_python_of_the_readme_runs(capsys, monkeypatch, tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    (block,) = (found.group(2) for found in FENCE.finditer((ROOT / "README.md").read_text()) if found.group(1))
    exec(compile(block, "README.md", "exec"), {})
    before, after, s, error = map(float, capsys.readouterr().out.split())
    assert after > before + 2
    assert abs(s - 100) < 3 * error
