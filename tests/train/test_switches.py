"""Every option of a training, changed alone, changes the output of a real run as it should.

The keys come from the configuration classes, so a new one without an entry in CHANGES fails. Runs
repeat to the bit, so a difference comes from the key. What the journal shows of a key is checked in
its direction here, the rest in the tests of its module. What a key changes must also be in the
fingerprint of its stage, or the workflow would keep a stale file.
"""

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file

from reid import config, fingerprint
from reid.config import Config, Training
from reid.data import index
from reid.features import extract
from reid.paths import Results
from reid.train import stage1, stage2
from reid.train.interrupt import Interrupt
from reid.train.session import Session
from tests.clips import TINY, state_dict
from tests.trees import make_tree

Journal = list[dict[str, Any]]

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
    effect: Callable[[Journal, Journal], bool] = lambda old, new: True
    """Whether the journals before and after show the change in the right direction."""


def steps(journal: Journal) -> list[dict[str, Any]]:
    return [record for record in journal if "step" in record]


def rates(journal: Journal) -> list[dict[str, float]]:
    return [record["lr"] for record in journal if "lr" in record]


TERMS = ("identity", "triplet", "text_bank", "image_to_text", "text_to_image")


def term(name: str, change: Callable[[float], float]) -> Callable[[Journal, Journal], bool]:
    """At the first step this term is changed like this, the others are not."""

    def check(old: Journal, new: Journal) -> bool:
        before, after = steps(old)[0], steps(new)[0]
        wanted = {other: before[other] for other in TERMS} | {name: change(before[name])}
        return all(after[other] == pytest.approx(wanted[other], rel=1e-5) for other in TERMS)

    return check


def scaled(factor: float, *groups: str) -> Callable[[Journal, Journal], bool]:
    """The first rates of these groups are scaled, those of the others are the same."""

    def check(old: Journal, new: Journal) -> bool:
        before, after = rates(old)[0], rates(new)[0]
        factors = {name: factor if name in groups else 1.0 for name in before}
        return after == pytest.approx({name: before[name] * factors[name] for name in before})

    return check


def at_epochs(*factors: float) -> Callable[[Journal, Journal], bool]:
    """In each epoch all rates are this factor of what they were."""

    def check(old: Journal, new: Journal) -> bool:
        return all(
            after[name] == pytest.approx(rate * factor, rel=1e-6)
            for before, after, factor in zip(rates(old), rates(new), factors, strict=True)
            for name, rate in before.items()
        )

    return check


ATTENTION = {"model.pooling.kind": "attention"}


def schedule(stage: str, seen: Literal["stage1", "stage2"]) -> dict[str, Change]:
    """Changes of one stage's schedule, over two epochs."""
    at = f"{stage}.schedule"
    step = {f"{at}.kind": "multistep", f"{at}.steps": [1]}
    warm = {f"{at}.warmup_epochs": 1}

    def last(journal: Journal) -> float:
        return min(rates(journal)[-1].values())

    def flat(journal: Journal) -> bool:
        return rates(journal)[0] == rates(journal)[1]

    def one_later(old: Journal, new: Journal) -> bool:
        return rates(new)[0] == rates(old)[1]

    return {
        f"{at}.kind": Change("multistep", seen=seen, effect=lambda _, new: flat(new)),
        f"{at}.min_lr": Change(5e-5, seen=seen, effect=lambda old, new: last(new) > last(old)),
        f"{at}.steps": Change([60], step, seen, effect=at_epochs(1, 10)),
        f"{at}.gamma": Change(0.5, step, seen, effect=at_epochs(1, 5)),
        f"{at}.warmup_epochs": Change(1, seen=seen, effect=at_epochs(0.1, 1)),
        f"{at}.warmup_factor": Change(0.5, warm, seen, effect=at_epochs(5, 1)),
        f"{at}.stepped": Change("before", seen=seen, effect=one_later),
    }


def steps_times(factor: float) -> Callable[[Journal, Journal], bool]:
    return lambda old, new: len(steps(new)) == factor * len(steps(old))


def faster(old: Journal, new: Journal) -> bool:
    """Twice the rate and more, in every group and epoch."""
    pairs = zip(rates(old), rates(new), strict=True)
    return all(after[name] > 2 * rate for before, after in pairs for name, rate in before.items())


def as_weights(journal: Journal) -> bool:
    """Biases of adapters learn as fast as their weights."""
    return all(rate["adapters (bias)"] == rate["adapters"] for rate in rates(journal))


def smaller_triplet(old: Journal, new: Journal) -> bool:
    """Without its margin of 0.3, each of three triplet terms is smaller by that at the most."""
    less = steps(old)[0]["triplet"] - steps(new)[0]["triplet"]
    return 0 < less <= 3 * 0.3 + 1e-5


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
    "finetune.lr_multiplier": Change(
        0.5, {"finetune.blocks": 1}, effect=scaled(5, "blocks 2-2", "blocks 2-2 (bias)")
    ),
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
    "stage1.epochs": Change(1, seen="stage1", effect=steps_times(0.5)),
    "stage1.batch_size": Change(2, seen="stage1", effect=steps_times(2)),
    "stage1.lr": Change(1e-3, seen="stage1", effect=faster),
    "stage1.weight_decay": Change(0.5, seen="stage1"),
    "stage1.instances": Change(1, seen="stage1"),
    "stage1.view": Change("clean", seen="stage1"),
    **schedule("stage1", "stage1"),
    "stage2.epochs": Change(1, effect=steps_times(0.5)),
    "stage2.batch_size": Change(2, effect=steps_times(2)),
    "stage2.instances": Change(1),
    "stage2.lr": Change(1e-3, effect=faster),
    "stage2.weight_decay": Change(0.5),
    "stage2.bias_lr_multiplier": Change(1.0, effect=lambda _, new: as_weights(new)),
    "stage2.bias_weight_decay": Change(0.5),
    **schedule("stage2", "stage2"),
    **{f"stage2.losses.{name}": Change(0.0, effect=term(name, lambda _: 0.0)) for name in TERMS},
    "stage2.losses.label_smoothing": Change(0.5),
    "stage2.losses.margin": Change(0.0, effect=smaller_triplet),
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
        self._known: dict[str, Result] = {}
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

    def result(self, training: Mapping[str, Any], seen: str, *, whole: bool) -> "Result":
        """The tensors of a run as bytes, and its journal; a run made before is remembered."""
        name = json.dumps([training, seen, whole])
        if name not in self._known:
            self._known[name] = self.run(training, seen, whole=whole)
        return self._known[name]

    def run(self, training: Mapping[str, Any], seen: str, *, whole: bool) -> "Result":
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
        journal = self.results.run("one", 1) / f"stage{1 if seen == 'stage1' else 2}.jsonl"
        records = [json.loads(line) for line in journal.read_text().splitlines()]
        return {name: t.numpy().tobytes() for name, t in load_file(paths[-1]).items()}, records


Result = tuple[dict[str, bytes], Journal]


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
    old, journal_before = bench.result(without, change.seen, whole=change.whole)
    new, journal_after = bench.result(changed, change.seen, whole=change.whole)
    assert old != new, f"{key} changes nothing"
    assert change.effect(journal_before, journal_after), f"{key} changes something else"


def test_no_change_is_for_a_key_that_is_gone() -> None:
    assert set(CHANGES) == set(keys(Training))


@pytest.mark.parametrize("seen", ["stage1", "features"])
def test_without_a_change_runs_repeat_to_the_bit(bench: Bench, seen: str) -> None:
    assert bench.run(BASE, seen, whole=True) == bench.run(BASE, seen, whole=True)
