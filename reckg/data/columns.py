"""Attribute columns of items and users: their kinds, given or inferred, and the casts to those kinds."""

from __future__ import annotations

from typing import Any

import polars as pl

from reckg.data.schema import ColumnKinds
from reckg.data.text_table import ROW, Table, collect, require_columns
from reckg.data.value_checks import Check, check_values, id_checks, id_column
from reckg.errors import DataError

_TITLE_NAMES = ("title", "name", "headline")
_TEXT_NAMES = (*_TITLE_NAMES, "text", "description", "summary", "overview", "abstract", "plot", "synopsis")


def is_text_name(column: str) -> bool:
    """Decides by a column's name whether it is text: title, movie_title, name, description and the like."""
    name = column.lower()
    return name in _TEXT_NAMES or any(name.endswith("_" + end) for end in _TEXT_NAMES if end != "name")


def titles_first(columns: list[str]) -> tuple[str, ...]:
    """Moves title columns before the other text columns."""
    return tuple(sorted(columns, key=lambda c: not any(c.lower().endswith(title) for title in _TITLE_NAMES)))


def conform_attributes(
    table: Table | None, key: str, kinds: ColumnKinds | None, notes: list[str]
) -> tuple[pl.LazyFrame | None, ColumnKinds]:
    """Casts the attribute columns of items or users to their kinds.

    Rows that are repeated word for word are dropped and counted.

    Args:
        table: the raw table, or None if the data set has none.
        key: the column of ids, item_id or user_id.
        kinds: the columns of each kind. None infers them and adds a note.
        notes: gets a sentence for every counted decision.
    Returns:
        the lazy table with ``key`` and the columns of ``kinds``, and the kinds.
    Raises:
        DataError: a missing column, empty ids, an id with two different rows, a number that is none.
    """
    if table is None:
        return None, kinds or ColumnKinds()
    require_columns(table, (key,))
    if kinds is None:
        kinds = _infer_kinds(table, key, notes)
    require_columns(table, kinds.all())
    _refuse_ambiguous(table, key, kinds)
    extra = [name for name in table.columns() if name != key and name not in kinds.all()]
    if extra:
        notes.append(f"{table.label}: column {', '.join(map(repr, extra))} left out; no kind is given for it.")
    with_ids = table.frame.with_columns(id_column(key, table.frame.collect_schema()[key], table.label))
    table = Table(with_ids, table.label, table.row_word, table.list_separator)
    table = _drop_repeated(table, key, notes)
    return _cast(table, key, kinds, notes), kinds


def _refuse_ambiguous(table: Table, key: str, kinds: ColumnKinds) -> None:
    names = [*kinds.all(), key]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{table.label}: column {', '.join(map(repr, twice))} is given more than one kind; give it one."
        )


def _drop_repeated(table: Table, key: str, notes: list[str]) -> Table:
    rows = check_values(table, id_checks([key]), notes, ids=[key])
    repeated = rows - int(collect(table.frame.select(pl.col(key).n_unique()), table.label).item())
    if not repeated:
        return table
    doubles = collect(table.frame.filter(pl.col(key).is_duplicated()), table.label)
    distinct = doubles.drop(ROW).unique()
    differing = distinct.filter(pl.col(key).is_duplicated())
    if len(differing):
        first = doubles.filter(pl.col(key).is_in(differing[key].unique().to_list())).sort(ROW).row(0, named=True)
        raise DataError(
            f"{table.label}: {differing[key].n_unique():_} values of {key!r} have rows that differ "
            f"(first: {table.row_word} {first[ROW]}, {first[key]!r}); keep one row of each."
        )
    notes.append(
        f"{table.label}: {repeated:_} of {rows:_} rows repeat another one word for word "
        f"(first: {doubles.sort(ROW)[key][0]!r}); left out."
    )
    frame = table.frame.unique(subset=key, keep="first", maintain_order=True)
    return Table(frame, table.label, table.row_word, table.list_separator)


def _cast(table: Table, key: str, kinds: ColumnKinds, notes: list[str]) -> pl.LazyFrame:
    schema = table.frame.collect_schema()
    exprs: list[pl.Expr] = [pl.col(key)]
    checks: list[Check] = []
    for name in kinds.text + kinds.categorical:
        exprs.append(_as_string(name, schema[name], table.label))
    for name in kinds.number:
        number = _as_number(name, schema[name], table.label)
        exprs.append(number)
        checks.append(Check(name, name, number.is_null() & pl.col(name).is_not_null(), "are no number"))
    for name in kinds.list:
        exprs.append(_as_list(name, schema[name], table))
    if checks:
        check_values(table, checks, [])
    frame = table.frame.select(ROW, *exprs)
    if kinds.number:
        finite = [(~pl.col(n).is_finite()).sum().alias(n) for n in kinds.number]
        for name, count in collect(frame.select(finite), table.label).row(0, named=True).items():
            if count:
                notes.append(f"{table.label}: {count:_} values of {name!r} are NaN or infinite; taken as missing.")
        frame = frame.with_columns(pl.when(pl.col(n).is_finite()).then(pl.col(n)).alias(n) for n in kinds.number)
    collect(frame.select(pl.all().count()), table.label)  # errors of the casts are raised here, with the label
    return frame.select(key, *kinds.all())


def _as_string(name: str, dtype: pl.DataType, label: str) -> pl.Expr:
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        raise DataError(
            f"{label}: column {name!r} is of type {dtype}, expected strings; give it the kind 'list' or none."
        )
    text = pl.col(name).cast(pl.String)
    return pl.when(text != "").then(text).alias(name)


def _as_number(name: str, dtype: pl.DataType, label: str) -> pl.Expr:
    if dtype == pl.String:
        return pl.col(name).str.strip_chars().cast(pl.Float64, strict=False)
    if dtype in (pl.Date, pl.Datetime):
        day = pl.col(name).cast(pl.Datetime("us")) if dtype == pl.Date else pl.col(name)
        return day.dt.epoch("s").cast(pl.Float64).alias(name)
    if dtype.is_numeric() or dtype in (pl.Boolean, pl.Null):
        return pl.col(name).cast(pl.Float64)
    raise DataError(f"{label}: column {name!r} is of type {dtype}, expected numbers.")


def _as_list(name: str, dtype: pl.DataType, table: Table) -> pl.Expr:
    if isinstance(dtype, pl.List | pl.Array):
        inner = dtype.inner
        if isinstance(inner, pl.DataType) and inner.is_nested():
            raise DataError(f"{table.label}: column {name!r} is of type {dtype}, expected lists of strings.")
        values = pl.col(name).cast(pl.List(pl.String))
    elif dtype == pl.Null:
        values = pl.col(name).cast(pl.List(pl.String))
    else:
        values = _as_string(name, dtype, table.label).str.split(table.list_separator)
    cleaned = values.list.eval(pl.element().str.strip_chars())
    return cleaned.list.eval(pl.element().filter(pl.element().is_not_null() & (pl.element() != ""))).alias(name)


def _infer_kinds(table: Table, key: str, notes: list[str]) -> ColumnKinds:
    """Infers the kinds of columns by type, and of strings by their values. Adds a note."""
    schema = table.frame.collect_schema()
    found: dict[str, list[str]] = {"text": [], "categorical": [], "number": [], "list": []}
    strings = []
    for name, dtype in schema.items():
        if name in (ROW, key):
            continue
        if dtype == pl.String:
            strings.append(name)
        elif isinstance(dtype, pl.List | pl.Array):
            found["list"].append(name)
        elif dtype.is_numeric() or dtype in (pl.Date, pl.Datetime):
            found["number"].append(name)
        elif dtype == pl.Boolean or isinstance(dtype, pl.Categorical | pl.Enum):
            found["categorical"].append(name)
        else:
            notes.append(f"{table.label}: column {name!r} of type {dtype} has no kind.")
    for name, kind in zip(strings, _string_kinds(table, strings), strict=True):
        found[kind].append(name)
    kinds = ColumnKinds(
        text=titles_first(found["text"]),
        categorical=tuple(found["categorical"]),
        number=tuple(found["number"]),
        list=tuple(found["list"]),
    )
    summary = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in found.items() if names) or "none"
    notes.append(
        f"{table.label}: the kinds of its columns are not given; inferred from types and values: {summary}. "
        "Name them in dataset.toml to change that."
    )
    return kinds


def _string_kinds(table: Table, names: list[str]) -> list[str]:
    """Infers the kind of each string column.

    A column is a number if all its values are numbers, text by its name, a list by its separator, and text by the
    number of words; otherwise it is categorical.
    """
    if not names:
        return []
    exprs = []
    for i, name in enumerate(names):
        text = pl.col(name)
        number = text.str.strip_chars().cast(pl.Float64, strict=False).is_finite().fill_null(False)
        exprs += [
            text.count().alias(f"given {i}"),
            (number & ~text.str.contains("^0[0-9]")).sum().alias(f"numbers {i}"),
            text.str.contains(table.list_separator, literal=True).sum().alias(f"lists {i}"),
            (text.str.count_matches(" ", literal=True) + 1).mean().alias(f"words {i}"),
            text.n_unique().alias(f"distinct {i}"),
        ]
    row: dict[str, Any] = collect(table.frame.select(exprs), table.label).row(0, named=True)
    kinds = []
    for i, name in enumerate(names):
        given = row[f"given {i}"]
        if given and row[f"numbers {i}"] == given:
            kinds.append("number")
        elif is_text_name(name):
            kinds.append("text")
        elif row[f"lists {i}"] > 0.05 * given:
            kinds.append("list")
        elif given and row[f"words {i}"] >= 3 and row[f"distinct {i}"] > given / 2:
            kinds.append("text")
        else:
            kinds.append("categorical")
    return kinds
