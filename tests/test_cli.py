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

from reid.data import index as indexing
from tests.runs import STAGE1, STAGE2, Lab, make_lab


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


def remove(*names: str) -> Callable[[Lab], object]:
    return lambda lab: [shutil.rmtree(lab.folder / name) for name in names]


def results_are_a_file(lab: Lab) -> None:
    shutil.rmtree(lab.folder / "results")
    (lab.folder / "results").touch()


def link(lab: Lab, name: str, target: str) -> None:
    if (lab.folder / name).exists():
        shutil.rmtree(lab.folder / name)
    (lab.folder / name).symlink_to(target)


def other_geometry(lab: Lab) -> None:
    tensors = load_file(lab.folder / "tiny.safetensors")
    save_file({**tensors, "visual.proj": torch.zeros(128, 32)}, lab.folder / "tiny.safetensors")


def a_pickle_of_something_else(lab: Lab) -> None:
    (lab.folder / "tiny.pt").write_bytes(pickle.dumps(Path("x"), protocol=2))
    edit(lab.folder / "config.yaml", lambda text: text.replace("tiny.safetensors", "tiny.pt"))


INDEX, RUN = ("index",), ("--training", "small", "--seed", "1")
BAD = {
    "no root": (INDEX, remove("data"), ["data is not a folder", "dataset.root"]),
    "no train": (INDEX, remove("data/train"), ["data", "train"]),
    "unknown name": (INDEX, lambda lab: frames(lab)[0].rename(frames(lab)[0].with_name("x.jpg")),
                     ["rejected.csv", "x.jpg"]),
    "typo": (INDEX, lambda lab: edit(lab.folder / "config.yaml", lambda t: t.replace("h_s", "hs")),
             ["trainings.small.stage", "unknown key batchsize (did you mean batch_size?)"]),
    "results are a file": (INDEX, results_are_a_file,
                           ["results is a file, where a folder is expected: remove it or name"]),
    "results are a link to nowhere": (INDEX, lambda lab: link(lab, "results", "/nonexistent/x"),
                                      ["results is a link that leads nowhere (to /nonexistent/x)"]),
    "a folder is a loop": (STAGE1, lambda lab: link(lab, "results/tiny/train", "train"),
                           ["results/tiny/train is a link that leads nowhere (to train)"]),
    "config is a folder": (INDEX, lambda lab: replace_by_folder(lab.folder / "config.yaml"),
                           ["config.yaml cannot be read (not a regular file"]),
    "no data": (STAGE1, remove("data", "results"),
                ["index/train.parquet does not exist: run `reid index`"]),
    "other geometry": (STAGE1, other_geometry,
                       ["tiny.safetensors", "text_projection", "(64, 32)"]),
    "missing": (STAGE1, lambda lab: (lab.folder / "tiny.safetensors").unlink(),
                ["weights tiny.safetensors do not exist"]),
    "html": (STAGE1, lambda lab: (lab.folder / "tiny.safetensors").write_bytes(b"<html>404</html>"),
             ["tiny.safetensors", "(16 bytes)", "a web page"]),
    "a pickle": (STAGE1, a_pickle_of_something_else, ["tiny.pt", "compare its SHA-256"]),
    "a folder": (STAGE1, lambda lab: replace_by_folder(lab.folder / "tiny.safetensors"),
                 ["weights tiny.safetensors cannot be read (not a regular file"]),
    "deep prompts": (STAGE1, lambda lab: edit(lab.folder / "config.yaml",
                                              lambda t: t.replace("depth: 2", "depth: 9")),
                     ["prompts.depth is 9", "only 3 blocks"]),
    "few people": (STAGE1, lambda lab: edit(lab.folder / "config.yaml",
                                            lambda t: t.replace("batch_size: 4", "batch_size: 64")),
                   ["fewer than one batch of 64; lower stage1.batch_size"]),
    "no stage 1": (STAGE2, frames, ["stage1.safetensors does not exist: run `reid train stage1"]),
    "--training": (("train", "stage2", "--training", "smal", "--seed", "1"), frames,
                   ["no training 'smal'", "did you mean small?"]),
    "--seed": (("extract", *RUN[:3], "4", "--protocol", "A2G"), frames,
               ["no seed 4", "among the seeds"]),
    "--protocol": (("extract", *RUN, "--protocol", "ALL"), frames,
                   ["no protocol 'ALL'", "(known: A2G, G2A, A2A, validation)"]),
    "--protocol of a row": (("retrieve", "--variant", "row", *RUN[2:], "--protocol", "ALL"), frames,
                            ["no protocol 'ALL'", "(known: A2G, G2A, A2A)"]),
    "--variant": (("tune", "--variant", "rwo", *RUN[2:]), frames, ["did you mean row?"]),
    "--time-limit": ((*STAGE1, "--time-limit=-5"), frames,
                     ["--time-limit is -5: expected minutes, at least 0"]),
    "--wait": ((*STAGE1, "--wait=-5"), frames, ["--wait is -5: expected minutes, at least 0"]),
    "--verify": (("pack", "--verify", "--frames-per-tracklet", "3"), frames,
                 ["leave --frames-per-tracklet out"]),
    "a difference alone": (
        ("status",),
        lambda lab: (lab.folder / "config.yaml").write_text("trainings: {a: {extends: scaled}}\n"),
        ["no training 'scaled'", "--config config/config.yaml --config config"]),
}  # fmt: skip


@pytest.mark.parametrize(("verb", "harm", "words"), BAD.values(), ids=list(BAD))
def test_bad_input_is_one_line(
    lab: Lab, verb: tuple[str, ...], harm: Callable[[Lab], object], words: list[str]
) -> None:
    harm(lab)
    assert lab.finish(*verb) == 1
    assert_one_line(lab, words)
    assert "weights_only" not in lab.log()


SURROUNDINGS: dict[str, tuple[dict[str, str], list[str]]] = {
    "left over": ({"WORLD_SIZE": "2", "RANK": "0"}, ["MASTER_ADDR is not set", "unset WORLD_SIZE"]),
    "no number": ({"WORLD_SIZE": "two"}, ["WORLD_SIZE is 'two'", "expected a number"]),
    "no such process": (
        {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"},
        ["WORLD_SIZE is 2 and RANK is 2"],
    ),
}


@pytest.mark.parametrize(("variables", "words"), SURROUNDINGS.values(), ids=list(SURROUNDINGS))
def test_left_over_variables_are_named(
    lab: Lab, variables: dict[str, str], words: list[str]
) -> None:
    assert lab.finish(*STAGE1, environment=variables) == 1
    assert_one_line(lab, words)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
    ids=["Python", "torch"],
)
def test_too_little_memory_is_one_line(lab: Lab, error: Exception) -> None:
    def run_out(*_: Any) -> None:
        raise error

    def little() -> None:
        indexing.run = run_out  # type: ignore[assignment]

    assert lab.finish("index", before=little) == 1
    assert_one_line(lab, ["memory ran out"])


def test_a_read_only_dev_shm_is_named(lab: Lab) -> None:
    lab.configure(workers=2)
    words = [sys.executable, "-m", "reid", *STAGE1, "--config", "config.yaml"]
    mount = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o ro none /dev/shm && exec "$@"', "sh"]
    if subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    run = subprocess.run([*mount, *words], cwd=lab.folder, capture_output=True, text=True)
    assert run.returncode == 1
    assert "/dev/shm" in run.stderr
    assert "Traceback" not in run.stderr


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


@pytest.mark.parametrize("verb", [("index",), STAGE1], ids=["index", "stage1"])
def test_a_full_disk_is_named_with_its_file(lab: Lab, verb: tuple[str, ...]) -> None:
    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))

    (lab.folder / "log").write_text("")
    if verb == ("index",):  # it leaves files that would not change
        shutil.rmtree(lab.folder / "results")
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


def test_a_job_of_slurm_computes_with_its_own_cpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever Snakemake, which may run on a log-in node of one core, has set."""
    code = "import runpy, os; runpy.run_module('reid'); import torch; "
    code += "print(torch.get_num_threads(), os.environ['OPENBLAS_NUM_THREADS'])"
    for name, value in (("OMP_NUM_THREADS", "1"), ("SLURM_CPUS_PER_TASK", "2")):
        monkeypatch.setenv(name, value)
    for processes, threads in (("1", "2"), ("2", "1")):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        printed = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert printed.stdout.split() == [threads, threads]
