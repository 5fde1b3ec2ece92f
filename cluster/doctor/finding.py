"""What the doctor says."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "problem"]


@dataclass(frozen=True)
class Finding:
    """One verdict: what was looked at, what was found, and what to change where."""

    level: Level
    subject: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        text = f"{self.level:8} {self.subject}: {self.found}"
        return text + "".join(f"\n         -> {line}" for line in textwrap.wrap(self.advice, 88))


def ok(subject: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding("ok", subject, found)


def warn(subject: str, found: str, advice: str) -> Finding:
    """It will run, but not always as well as it could."""
    return Finding("warn", subject, found, advice)


def problem(subject: str, found: str, advice: str) -> Finding:
    """It will not run."""
    return Finding("problem", subject, found, advice)


def summary(findings: Iterable[Finding]) -> str:
    """The last line."""
    levels = [finding.level for finding in findings]
    problems, warnings = levels.count("problem"), levels.count("warn")
    if problems or warnings:
        return f"{problems} problem(s), {warnings} warning(s)"
    return "all is well"
