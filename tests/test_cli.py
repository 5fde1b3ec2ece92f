"""The command line: help, exit codes, and one clear line for every kind of bad input."""

import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.runs import STAGE1, STAGE2, Lab, make_lab
from tests.trees import write_tracklet


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab where everything is in order."""
    return make_lab(tmp_path_factory.mktemp("made"))


@pytest.fixture
def lab(made: Lab, tmp_path: Path) -> Lab:
    """A lab of its own, to break something in."""
    shutil.copytree(made.folder, tmp_path / "lab")
    return Lab(tmp_path / "lab")


def frames(lab: Lab) -> list[Path]:
    """All frames of the first training tracklet: training draws some of them at random."""
    return sorted(min((lab.folder / "data" / "train").glob("*/*")).iterdir())


def edit(path: Path, change: Callable[[str], str]) -> None:
    old = path.read_text()
    path.write_text(change(old))
    assert path.read_text() != old


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def results_are_a_file(lab: Lab) -> None:
    shutil.rmtree(lab.folder / "results")
    (lab.folder / "results").touch()


def other_geometry(lab: Lab) -> None:
    tensors = load_file(lab.folder / "tiny.safetensors")
    save_file({**tensors, "visual.proj": torch.zeros(128, 32)}, lab.folder / "tiny.safetensors")


def a_pickle_of_something_else(lab: Lab) -> None:
    (lab.folder / "tiny.pt").write_bytes(pickle.dumps(Path("x"), protocol=2))
    edit(lab.folder / "config.yaml", lambda text: text.replace("tiny.safetensors", "tiny.pt"))


QUERY = "data/case1_aerial_to_ground/query/0009/0009_0001"
NO_WEIGHTS = ["weights tiny.safetensors do not exist"]
OF_INDEX = {
    "no root": (lambda lab: shutil.rmtree(lab.folder / "data"),
                ["data is not a folder", "dataset.root"]),
    "no train": (lambda lab: shutil.rmtree(lab.folder / "data" / "train"), ["data", "train"]),
    "empty tracklet": (lambda lab: (lab.folder / "data/train/0001/0001_0999").mkdir(),
                       ["rejected.csv", "0001_0999", "empty"]),
    "unknown name": (lambda lab: frames(lab)[0].rename(frames(lab)[0].with_name("holiday.jpg")),
                     ["rejected.csv", "holiday.jpg"]),
    "empty frame": (lambda lab: frames(lab)[0].write_bytes(b""),
                    ["rejected.csv", ".jpg", "zero bytes"]),
    "no positive": (lambda lab: write_tracklet(lab.folder / QUERY, 9, camera=1),
                    ["A2G", "0009", "positive"]),
    "typo": (lambda lab: edit(lab.folder / "config.yaml", lambda t: t.replace("batch_", "batch")),
             ["trainings.small.stage", "unknown key batchsize (did you mean batch_size?)"]),
    "results are a file": (results_are_a_file, ["results", "Not a directory"]),
    "config is a folder": (lambda lab: replace_by_folder(lab.folder / "config.yaml"),
                           ["config.yaml cannot be read (Is a directory)"]),
}  # fmt: skip
OF_WEIGHTS = {
    "other geometry": (other_geometry, ["tiny.safetensors", "text_projection", "(64, 32)"]),
    "missing": (lambda lab: (lab.folder / "tiny.safetensors").unlink(), NO_WEIGHTS),
    "html": (lambda lab: (lab.folder / "tiny.safetensors").write_bytes(b"<html>404</html>"),
             ["tiny.safetensors", "(16 bytes)", "not a readable weights file"]),
    "a pickle": (a_pickle_of_something_else, ["tiny.pt", "compare its SHA-256"]),
    "a folder": (lambda lab: replace_by_folder(lab.folder / "tiny.safetensors"),
                 ["weights tiny.safetensors cannot be read (Is a directory)"]),
    "deep prompts": (
        lambda lab: edit(lab.folder / "config.yaml", lambda t: t.replace("depth: 2", "depth: 9")),
        ["prompts.depth is 9", "only 3 blocks"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "harm", "words"),
    [
        pytest.param(verb, *case, id=name)
        for verb, cases in ((("index",), OF_INDEX), (STAGE1, OF_WEIGHTS))
        for name, case in cases.items()
    ],
)
def test_bad_input_is_one_line(
    lab: Lab, verb: tuple[str, ...], harm: Callable[[Lab], object], words: list[str]
) -> None:
    harm(lab)
    assert lab.finish(*verb) == 1
    assert_one_line(lab, words)
    assert "weights_only" not in lab.log()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("keep", "words"),
    [(-40, ["0001", ".jpg is not a whole JPEG"]), (None, ["data/train/0001", "reid index"])],
    ids=["truncated", "missing"],
)
def test_fault_10_bad_frames_stop_training_by_name(
    lab: Lab, keep: int | None, words: list[str], workers: int
) -> None:
    lab.configure(workers=workers)
    for frame in frames(lab):
        frame.write_bytes(frame.read_bytes()[:keep])
        if keep is None:
            frame.unlink()
    assert lab.finish(*STAGE1) == 1
    assert_one_line(lab, words)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("train", "stage2", "--training", "smal", "--seed", "1"),
         ["no training 'smal'", "did you mean small?"]),
        (("extract", "--training", "small", "--seed", "4", "--protocol", "A2G"),
         ["no seed 4", "among the seeds"]),
        (STAGE2, ["stage1.safetensors does not exist: run `reid train stage1"]),
        ((*STAGE1, "--time-limit=-5"), ["--time-limit is -5: expected minutes, at least 0"]),
        ((*STAGE1, "--wait=-5"), ["--wait is -5: expected minutes, at least 0"]),
        (("pack", "--verify", "--frames-per-tracklet", "3"), ["leave --frames-per-tracklet out"]),
    ],
    ids=lambda value: value[-1],
)  # fmt: skip
def test_a_command_that_cannot_run_says_why(
    lab: Lab, command: tuple[str, ...], words: list[str]
) -> None:
    assert lab.finish(*command) == 1
    assert_one_line(lab, words)


def test_without_data_nothing_is_said_to_be_made_from_it(lab: Lab) -> None:
    shutil.rmtree(lab.folder / "data")
    shutil.rmtree(lab.folder / "results")
    assert lab.finish(*STAGE1) == 1
    assert_one_line(lab, ["data is not a folder: put the dataset there", "then run `reid index`"])


def test_a_difference_alone_is_told_what_is_missing(lab: Lab) -> None:
    (lab.folder / "config.yaml").write_text("trainings: {mine: {extends: scaled}}\n")
    assert lab.finish("status") == 1
    assert_one_line(lab, ["no training 'scaled'", "--config config/config.yaml --config config"])


@pytest.mark.parametrize("verb", [("index",), STAGE1], ids=["index", "stage1"])
def test_a_full_disk_is_named_with_its_file(lab: Lab, verb: tuple[str, ...]) -> None:
    def no_room() -> None:
        size = (lab.folder / "log").stat().st_size + 1500
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    assert lab.finish(*verb, before=no_room) == 1
    assert_one_line(lab, ["results/tiny", "File too large"])


def test_the_traceback_of_what_the_system_refuses_is_there_on_demand(lab: Lab) -> None:
    results_are_a_file(lab)
    assert lab.finish("index", environment={"REID_TRACEBACK": "1"}) == 99
    assert "Traceback" in lab.log()


def reid(lab: Lab, *verb: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "reid", *verb, "--config", "config.yaml"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=lab.folder, text=True, **pipes, **options)


def test_a_closed_stdout_prints_no_error(lab: Lab) -> None:
    run = reid(lab, "status")
    run.stdout.close()
    assert (run.stderr.read(), run.wait()) == ("", 1)


def test_ascii_locale_and_python_without_docstrings_are_supported(lab: Lab) -> None:
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONOPTIMIZE": "2"}
    run = reid(lab, "table", env={**os.environ, **environment})
    output, errors = run.communicate()
    assert run.returncode == 0, errors
    assert "\\u0394" in output


def test_help_is_instant_and_shows_examples() -> None:
    for verb in ([], ["index"], ["train", "stage2"], ["extract"], ["retrieve"]):
        run = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "reid", *verb, "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "torch" not in run.stderr.split()
        assert not verb or f"example: reid {' '.join(verb)}" in " ".join(run.stdout.split())


def assert_one_line(lab: Lab, words: list[str]) -> None:
    lines = [line for line in lab.log().splitlines() if line.startswith("error:")]
    assert len(lines) == 1, lab.log()
    assert "Traceback" not in lab.log()
    for word in words:
        assert word in lines[0]
