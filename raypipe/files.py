"""Files that are either whole or absent, and hashes that name what made them."""

import contextlib
import hashlib
import json
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from raypipe.errors import UserError


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that is renamed to it on success and removed on failure.

    A reader therefore never sees half a file, and a killed writer leaves only a ``.tmp-`` file behind.
    """
    path = Path(path)
    make_directory(path.parent)
    temporary = path.parent / f".tmp-{path.stem}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}"
    try:
        yield temporary
        os.replace(temporary, path)
    finally:  # a rename onto another link of the same file does nothing and leaves both names
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path`` atomically; NaN is refused (it is not JSON)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a damaged one is a `UserError` naming the file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error


def make_directory(path: str | Path) -> Path:
    """Create ``path`` and its parents; a place that cannot be written is a `UserError`."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, FileExistsError) as error:
        raise UserError(f"{path}: cannot create this folder: {error.strerror or error}") from error
    return path


def inside_output_root(path: str | Path) -> Path:
    """``path``, unless RAYPIPE_OUTPUT_ROOT is set and it leads outside that folder (``..``, a link): a `UserError`.

    On a shared cluster the configuration comes from whoever submits a job; what it may write is decided here.
    """
    root = os.environ.get("RAYPIPE_OUTPUT_ROOT")
    if root and not Path(path).resolve().is_relative_to(Path(root).resolve()):
        raise UserError(f"{path}: outside RAYPIPE_OUTPUT_ROOT = {root}")
    return Path(path)


def check_writable(path: str | Path) -> Path:
    """Create ``path`` if needed and prove that a file can be written there; else, or outside the root, `UserError`."""
    path = make_directory(inside_output_root(path))
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix=".tmp-write-test-"):
            return path
    except OSError as error:
        raise UserError(f"{path}: this output folder is not writable: {error.strerror or error}") from error


def check_file_writable(path: str | Path) -> Path:
    """As `check_writable`, for a file: its folder is created if needed; a folder of that name is a `UserError`."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: this is a folder; name a file")
    check_writable(path.parent)
    return path


def digest(value: Any, length: int = 20) -> str:
    """A hash of any JSON-serialisable value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_digest(path: str | Path, length: int = 20) -> str:
    """A hash of the bytes of one file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:length]


_TOKENS = re.compile(
    r'''[rbfuRBFU]{0,2}(?:"""(?:\\.|[^\\])*?"""|\'{3}(?:\\.|[^\\])*?\'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')'''
    r"""|\n *|\#[^\n]*|\\\n|[ \t]+|[()\[\]{}]|[^\s"'\#()\[\]{}\\]+""",
    re.DOTALL,
)
_IMPORT = re.compile(r"^ *(?:from (raypipe[\w.]*) import (.*)|import (raypipe[\w.]*).*)$", re.MULTILINE)
ROOT = Path(__file__).parent  # Folder of the package


def plain_code(source: str) -> str:
    """Python source without comments, docstrings and line breaks inside statements: a statement a line, indented."""
    statements, tokens, depth, indent, gap = [], [], 0, "", ""
    for token in _TOKENS.findall(f"\n{source}\n"):
        if token[0] == "\n" and depth == 0:
            if tokens and not (len(tokens) == 1 and tokens[0][-1] in "\"'"):  # a string alone says nothing
                statements.append(indent + "".join(tokens))
            tokens, indent, gap = [], token[1:], ""
        elif token[0] in " \t\n\\":
            gap = " "
        elif token[0] != "#":
            depth += (token in "([{") - (token in ")]}")
            tokens.append(token if not tokens or token in ")]}" or tokens[-1][-1] in "([{" else gap + token)
            gap = ""
    return "\n".join(statements)


@cache
def _read_code(path: Path) -> str:
    """What counts of a source file, whole if it is not Python."""
    text = path.read_text(encoding="utf-8")
    return plain_code(text) if path.suffix == ".py" else text


@cache
def _package(root: Path) -> list[Path]:
    """All files of a package that determine what it does."""
    files = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    return [path for path in files if path.suffix in {".py", ".c", ".yaml"}]


def _digest_of(sources: Iterable[Path], root: Path, length: int) -> str:
    total = hashlib.sha256()
    for source in sorted(set(sources)):
        name = source.relative_to(root) if source.is_relative_to(root) else source.name
        total.update(f"{name}\n{_read_code(source)}\n".encode())
    return total.hexdigest()[:length]


def code_digest(*rooms: str, root: Path = ROOT, length: int = 12) -> str:
    """A hash of what the code of ``rooms`` (sub-packages) does, so that old code's results are not taken for new.

    Comments, docstrings and line breaks do not count. Tables (YAML) and C sources do, as they stand.
    """
    sources = [path for path in _package(root) if path.parts[len(root.parts)] in (*rooms, "seeds.py")]
    return _digest_of(sources, root, length)


def code_of(*modules: str, root: Path = ROOT, length: int = 12) -> str:
    """`code_digest` of ``modules`` and all of raypipe that they import: see `imported`."""
    return _digest_of(imported(*modules, root=root), root, length)


def imported(*modules: str, root: Path = ROOT) -> set[Path]:
    """Source files of ``modules`` and of all of raypipe that these import, in turn; nothing is executed for it.

    Such as ``raypipe.fit.encoder``, or one of a plugin that has been imported.
    Tables and C sources below the folder of a module belong to it if it has their suffix in a text; where a module
    imports by a name in a text, so do all of its folder, but not of `raypipe` itself. The file ``raypipe/__init__.py``
    counts for nobody.
    """
    found: set[Path] = set()
    waiting: list[Path] = []
    for module in modules:
        waiting += _sources(module, "", root)
        if not waiting:
            raise ModuleNotFoundError(f"No file of the module {module!r}", name=module)
    while waiting:
        path = waiting.pop()
        if path in found or path == root / "__init__.py":
            continue
        found.add(path)
        code = _read_code(path)
        for package, names, module in _IMPORT.findall(code):
            for name in names.strip("() ").split(","):
                if (name := name.split(" as ")[0].strip()) or module:
                    waiting += _sources(package or module, name, root)
        if "import_module(" in code and path.parent != root and path.is_relative_to(root):
            waiting += path.parent.glob("*.py")
    data = [path for path in _package(root) if path.suffix != ".py"]
    for suffix in (".c", ".yaml"):
        users = [p.parent for p in found if p.parent != root and re.search(rf"\{suffix}\b", _read_code(p))]
        found |= {path for path in data if path.suffix == suffix and not set(users).isdisjoint(path.parents)}
    return found


@cache
def _sources(module: str, name: str, root: Path) -> list[Path]:
    """The files behind ``from module import name``: those that a package takes the name from, not all of it."""
    if module.partition(".")[0] != "raypipe":
        return [Path(file)] if (file := getattr(sys.modules.get(module), "__file__", None)) else []
    place = root.joinpath(*module.split(".")[1:])
    for own in (place / f"{name}.py", place / name / "__init__.py") if name else ():
        if own.is_file():
            return [own]
    if not (init := place / "__init__.py").is_file():
        return [own] if (own := place.with_suffix(".py")).is_file() else []
    for package, names, _ in _IMPORT.findall(_read_code(init)):
        if name in re.findall(r"\w+", names):
            return _sources(package, name, root)
    return [init]
