"""Delimited text files as lazy tables of strings. Every oddity of the bytes raises an error or adds a note.

A file without quotation is split line by line, so that errors name the line and no parser guesses. A CSV file with
quotation marks goes through Polars' CSV parser. Nothing is held in memory: the bytes are read once in blocks, the
fields are counted in one streamed query, and the rows stay lazy.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from reckg.errors import DataError

ROW = "__row__"  # the column of row numbers, counted from 1
LINE = "line"
_BLOCK = 1 << 22
_SEPARATOR_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", " ": "spaces", "::": "'::'", "|": "'|'"}


@dataclass(frozen=True)
class Table:
    """A lazy table with its name in error messages.

    Attributes:
        frame: the data, with the column ROW: the line of a text file, else the row, counted from 1.
        label: the table's name in messages, as a file name.
        row_word: the word for a row in messages, "row" or "line".
        list_separator: stands between the values of a list that is written as one string.
    """

    frame: pl.LazyFrame
    label: str
    row_word: str = "row"
    list_separator: str = "|"

    def columns(self) -> list[str]:
        """Returns the names of the data columns, without ROW.

        Raises:
            DataError: the file cannot be opened, or Polars takes a name for a pattern of names.
        """
        with refuse_broken(self.label):
            names = [name for name in self.frame.collect_schema().names() if name != ROW]
        patterns = [name for name in names if name == "*" or (name.startswith("^") and name.endswith("$"))]
        if patterns:
            raise DataError(f"{self.label}: a column cannot be called {patterns[0]!r}; rename it.")
        return names

    def rename(self, names: dict[str, str]) -> Table:
        """Selects and renames columns.

        Args:
            names: old name -> new name. Other columns than these and ROW are left out.
        """
        frame = self.frame.select(ROW, *[pl.col(old).alias(new) for old, new in names.items()])
        return Table(frame, self.label, self.row_word, self.list_separator)


@contextmanager
def refuse_broken(label: str) -> Iterator[None]:
    """Turns errors of Polars and of the file system while ``label`` is read into a DataError."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, UnicodeError, OverflowError) as error:
        reason = str(error).strip().splitlines()
        summary = reason[0][:300].rstrip(".") if reason else type(error).__name__
        raise DataError(f"{label} cannot be read: {summary}. Is the file damaged or of another format?") from error


def collect(frame: pl.LazyFrame, label: str) -> pl.DataFrame:
    """Runs a query with the streaming engine.

    Args:
        frame: the query.
        label: the table's name in the error.
    Raises:
        DataError: the file is damaged or cannot be read.
    """
    with refuse_broken(label):
        return frame.collect(engine="streaming")


def open_lines(path: Path, notes: list[str]) -> Table:
    """Opens a text file as a lazy table with one column, ``line``. Blank lines are left out and counted.

    Args:
        path: the file.
        notes: gets a sentence for every counted decision.
    Raises:
        DataError: the file is missing, a folder, empty, not UTF-8, or has NUL bytes.
    """
    facts = _inspect(path, notes)
    frame = _lines(path, facts)
    blank = pl.col(LINE).str.strip_chars() == ""
    count = collect(frame.select(blank.sum()), path.name).item()
    _note_blank(path, count, facts.lines, notes)
    return Table(frame.filter(~blank) if count else frame, path.name, "line")


def open_delimited(
    path: Path,
    separator: str | None,
    notes: list[str],
    *,
    columns: Sequence[str] | None = None,
    quoted: bool = False,
) -> Table:
    """Opens a delimited text file as a lazy table of strings. An empty field is null.

    Args:
        path: the file.
        separator: stands between fields. None splits at any run of spaces and tabs.
        notes: gets a sentence for every counted decision.
        columns: the names for a file without a header; as many are used as the first line has fields. None takes the
            first line as the header.
        quoted: fields may be in quotation marks, as in CSV.
    Raises:
        DataError: as ``open_lines``; or a name in the header is empty or repeated, or lines differ in their number of
            fields.
    """
    facts = _inspect(path, notes)
    first = _first_line(path)
    names = _split(first, separator, quoted and facts.quotes)
    if columns is None:
        _check_header(path, names)
    elif len(names) > len(columns) or len(names) < 2:
        raise DataError(
            f"{path.name}: the first line has {len(names)} fields, expected {', '.join(columns)} "
            f"separated by {_say(separator)}; it is {first[:80]!r}.{_hint(first, separator)}"
        )
    else:
        names = list(columns[: len(names)])
    if quoted and facts.quotes and separator is not None:
        return _open_quoted(path, separator, names, columns is None, facts, notes)
    return _open_plain(path, separator, names, columns is None, facts, notes)


def require_columns(table: Table, needed: Sequence[str]) -> None:
    """Raises DataError if a column is missing. The message lists the columns and may suggest another separator."""
    there = table.columns()
    missing = [name for name in needed if name not in there]
    if missing:
        hint = _hint(there[0], None) if len(there) == 1 else ""
        raise DataError(
            f"{table.label}: no column {', '.join(map(repr, missing))}; the columns are "
            f"{', '.join(map(repr, there))[:300]}.{hint}"
        )


@dataclass(frozen=True)
class _Facts:
    lines: int
    bom: bool
    quotes: bool


def _inspect(path: Path, notes: list[str]) -> _Facts:
    """Reads the bytes once: raises an error for bytes that no table can hold, and notes tolerated oddities."""
    if path.is_dir():
        raise DataError(f"{path} is a folder, expected a file.")
    if not path.is_file():
        raise DataError(f"{path} does not exist.")
    found = _ByteCounts()
    decoder = codecs.getincrementaldecoder("utf-8")()
    with refuse_broken(path.name), path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.add(block)
            try:
                decoder.decode(block)
            except UnicodeDecodeError:
                _refuse_encoding(path)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        _refuse_encoding(path)
    return found.checked(path.name, notes)


class _ByteCounts:
    """Counts over the blocks of a file."""

    def __init__(self) -> None:
        self.lf = self.cr = self.crlf = self.nul = 0
        self.quotes = self.bom = False
        self.empty = True
        self.last = b""

    def add(self, block: bytes) -> None:
        self.bom = self.bom or (not self.last and block.startswith(codecs.BOM_UTF8))
        self.lf += block.count(b"\n")
        if b"\r" in block:
            self.cr += block.count(b"\r")
            self.crlf += block.count(b"\r\n")
        self.crlf += self.last == b"\r" and block.startswith(b"\n")
        self.nul += block.count(b"\0")
        self.quotes = self.quotes or b'"' in block
        self.empty = self.empty and not block.removeprefix(codecs.BOM_UTF8).strip()
        self.last = block[-1:]

    def checked(self, name: str, notes: list[str]) -> _Facts:
        """Raises DataError for bytes that no table can hold, and notes tolerated oddities."""
        if self.nul:
            raise DataError(f"{name}: {self.nul:_} NUL bytes; it is not UTF-8 text (binary or UTF-16?).")
        if self.empty:
            raise DataError(f"{name} is empty.")
        if self.cr and not self.lf:
            raise DataError(f"{name}: lines end in CR alone; convert them to LF.")
        cut = self.last != b"\n"
        lines, inside = self.lf + cut, self.cr - self.crlf
        if self.bom:
            notes.append(f"{name}: a byte order mark at its begin was left out.")
        if self.crlf:
            notes.append(f"{name}: {self.crlf:_} of {lines:_} lines end in CR LF; read like LF.")
        if inside > 0:
            notes.append(f"{name}: {inside:_} CR characters inside lines were kept as part of the values.")
        if cut:
            notes.append(f"{name}: the last line has no line break; if the file was cut off, that line is damaged.")
        return _Facts(lines, self.bom, self.quotes)


def _refuse_encoding(path: Path) -> None:
    count, first, total = 0, 0, 0
    with path.open("rb") as file:
        for total, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                count += 1
                first = first or total
    raise DataError(
        f"{path.name}: {count:_} of {total:_} lines are not UTF-8 (first: line {first}). "
        f"Convert the file, for instance: iconv -f latin1 -t utf-8 {path.name}"
    )


def _lines(path: Path, facts: _Facts) -> pl.LazyFrame:
    frame = pl.scan_lines(path, name=LINE, row_index_name=ROW, row_index_offset=1, glob=False)
    return frame.with_columns(pl.col(LINE).str.strip_prefix("\ufeff")) if facts.bom else frame


def _first_line(path: Path) -> str:
    with refuse_broken(path.name), path.open(encoding="utf-8-sig", newline="\n") as file:
        return file.readline(1 << 20).rstrip("\r\n")


def _split(line: str, separator: str | None, quoted: bool) -> list[str]:
    if separator is None:
        return line.split()
    if quoted:
        try:
            return next(csv.reader([line], delimiter=separator, strict=True), [])
        except csv.Error:
            pass
    return line.split(separator)


def _check_header(path: Path, names: Sequence[str]) -> None:
    empty = sum(not name.strip() for name in names)
    if empty or not names:
        raise DataError(f"{path.name}: {empty} of {len(names)} names in the first line are empty: {list(names)}.")
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated or ROW in names:
        raise DataError(f"{path.name}: the column names {repeated or [ROW]} are repeated or reserved; rename them.")


def _open_plain(
    path: Path, separator: str | None, names: list[str], header: bool, facts: _Facts, notes: list[str]
) -> Table:
    frame = _lines(path, facts)
    if header:
        frame = frame.filter(pl.col(ROW) > 1)
    line = pl.col(LINE)
    blank = line.str.strip_chars() == ""
    if separator is None:
        line, separator = line.str.strip_chars(" \t").str.replace_all("[ \t]+", " "), " "
        fields = line.str.count_matches(" ", literal=True) + 1
    else:
        fields = line.str.count_matches(separator, literal=True) + 1
    ragged = (fields != len(names)) & ~blank
    count = collect(
        frame.select(
            rows=pl.len(),
            blank=blank.sum(),
            ragged=ragged.sum(),
            first=pl.col(ROW).filter(ragged).min(),
            quoted=pl.col(LINE).str.contains('"', literal=True).sum(),
        ),
        path.name,
    ).row(0, named=True)
    if count["ragged"]:
        found = collect(frame.filter(pl.col(ROW) == count["first"]).select(LINE, fields=fields), path.name).row(0)
        raise DataError(
            f"{path.name}: {count['ragged']:_} of {count['rows']:_} lines have another number of fields than the "
            f"{len(names)} of the first line (first: line {count['first']} has {found[1]}: {found[0][:80]!r}). "
            f"Is the file cut off, or not separated by {_say(separator)}?"
        )
    _note_blank(path, count["blank"], count["rows"], notes)
    if count["quoted"]:
        notes.append(f"{path.name}: {count['quoted']:_} lines hold quotation marks; kept as part of the values.")
    if count["blank"]:
        frame = frame.filter(~blank)
    parts = line.str.split_exact(separator, max(len(names) - 1, 1)).alias("parts")
    columns = [pl.col("parts").struct.field(f"field_{i}").alias(name) for i, name in enumerate(names)]
    values = [pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in names]
    return Table(frame.select(ROW, parts).select(ROW, *columns).select(ROW, *values), path.name, "line")


def _open_quoted(path: Path, separator: str, names: list[str], header: bool, facts: _Facts, notes: list[str]) -> Table:
    bare = pl.col(LINE).str.replace_all('"[^"]*"', "")
    open_end = bare.str.contains('"', literal=True)
    fields = bare.str.count_matches(separator, literal=True) + 1
    ragged = (fields != len(names)) & (pl.col(LINE).str.strip_chars() != "")
    first = pl.col(ROW).filter(ragged).min()
    query = _lines(path, facts).select(open_end=open_end.sum(), ragged=ragged.sum(), first=first)
    count = collect(query, path.name).row(0, named=True)
    if count["ragged"] and not count["open_end"]:
        raise DataError(
            f"{path.name}: {count['ragged']:_} of {facts.lines:_} lines have another number of fields than the "
            f"{len(names)} of the first line (first: line {count['first']}). Is the file cut off?"
        )
    with refuse_broken(path.name):
        frame = pl.scan_csv(
            path,
            has_header=header,
            separator=separator,
            infer_schema=False,
            row_index_name=ROW,
            row_index_offset=1,
            glob=False,
        )
        found = frame.collect_schema().names()[1:]
    if len(found) != len(names):
        raise DataError(f"{path.name}: the header is broken: {len(names)} or {len(found)} names; check its quotation.")
    frame = frame.rename(dict(zip(found, names, strict=True)))
    blank = pl.all_horizontal(pl.col(names).is_null())
    rows = collect(frame.select(blank.sum().alias("blank"), pl.len()), path.name).row(0)
    _note_blank(path, rows[0], rows[1], notes)
    return Table(frame.filter(~blank) if rows[0] else frame, path.name, "row")


def _note_blank(path: Path, count: int, total: int, notes: list[str]) -> None:
    if count == total:
        raise DataError(f"{path.name} holds no rows.")
    if count:
        notes.append(f"{path.name}: {count:_} of {total:_} lines are blank; left out.")


def _say(separator: str | None) -> str:
    return "white space" if separator is None else _SEPARATOR_NAMES.get(separator, repr(separator))


def _hint(line: str, separator: str | None) -> str:
    others = [name for other, name in _SEPARATOR_NAMES.items() if other in line and other != separator]
    return f" Its fields look separated by {others[0]}." if others else ""
