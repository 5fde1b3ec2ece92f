"""Real training runs in processes of their own, to be killed and resumed.

A run is forked from this process, where torch is already imported, so that killing one fifty
times takes seconds. Nothing here has used torch's threads before the fork.
"""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import chdir, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

import reid.data.index
import reid.features.extract
import reid.train.stage1
import reid.train.stage2  # noqa: F401 - imported before the fork, for speed
from reid import config
from reid.chain import Chain
from reid.cli import main
from reid.files import RECORD, read_json_lines
from tests.clips import TINY, state_dict
from tests.trees import make_tree

SIZE = {"frames": 2, "height": 32, "width": 32}
TRAINING = {
    "backbone": "tiny",
    "clip": SIZE,
    "model": {"prompts": {"depth": 2, "length": 1}, "adapters": {"width": 64}},
    "augment": {"color_jitter": {"brightness": 0.1, "hue": 0.05}, "pad": 2},
    "stage1": {"epochs": 2, "batch_size": 4, "instances": 2},
    "stage2": {"epochs": 3, "batch_size": 4, "instances": 2},
}


@dataclass(frozen=True)
class Lab:
    """A folder with a tiny dataset, tiny CLIP weights and a configuration."""

    folder: Path

    @property
    def run(self) -> Path:
        """The folder of the one training."""
        return self.folder / "results" / "tiny" / "train" / "small" / "seed1"

    def work(self, stage: str = "stage2") -> Path:
        """Where the trainer keeps what it needs to resume a stage, as it is configured now."""
        with chdir(self.folder):
            chain = Chain(config.load([Path("config.yaml")]))
            return self.folder / chain.work(chain.steps.stage("small", 1, int(stage[-1])))

    def configure(self, training: Mapping[str, Any] = TRAINING, **runtime: Any) -> None:
        """Write the configuration."""
        defaults = {"device": "cpu", "tensorboard": False}
        content = {
            "dataset": {"name": "tiny", "root": "data"},
            "backbones": {"tiny": {"weights": "tiny.safetensors"}},
            "trainings": {"small": dict(training)},
            "variants": {"row": {"training": "small", "label": "row"}},
            "runtime": {**defaults, **runtime},
        }
        (self.folder / "config.yaml").write_text(yaml.safe_dump(content))

    def start(
        self,
        *verb: str,
        environment: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> int:
        """Fork a process that runs `reid VERB...` here, in a process group of its own.

        Returns its process id. `before` runs in it first: the place to inject a fault. Its output
        goes to `log`.
        """
        pid = os.fork()
        if pid:
            with suppress(PermissionError):  # has done it itself and runs something else by now
                os.setpgid(pid, pid)
            return pid
        code = 99
        try:
            os.setpgid(0, 0)
            os.chdir(self.folder)
            log = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout = os.fdopen(1, "w", buffering=1)
            sys.stderr = os.fdopen(2, "w", buffering=1)
            os.environ.update(environment or {})
            torch.set_num_threads(1)
            if before is not None:
                before()
            code = main([*verb, "--config", "config.yaml"])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def finish(self, *verb: str, **options: Any) -> int:
        """Run `reid VERB...` to its end; returns the exit code, negative for a signal."""
        return wait(self.start(*verb, **options))

    def log(self) -> str:
        """Everything that runs here have printed."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def steps(self) -> list[dict[str, Any]]:
        """Journal records of all steps of stage 2 so far."""
        lines = read_json_lines(self.work() / "stage2.jsonl", RECORD)
        return [line for line in lines if "loss" in line]


def make_lab(folder: Path) -> Lab:
    """A fresh lab, indexed."""
    make_tree(folder / "data", train=4, test=2, tracklets=2, frames=4)
    tensors = {name: tensor.clone() for name, tensor in state_dict(TINY).items()}
    save_file(tensors, folder / "tiny.safetensors")
    lab = Lab(folder)
    lab.configure()
    assert lab.finish("index") == 0, lab.log()
    return lab


STAGE1 = ("train", "stage1", "--training", "small", "--seed", "1")
STAGE2 = ("train", "stage2", "--training", "small", "--seed", "1")


def wait(pid: int) -> int:
    """Wait for a process; returns its exit code, or minus the signal that killed it."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def in_a_fork(work: Callable[[], object]) -> int | None:
    """Do `work` in a forked process; its exit code, or minus the signal that killed it."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process.exitcode


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Poll until the condition holds; fails after some time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def slow_steps() -> None:
    """A `before` of `Lab.start`: time to do something between two steps."""
    original = torch.optim.Adam.step

    def step(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.15)
        return original(*arguments, **options)

    torch.optim.Adam.step = step  # type: ignore[method-assign]


def kill_after(pid: int, seconds: float, *, group: bool = False) -> int:
    """SIGKILL a process, or its group, after some time unless it ends before; its exit code."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    (os.killpg if group else os.kill)(pid, signal.SIGKILL)
    return wait(pid)


def remains(lab: Lab, stage: str = "stage2") -> dict[str, Any]:
    """What must be bit-equal however a run went: weights, metrics, and the last checkpoint."""
    work = lab.work(stage)
    last = max((work / "checkpoints" / stage).glob("*.pt"))
    files = (lab.run / f"{stage}.safetensors", work / f"{stage}.jsonl")
    state = torch.load(last, weights_only=True)
    del state["state"]["random"]  # of the process; training draws nothing from it
    return {**{path.name: path.read_bytes() for path in files}, last.name: _plain(state)}


def _plain(value: Any) -> Any:
    """Tensors as bytes, so that two states can be compared by ==."""
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), str(value.dtype), value.numpy().tobytes())
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
