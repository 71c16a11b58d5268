"""Text tables: the one reader of all commands, so that every command counts the same rows.

A file is scanned once into blocks of whole lines. Values are typed from their text: integers up to 2^64 - 1 stay exact.
"""

import contextlib
import functools
import gzip
import io
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from raypipe.errors import UserError
from raypipe.events.header import MISSING, Head, decode, find_head, is_number, split
from raypipe.events.hepdata import join_tables

SUFFIXES = (".csv", ".tsv", ".txt", ".dat")
BLOCK = 1 << 18  # Bytes of a block: small against a chunk of rows, large against the cost of a call

_LINE = re.compile(rb"\r*\n|\r")
_WITH_END = re.compile(rb"[^\r\n]*(?:\r*\n|\r)|[^\r\n]+")
_LOGICAL = pa.array(["true", "false"])


@dataclass(frozen=True)
class TextTable:
    """Where the rows of a file are: blocks of lines between ``offsets`` (bytes), ``lines`` (from 1) and ``rows``."""

    path: str
    head: Head
    offsets: tuple[int, ...]
    lines: tuple[int, ...]
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return self.rows[-1]

    @property
    def names(self) -> list[str]:
        """Columns, all different."""
        return list(self.head.names)

    def read(self, start: int = 0, stop: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows ``start <= row < stop`` of the given columns (all where None), typed over the range (`typed`)."""
        cells = self.cells(start, stop, columns)
        return pa.table({name: typed(cells[name]) for name in cells.column_names})

    def cells(self, start: int = 0, stop: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """As `read`, but as text; a line with too few or too many values is a `UserError` with its number."""
        wanted = self.names if columns is None else list(columns)
        stop = len(self) if stop is None else min(stop, len(self))
        parts = [pa.table({name: pa.array([], pa.string()) for name in wanted})]
        block = bisect_right(self.rows, start) - 1
        while block < len(self.rows) - 1 and self.rows[block] < stop:
            table, first = self._parse(block, wanted), self.rows[block]
            low = max(start - first, 0)
            parts.append(table.slice(low, stop - first - low))
            block += 1
        table = pa.concat_tables(parts)
        return pa.table({name: pc.ascii_trim(table[name], " \t'\f\v") for name in wanted})

    def line_of(self, row: int) -> int:
        """The line, from 1, of a row, from 0."""
        block = bisect_right(self.rows, row) - 1
        full = [k for k, line in enumerate(_lines(self._raw(block))) if _clean(line, self.head)]
        return self.lines[block] + full[row - self.rows[block]]

    def _raw(self, block: int) -> bytes:
        with _open(self.path) as file:
            file.seek(self.offsets[block])
            return file.read(self.offsets[block + 1] - self.offsets[block])

    def _parse(self, block: int, wanted: Sequence[str]) -> pa.Table:
        """The wanted columns of a block as strings."""
        cleaned = _clean(self._raw(block), self.head)
        types = dict.fromkeys(self.names, pa.string())
        convert = pcsv.ConvertOptions(include_columns=list(wanted), column_types=types, strings_can_be_null=False)
        read = pcsv.ReadOptions(use_threads=False, column_names=self.names, block_size=len(cleaned) + 1)
        parse = pcsv.ParseOptions(delimiter=self.head.separator)
        with contextlib.suppress(pa.ArrowInvalid):
            table = pcsv.read_csv(pa.BufferReader(cleaned), read, parse, convert)
            if len(table) == self.rows[block + 1] - self.rows[block]:
                return table
        raise UserError(self._misfit(block, cleaned))

    def _misfit(self, block: int, cleaned: bytes) -> str:
        """What is wrong with the first line of a block that has not one value a column."""
        expected = len(self.names)
        for row, line in enumerate(cleaned.decode().split("\n")[:-1]):
            fields = split(line, self.head.separator)
            if len(fields) != expected:
                told = f"{len(fields)} values where there are {expected} columns ({line[:40]!r})"
                where = f"{self.path}: line {self.line_of(self.rows[block] + row)}"
                return f"{where}: {told}: mend the line, or mark a comment with #"
        return f"{self.path}: lines {self.lines[block]} to {self.lines[block + 1] - 1}: not {expected} columns"


def is_text(path: str | Path) -> bool:
    """Whether a file is a text table by its name, compressed or not."""
    return str(path).lower().removesuffix(".gz").endswith(SUFFIXES)


def open_text(path: str | Path) -> TextTable:
    """Scan a file, once as long as it stays as it is; what is no table is a `UserError`."""
    return _scan(str(path), *_stamp(path))


def at_line(source: str | Path, row: int) -> str:
    """The line, from 1, of a row, from 0, for messages; nothing if the source is no text table."""
    if not (is_text(source) and Path(source).is_file()):
        return ""
    return f" (line {open_text(source).line_of(row)})"


def not_a_number(cells: Iterable[Any]) -> int | None:
    """Place of the first cell that is there and no number, or None."""
    return next((row for row, cell in enumerate(cells) if cell is not None and not is_number(cell)), None)


def typed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as the first type that holds all of it: int64, uint64, float64, bool, string. `MISSING` cells are null."""
    column = pc.if_else(pc.is_in(column, pa.array(MISSING)), pa.scalar(None, pa.string()), column)
    if pc.any(pc.starts_with(column, "+")).as_py():
        column = pc.replace_substring_regex(column, r"^\+([0-9.])", r"\1")
    if not pc.any(pc.match_substring_regex(column, "^-?0[xX]")).as_py():  # Arrow reads 0x10 as 16
        for kind in (pa.int64(), pa.uint64(), pa.float64()):
            try:
                return column.cast(kind)
            except pa.ArrowInvalid:
                continue
    if pc.all(pc.is_in(pc.utf8_lower(column.drop_null()), _LOGICAL)).as_py():
        return pc.equal(pc.utf8_lower(column), "true")
    return column


@functools.lru_cache(maxsize=16)
def _scan(path: str, size: int, time: int) -> TextTable:
    with _open(path) as file:
        start = file.read(4 * BLOCK)
        head = find_head(_lines(start if len(start) < 4 * BLOCK else start[: start.rfind(b"\n") + 1] or start), path)
        offsets, lines, rows, raw = [head.offset], [head.line], [0], b""
        file.seek(head.offset)
        for raw in _blocks(file):
            cleaned = _clean(raw, head)
            if b'"' in cleaned and any(line.count(b'"') % 2 for line in cleaned.split(b"\n")):
                bad = [n for n, line in enumerate(_lines(raw), lines[-1]) if _clean(line, head).count(b'"') % 2]
                raise UserError(f"{path}: line {bad[0]}: a quote is not closed (a value may not hold a line break)")
            offsets.append(offsets[-1] + len(raw))
            lines.append(lines[-1] + (len(_LINE.findall(raw)) if b"\r" in raw else raw.count(b"\n")))
            rows.append(rows[-1] + cleaned.count(b"\n"))
    last = raw[max(raw.rfind(b"\n"), raw.rfind(b"\r")) + 1 :]  # a line that is not ended
    behind = last.rstrip(b" ").endswith(head.separator.encode())
    if _clean(last, head) and head.separator != " " and behind != head.trailing:
        raise UserError(f"{path}: line {lines[-1]}: the file breaks off; if it is whole, end it with a line break")
    return TextTable(path, head, tuple(offsets), tuple(lines), tuple(rows))


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """The rest of a file in pieces that end where a line does."""
    rest = b""
    while data := file.read(BLOCK):
        data = rest + data
        end = data.rfind(b"\n") + 1 or data.rstrip(b"\r").rfind(b"\r") + 1  # \r\r\n is one end of a line
        if end:
            yield data[:end]
        rest = data[end:]
    if rest:
        yield rest


def _lines(raw: bytes) -> Iterator[bytes]:
    """Lines with their ends: ``\\n``, ``\\r\\n``, ``\\r\\r\\n`` or a lone ``\\r``."""
    return (found.group() for found in _WITH_END.finditer(raw))


def _clean(raw: bytes, head: Head) -> bytes:
    """Rows alone, as UTF-8, each ended by ``\\n``, with single blanks where blanks separate."""
    if b"\r" in raw:
        raw = _LINE.sub(b"\n", raw)
    raw += b"" if raw.endswith(b"\n") else b"\n"
    raw = decode(raw).encode()
    if b"#" in raw:
        raw = re.sub(rb"(?m)^[ \t]*'?#.*$|[ \t]+#[^\"\n]*$", b"", raw)
    separator = head.separator.encode()
    if separator == b" ":
        raw = re.sub(rb"(?m)^ +| +$", b"", re.sub(rb"[ \t\f\v]+", b" ", raw))
    elif b'"' in raw:  # a quote behind a blank opens a value too
        raw = re.sub(re.escape(separator) + rb' +"', separator + b'"', raw)
    if head.trailing:
        raw = re.sub(rb"(?m)" + re.escape(separator) + rb" *$", b"", raw)
    if raw[0] in b"\n \t\f\v" or any(start in raw for start in (b"\n\n", b"\n ", b"\n\t", b"\n\f", b"\n\v")):
        raw = re.sub(rb"(?m)^[ \t\f\v]*\n", b"", raw)
    return raw


def _stamp(path: str | Path) -> tuple[int, int]:
    found = Path(path).stat()
    return found.st_size, found.st_mtime_ns


def _open(path: str) -> BinaryIO:
    """The table as bytes in which one can seek: compressed and converted files from memory."""
    contents = _converted(path, *_stamp(path))
    return open(path, "rb") if contents is None else io.BytesIO(contents)


@functools.lru_cache(maxsize=2)
def _converted(path: str, size: int, time: int) -> bytes | None:
    """What a compressed, UTF-16 or HEPData file holds, as UTF-8; None for a file that can be read as it lies."""
    with open(path, "rb") as file:
        start = file.read(5)
        contents: bytes | None = None
        if start[:2] == b"\x1f\x8b":
            file.seek(0)
            try:
                contents = gzip.decompress(file.read())
            except (OSError, EOFError) as problem:
                raise UserError(f"{path}: the compressed file is broken or breaks off ({problem})") from problem
            start = contents[:5]
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            contents = (contents or start + file.read()).decode("utf-16").encode()
        elif start.removeprefix(b"\xef\xbb\xbf")[:2] == b"#:":
            contents = join_tables((contents or start + file.read()).decode("utf-8-sig")).encode()
    return contents
