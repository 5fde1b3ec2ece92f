"""Every start and end of a stage, as lines of `attempts.jsonl` in its work folder.

A trainer that fails or is asked to stop writes so; one that is killed does not. A line that is
damaged is as if it had not been written.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NotRequired

from pydantic import AwareDatetime, ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from reid.errors import Stopped
from reid.files import append_json_line, read_json_lines

_KEPT = {"started", "slurm", "host", "device", "gpu", "precision", "threads", "packages"}
"""Facts of a start, of those of `reid.provenance.facts`; of the commit less."""


class Start(TypedDict):
    """When, where and by what code a stage was started: what is read of it; it holds more."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    threads: int
    slurm: dict[str, str] | None


class Attempt(TypedDict):
    """One line."""

    time: AwareDatetime
    event: Literal["start", "stopped", "failed", "done"]
    reason: NotRequired[str]
    """Of an end other than `done`."""
    made: NotRequired[Start]


_ATTEMPT = TypeAdapter(Attempt)


def path_in(folder: Path) -> Path:
    """The file in a work folder."""
    return folder / "attempts.jsonl"


def read(folder: Path) -> list[Attempt]:
    """All attempts of a work folder, in order."""
    return list(read_json_lines(path_in(folder), _ATTEMPT))


def starts(folder: Path) -> list[Start]:
    """Every start, in order."""
    return [attempt["made"] for attempt in read(folder) if "made" in attempt]


@contextmanager
def recorded(folder: Path, made: Mapping[str, Any]) -> Iterator[None]:
    """Append a line at the start and at the end of an attempt."""

    def append(event: str, **facts: object) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        append_json_line(path_in(folder), {"time": now, "event": event, **facts})

    git = made["git"] and {key: made["git"][key] for key in ("sha", "dirty")}
    append("start", made={"git": git, **{key: made[key] for key in made if key in _KEPT}})
    try:
        yield
    except BaseException as error:
        event = "stopped" if isinstance(error, Stopped) else "failed"
        append(event, reason=str(error) or type(error).__name__)
        raise
    append("done")
