"""Files that grow by lines of JSON, whose writers may be killed at any instant; YAML files."""

import errno
import os
import stat
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reid.files import (
    RECORD,
    append_json_line,
    read_json,
    read_json_lines,
    read_yaml,
    write_json,
    write_text,
)


@pytest.mark.parametrize("cut", ['{"a"', '{"a": 1', '{"a": 1}', ""])
def test_a_line_that_was_cut_costs_nothing_else(tmp_path: Path, cut: str) -> None:
    path = tmp_path / "x.jsonl"
    assert list(read_json_lines(path, RECORD)) == []
    append_json_line(path, {"n": 1})
    with path.open("a") as lines:
        lines.write(cut)
    whole = [{"n": 1}, *([{"a": 1}] if cut == '{"a": 1}' else [])]
    assert list(read_json_lines(path, RECORD)) == whole
    append_json_line(path, {"n": 2})
    append_json_line(path, {"n": 3})
    assert list(read_json_lines(path, RECORD)) == [*whole, {"n": 2}, {"n": 3}]


@given(st.dictionaries(st.text(), st.text(st.characters(exclude_categories=()))))
@example({"reason": "data/Ren\udce9 is missing\u2028\u0085\r\n"})
def test_any_text_is_read_back_but_what_no_encoding_has(record: dict[str, str]) -> None:
    shown = {key: text.encode(errors="replace").decode() for key, text in record.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        append_json_line(path, record)
        append_json_line(path, record)
        assert list(read_json_lines(path, RECORD)) == [shown, shown]
        write_json(path, record)
        assert read_json(path, RECORD) == shown


def test_anchors_and_merges_repeat_no_key(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}\n")
    assert read_yaml(path) == {"a": {"x": 1, "y": 1}, "b": {"x": 2, "y": 1}, "c": {"x": 2, "y": 3}}


def test_a_file_system_without_modes_and_folder_sync_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def sync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "folder")
        fsync(handle)

    refusal = mock.Mock(side_effect=PermissionError(errno.EPERM, "no modes"))
    monkeypatch.setattr(Path, "chmod", refusal)
    monkeypatch.setattr(os, "fsync", sync)
    write_text(tmp_path / "x", "whole")
    assert (tmp_path / "x").read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 1
