"""The oldest versions that pyproject.toml allows, as pip constraints: ``python -m tests.bounds``."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
LOWEST = re.compile(r"^([\w.-]+)(?:\[[\w,]+\])?(>=|==)([\w.]+)")


def lowest() -> dict[str, str]:
    """Each direct dependency and its oldest series; raises `ValueError` for one without a bound."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    found, extras = {}, project["optional-dependencies"]
    own = f"{project['name']}[notebook]"  # which the tests' extra asks for
    for wanted in [*project["dependencies"], *extras["notebook"], *(w for w in extras["test"] if w != own)]:
        if (bound := LOWEST.match(wanted)) is None:
            raise ValueError(f"{PROJECT.name}: {wanted}: no lower bound")
        found[bound[1]] = bound[3] if bound[2] == "==" else f"{bound[3]}.*"
    return found


if __name__ == "__main__":
    print("\n".join(f"{name}=={version}" for name, version in lowest().items()))
