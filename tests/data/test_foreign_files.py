"""No command deletes or changes a file that it did not make (reid.claim)."""

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from reid.cli import main
from tests.trees import EXPERIMENT, make_tree, write_frame

NAMES = st.one_of(
    st.from_regex(r"[0-9]{1,6}\.(jpg|shard|parquet|tar|txt)", fullmatch=True),
    st.from_regex(r"\.[a-z]{1,5}(\.[a-z]{1,3})?\.tmp", fullmatch=True),
    st.from_regex(r"[a-z0-9]{1,4}/[0-9]{1,5}\.jpg", fullmatch=True),
    st.sampled_from(["best.pt", "notes.csv.bak", "frames.parquet.old", "train.jpg"]),
)


def lab(folder: Path, pack: str = "packed", name: str = "tiny") -> list[str]:
    """A small dataset in `folder`, and the options that name its configuration."""
    if not (folder / "data").exists():
        make_tree(folder / "data", frames=2, protocols=("A2A",))
    content = {"dataset": {"name": name, "root": str(folder / "data"), "protocols": ["A2A"]}}
    content |= EXPERIMENT | {"runtime": {"pack": pack, "workers": 0}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return ["--config", str(folder / f"{name}.yaml")]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@settings(max_examples=25)
@given(names=st.sets(NAMES, min_size=1, max_size=4), finished=st.booleans())
def test_foreign_files_in_every_folder_are_left_as_they_are(
    names: set[str], finished: bool
) -> None:
    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        folder = Path(temporary)
        patch.chdir(folder)
        configs = lab(folder)
        assert main(["index", *configs]) == 0
        if finished:
            assert main(["check", *configs]) == 0
            assert main(["pack", *configs]) == 0
        foreign = {}
        for place in ("packed", "results/tiny/index", "results/tiny/check"):
            for name in names:
                path = folder / place / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"the user's")
                foreign[str(path)] = b"the user's"
        before = files(folder / "packed") | files(folder / "data")
        assert main(["index", *configs]) == 0
        assert main(["check", *configs]) == 0
        assert main(["pack", *configs]) == 1
        assert files(folder).items() >= foreign.items()
        assert files(folder / "packed") | files(folder / "data") == before


@pytest.mark.parametrize("place", ["", "data", "data/train", "."])
def test_pack_refuses_the_dataset_and_the_working_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = lab(tmp_path, pack=place)
    write_frame(tmp_path / "data/00001.jpg", seed=1)  # as the frames of a manifest may be called
    assert main(["index", *configs]) in (0, 1)
    before = files(tmp_path / "data")
    capsys.readouterr()
    assert main(["pack", *configs]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert files(tmp_path / "data") == before


def test_pack_refuses_the_pack_of_another_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = (lab(tmp_path, name=name) for name in ("one", "other"))
    assert main(["index", *one]) == main(["index", *other]) == main(["pack", *one]) == 0
    before = files(tmp_path / "packed")
    assert main(["pack", *other]) == 1
    assert "belongs to another output" in capsys.readouterr().err
    assert files(tmp_path / "packed") == before
    assert main(["pack", *one]) == 0
