"""Pydantic settings from a TOML file. One error lists all problems, with a hint for a misspelt key."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from reckg.errors import ConfigError


class Section(BaseModel):
    """A table of a settings file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Settings = TypeVar("Settings", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """Reads the values of a TOML file. Raises ConfigError if it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def parse_settings(values: dict[str, Any], model: type[Settings], where: str) -> Settings:
    """Checks values by a model.

    Args:
        values: key -> value, nested as the model is.
        model: the settings' class.
        where: the origin of the values in the error.
    Raises:
        ConfigError: the message lists every problem.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_problem(model, e["loc"], e["type"], e["msg"], e["input"]) for e in error.errors()]
    noun = "problem" if len(problems) == 1 else "problems"
    raise ConfigError(f"{len(problems)} {noun} in {where}: " + "; ".join(problems))


def _problem(model: type[BaseModel], loc: tuple[int | str, ...], kind: str, message: str, value: Any) -> str:
    name = ".".join(str(part) for part in loc)
    if not loc:
        return message.removeprefix("Value error, ")
    if kind != "extra_forbidden":
        return f"{name}: {message}, got {value!r}"
    known = _keys(model, loc[:-1])
    close = difflib.get_close_matches(str(loc[-1]), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(known)
    return f"unknown key {name!r} ({hint})"


def _keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    section: Any = model
    for part in loc:
        named = get_origin(section) is dict
        section = get_args(section)[1] if named else section.model_fields[str(part)].annotation
    return list(section.model_fields)
