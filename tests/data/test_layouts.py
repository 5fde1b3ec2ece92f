"""Each layout on a generated tree of its convention."""

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pytest
import scipy.io
import torch

from reid.config import Clip, Dataset, Protocol
from reid.data import index, pack, summary
from reid.data.dataset import TrackletDataset
from reid.data.layouts import LAYOUTS
from reid.data.scan import number_identities
from reid.errors import UserError
from tests.data import layouts
from tests.trees import make_tree, write_frame

PAGE = Path(__file__).parents[2] / "docs" / "DATA.md"


class Case(NamedTuple):
    make: Callable[[Path], Path]
    cameras: int
    train: int  # tracklets
    sides: dict[str, tuple[int, int]]  # queries and gallery tracklets by protocol
    queries: set[tuple[str | None, int]]  # their view and camera, in the last protocol
    gallery: set[tuple[str | None, int]]


GROUND = [("ground", camera) for camera in range(3)]
AERIAL = [("aerial", camera) for camera in range(6)]
CASES = {
    "detreidx": Case(
        *(make_tree, 3, 6, {"A2G": (4, 2), "G2A": (2, 4), "A2A": (2, 2)}),
        *({AERIAL[1]}, {AERIAL[2]}),
    ),
    "mars": Case(
        *(layouts.make_mars, 6, 12, {"G2G": (6, 12), "ALL": (6, 12)}),
        *({*GROUND}, {*GROUND}),
    ),
    "g2a-vreid": Case(
        *(layouts.make_g2a, 2, 4, {"G2A": (2, 2), "A2G": (2, 2)}),
        *({AERIAL[1]}, {GROUND[0]}),
    ),
    "ag-vpreid": Case(
        *(layouts.make_agvpreid, 6, 6, {"A2G": (2, 4), "G2A": (2, 4)}),
        *({GROUND[0]}, {AERIAL[4], AERIAL[5]}),
    ),
    "folders": Case(layouts.make_folders, 4, 4, {"ALL": (2, 2)}, {(None, 0)}, {(None, 3)}),
    "manifest": Case(
        *(layouts.make_manifest, 2, 4, {"ALL": (2, 2), "A2G": (0, 0), "G2A": (2, 2)}),
        *({GROUND[0]}, {AERIAL[1]}),
    ),
}


def build(name, root, **options):
    protocols = options.pop("protocols", [*CASES[name].sides])
    return index.build(root, layout=name, protocols=protocols, **options)


@pytest.fixture(scope="module", params=CASES)
def indexed(request, tmp_path_factory):
    """Name of a layout, its tree, and the index of that."""
    root = CASES[request.param].make(tmp_path_factory.mktemp(request.param) / "data")
    return request.param, root, build(request.param, root)


def test_the_configuration_offers_every_layout_and_protocol():
    assert set(get_args(Dataset.model_fields["layout"].annotation)) == set(LAYOUTS) == set(CASES)
    assert set(get_args(Protocol)) == {p for one in LAYOUTS.values() for p in one.protocols}


def test_every_tracklet_is_found_and_nothing_else(indexed):
    name, root, built = indexed
    case = CASES[name]
    assert not built.rejected
    assert len(built.splits["train"]) == case.train
    for protocol, (queries, gallery) in case.sides.items():
        subsets = [tracklet.subset for tracklet in built.splits[protocol]]
        assert subsets == ["query"] * queries + ["gallery"] * gallery
    for tracklets in built.splits.values():
        assert len({tracklet.path for tracklet in tracklets}) == len(tracklets)
        for tracklet in tracklets:
            sizes = [(root / tracklet.folder / frame).stat().st_size for frame in tracklet.frames]
            assert (len(sizes), tracklet.size) == (3, sum(sizes))
    seen = {
        subset: {(t.view, t.camera) for t in built.splits[protocol] if t.subset == subset}
        for subset in ("query", "gallery")
    }
    assert seen == {"query": case.queries, "gallery": case.gallery}
    every = [tracklet for split in built.splits.values() for tracklet in split]
    if name != "detreidx":  # what a layout does not tell is unknown
        assert all(t.session is None and math.isnan(t.distance) for t in every)
        assert all(t.capture_point is None for t in every)
    if name == "manifest":
        assert {t.altitude for t in every if t.camera} == {12.5}
    else:
        options = Dataset(root=root, layout=name, protocols=[*case.sides])
        summary.check_limits(built.splits, (), options, report=root / "rejected.csv")


def test_cameras_and_tracklets_read_back(indexed, tmp_path):
    name, _, built = indexed
    built.write(tmp_path)
    again = index.Index.read(tmp_path)
    assert {s: str(t) for s, t in again.splits.items()} == {
        s: str(t) for s, t in built.splits.items()
    }
    assert again.cameras == built.cameras
    assert len(built.cameras) == CASES[name].cameras
    assert max(t.camera for split in built.splits.values() for t in split) < len(built.cameras)


def test_clips_come_from_files_and_from_a_pack(indexed, tmp_path):
    _, root, built = indexed
    clip = Clip(frames=2, height=16, width=8)
    every = {t.path: t for split in built.splits.values() for t in split}
    pack.pack(list(every.values()), root, tmp_path / "pack")
    for split, tracklets in built.splits.items():
        options = {"clip": clip, "train": split == "train"}
        plain = TrackletDataset(tracklets, root, **options)
        packed = TrackletDataset(tracklets, root, pack=tmp_path / "pack", **options)
        for number in range(len(tracklets)):
            assert torch.equal(plain[number].frames, packed[number].frames)


def test_a_changed_folder_is_noticed_and_a_copied_one_is_not(indexed, tmp_path):
    _, root, built = indexed
    built.write(tmp_path)
    shutil.copytree(root, tmp_path / "data")
    tracklet = built.splits["train"][-1]
    folder = tmp_path / "data" / tracklet.folder
    (folder / ".DS_Store").write_bytes(b"x")
    index.check_fresh(tmp_path / "data", tmp_path / "train.parquet")
    (folder / "new.jpg").write_bytes(b"x")
    if tracklet.in_folder:  # a list tells which files are frames
        index.check_fresh(tmp_path / "data", tmp_path / "train.parquet")
    else:
        with pytest.raises(UserError, match="1 frame more"):
            index.check_fresh(tmp_path / "data", tmp_path / "train.parquet")
    (folder / tracklet.frames[0]).unlink()
    with pytest.raises(UserError, match="1 frame fewer"):
        index.check_fresh(tmp_path / "data", tmp_path / "train.parquet")


def test_a_protocol_that_the_layout_lacks_is_one_clear_error(tmp_path):
    root = layouts.make_mars(tmp_path / "data")
    with pytest.raises(UserError, match=r"layout mars has no protocol A2G \(it has G2G, ALL\)"):
        build("mars", root, protocols=("A2G",))
    with pytest.raises(UserError, match=r"dataset.layout: no 'mar' \(did you mean mars\?\)"):
        index.build(root, layout="mar")


# -- what is left out and what is refused ----------------------------------------------------------

MARS = "bbox_test/0001/0001C1T000"


@pytest.mark.parametrize(
    ("name", "path", "content", "reason"),
    [
        ("mars", "bbox_train/0002/extra.jpg", b"x", "in no list of the dataset"),
        ("mars", f"{MARS}1F002.jpg", None, "listed, but missing"),
        ("mars", f"{MARS}2F003.jpg", b"", "zero bytes"),
        ("ag-vpreid", "train/1/tracklet_10/P1C9E2.jpg", b"x", "one camera between C and E, 0 to 5"),
        ("folders", "train/anna/noon/1.jpg", b"x", "is not cN or cN_..., N from 0 to 126"),
        ("manifest", "cam0/other.jpg", b"x", None),
    ],
)
def test_a_file_that_does_not_fit_is_rejected(tmp_path, name, path, content, reason):
    root = CASES[name].make(tmp_path / "data")
    (root / path).parent.mkdir(exist_ok=True)
    (root / path).unlink() if content is None else (root / path).write_bytes(content)
    built = build(name, root)
    assert [row.path for row in built.rejected] == ([path] if reason else [])
    assert all(row.reason.endswith(reason) for row in built.rejected)
    protocol, sides = next(iter(CASES[name].sides.items()))
    frames = [frame for tracklet in built.splits[protocol] for frame in tracklet.frames]
    assert len(frames) == 3 * sum(sides) - (MARS in path)


TRACKS, NAMES = "info/tracks_train_info.mat", "info/train_name.txt"


def _tracks(*row):
    return lambda path: scipy.io.savemat(path, {"track_train_info": np.array([row])})


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        (TRACKS, _tracks(1, 3, 2, 9), "row 1 has camera 9 of 6"),
        (TRACKS, _tracks(1, 300, 2, 1), "row 1 names frames 1 to 300 of 36"),
        (TRACKS, _tracks(0, 3, 2, 1), "row 1 names frames 0 to 3"),
        (TRACKS, _tracks(1, 3, 4, 1), "row 1 is 0004C1, but its frame is 0002C1T0001F001.jpg"),
        (TRACKS, _tracks(1, 3), "expected rows of 4"),
        (TRACKS, lambda path: path.write_bytes(b"?"), "not a MATLAB file with track_train_info"),
        (TRACKS, Path.unlink, r"tracks_train_info.mat is missing: is dataset\.layout right"),
        (NAMES, Path.unlink, r"train_name.txt is missing: is dataset\.layout right"),
        (NAMES, lambda path: path.write_bytes(b"\xe9"), r"train_name\.txt is not UTF-8"),
        (
            "info/query_IDX.mat",
            lambda path: scipy.io.savemat(path, {"query_IDX": [[99]]}),
            "query_IDX.mat names rows that tracks_test_info.mat lacks",
        ),
    ],
)
def test_lists_of_mars_that_are_wrong_are_one_clear_error(tmp_path, path, change, message):
    root = layouts.make_mars(tmp_path / "data")
    change(root / path)
    with pytest.raises(UserError, match=message):
        build("mars", root)


def test_lists_of_mars_may_come_from_windows(tmp_path):
    root = layouts.make_mars(tmp_path / "data")
    content = (root / NAMES).read_bytes().replace(b"\n", b"\r\n")
    (root / NAMES).write_bytes(b"\xef\xbb\xbf" + content)
    built = build("mars", root)
    assert (len(built.splits["train"]), built.rejected) == (12, ())


def test_mars_keeps_distractors_and_leaves_junk_out(tmp_path):
    built = build("mars", layouts.make_mars(tmp_path / "data"))
    assert {t.identity for t in built.splits["G2G"] if t.subset == "gallery"} == {0, 1, 3}
    first = built.splits["train"][0]
    assert first.path == "bbox_train/0002/0002C1T0001F001"
    assert first.folder == "bbox_train/0002"


# -- the user's own --------------------------------------------------------------------------------


def test_people_of_folders_are_numbered_over_all_parts(tmp_path):
    root = layouts.make_folders(tmp_path / "data")
    built = build("folders", root)
    people = {t.path.split("/")[1]: t.identity for split in built.splits.values() for t in split}
    assert people == {"anna": 0, "bert": 1, "carl": 2, "dora": 3}
    assert list(built.splits["train"][0].frames) == ["shot 1.jpg", "shot 2.jpg", "shot 10.jpg"]
    shutil.rmtree(root / "query")
    with pytest.raises(UserError, match="query is not a folder: add it, or correct"):
        build("folders", root)


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["7", "10", "0042"], [7, 10, 42]),
        (["7", "007", "10"], [2, 0, 1]),
        (["7", "anna"], [0, 1]),
        ([str(2**63 - 1), "1"], [2**63 - 1, 1]),
        ([str(2**63), "1"], [1, 0]),
        (["\u0661", "1"], [1, 0]),
    ],
)
def test_the_same_text_is_the_same_person_and_no_other(names, numbers):
    assert list(map(number_identities(names).get, names)) == numbers


def test_manifest_of_folders(tmp_path):
    root = layouts.make_folders(tmp_path / "data")
    lines = ["identity,path,split,camera"]
    for folder in sorted(root.glob("*/*/*")):
        part, person, name = folder.relative_to(root).parts
        lines.append(f"{person},{part}/{person}/{name},{part},{name[1]}")
    listed = tmp_path / "mine.csv"
    listed.write_text("\n".join(lines) + "\n")
    built = build("manifest", root, protocols=("ALL",), manifest=listed)
    other = build("folders", root)
    for split in ("train", "ALL"):
        by_path = [sorted(each.splits[split], key=lambda t: t.path) for each in (built, other)]
        assert str(by_path[0]) == str(by_path[1])
    for path in (root / "train/anna/c0_noon").iterdir():
        path.rename(path.with_suffix(".png"))
    (root / "train/anna/c0_noon/notes.txt").touch()
    rejected = build("manifest", root, protocols=("ALL",), manifest=listed).rejected
    assert rejected == tuple(
        (f"train/anna/c0_noon/shot {number}.png", "not a .jpg file") for number in (1, 10, 2)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,identity,camera\n", "column 'split' is missing"),
        ("path,identity,camera,split,veiw\n", r"unknown column 'veiw' \(did you mean view\?\)"),
        ("/a/b.jpg,1,0,train", "line 2: path '/a/b.jpg': not below dataset.root"),
        ("../b.jpg,1,0,train", "path '../b.jpg': not below dataset.root"),
        (",1,0,train", "path '': Field required"),
        ("cam0,1,-1,train", "camera '-1': Input should be greater than or equal to 0"),
        ("cam0,1,127,train", "camera '127': Input should be less than or equal to 126"),
        ("cam0,1,0,test", "split 'test': Input should be 'train', 'query' or 'gallery'"),
        ("cam0,,0,train", "identity '': Field required"),
        ("cam0,1,0", "fewer or more fields than columns"),
        ("cam0,1,0,train,x", "fewer or more fields than columns"),
        ("cam0/a.jpg,1,0,train\ncam0/b.jpg,2,0,train", "line 3: differs from an earlier line"),
        ("cam0/a.jpg,1,0,train\ncam0,1,0,train", "the folder is listed, and frames of it too"),
        ("cam0,1,0,train\ncam0/a.jpg,1,0,train", "the folder is listed, and frames of it too"),
        ("cam0/a.jpg,1,0,train\ncam0/./a.jpg,1,0,train", "line 3: .* is in line 2 already"),
        ("cam0/a.jpg,1,0,train\ncam0/a.jpg,1,0,query", "line 3: .* is in line 2 already"),
        ("cam0,1,0,train\ncam0,1,0,train", "line 3: cam0 is in line 2 already"),
        ("cam0/a.png,1,0,train", "line 2: path 'cam0/a.png': not a .jpg file: convert the frames"),
        ("nowhere,1,0,train", "nowhere is not a folder, but a list of the dataset names it"),
        ("{view}cam0,1,0,train,sideways", "view 'sideways': Input should be 'ground' or 'aerial'"),
        ("{session}cam0,1,0,train,one", "session 'one': Input should be a valid integer"),
        ("{session}cam0,1,0,train,128", "session '128': Input should be less than or equal to 127"),
        ("{altitude}cam0,1,0,train,nan", "altitude 'nan': Input should be a finite number"),
        ("{angle}cam0,1,0,train,steep", "angle 'steep': Input should be a valid number"),
    ],
)
def test_a_wrong_manifest_is_one_clear_error(tmp_path, text, message):
    root = layouts.make_manifest(tmp_path / "data")
    header = "" if text.startswith("path,") else "path,identity,camera,split\n"
    if optional := re.match(r"\{(\w+)\}", text):
        header = f"path,identity,camera,split,{optional[1]}\n"
    (root / "manifest.csv").write_text(header + re.sub(r"^\{\w+\}", "", text) + "\n")
    with pytest.raises(UserError, match=message):
        build("manifest", root)


# -- the page --------------------------------------------------------------------------------------


def test_the_layout_of_the_page_reads_its_convention(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
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
    text = PAGE.read_text()
    for name, layout in LAYOUTS.items():
        (row,) = re.findall(rf"^\| `{name}` \| (.*?) \| (\S+)", text, re.MULTILINE)
        if name == "manifest":
            assert (row[0], len(layout.protocols)) == ("all five", 5)
        else:
            assert tuple(row[0].split(", ")) == tuple(layout.protocols)
        if layout.cameras:
            assert row[1].rstrip(":") == str(len(layout.cameras))
