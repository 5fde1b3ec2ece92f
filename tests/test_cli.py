"""The command line: help, exit codes, and one clear line for every kind of bad input."""

import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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


def a_frame(lab: Lab, split: str = "train") -> Path:
    return min((lab.folder / "data" / split).rglob("*.jpg"))


def damage_config(lab: Lab, old: str, new: str) -> None:
    path = lab.folder / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def no_root(lab: Lab) -> None:
    shutil.rmtree(lab.folder / "data")


def no_train(lab: Lab) -> None:
    shutil.rmtree(lab.folder / "data" / "train")


def empty_tracklet(lab: Lab) -> None:
    (lab.folder / "data" / "train" / "0001" / "0001_0999").mkdir()


def unknown_name(lab: Lab) -> None:
    frame = a_frame(lab)
    frame.rename(frame.with_name("holiday.jpg"))


def empty_frame(lab: Lab) -> None:
    a_frame(lab).write_bytes(b"")


def no_positive(lab: Lab) -> None:
    query = lab.folder / "data" / "case1_aerial_to_ground" / "query"
    write_tracklet(query / "0009" / "0009_0001", 9, camera=1)


def results_are_a_file(lab: Lab) -> None:
    shutil.rmtree(lab.folder / "results")
    (lab.folder / "results").write_text("")


def config_is_a_folder(lab: Lab) -> None:
    (lab.folder / "config.yaml").unlink()
    (lab.folder / "config.yaml").mkdir()


def typo(lab: Lab) -> None:
    damage_config(lab, "batch_size", "batchsize")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (no_root, ["data is not a folder", "dataset.root"]),
        (no_train, ["data", "train"]),
        (empty_tracklet, ["rejected.csv", "0001_0999", "empty"]),
        (unknown_name, ["rejected.csv", "holiday.jpg"]),
        (empty_frame, ["rejected.csv", ".jpg", "zero bytes"]),
        (no_positive, ["A2G", "0009", "positive"]),
        (typo, ["trainings.small.stage", "unknown key batchsize (did you mean batch_size?)"]),
        (results_are_a_file, ["results", "Not a directory"]),
        (config_is_a_folder, ["config.yaml cannot be read (Is a directory)"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_input_to_the_index(lab: Lab, harm: Callable[[Lab], None], words: list[str]) -> None:
    harm(lab)
    assert lab.finish("index") == 1
    assert_one_line(lab, words)


def truncate_all_frames(lab: Lab) -> None:
    # Which frames are drawn is random: break all of one tracklet.
    for frame in a_frame(lab).parent.iterdir():
        frame.write_bytes(frame.read_bytes()[:-40])


def missing_frame(lab: Lab) -> None:
    for frame in a_frame(lab).parent.iterdir():
        frame.unlink()


def other_geometry(lab: Lab) -> None:
    path = lab.folder / "tiny.safetensors"
    tensors = load_file(path)
    tensors["visual.proj"] = torch.zeros(128, 32)
    save_file(tensors, path)


def no_weights(lab: Lab) -> None:
    (lab.folder / "tiny.safetensors").unlink()


def not_weights(lab: Lab) -> None:
    (lab.folder / "tiny.safetensors").write_bytes(b"<html>404</html>")


def a_pickle_of_something_else(lab: Lab) -> None:
    path = lab.folder / "tiny.pt"
    path.write_bytes(pickle.dumps(Path("x"), protocol=2))
    damage_config(lab, "tiny.safetensors", "tiny.pt")


def a_folder_as_weights(lab: Lab) -> None:
    no_weights(lab)
    (lab.folder / "tiny.safetensors").mkdir()


def deep_prompts(lab: Lab) -> None:
    damage_config(lab, "depth: 2", "depth: 9")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (truncate_all_frames, ["0001", ".jpg is not a whole JPEG"]),
        (missing_frame, ["data/train/0001", "reid index"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_fault_10_bad_frames_stop_training_by_name(
    lab: Lab, harm: Callable[[Lab], None], words: list[str], workers: int
) -> None:
    lab.configure(workers=workers)
    harm(lab)
    assert lab.finish(*STAGE1) == 1
    assert_one_line(lab, words)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (other_geometry, ["tiny.safetensors", "text_projection", "(64, 32)"]),
        (no_weights, ["weights tiny.safetensors do not exist"]),
        (not_weights, ["tiny.safetensors", "(16 bytes)", "not a readable weights file"]),
        (a_pickle_of_something_else, ["tiny.pt", "compare its SHA-256"]),
        (a_folder_as_weights, ["weights tiny.safetensors cannot be read (Is a directory)"]),
        (deep_prompts, ["prompts.depth is 9", "only 3 blocks"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_weights(lab: Lab, harm: Callable[[Lab], None], words: list[str]) -> None:
    harm(lab)
    assert lab.finish(*STAGE1) == 1
    assert_one_line(lab, words)
    assert "weights_only" not in lab.log()


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
    no_root(lab)
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


def test_a_reader_that_went_away_is_no_error(lab: Lab) -> None:
    command = [sys.executable, "-m", "reid", "status", "--config", "config.yaml"]
    run = subprocess.Popen(
        command, cwd=lab.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    run.stdout.close()
    assert run.stderr is not None
    assert run.stderr.read() == ""
    assert run.wait() == 1


def test_a_locale_without_greek_letters_and_python_without_docstrings_will_do(lab: Lab) -> None:
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONOPTIMIZE": "2"}
    command = [sys.executable, "-m", "reid", "table", "--config", "config.yaml"]
    run = subprocess.run(
        command, cwd=lab.folder, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "\\u0394" in run.stdout


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
