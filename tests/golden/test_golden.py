"""The smallest experiment gives the numbers it gave when they were recorded.

A failure here means that a change altered what is computed. If that was the purpose, renew the
values (`make golden`) and say why in the commit; otherwise the change is wrong. The tolerances are
20 times what other instruction sets (SSE4, AVX2, AVX-512) change.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.golden.experiment import PATH, measure

TOLERANCES = {
    "losses": (1e-4, 1e-5),
    "gradient_norms": (1e-3, 1e-6),
    "parameter_norms": (2e-3, 1e-6),
    "features": (1e-4, 2e-4),
    "mAP": (0.0, 0.3),
}
"""Relative and absolute, by the kind of value; mAP in per cent."""


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """All numbers of a nested JSON value, with their keys."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from leaves(item, (*path, str(key)))
    else:
        yield path, value


def differences(expected: Any, measured: Any) -> list[str]:
    """What differs by more than its tolerance, or is in one of them only; one line each."""
    old, new = dict(leaves(expected)), dict(leaves(measured))
    lines = [f"{'/'.join(path)}: only in one of them" for path in sorted(old.keys() ^ new.keys())]
    for path in old.keys() & new.keys():
        relative, absolute = next(TOLERANCES[key] for key in path if key in TOLERANCES)
        if not abs(new[path] - old[path]) <= relative * abs(old[path]) + absolute:
            lines.append(f"{'/'.join(path)}: {new[path]}, recorded {old[path]}")
    return sorted(lines)


def test_the_smallest_experiment_gives_the_recorded_numbers(tmp_path: Path) -> None:
    found = differences(json.loads(PATH.read_text()), measure(tmp_path))
    assert not found, "\n".join(["not the golden values (see this module):", *found])


@pytest.mark.parametrize(
    ("path", "factor", "equal"),
    [
        (("stage1", "losses", 0, "loss"), 1.00001, True),
        (("stage1", "losses", 0, "loss"), 1.0005, False),
        (("stage2", "losses", 11, "triplet"), 1.0005, False),
        (("stage2", "gradient_norms", "pools"), 1.005, False),
        (("stage2", "parameter_norms", "pool.score.weight"), 1.01, False),
        (("features", "A2G", "features", "first", 0), 1.001, False),
        (("features", "A2G", "features", "first", 0), float("nan"), False),
        (("mAP", "reranked", "A2G"), 1.001, True),
        (("mAP", "reranked", "A2G"), 0.99, False),
    ],
)
def test_rounding_is_no_difference_and_another_result_is(
    path: tuple[Any, ...], factor: float, equal: bool
) -> None:
    golden = json.loads(PATH.read_text())
    changed = copy.deepcopy(golden)
    section = changed
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] *= factor
    assert (not differences(golden, changed)) is equal


def test_a_number_more_or_less_is_a_difference() -> None:
    golden = json.loads(PATH.read_text())
    fewer = {**golden, "mAP": {}}
    assert differences(golden, fewer)
    assert differences(fewer, golden)
