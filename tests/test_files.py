"""Files that grow by lines of JSON, whose writers may be killed at any instant."""

from pathlib import Path

import pytest

from reid.files import append_json_line, read_json_lines


@pytest.mark.parametrize("cut", ['{"a"', '{"a": 1', '{"a": 1}', ""])
def test_a_line_that_was_cut_costs_nothing_else(tmp_path: Path, cut: str) -> None:
    path = tmp_path / "x.jsonl"
    assert list(read_json_lines(path)) == []
    append_json_line(path, {"n": 1})
    with path.open("a") as lines:
        lines.write(cut)
    whole = [{"n": 1}, *([{"a": 1}] if cut == '{"a": 1}' else [])]
    assert list(read_json_lines(path)) == whole
    append_json_line(path, {"n": 2})
    append_json_line(path, {"n": 3})
    assert list(read_json_lines(path)) == [*whole, {"n": 2}, {"n": 3}]
