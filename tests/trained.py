"""A working directory with a dataset and a run that trained for no epoch: real files, no wait."""

from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from reid import config
from reid.config import Config
from reid.data import index
from reid.data.holdout import part
from reid.data.index import read_split
from reid.model.param_groups import trainable_groups
from reid.model.weights import load as load_weights
from reid.paths import Results
from reid.train.common import build_model, identities_of, save_tensors
from reid.train.stage2 import trained_tensors
from tests.clips import TINY, state_dict
from tests.manifests import describe
from tests.trees import make_tree

ROOT = Path(__file__).resolve().parents[1]
SETTINGS: dict[str, Any] = {
    "dataset": {"name": "tiny", "root": "data"},
    "backbones": {"tiny": {"weights": "tiny.safetensors"}},
    "trainings": {
        "small": {
            "backbone": "tiny",
            "clip": {"frames": 2, "height": 32, "width": 32},
            "model": {"prompts": {"depth": 2, "length": 1}, "adapters": {"width": 64}},
            "validation": {"share": 0.5},
        }
    },
    "variants": {
        "row": {"training": "small", "label": "row", "flip_tta": True},
        "tuned": {"training": "small", "label": "tuned", "flip_tta": True, "rerank": "tuned"},
    },
    "tune": {"k1": [3, 6], "k2": [1, 2], "lambda_values": [0.2, 0.8]},
    "runtime": {"workers": 0, "device": "cpu"},
}


def make_home(home: Path) -> Config:
    """Fill `home`, the working directory: data, index, weights, config.yaml, the run `small`."""
    make_tree(home / "data", train=4, tracklets=2)
    save_file(state_dict(TINY), home / "tiny.safetensors")
    (home / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    options = config.parse(SETTINGS, source="test")
    index.run(options)
    training, results = options.trainings["small"], Results(Path("results/tiny"))
    tracklets = part(read_split(results.index("train")), training.validation, "train")
    identities = identities_of(tracklets)
    weights = load_weights("tiny.safetensors")
    model = build_model(training, weights, identities=len(identities), cameras=3, seed=1)
    trainable_groups(model, finetune=training.finetune, stage2=training.stage2)
    facts = {"identities": identities, "cameras": 3, "backbone": weights.sha256, "seed": 1}
    facts["model"] = training.model.model_dump(mode="json")
    save_tensors(results.stage("small", 1, 2), trained_tensors(model), facts)
    results.stage("small", 1, 1).touch()
    describe(options)
    return options
