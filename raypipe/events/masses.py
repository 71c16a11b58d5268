"""Mass spectra of others: event masses or published histograms, from ROOT, Parquet, CSV, JSON or NumPy."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.errors import UserError
from raypipe.events.columns import MASS, find_columns
from raypipe.events.header import is_number, twins
from raypipe.events.spectra import Spectrum, edges_from_centres, spectrum_from_columns, spectrum_from_mapping
from raypipe.events.tables1d import read_columns, read_root
from raypipe.events.text import at_line, not_a_number

MANY = 1000  # Cells that tell whether a column of text is one of numbers


@dataclass(frozen=True)
class Masses:
    """Masses of events in the file's unit without ``missing``, the not finite; ``weights``: None for unit weights."""

    values: np.ndarray
    weights: np.ndarray | None
    source: str
    missing: int = 0


def load_masses(
    path: str | Path,
    column: str | None = None,
    tree: str | None = None,
    branch: str | None = None,
    weight: str | None = None,
    x: str | None = None,
    y: str | None = None,
    error: str | None = None,
    density: bool = False,
    scale: float = 1.0,
) -> Masses | Spectrum:
    """Event masses or a published histogram, whichever the file holds.

    ``column``, ``branch``: mass column, branch of a ROOT tree, or name of a histogram (``a+b`` adds some). ``tree``:
    path inside the ROOT file. ``x``, ``y``, ``error``: columns of a histogram, else found by their usual names.
    ``density``: ``y`` is per unit of x. ``scale``: factor on y and errors, such as a luminosity.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    name = branch or column
    try:
        found: Any = read_root(path, tree, name, weight) if path.suffix == ".root" else read_columns(path, tree)
    except UserError as problem:
        if str(path) in str(problem):
            raise
        raise UserError(f"{path}: {problem}") from problem
    except Exception as problem:  # any reader's own exception becomes one line that names the file
        first = str(problem).strip().splitlines()
        raise UserError(f"{path}: cannot be read: {first[0] if first else type(problem).__name__}") from problem
    given = {"x": x, "y": y, "error": error}
    spectrum = found if isinstance(found, Spectrum) else None
    if spectrum is None:
        wanted = {name, weight, *given.values()}
        found = {k: _parsed(v, k, path, name is None or k in wanted) for k, v in found.items()}
        if x is None and y is None:
            spectrum = spectrum_from_mapping(found, name, str(path))
    roles = None
    if spectrum is None and (weight is None or y is not None):
        roles = _roles(found, name, given, str(path))
    if spectrum is None and roles is None:
        return _event_masses(found, name, weight, path)
    if weight is not None:
        raise UserError(f"{path}: it holds a histogram: --weight {weight} is for event masses")
    for option, column in given.items():
        if spectrum is not None and column is not None:
            told = f"--{option} {column} has no effect; name a histogram with --column or --branch"
            raise UserError(f"{path}: its histograms have no columns: {told}")
    spectrum = spectrum_from_columns(found, roles, str(path)) if spectrum is None else spectrum
    return spectrum.scaled(scale, density)


def _event_masses(columns: dict[str, Any], name: str | None, weight: str | None, path: Path) -> Masses:
    """Masses and weights of events, checked."""
    arrays = {key: np.asarray(value) for key, value in columns.items() if np.ndim(value) == 1}
    if name is None:
        numeric = [key for key, value in arrays.items() if np.issubdtype(value.dtype, np.number)]
        if len(numeric) != 1 and len(arrays) == 1:
            numeric = list(arrays)
        if len(numeric) != 1:
            which = "which column is the mass (--column), or which are a histogram's centres and contents (--x, --y)"
            raise UserError(f"{path}: say {which}: there are {_names(columns)}")
        name = numeric[0]
    values = _numbers(arrays, name, path)
    weights = None if weight is None else _numbers(arrays, weight, path)
    if weights is not None and len(weights) != len(values):
        raise UserError(f"{path}: {weight!r} has {len(weights)} values, {name!r} {len(values)}")
    good = np.isfinite(values) if weights is None else np.isfinite(values) & np.isfinite(weights)
    if not good.any():
        raise UserError(f"{path}: column {name!r} holds no finite mass ({len(values)} values)")
    return Masses(values[good], None if weights is None else weights[good], f"{path}:{name}", int((~good).sum()))


def _roles(
    columns: dict[str, Any], name: str | None, given: dict[str, str | None], source: str
) -> dict[str, str] | None:
    """Columns of a histogram, in which ``--column`` names the contents, or None where they are an event table."""
    by_name = name is not None and given["x"] is None and given["y"] is None
    if by_name and name not in columns:
        return None
    found = find_columns(columns, **given, source=source)
    if not by_name:
        told = found is None or any(value is not None for value in given.values())
        return found if told or _is_binned(columns, found, source) else None
    if found is None or "low" not in found:
        return None
    found = find_columns(columns, None, name, given["error"], source)
    return found if found and "low" in found and name not in (found["low"], found["high"]) else None


def _is_binned(columns: dict[str, Any], roles: dict[str, str], source: str) -> bool:
    """Whether x can be bin centres, where its name could as well be the mass of an event."""
    short = re.sub(r"\W*[\[(].*", "", roles.get("x", "x")).lower()
    if (short not in MASS and not short.isdigit()) or {"half", "width"} & set(roles):
        return True
    centres = np.asarray(columns[roles["x"]], float)
    centres = centres[::-1] if centres[-1:] < centres[:1] else centres
    if len(centres) < 2 or not (np.diff(centres) > 0).all():
        return False
    low, high = edges_from_centres(centres, source)
    dense = (high - low).sum() > (high[-1] - low[0]) / 3  # sorted events lie on a grid of their last digit
    return bool(dense and np.allclose((low + high) / 2, centres, rtol=0, atol=1e-3 * (high - low).min()))


def _parsed(values: Any, key: str, path: str | Path, needed: bool) -> Any:
    """Text that reads as numbers as such; where most of a needed column does, a cell that does not is an error."""
    array = np.asarray(values) if isinstance(values, list | np.ndarray) else values
    if np.ndim(array) != 1 or array.dtype.kind not in "OUS":
        return values
    cells = array.tolist()
    bad = not_a_number(cells)
    if bad is None:
        return np.array([np.nan if cell is None else float(cell) for cell in cells])
    if needed and 2 * sum(map(is_number, cells[: 2 * MANY])) > len(cells[: 2 * MANY]):
        raise UserError(f"{path}: column {key!r}, row {bad}: {cells[bad]!r} is not a number{at_line(path, bad)}")
    return values


def _numbers(arrays: dict[str, np.ndarray], name: str, path: str | Path) -> np.ndarray:
    """One column as float64, or a `UserError` that names what is there."""
    if name not in arrays:
        alike = twins(name, list(arrays))
        told = f"{len(alike)} columns are called" if alike else "no column"
        raise UserError(f"{path}: {told} {name!r}: there are {_names(arrays)}")
    try:
        if np.asarray(arrays[name]).dtype.kind in "bc":
            raise TypeError("not a real number")
        return np.asarray(arrays[name], float)
    except (TypeError, ValueError) as problem:
        raise UserError(f"{path}: column {name!r} is not numeric") from problem


def _names(columns: dict[str, Any]) -> str:
    names = sorted(map(str, columns))
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
