"""YAML as people mean it: what has two readings is refused with its line, or read as YAML 1.2 reads it.

YAML 1.1, which PyYAML follows, takes ``1:30`` for 90, ``010`` for 8, ``2024-01-01`` for a date and ``1e5`` for text.
Here the first three are text (as a number ``010`` is ten), and the fourth is a number. A key that stands twice is an
error. Merge keys (``<<``) and ``yes``/``no`` are those of YAML 1.1.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

from raypipe.errors import UserError

TAG = "tag:yaml.org,2002:"
PLAIN = {
    "bool": (r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "int": (r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F][0-9a-fA-F_]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
        r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": ("<<", "<"),
}
"""What a value without quotes is: pattern and first characters. Everything else is text."""


class _Loader(yaml.SafeLoader):
    """Plain values by `PLAIN`."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for _kind, (_pattern, _first) in PLAIN.items():
    _Loader.add_implicit_resolver(TAG + _kind, re.compile(f"^(?:{_pattern})$"), list(_first))


def parse(text: str, source: str, comments: bool = True) -> Any:
    """The value of a YAML text.

    Args:
        source: what messages call the text. comments: whether ``# ...`` may stand behind the value.

    Raises:
        UserError: no valid YAML, a key that stands twice, a key that is no text.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        rest = text[node.end_mark.index if node else 0 :].strip()
        if rest and not comments:
            raise UserError(f"{source}: {rest!r} would be read as a comment: write the value in quotes")
        if node is not None:
            _check_keys(node, source, set())
        return None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()


def _check_keys(node: yaml.Node, source: str, seen: set[int]) -> None:
    """Refuse keys that stand twice in one mapping, and keys that are no text."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    for item in node.value if isinstance(node, yaml.SequenceNode) else ():
        _check_keys(item, source, seen)
    lines: dict[str, int] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        line = key.start_mark.line + 1
        if key.tag not in (f"{TAG}str", f"{TAG}merge"):
            name = key.value if isinstance(key, yaml.ScalarNode) else "? ..."
            raise UserError(f"{source}: line {line}: key {name!r} is no text: write it in quotes")
        if key.value in lines:
            raise UserError(f"{source}: line {line}: key {key.value!r} stands twice (first in line {lines[key.value]})")
        lines[key.value] = line
        _check_keys(value, source, seen)
