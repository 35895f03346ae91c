"""Writes docs/configuration.md from reckg.config: python -m jobs.config_reference [FILE]."""

from __future__ import annotations

import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from reckg.config import Config

INTRODUCTION = """\
# Configuration

<!-- Written by `python -m jobs.config_reference` from reckg/config.py; a test fails when the two differ. -->

A run is configured by one TOML file with a table for each section below. Every key has a default, so the file holds
only what differs; an empty file is a valid one. All problems of a file are reported at once, with a suggestion for a
misspelt key. The run folder's `config.toml` has every value that was in force.

A stage runs again only if a setting that it depends on, one of its input files or its code has changed; `run.threads`
and `run.device` change the speed and make nothing run again.

```toml
[train]
epochs = 30

[index]
kind = "hnsw"
```
"""


def configuration_page() -> str:
    """The Markdown text of docs/configuration.md."""
    parts = [INTRODUCTION]
    for name, field in Config.model_fields.items():
        section: Any = field.annotation
        parts.append(_section_table(name, section))
    return "\n".join(parts)


def _section_table(name: str, section: type[BaseModel]) -> str:
    lines = [f"## [{name}]", "", (section.__doc__ or "").strip(), "", "| key | values | default | meaning |"]
    lines.append("|---|---|---|---|")
    for key, field in section.model_fields.items():
        lines.append(f"| `{key}` | {_values(field)} | {_default(field.default)} | {_cell(field.description or '')} |")
    return "\n".join(lines) + "\n"


def _values(field: FieldInfo) -> str:
    """The type in words, with its bounds."""
    bounds = []
    for constraint in field.metadata:
        for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
            limit = getattr(constraint, name, None)
            if limit is not None:
                bounds.append(f"{sign} {limit}")
    return " ".join([_type(field.annotation), ", ".join(bounds)]).strip()


def _type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(f"`{_toml_value(value)}`" for value in get_args(annotation))
    if origin in (Union, UnionType):
        return " or ".join(_type(part) for part in get_args(annotation) if part is not NoneType)
    if origin is tuple:
        return f"list of {_type(get_args(annotation)[0])}"
    return {int: "integer", float: "number", str: "text", bool: "true or false"}[annotation]


def _default(value: Any) -> str:
    return "not set" if value is None else f"`{_toml_value(value)}`"


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_value(entry) for entry in value) + "]"
    return str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "docs/configuration.md"
    path.write_text(configuration_page(), encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
