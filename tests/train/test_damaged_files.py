"""Small files that the project itself keeps, damaged in every way: one line, or a fallback."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid import config
from reid.chain import Chain
from reid.cli import main
from reid.paths import Results
from tests.runs import STAGE2, Lab, remains

ONE = ("--seed", "1", "--protocol", "A2G")
RESULTS = Results(Path("results/tiny"))
OWN = {
    "attempts": "{work}/attempts.jsonl",
    "journal": "{work}/stage2.jsonl",
    "speed": "{work}/stage2.speed.jsonl",
    "lease": "{work}/lease.json",
    "stamp": "{work}/stamp.json",
    "stamp of an earlier run": "{work}-of-before/stamp.json",
    "attempts of an earlier run": "{work}-of-before/attempts.jsonl",
    "checkpoint": "{work}/checkpoints/stage2/00003-0000000.pt",
    "manifest of a training": f"{RESULTS.run('small', 1)}/stage2.manifest.json",
    "manifest of an index": f"{RESULTS.index('train').parent}/train.manifest.json",
    "manifest of a number": f"{RESULTS.retrieval('row', 1, 'A2G').parent}/A2G.manifest.json",
    "a number": str(RESULTS.retrieval("row", 1, "A2G")),
    "digests": f"{RESULTS.stamps()}/digests.json",
    "stamp for Snakemake": str(RESULTS.stamp("stage2", "small", "seed1")),
    "times": f"{RESULTS.index('train').parent}/times.parquet",
}
"""Each kind of file, but packs and parts of a check, which are in the tests of these."""

Damage = Callable[[bytes], bytes]
BYTES: dict[str, Damage] = {
    "empty": lambda _: b"",
    "cut": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "not UTF-8": lambda content: b"\xff\xfe" + content,
    "null": lambda _: b"null\n",
    "list": lambda content: b"[" + content.strip().split(b"\n")[0] + b"]",
    "nested": lambda _: b"[" * 100_000,
    "digits": lambda _: b"9" * 5000,
}
OTHERS: list[Any] = [None, True, -1, 1e999, "", "x", [], ["x"], {}, {"x": None}]


@st.composite
def others(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with one field missing or of another type, at any depth."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(OTHERS))
    keys = sorted(value) if isinstance(value, dict) else range(len(value))
    key = draw(st.sampled_from(keys))
    changed = value.copy()
    if draw(st.booleans()):
        changed[key] = draw(others(value[key]))
    else:
        del changed[key]
    return changed


def mistyped(draw: Callable[[st.SearchStrategy[Any]], Any], content: bytes) -> bytes:
    """The JSON of a file, or its last line, with one field missing or of another type."""
    *lines, last = [content] if content.startswith(b"{\n") else content.strip().split(b"\n")
    return b"\n".join([*lines, json.dumps(draw(others(json.loads(last)))).encode(), b""])


@pytest.fixture(scope="module")
def whole(finished: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab in which one row was measured, as the working directory."""
    lab = Lab(tmp_path_factory.mktemp("whole") / "lab")
    shutil.copytree(finished.folder, lab.folder)
    with chdir(lab.folder):
        for verb in (
            ("extract", "--training", "small", *ONE),
            ("retrieve", "--variant", "row", *ONE),
        ):
            assert lab.finish(*verb) == 0, lab.log()
        assert lab.finish("table") == 0, lab.log()
        Chain(config.load([Path("config.yaml")])).write_stamps()
        shutil.copytree(lab.work(), f"{lab.work()}-of-before")
        yield lab


def said(*verb: str) -> str | None:
    """What a command prints as its error; None where it has none. Any traceback fails the test."""
    out, errors = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        code = main([*verb, "--config", "config.yaml"])
    lines = [line for line in errors.getvalue().splitlines() if not line.startswith("warning: ")]
    assert (code, len(lines)) in {(0, 0), (1, 1)}, errors.getvalue()
    return lines[0] if lines else None


@pytest.mark.parametrize("name", OWN)
@settings(max_examples=5)
@given(st.data())
def test_any_damage_to_a_file_of_ours_is_one_line_or_a_fallback(
    name: str, whole: Lab, data: st.DataObject
) -> None:
    path = Path(OWN[name].format(work=whole.work().relative_to(whole.folder)))
    content = path.read_bytes() if path.exists() else b'{"host": "x", "pid": 1}'
    kinds = [*BYTES, *(["mistyped"] if b"{" in content[:2] else [])]
    kind = data.draw(st.sampled_from(kinds))
    path.write_bytes(mistyped(data.draw, content) if kind == "mistyped" else BYTES[kind](content))
    try:
        for verb in ("status", "clean", "table"):
            assert said(verb) is None, verb
        error = said("diff", "results", str(whole.folder / "results"))
        assert error is None or (path.name in error and "delete it" in error)
        Chain(config.load([Path("config.yaml")])).write_stamps()
    finally:
        path.unlink()
        if name != "lease":
            path.write_bytes(content)


@pytest.mark.parametrize("kind", ["empty", "zeros", "list", "mistyped"])
def test_a_training_resumes_beside_damaged_records(
    two_epochs: Lab, expected: dict[str, Any], kind: str
) -> None:
    lab, work = two_epochs, two_epochs.work()
    for path in (*work.glob("*.json"), work / "attempts.jsonl", *lab.folder.rglob("digests.json")):
        content = path.read_bytes()
        path.write_bytes(BYTES[kind](content) if kind != "mistyped" else b'{"time": 3}\n')
        os.utime(path, (0, 0))  # a lease that is damaged counts until it is silent
    assert lab.finish(*STAGE2) == 0, lab.log()
    assert "resuming before epoch 3, step 1" in lab.log()
    assert remains(lab) == expected
