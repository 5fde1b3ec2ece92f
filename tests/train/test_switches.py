"""Every switch acts: each key of a training, changed alone, changes what a real run leaves.

The keys come from the configuration classes, so a new one without an entry in CHANGES fails. Runs
repeat to the bit, so a difference is the key's doing. What a key changes must also be in the
fingerprint of its stage, or the workflow would keep a stale file.
"""

import copy
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file

from reid import config, fingerprint
from reid.artifacts import Results
from reid.config import Config, Training
from reid.data import index
from reid.features import extract
from reid.train import stage1, stage2
from reid.train.interrupt import Interrupt
from reid.train.session import Session
from tests.clips import TINY, state_dict
from tests.trees import make_tree

BASE: dict[str, Any] = {
    "backbone": "tiny",
    "clip": {"frames": 2, "height": 32, "width": 32},
    "model": {"prompts": {"depth": 2}, "adapters": {"width": 64}},
    "stage1": {
        "epochs": 2,
        "batch_size": 4,
        "instances": 2,
        "schedule": {"warmup_epochs": 0, "warmup_factor": 0.1, "stepped": "after"},
    },
    "stage2": {
        "epochs": 2,
        "batch_size": 4,
        "instances": 2,
        "schedule": {"kind": "cosine", "warmup_epochs": 0, "stepped": "after"},
    },
}


@dataclass(frozen=True)
class Change:
    """Another value of a key, and where it must show."""

    value: Any
    given: Mapping[str, Any] = field(default_factory=dict)
    """What else must be set, before and after, for the key to mean anything."""
    seen: Literal["stage1", "stage2", "features"] = "stage2"
    whole: bool = False
    """Whether stage 2 needs a stage 1 of its own: other weights or other identities."""


ATTENTION = {"model.pooling.kind": "attention"}


def schedule(stage: str, seen: Literal["stage1", "stage2"]) -> dict[str, Change]:
    """Changes of one stage's schedule, over two epochs."""
    at = f"{stage}.schedule"
    steps = {f"{at}.kind": "multistep", f"{at}.steps": [1]}
    return {
        f"{at}.kind": Change("multistep", seen=seen),
        f"{at}.min_lr": Change(5e-5, seen=seen),
        f"{at}.steps": Change([60], steps, seen),
        f"{at}.gamma": Change(0.5, steps, seen),
        f"{at}.warmup_epochs": Change(1, seen=seen),
        f"{at}.warmup_factor": Change(0.5, {f"{at}.warmup_epochs": 1}, seen),
        f"{at}.stepped": Change("before", seen=seen),
    }


CHANGES: dict[str, Change] = {
    "backbone": Change("other", whole=True),
    "clip.frames": Change(3),
    "clip.height": Change(48),
    "clip.width": Change(48),
    "clip.test_sampling": Change("center", seen="features"),
    "model.stride": Change(8),
    "model.positions": Change("bicubic"),
    "model.prompts.length": Change(2),
    "model.prompts.depth": Change(3),
    "model.prompts.camera": Change(False),
    "model.prompts.metadata": Change(False),
    "model.prompts.altitude_bins": Change(1),
    "model.prompts.distance_bins": Change(1),
    "model.prompts.metadata_dropout": Change(1.0),
    "model.prompts.train": Change(False),
    "model.adapters.spatial": Change(False),
    "model.adapters.temporal": Change(False),
    "model.adapters.width": Change(128),
    "model.pooling.kind": Change("attention"),
    "model.pooling.quality": Change(True, ATTENTION),
    "model.pooling.train": Change(False, ATTENTION),
    "model.neck.instance_norm": Change(True),
    "model.neck.train_bias": Change(True),
    "finetune.blocks": Change(1),
    "finetune.lr_multiplier": Change(0.5, {"finetune.blocks": 1}),
    "augment.flip": Change(1.0),
    "augment.erase": Change(1.0),
    "augment.pad": Change(4),
    "augment.color_jitter.brightness": Change(0.5),
    "augment.color_jitter.contrast": Change(0.5),
    "augment.color_jitter.saturation": Change(0.5),
    "augment.color_jitter.hue": Change(0.5),
    "augment.color_jitter.per": Change("clip", {"augment.color_jitter.brightness": 0.5}),
    "augment.color_jitter.place": Change("on_crop", {"augment.color_jitter.brightness": 0.5}),
    "validation.share": Change(0.5, whole=True),
    "validation.seed": Change(3, {"validation.share": 0.5}, whole=True),
    "stage1.epochs": Change(1, seen="stage1"),
    "stage1.batch_size": Change(2, seen="stage1"),
    "stage1.lr": Change(1e-3, seen="stage1"),
    "stage1.weight_decay": Change(0.5, seen="stage1"),
    "stage1.instances": Change(1, seen="stage1"),
    "stage1.view": Change("clean", seen="stage1"),
    **schedule("stage1", "stage1"),
    "stage2.epochs": Change(1),
    "stage2.batch_size": Change(2),
    "stage2.instances": Change(1),
    "stage2.lr": Change(1e-3),
    "stage2.weight_decay": Change(0.5),
    "stage2.bias_lr_multiplier": Change(1.0),
    "stage2.bias_weight_decay": Change(0.5),
    **schedule("stage2", "stage2"),
    "stage2.losses.identity": Change(0.0),
    "stage2.losses.triplet": Change(0.0),
    "stage2.losses.image_to_text": Change(0.0),
    "stage2.losses.text_to_image": Change(0.0),
    "stage2.losses.text_bank": Change(0.0),
    "stage2.losses.label_smoothing": Change(0.5),
    "stage2.losses.margin": Change(0.0),
}


def keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all options below a section."""
    for name, option in section.model_fields.items():
        nested = option.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from keys(nested, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def with_(training: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(dict(training))
    for key, value in changes.items():
        *parents, leaf = key.split(".")
        section = changed
        for parent in parents:
            section = section.setdefault(parent, {})
        section[leaf] = value
    return changed


class Bench:
    """Runs trainings on a tiny dataset and remembers what they left."""

    def __init__(self) -> None:
        make_tree(Path("data"), train=4, test=2, frames=4, protocols=("A2G",))
        tensors = state_dict(TINY)
        save_file(tensors, "tiny.safetensors")
        save_file({name: 1.1 * tensor for name, tensor in tensors.items()}, "other.safetensors")
        index.run(self.configure(BASE))
        self.results = Results.of("small")
        self._known: dict[str, dict[str, bytes]] = {}
        stage1.run(self.configure(BASE), "one", 1, Session(Interrupt(), {}))
        shutil.copy(self.results.stage("one", 1, 1), "stage1.safetensors")

    def configure(self, training: Mapping[str, Any]) -> Config:
        return config.parse(
            {
                "dataset": {"name": "small", "root": "data", "protocols": ["A2G"]},
                "backbones": {
                    "tiny": {"weights": "tiny.safetensors"},
                    "other": {"weights": "other.safetensors"},
                },
                "trainings": {"one": training},
                "variants": {"row": {"training": "one", "label": "row", "flip_tta": False}},
                "runtime": {"workers": 0, "device": "cpu", "tensorboard": False},
            },
            source="test",
        )

    def result(self, training: Mapping[str, Any], seen: str, *, whole: bool) -> dict[str, bytes]:
        """The tensors that a run leaves, as bytes; a run that was made before is remembered."""
        name = json.dumps([training, seen, whole])
        if name not in self._known:
            self._known[name] = self.run(training, seen, whole=whole)
        return self._known[name]

    def run(self, training: Mapping[str, Any], seen: str, *, whole: bool) -> dict[str, bytes]:
        shutil.rmtree(self.results.run("one", 1), ignore_errors=True)
        settings = self.configure(training)
        paths = [self.results.stage("one", 1, 1)]
        if seen == "stage1" or whole:
            stage1.run(settings, "one", 1, Session(Interrupt(), {}))
        else:
            paths[0].parent.mkdir(parents=True)
            shutil.copy("stage1.safetensors", paths[0])
        if seen != "stage1":
            stage2.run(settings, "one", 1, Session(Interrupt(), {}))
            paths.append(self.results.stage("one", 1, 2))
        if seen == "features":
            extract.run(settings, "one", 1, "A2G")
            paths.append(self.results.features("one", 1, "A2G"))
        return {name: t.numpy().tobytes() for name, t in load_file(paths[-1]).items()}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    before, threads = Path.cwd(), torch.get_num_threads()
    os.chdir(tmp_path_factory.mktemp("switches"))
    torch.set_num_threads(1)
    yield Bench()
    torch.set_num_threads(threads)
    os.chdir(before)


SETTINGS = {
    "stage1": fingerprint.stage1_settings,
    "stage2": fingerprint.stage2_settings,
    "features": fingerprint.extract_settings,
}


@pytest.mark.parametrize("key", list(keys(Training)))
def test_every_switch_acts(bench: Bench, key: str) -> None:
    assert key in CHANGES, f"{key} is new: say in CHANGES how a test sees that it acts"
    change = CHANGES[key]
    without = with_(BASE, change.given)
    changed = with_(without, {key: change.value})
    settings = SETTINGS[change.seen]
    before, after = (settings(bench.configure(training), "one") for training in (without, changed))
    assert before != after, f"{key} is not in the fingerprint of {change.seen}"
    old = bench.result(without, change.seen, whole=change.whole)
    new = bench.result(changed, change.seen, whole=change.whole)
    assert old != new, f"{key} changes nothing"


def test_no_change_is_for_a_key_that_is_gone() -> None:
    assert set(CHANGES) == set(keys(Training))


@pytest.mark.parametrize("seen", ["stage1", "features"])
def test_without_a_change_runs_repeat_to_the_bit(bench: Bench, seen: str) -> None:
    assert bench.run(BASE, seen, whole=True) == bench.run(BASE, seen, whole=True)
