"""What every section of the configuration shares: strictness, types, paths, and name look-up."""

import difflib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from reid.errors import UserError


def _no_boolean(value: Any) -> Any:
    """Refuse true and false where a number is expected; Python would take them for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"expected a number, found {str(value).lower()}")
    return value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Number = Annotated[float, BeforeValidator(_no_boolean)]
Share = Annotated[float, Field(ge=0, le=1), BeforeValidator(_no_boolean)]
NonNegative = Annotated[float, Field(ge=0), BeforeValidator(_no_boolean)]
Positive = Annotated[float, Field(gt=0), BeforeValidator(_no_boolean)]
Whole = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Size = Annotated[int, Field(strict=True, ge=1, le=4096)]
"""Pixels, frames, tokens, tracklets: numbers that memory is proportional to."""

Value = TypeVar("Value")


def expanded(path: Any) -> Any:
    """A path with `~` and `$VARIABLES` expanded as in the shell.

    Raises ValueError if one is not set, and for what no file can be called.
    """
    if not isinstance(path, str):
        return path
    if not path or "\0" in path:
        raise ValueError(f"expected a path, found {path!r}")
    replaced = os.path.expandvars(path)
    if "$" in replaced:
        raise ValueError(f"{path} names an environment variable that is not set")
    try:
        return str(Path(replaced).expanduser()) if replaced.startswith("~") else replaced
    except RuntimeError:
        raise ValueError(f"{path} names a home folder that does not exist") from None


def without_repeats(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """`values`. Raises ValueError on repeats, which the table would count as independent runs."""
    for value, times in Counter(values).items():
        if times > 1:
            raise ValueError(f"{value} is listed {times} times, expected each value once")
    return values


def option(default: Any, description: str, **bounds: Any) -> Any:
    """An option with its default and what it means; bounds: as of `pydantic.Field`."""
    return Field(default, description=description, **bounds)


LocalPath = Annotated[Path, BeforeValidator(expanded)]


def nearest(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """Suggestion to append to an error about an unknown name: the nearest known one, or all."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (known: {', '.join(known)})" if known else ""


def chosen(table: Mapping[str, Value], name: str, section: str) -> Value:
    """The entry `name` of a section. Raises UserError with the nearest valid name."""
    if name not in table:
        raise UserError(f"{section}: no {name!r}{nearest(name, table)}")
    return table[name]


class Section(BaseModel):
    """A strict, immutable group of options: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, raw: Any) -> Any:
        for key in raw if isinstance(raw, dict) else ():
            if key not in cls.model_fields:
                raise ValueError(f"unknown key {key}{nearest(str(key), list(cls.model_fields))}")
        return raw
