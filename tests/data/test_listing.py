import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid.data import listing
from reid.data.listing import Listing, list_folder
from reid.data.names import group
from reid.errors import UserError

odd = st.sampled_from(
    ["7", "ab", "x.jpg", "a_00001.JPG", "b_00001.jpg", "é_0001.jpg", "\udcff.jpg"]
)
even = st.integers(0, 99999).map("a_{:05d}.jpg".format)


def plain(runs):
    return [(run.head, run.width, run.suffix, run.numbers.tolist()) for run in runs]


@pytest.fixture(params=["by the kernel's entries", "by name"])
def _way(request, monkeypatch):
    if request.param == "by name":
        monkeypatch.setattr(listing, "_getdents", None)
    elif listing._getdents is None:
        pytest.skip("this C library has no getdents64")


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize(
    "names",
    [
        [],
        ["7"],
        [f"a_{number:05d}.jpg" for number in range(3)],
        [f"a_{number:05d}.jpg" for number in range(3000)],  # more than are read at once
        [f"{'é' * 60}_{number}.jpg" for number in range(2000)],
        ["a_1.jpg", "a_2.jpg", ".hidden", "\udcff.jpg", "b_1.jpg", "a_10.jpg"],
    ],
    ids=len,
)
def test_names_are_those_of_listdir_and_so_are_runs(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    names = [*names, "deeper"]
    found = list_folder(tmp_path)
    assert (
        sorted(found.names()) == sorted(names) == sorted(path.name for path in tmp_path.iterdir())
    )
    assert plain(found.runs()) == plain(group(names))
    assert found.modified == tmp_path.stat().st_mtime_ns


@pytest.mark.usefixtures("_way")
def test_an_empty_folder_holds_nothing(tmp_path):
    found = list_folder(tmp_path)
    assert (found.names(), found.runs()) == ([], [])


def entry(name: bytes, *, kind: int = 8, dirt: int = 0) -> bytes:
    """A `dirent64` with what may lie before and behind its name."""
    size = (listing._ENTRY.size + len(name) + 1 + 7) // 8 * 8
    made = listing._ENTRY.pack(size, kind) + name + b"\0"
    return bytes([dirt] * 16) + made[16:] + bytes([dirt] * (size - len(made)))


@given(
    st.lists(even, unique=True, max_size=8),
    st.lists(odd | even, unique=True, max_size=1),
    st.lists(st.integers(0, 8), min_size=2, max_size=2),
    st.integers(0, 255),
)
def test_any_order_of_entries_gives_the_names(most, few, dots, dirt):
    names = list(dict.fromkeys([*most, *few]))
    entries = [entry(os.fsencode(name), dirt=dirt + i & 255) for i, name in enumerate(names)]
    for place, dot in zip(dots, (b".", b".."), strict=True):
        entries.insert(place, entry(dot, kind=4))
    found = Listing(b"".join(entries), 0)
    assert found.names() == names
    assert plain(found.runs()) == plain(group(names))


def test_entries_of_one_size_with_names_of_several_lengths():
    names = [f"a_{number}.jpg" for number in (1, 23, 456)]
    assert len({len(entry(name.encode())) for name in names}) == 1
    found = Listing(b"".join(entry(name.encode(), dirt=49) for name in names), 0)
    assert found.names() == names
    assert plain(found.runs()) == plain(group(names))


def test_a_folder_that_cannot_be_listed_is_one_clear_error(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"gone: cannot be listed \(No such file"):
        list_folder(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: cannot be listed \(Not a directory"):
        list_folder(tmp_path / "file")

    def failing(*_: object) -> int:
        listing.ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(listing, "_getdents", failing)
    with pytest.raises(UserError, match=r"cannot be listed \(Input/output error"):
        list_folder(tmp_path)
