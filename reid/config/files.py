"""Read YAML files into a validated `Config`; errors use the terms of YAML, not of Python."""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reid.config.base import nearest
from reid.config.experiment import Config
from reid.errors import UserError
from reid.files import read_yaml

STANDARD = Path("config/config.yaml")
"""The configuration that the workflow reads by default."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the options that name configuration files, as Snakemake has them."""
    parser.add_argument(
        "--configfile",
        action="extend",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help=f"your differences from {STANDARD}, in this order",
    )
    parser.add_argument(
        "--config",
        action="append",
        type=Path,
        metavar="FILE",
        help=f"a whole configuration in place of {STANDARD}; again: differences from it",
    )


def named(arguments: argparse.Namespace) -> list[Path]:
    """The files that those options name, each a difference from the one before."""
    return [*(arguments.config or [STANDARD]), *arguments.configfile]


def load(paths: Sequence[Path]) -> Config:
    """Read YAML files, each a difference from the one before, into one `Config`.

    Raises UserError with the file, the key and the nearest valid name.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        content = read_yaml(path)
        if not isinstance(content, dict):
            found = "nothing" if content is None else f"a {type(content).__name__}"
            raise UserError(f"{path}: expected a mapping of options, found {found}")
        merged = _merge(merged, content)
    try:
        return parse(merged, source=", ".join(str(path) for path in paths))
    except UserError as error:
        needed = {name for name, field in Config.model_fields.items() if field.is_required()}
        if needed <= merged.keys():
            raise
        raise UserError(
            f"{error}; if this file only changes another configuration, name that one first: "
            f"--config {STANDARD} --config {paths[0]}"
        ) from None


def parse(raw: Mapping[str, Any], *, source: str) -> Config:
    """Validate a merged configuration; `source` names it in errors. Raises UserError."""
    resolved = dict(raw)
    if isinstance(resolved.get("trainings"), dict):
        resolved["trainings"] = _resolve_extends(resolved["trainings"], source)
    try:
        return Config.model_validate(resolved)
    except ValidationError as error:
        raise UserError(f"{source}: {'; '.join(_explain(error))}") from None


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = (
            _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


def _extended(parent: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` over `parent`, whose steps end where a schedule becomes a cosine, which has none."""
    merged = _merge(parent, own)
    for stage in ("stage1", "stage2"):
        change = own.get(stage)
        change = change.get("schedule") if isinstance(change, dict) else None
        if isinstance(change, dict) and change.get("kind") == "cosine" and "steps" not in change:
            schedule = {k: v for k, v in merged[stage]["schedule"].items() if k != "steps"}
            merged[stage] = {**merged[stage], "schedule": schedule}
    return merged


def _resolve_extends(trainings: Mapping[str, Any], source: str) -> dict[str, Any]:
    resolved: dict[str, dict[str, Any]] = {}

    def resolve(name: str, chain: tuple[str, ...]) -> dict[str, Any]:
        if name in chain:
            raise UserError(f"{source}: trainings extend each other: {' -> '.join((*chain, name))}")
        if name not in trainings:
            where = f"trainings.{chain[-1]}.extends" if chain else "trainings"
            raise UserError(f"{source}: {where}: no training {name!r}{nearest(name, trainings)}")
        if name not in resolved:
            own = trainings[name]
            if not isinstance(own, dict):
                raise UserError(f"{source}: trainings.{name}: expected a mapping, found {own!r}")
            parent = own.get("extends")
            if not isinstance(parent, str | None):
                raise UserError(
                    f"{source}: trainings.{name}.extends: expected the name of a training, "
                    f"found {parent!r}"
                )
            own = {key: value for key, value in own.items() if key != "extends"}
            resolved[name] = (
                own if parent is None else _extended(resolve(parent, (*chain, name)), own)
            )
        return resolved[name]

    for name in trainings:
        resolve(name, ())
    return resolved


_SHAPES = {
    "tuple_type": "expected a list",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "path_type": "expected a path",
    "too_short": "expected at least one entry",
}
"""Pydantic error type -> message in the terms of YAML."""


def _explain(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            yield f"missing key {key}"
        else:
            message = _in_yaml(problem["type"], problem["msg"], problem["input"])
            yield f"{key}: {message}" if key else message


def _in_yaml(kind: str, message: str, found: Any) -> str:
    """Pydantic's message about a value in the terms of YAML."""
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", message)
        return f"no {found!r}{nearest(str(found), known)}"
    expected = _SHAPES.get(kind) or message.replace("Input should be", "expected")
    return f"{expected}, found {'nothing' if found is None else repr(found)[:40]}"
