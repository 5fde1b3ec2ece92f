"""Small generated trees of the conventions other than DetReIDX's."""

import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import scipy.io

from tests.trees import write_frame

FRAMES = 3


def sh(folder: Path, command: str) -> None:
    """Change a tree with the shell."""
    subprocess.run(["sh", "-ec", command], cwd=folder, check=True)


def _write(folder: Path, names: list[str], seed: int) -> None:
    for frame, name in enumerate(names):
        write_frame(folder / name, seed=seed * 100 + frame)


def _make_lists(
    root: Path, people: dict[str, tuple[int, ...]], cameras: int, tracks: int, *, only: int | None
) -> Path:
    """Folders and lists of MARS; queries are first tracklets of test persons from 1 on, from all
    cameras or `only` one."""
    info, queries = root / "info", list[int]()
    info.mkdir(parents=True)
    for part, persons in people.items():
        names: list[str] = []
        rows: list[tuple[int, int, int, int]] = []
        for person, camera, track in product(persons, range(1, cameras + 1), range(1, tracks + 1)):
            head = f"{'00-1' if person < 0 else f'{person:04d}'}C{camera}T{track:04d}"
            frames = [f"{head}F{frame:03d}.jpg" for frame in range(1, FRAMES + 1)]
            seed = (person + 2) * 100 + camera * 10 + track
            _write(root / f"bbox_{part}" / head[:4], frames, seed)
            rows.append((len(names) + 1, len(names) + FRAMES, person, camera))
            names += frames
            if part == "test" and person > 0 and track == 1 and only in (None, camera):
                queries.append(len(rows))
        (info / f"{part}_name.txt").write_text("\n".join(names) + "\n")
        table = {f"track_{part}_info": np.array(rows, np.float64)}
        scipy.io.savemat(info / f"tracks_{part}_info.mat", table)
    scipy.io.savemat(info / "query_IDX.mat", {"query_IDX": np.array([queries], np.int16)})
    return root


def make_mars(root: Path) -> Path:
    """Persons 2 and 4 train, 1 and 3 are tested, 0 is a distractor, -1 junk; three cameras."""
    return _make_lists(root, {"train": (2, 4), "test": (-1, 0, 1, 3)}, 3, 2, only=None)


def make_g2a(root: Path) -> Path:
    """Two persons train, two are tested; a ground tracklet (query) and an aerial one each."""
    return _make_lists(root, {"train": (1, 2), "test": (3, 4)}, 2, 1, only=1)


def make_agvpreid(root: Path) -> Path:
    """Two persons train, two others are in both cases; cameras 0 (ground) and 4 (aerial)."""
    sides = {
        "train": ((1, 2), (0, 2, 4)),
        "case1_aerial_to_ground/query": ((7, 8), (4,)),
        "case1_aerial_to_ground/gallery": ((7, 8), (0, 2)),
        "case2_ground_to_aerial/query": ((7, 8), (0,)),
        "case2_ground_to_aerial/gallery": ((7, 8), (4, 5)),
    }
    for folder, (people, cameras) in sides.items():
        for person in people:
            for camera in cameras:
                names = [f"P{person:04d}A1C{camera}E2F{n:03d}.jpg" for n in range(FRAMES)]
                seed = person * 10 + camera
                _write(root / folder / str(person) / f"tracklet_{seed}", names, seed)
    return root


def make_folders(root: Path) -> Path:
    """People with names; camera 0 is the query's and camera 3 the gallery's."""
    for part, people, cameras in (
        ("train", ("anna", "bert"), (0, 3)),
        ("query", ("carl", "dora"), (0,)),
        ("gallery", ("carl", "dora"), (3,)),
    ):
        for number, person in enumerate(people):
            for camera in cameras:
                names = [f"shot {n}.jpg" for n in (1, 2, 10)]
                _write(root / part / person / f"c{camera}_noon", names, number * 10 + camera)
    return root


def make_manifest(root: Path) -> Path:
    """One folder a camera with everybody's frames; two persons train, two are tested."""
    lines = ["path,identity,camera,split,tracklet,view,altitude"]
    for split, people, cameras in (
        ("train", ("ann", "bob"), (0, 1)),
        ("query", ("cem", "dee"), (0,)),
        ("gallery", ("cem", "dee"), (1,)),
    ):
        for number, person in enumerate(people):
            for camera in cameras:
                names = [f"{person}-{n}.jpg" for n in (9, 10, 11)]
                _write(root / f"cam{camera}", names, len(lines) * 10 + number)
                view, altitude = ("aerial", "12.5") if camera else ("ground", "")
                lines += [
                    f"cam{camera}/{name},{person},{camera},{split},{person},{view},{altitude}"
                    for name in names
                ]
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return root
