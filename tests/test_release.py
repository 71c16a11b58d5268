"""What a release says of itself: one version, a dated changelog, a lower bound for every dependency."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.bounds import lowest
from tests.conftest import ROOT, long_tests
from tests.release import project, released, versions


def test_every_file_says_the_same_version_and_the_changelog_dates_it():
    found = versions()
    assert len(found) >= 5
    assert set().union(*found.values()) == {project()["version"]}
    date = released(project()["version"])
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(cited["date-released"]) == date
    assert {"cff-version", "message", "title", "authors", "version"} <= cited.keys()
    assert cited["license"] == project()["license"]
    assert released("0.0.7") is None


def test_a_pinned_version_lies_within_the_bounds_and_not_below_them():
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    pins = {re.sub("[-_.]+", "-", name).lower(): version for name, version in pins.items()}

    def numbers(version: str) -> tuple[int, ...]:
        return tuple(map(int, re.findall(r"\d+", version)))

    below = {
        name: (pins[key], oldest)
        for name, oldest in lowest().items()
        if numbers(pins[key := re.sub("[-_.]+", "-", name).lower()]) < numbers(oldest)
    }
    assert below == {}


def test_the_makefile_takes_the_versions_of_python_that_pyproject_takes():
    wanted = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project()["requires-python"])
    low, high = (int(wanted[i]) for i in (1, 2))
    makefile = (ROOT / "Makefile").read_text()
    assert f"(3, {low}) <= sys.version_info < (3, {high})" in makefile
    resolved = re.search(r"--resolve (.+)", makefile)[1].split()
    assert resolved == [f"3.{minor}" for minor in range(low, high)]


@pytest.mark.parametrize("stage", ["make lint", "make test-all"])
def test_ci_runs_the_quick_and_the_long_tests(stage):
    assert f"\n{stage}\n" in (ROOT / ".ci" / "run").read_text()
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^test-all: test ", makefile, re.MULTILINE)
    # Every test that is not slow is in one of the four calls.
    asked = re.findall(r'^\t\$\(BIN\)/python -m pytest .*-m "(not slow and .*)"$', makefile, re.MULTILINE)
    assert sorted(asked) == [
        "not slow and long and not ray",
        "not slow and long and ray",
        "not slow and not long and not ray",
        "not slow and not long and ray",
    ]


@pytest.mark.parametrize("beginning", long_tests())
def test_what_is_called_long_exists(beginning):
    path, _, name = beginning.partition("[")[0].partition("::")
    assert (ROOT / path).exists()
    assert not name or f"\ndef {name}(" in (ROOT / path).read_text()
