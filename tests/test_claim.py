import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid.claim import MARK, claim
from reid.errors import UserError

NAMES = re.compile(r"\d{5}\.shard|pack\.json|a/\d\.bin")


def ours(name: str) -> bool:
    return NAMES.fullmatch(name) is not None


def test_a_new_and_an_empty_folder_are_marked_and_taken_again(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "new" / "deep"):
        claim(folder, kind="pack", of="pets", ours=ours)
        (folder / "00000.shard").touch()
        (folder / "a").mkdir()
        (folder / "a" / "1.bin").touch()
        (folder / ".pack.json.ab_1.tmp").touch()
        claim(folder, kind="pack", of="pets", ours=ours)


def test_no_mark_or_one_of_another_kind_or_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "00000.shard").touch()
    with pytest.raises(UserError, match="no mark"):
        claim(tmp_path, kind="pack", ours=ours)
    claim(tmp_path / "a", kind="pack", of="pets", ours=ours)
    for kind, of in (("pack", "detreidx"), ("checkpoints", "pets")):
        with pytest.raises(UserError, match="another output"):
            claim(tmp_path / "a", kind=kind, of=of, ours=ours)


@pytest.mark.parametrize("place", [".", "below/it", ".."])
def test_a_folder_at_in_or_above_the_dataset_is_refused(tmp_path: Path, place: str) -> None:
    root = tmp_path / "work" / "data"
    root.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(root)
    for base in (root, link):
        with pytest.raises(UserError, match="dataset's root"):
            claim(base.resolve() / place, kind="pack", ours=ours, dataset_root=base)
    assert not list(root.rglob("*"))


@given(
    name=st.text(
        st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1
    ).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200),
    marked=st.booleans(),
)
def test_foreign_files_are_refused_and_left_unchanged(name: str, marked: bool) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if marked:
            claim(folder, kind="pack", ours=ours)
        if name == MARK or ours(name):
            return
        (folder / name).write_bytes(b"the user's")
        if name.startswith(".") and name.endswith(".tmp") and marked:
            return  # perhaps a temporary file of ours
        with pytest.raises(UserError):
            claim(folder, kind="pack", ours=ours)
        assert (folder / name).read_bytes() == b"the user's"
