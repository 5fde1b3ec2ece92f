"""Every option of a training, changed alone, changes the output of a real run as it should.

The keys come from the configuration classes, so a new one that is not in OTHER fails. Runs
repeat to the bit, so a difference comes from the key. What the journal shows of a key is checked in
its direction here (EFFECTS), the rest in the tests of its module. What a key changes must also be
in the stamp of its step, or the workflow would keep a stale file.
"""

import copy
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from safetensors.torch import load_file, save_file

from reid import config
from reid.config import Config, Training
from reid.data import index
from reid.features import extract
from reid.paths import Results
from reid.steps import Steps
from reid.train import stage1, stage2
from reid.train.interrupt import Interrupt
from reid.train.session import Session
from tests.clips import TINY, state_dict
from tests.golden.experiment import working_in
from tests.manifests import describe
from tests.trees import make_tree

SMALL = {"epochs": 2, "batch_size": 4, "instances": 2}
RESULTS = Results(Path("results/small"))
BASE: dict[str, Any] = {
    "backbone": "tiny",
    "clip": {"frames": 2, "height": 32, "width": 32},
    "model": {"prompts": {"depth": 2}, "adapters": {"width": 64}},
    "stage1": {
        **SMALL, "schedule": {"warmup_epochs": 0, "warmup_factor": 0.1, "stepped": "after"},
    },
    "stage2": {
        **SMALL, "schedule": {"kind": "cosine", "warmup_epochs": 0, "stepped": "after"},
    },
}  # fmt: skip
STAGES = ("stage1", "stage2")
TERMS = ("identity", "triplet", "text_bank", "image_to_text", "text_to_image")

STAGE = {
    **SMALL, "epochs": 1, "batch_size": 2, "instances": 1, "lr": 1e-3, "weight_decay": 0.5,
    "schedule": {
        "kind": "multistep", "min_lr": 5e-5, "steps": [60], "gamma": 0.5, "warmup_epochs": 1,
        "warmup_factor": 0.5, "stepped": "before",
    },
}  # fmt: skip
OTHER: dict[str, Any] = {
    "backbone": "other",
    "clip": {"frames": 3, "height": 48, "width": 48, "test_sampling": "center"},
    "model": {
        "stride": 8,
        "positions": "bicubic",
        "prompts": {
            "length": 2, "depth": 3, "camera": False, "metadata": False, "altitude_bins": 1,
            "distance_bins": 1, "metadata_dropout": 1.0, "train": False,
        },
        "adapters": {"spatial": False, "temporal": False, "width": 128},
        "pooling": {"kind": "attention", "quality": True, "train": False},
        "neck": {"instance_norm": True, "train_bias": True},
    },
    "finetune": {"blocks": 1, "lr_multiplier": 0.5},
    "augment": {
        "flip": 1.0,
        "erase": 1.0,
        "pad": 4,
        "color_jitter": {
            "brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.5, "per": "clip",
            "place": "on_crop",
        },
    },
    "validation": {"share": 0.5, "seed": 3},
    "stage1": {**STAGE, "view": "clean"},
    "stage2": {
        **STAGE,
        "bias_lr_multiplier": 1.0,
        "bias_weight_decay": 0.5,
        "losses": {**dict.fromkeys(TERMS, 0.0), "label_smoothing": 0.5, "margin": 0.0},
    },
}  # fmt: skip
"""Another value of every key."""


def flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested sections by their dotted names."""
    result = {}
    for name, value in section.items():
        nested = isinstance(value, Mapping)
        result |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return result


CHANGES = flat(OTHER)
ATTENTION, JITTER = {"model.pooling.kind": "attention"}, {"augment.color_jitter.brightness": 0.5}
GIVEN: dict[str, dict[str, Any]] = {
    "model.pooling.quality": ATTENTION,
    "model.pooling.train": ATTENTION,
    "finetune.lr_multiplier": {"finetune.blocks": 1},
    "augment.color_jitter.per": JITTER,
    "augment.color_jitter.place": JITTER,
    "validation.seed": {"validation.share": 0.5},
}
"""What else must be set, before and after, for the key to mean anything."""
for at in STAGES:
    multistep = {f"{at}.schedule.kind": "multistep", f"{at}.schedule.steps": [1]}
    GIVEN |= {f"{at}.schedule.{key}": multistep for key in ("steps", "gamma")}
    GIVEN[f"{at}.schedule.warmup_factor"] = {f"{at}.schedule.warmup_epochs": 1}

Journal = list[dict[str, Any]]
Effect = Callable[[Journal, Journal], bool]


def steps(journal: Journal) -> Journal:
    return [record for record in journal if "step" in record]


def rates(journal: Journal) -> list[dict[str, float]]:
    return [record["lr"] for record in journal if "lr" in record]


def without(term: str) -> Effect:
    """This term is zero at the first step, the others are as before."""

    def check(old: Journal, new: Journal) -> bool:
        before, after = ({name: steps(j)[0][name] for name in TERMS} for j in (old, new))
        return after == pytest.approx({**before, term: 0.0}, rel=1e-5)

    return check


def times(*factors: float, groups: str = "") -> Effect:
    """In the first epochs, the rates of the groups named like this are these factors of before."""

    def check(old: Journal, new: Journal) -> bool:
        for factor, before, after in zip(factors, rates(old), rates(new), strict=False):
            wanted = {n: r * (factor if n.startswith(groups) else 1) for n, r in before.items()}
            if after != pytest.approx(wanted, rel=1e-6):
                return False
        return True

    return check


def faster(old: Journal, new: Journal) -> bool:
    """Twice the rate and more, in every group and epoch."""
    pairs = zip(rates(old), rates(new), strict=True)
    return all(after[name] > 2 * rate for before, after in pairs for name, rate in before.items())


def smaller_triplet(old: Journal, new: Journal) -> bool:
    """Without its margin of 0.3, each of three triplet terms is smaller by that at the most."""
    less = steps(old)[0]["triplet"] - steps(new)[0]["triplet"]
    return 0 < less <= 3 * 0.3 + 1e-5


def lowest(journal: Journal) -> float:
    return min(rates(journal)[-1].values())


EFFECTS: dict[str, Effect] = {
    "finetune.lr_multiplier": times(5, groups="blocks 2-2"),
    "stage2.bias_lr_multiplier": lambda _, new: all(
        rate["adapters (bias)"] == rate["adapters"] for rate in rates(new)
    ),
    **{f"stage2.losses.{name}": without(name) for name in TERMS},
    "stage2.losses.margin": smaller_triplet,
}
for at in STAGES:
    EFFECTS |= {
        f"{at}.epochs": lambda old, new: 2 * len(steps(new)) == len(steps(old)),
        f"{at}.batch_size": lambda old, new: len(steps(new)) == 2 * len(steps(old)),
        f"{at}.lr": faster,
        f"{at}.schedule.kind": lambda _, new: rates(new)[0] == rates(new)[1],
        f"{at}.schedule.min_lr": lambda old, new: lowest(new) > lowest(old),
        f"{at}.schedule.steps": times(1, 10),
        f"{at}.schedule.gamma": times(1, 5),
        f"{at}.schedule.warmup_epochs": times(0.1, 1),
        f"{at}.schedule.warmup_factor": times(5, 1),
        f"{at}.schedule.stepped": lambda old, new: rates(new)[0] == rates(old)[1],
    }


def keys(section: type[BaseModel]) -> dict[str, Any]:
    """The options below a section, nested."""
    types = {name: option.annotation for name, option in section.model_fields.items()}
    return {
        name: keys(kind) if isinstance(kind, type) and issubclass(kind, BaseModel) else kind
        for name, kind in types.items()
    }


def changed(training: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(dict(training))
    for key, value in changes.items():
        *parents, leaf = key.split(".")
        section = result
        for parent in parents:
            section = section.setdefault(parent, {})
        section[leaf] = value
    return result


def configure(training: Mapping[str, Any]) -> Config:
    content = {
        "dataset": {"name": "small", "root": "data", "protocols": ["A2G"]},
        "backbones": {name: {"weights": f"{name}.safetensors"} for name in ("tiny", "other")},
        "trainings": {"one": training},
        "variants": {"row": {"training": "one", "label": "row", "flip_tta": False}},
        "runtime": {"workers": 0, "device": "cpu", "tensorboard": False},
    }
    return config.parse(content, source="test")


@pytest.fixture(scope="module", autouse=True)
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A working directory with a tiny dataset, two sets of weights, and a stage 1 of BASE."""
    with working_in(tmp_path_factory.mktemp("switches")):
        make_tree(Path("data"), train=4, test=2, frames=4, protocols=("A2G",))
        tensors = state_dict(TINY)
        save_file(tensors, "tiny.safetensors")
        save_file({name: 1.1 * tensor for name, tensor in tensors.items()}, "other.safetensors")
        index.run(configure(BASE))
        run(BASE, "stage1")
        shutil.copy(RESULTS.stage("one", 1, 1), "stage1.safetensors")
        yield


def run(training: Mapping[str, Any], seen: str, *, whole: bool = False) -> Any:
    """Run a training up to the step `seen`; the bytes of its tensors, and its journal.

    `whole`: with a stage 1 of its own, because its weights or identities are others.
    """
    settings, folder, paths = (
        configure(training),
        RESULTS.run("one", 1),
        [RESULTS.stage("one", 1, 1)],
    )
    shutil.rmtree(folder, ignore_errors=True)
    if seen == "stage1" or whole:
        stage1.run(settings, "one", 1, Session(Interrupt(), {}))
    else:
        folder.mkdir(parents=True)
        shutil.copy("stage1.safetensors", paths[0])
        describe(settings)
    if seen != "stage1":
        stage2.run(settings, "one", 1, Session(Interrupt(), {}))
        paths.append(RESULTS.stage("one", 1, 2))
    if seen == "features":
        extract.run(settings, "one", 1, "A2G")
        paths.append(RESULTS.features("one", 1, "A2G"))
    stage = "stage1" if seen == "stage1" else "stage2"
    (journal,) = folder.glob(f"{stage}-*/{stage}.jsonl")
    tensors = {name: tensor.numpy().tobytes() for name, tensor in load_file(paths[-1]).items()}
    return tensors, [json.loads(line) for line in journal.read_text().splitlines()]


@cache
def result(training: str, seen: str, whole: bool) -> Any:
    """What `run` gives; the training as JSON, to be remembered."""
    return run(json.loads(training), seen, whole=whole)


def depends(training: Mapping[str, Any], seen: str) -> tuple[Any, Any]:
    """The options and files that a step depends on."""
    steps = Steps(configure(training))
    job = {
        "stage1": steps.stage1("one", 1),
        "stage2": steps.stage2("one", 1),
        "features": steps.extract("one", 1, "A2G"),
    }[seen]
    return job.options, job.inputs


@pytest.mark.parametrize("key", CHANGES)
def test_every_switch_acts(key: str) -> None:
    seen = "stage1" if key.startswith("stage1") else "stage2"
    if key == "clip.test_sampling":
        seen = "features"
    base = changed(BASE, GIVEN.get(key, {}))
    trainings = base, changed(base, {key: CHANGES[key]})
    before, after = (depends(training, seen) for training in trainings)
    assert before != after, f"{key} is not in the stamp of {seen}"
    whole = key.startswith(("backbone", "validation"))
    old, new = (result(json.dumps(training), seen, whole) for training in trainings)
    assert old[0] != new[0], f"{key} changes nothing"
    if key in EFFECTS:
        assert EFFECTS[key](old[1], new[1]), f"{key} changes something else"


def test_the_table_has_every_key() -> None:
    assert CHANGES.keys() == flat(keys(Training)).keys(), "OTHER lacks a key"
    assert CHANGES.keys() >= GIVEN.keys() | EFFECTS.keys()


@pytest.mark.parametrize("seen", ["stage1", "features"])
def test_without_a_change_runs_repeat_to_the_bit(seen: str) -> None:
    assert run(BASE, seen, whole=True) == run(BASE, seen, whole=True)
