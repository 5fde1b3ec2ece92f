"""The layout that docs/DATA.md adds, tried."""

import re
from pathlib import Path

from reid.data import index
from reid.data.layouts import LAYOUTS
from tests.trees import write_frame

DOCUMENT = Path(__file__).parents[2] / "docs" / "DATA.md"


def test_the_layout_of_the_page_reads_its_convention(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    monkeypatch.setitem(LAYOUTS, "stations", None)  # is taken out again after the test
    exec(code, {})
    for number, folder in enumerate(("train/7-0-1", "train/8-1-1", "query/9-0-1", "gallery/9-1-1")):
        write_frame(tmp_path / folder / "1.jpg", seed=number)
    (tmp_path / "train/7-0-1/notes.txt").write_text("x")
    built = index.build(tmp_path, layout="stations", protocols=("G2G",))
    assert [(t.identity, t.camera) for t in built.splits["train"]] == [(7, 0), (8, 1)]
    assert [(t.subset, t.camera) for t in built.splits["G2G"]] == [("query", 0), ("gallery", 1)]
    assert [one.path for one in built.rejected] == ["train/7-0-1/notes.txt"]
    assert built.cameras == ("north", "south")


def test_the_page_has_every_layout_and_protocol():
    text = DOCUMENT.read_text()
    for name, layout in LAYOUTS.items():
        (row,) = re.findall(rf"^\| `{name}` \| (.*?) \| (\S+)", text, re.MULTILINE)
        if name == "manifest":
            assert (row[0], len(layout.protocols)) == ("all five", 5)
        else:
            assert tuple(row[0].split(", ")) == tuple(layout.protocols)
        if layout.cameras:
            assert row[1].rstrip(":") == str(len(layout.cameras))
