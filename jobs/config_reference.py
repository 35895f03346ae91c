"""Writes docs/configuration.md, and the settings in docs/serving.md: python -m jobs.config_reference.

The first is whole from reckg.config.run_config; in the second, the part between the two marks from serving.settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from reckg.config.run_config import Config
from reckg.config.toml_settings import Section

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- settings: written by `python -m jobs.config_reference` -->", "<!-- end of settings -->"
INTRODUCTION = """\
# Configuration

<!-- Written by `python -m jobs.config_reference` from reckg/config/run_config.py; a test fails when the two differ. -->

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
        if get_origin(section) is dict:  # a table of each name that the user gives
            name, section = f"{name}.NAME", get_args(section)[1]
        parts.append(_section_table(name, section))
    return "\n".join(parts)


def serving_page(page: str) -> str:
    """The text of docs/serving.md with the settings as they are now."""
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n\n{server_settings()}\n{END}", page, flags=re.DOTALL)


def server_settings() -> str:
    """A table of a server's settings for each section, in Markdown."""
    from serving.settings import ServerSettings

    sections: dict[str, Any] = {name: field.annotation for name, field in ServerSettings.model_fields.items()}
    tables = [name for name, section in sections.items() if isinstance(section, type) and issubclass(section, Section)]
    parts = [_table({name: field for name, field in ServerSettings.model_fields.items() if name not in tables})]
    for name in tables:
        parts.append(_section_table(name, sections[name], "###"))
        for key, field in sections[name].model_fields.items():
            if get_origin(field.annotation) is tuple and issubclass(get_args(field.annotation)[0], Section):
                parts.append(_section_table(f"[{name}.{key}]", get_args(field.annotation)[0], "###"))
    return "\n".join(parts)


def _section_table(name: str, section: type[BaseModel], heading: str = "##") -> str:
    return f"{heading} [{name}]\n\n{(section.__doc__ or '').strip()}\n\n{_table(section.model_fields)}"


def _table(fields: Mapping[str, FieldInfo]) -> str:
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for key, field in fields.items():
        default = "required" if field.is_required() else _default(field.default)
        lines.append(f"| `{key}` | {_values(field)} | {default} | {_cell(field.description or '')} |")
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
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "tables"
    return {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path"}[annotation]


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
    (DOCS / "configuration.md").write_text(configuration_page(), encoding="utf-8")
    serving = DOCS / "serving.md"
    serving.write_text(serving_page(serving.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
