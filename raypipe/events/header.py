"""The head of a text table: what separates its values, and whether its first line names the columns."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raypipe.errors import UserError

SAMPLE = 200  # Lines that are looked at to tell separator, columns and header
BLANKS = " \t\f\v"
MISSING = ("", *re.split(" ", "- -- #N/A <NA> N/A n/a NA NULL null None NaN nan -nan -NaN NAN 1.#QNAN -1.#IND 1.#IND"))
"""Cells that say that there is no value."""

_BROKEN = re.compile(r"[+-]?\d[^\s]*[.,;|]")  # What begins as a number with a point or separator


@dataclass(frozen=True)
class Head:
    """What the first lines say of all others; ``names`` all different, the places where the file has none.

    ``separator``: tab, semicolon, comma, bar, or a blank for any run of blanks; ``trailing``: whether lines end in one;
    ``offset``: bytes before the first row; ``line``: its number, from 1.
    """

    names: tuple[str, ...]
    separator: str
    trailing: bool
    offset: int
    line: int


def find_head(raw: Iterable[bytes], source: str) -> Head:
    """The head of a table whose lines are ``raw``, each with its end; no table or no clear one is a `UserError`."""
    comment, lines = "", []
    begin = end = line = offset = 0
    for number, text in enumerate(raw, 1):
        mark = 3 if number == 1 and text.startswith(b"\xef\xbb\xbf") else 0
        bare = decode(text[mark:]).rstrip("\r\n")
        if "\0" in bare and not lines:
            raise UserError(f"{source}: line {number} holds zero bytes: not a text table (or not UTF-8)")
        if bare.strip().startswith(("#", "'#") if lines else ("#", "'#", "%", "*")):
            comment = comment if lines else bare.strip()
        elif bare.strip():
            if not lines:
                begin, end, line = offset + mark, offset + len(text), number
            row = bool(lines) or _is_value(re.split(r"[\s,;]", bare.strip())[0])
            lines.append(re.sub(r"[ \t]+#[^\"]*$", "", bare) if row else bare)
        offset += len(text)
        if len(lines) == SAMPLE:
            break
    if not lines:
        raise UserError(f"{source}: no table in it")
    separator = _separator(lines)
    first, *below = [split(text, separator) for text in lines]
    width = Counter(map(len, below)).most_common(1)[0][0] if below else len(first)
    rows = [row for row in below if len(row) == width]
    trailing = width > 1 and separator != " " and not any(row[-1] for row in [first, *rows] if len(row) == width)
    names, used = _names(first, rows, width - trailing, separator, f"{source}: line {line}", comment)
    return Head(distinct(names), separator, trailing, end if used else begin, line + used)


def split(line: str, separator: str) -> list[str]:
    """The values of one line, without quotes and blanks around them."""
    line = " ".join(line.split()) if separator == " " else line
    fields = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    return [field.strip(BLANKS + "'\"") for field in fields]


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names as they are, but ``m (1)`` and ``m (2)`` for two columns ``m``, and ``column 3`` where there is none."""
    names = [name or f"column {place}" for place, name in enumerate(names)]
    total, seen = Counter(names), Counter[str]()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if total[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)


def single(name: object) -> str:
    """The name that a file gives to one of several columns: the opposite of `distinct`."""
    return re.sub(r" \(\d+\)$", "", str(name))


def twins(name: str, names: Sequence[str]) -> list[str]:
    """The columns that were all called ``name``, by what `distinct` calls them."""
    found = [n for k in range(1, len(names) + 1) if (n := f"{name} ({k})") in names]
    return found if len(found) > 1 else []


def _names(
    first: list[str], below: list[list[str]], width: int, separator: str, where: str, comment: str
) -> tuple[list[str], int]:
    """Names of the ``width`` columns, and 1 if the first line holds them, else 0."""
    numbered = [str(k) for k in range(width)]
    broken = [field for field in first if _BROKEN.match(field) and not _is_value(field)]
    named = [k for k, field in enumerate(first[:width]) if _is_word(field) and any(_is_value(row[k]) for row in below)]
    if broken and all(first[k] in broken for k in named):
        raise UserError(f"{where} is neither a header nor a row: {broken[0]!r} is no name and no number")
    if len(first) != width and not (len(first) == width + 1 and not first[-1]):
        names = re.sub(r"[\[(][^\])]*[\])]", "", " ".join(first)).split() if width > 1 else [" ".join(first)]
        if separator == " " and not any(map(_is_value, first)):  # a title, or names with units or blanks
            return names if len(names) == width else numbered, 1
        told = f"{len(first)} values where the lines below have {width}"
        raise UserError(f"{where}: {told}: name every column, mark comments with #, write decimal points, not commas")
    values = first[:width]
    digits = [field for field in values if _is_value(field)]
    if any(map(_is_word, values)) and not (digits and below):
        return values, 1
    if named:  # a name above numbers, beside a number
        if len(digits) > 1 and all(f.isdigit() for f in digits) and set(np.diff(np.array(digits, int))) == {1}:
            return values, 1
        told = f"{values[named[0]]!r} stands above numbers, {digits[0]!r} is one"
        raise UserError(f"{where} is neither a header nor a row: {told}")
    if values == numbered and _are_places(below, where):
        return numbered, 1
    if comment.startswith("#"):  # "# x y err" above bare numbers
        text = comment.lstrip("# ")
        for names in (split(text, separator), text.split()):
            if len(names) == width and all(names) and not any(map(_is_value, names)):
                return names, 0
    return numbered, 0


def _are_places(below: list[list[str]], where: str) -> bool:
    """Whether a first line 0,1,2... counts the columns (pandas writes such headers) or is a row of numbers."""
    column = [row[0] for row in below if _is_value(row[0])]
    whole = all(field.lstrip("+-").isdigit() for field in column)
    if not below or (whole and len(below[0]) < 3):
        return False
    if len(below[0]) > 1 and (np.diff([0.0, *map(float, column)]) > 0).all():
        raise UserError(f"{where}: 0, 1, ... can be places of columns, or values: give the columns names, or write 0.0")
    return True


def _separator(lines: Sequence[str]) -> str:
    """What stands in half of the lines: tab, semicolon, comma or bar, in this order; else blanks."""
    rows = lines[1:] or lines
    half = (s for s in "\t;,|" if 2 * sum(len(split(line, s)) > 1 for line in rows) >= len(rows))
    separator = next(half, " ")
    aligned = separator == "\t" and len({len(line.split()) for line in lines}) == 1  # tabs and blanks are all the same
    return " " if aligned else separator


def _is_word(text: str) -> bool:
    return text not in MISSING and not _is_value(text)


def is_number(cell: Any) -> bool:
    """Whether a cell reads as a number; digits with underscores do not."""
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return "_" not in str(cell)


def _is_value(text: str) -> bool:
    return is_number(text) or text.lower() in ("true", "false")


def decode(raw: bytes) -> str:
    """Text that is UTF-8 or, where it cannot be, Latin-1."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
