"""`reid import-checkpoint`: a released checkpoint through the command line, up to its features."""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from reid.cli import main
from reid.config import Clip
from reid.data.augment import normalize
from reid.data.dataset import TrackletDataset
from reid.data.stored import read_split
from reid.model.vit import resize_positions
from tests.clips import TINY, state_dict
from tests.model.naive import Naive, clip_names
from tests.trees import make_tree

SIZE = (48, 32)
TARGET = Path("results/small/train/released/seed7/stage2.safetensors")
COMMAND = ["import-checkpoint", "theirs.pth", "--config", "config.yaml", "--training", "released"]


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Naive:
    """A folder with an indexed dataset, CLIP weights and a checkpoint trained around them."""
    monkeypatch.chdir(tmp_path)
    make_tree(Path("data"), train=3, test=2, frames=3, protocols=("A2G",))
    tensors = state_dict(TINY)
    save_file(tensors, "tiny.safetensors")
    content = {
        "dataset": {"name": "small", "root": "data", "protocols": ["A2G"]},
        "seeds": [7],
        "backbones": {"tiny": {"weights": "tiny.safetensors"}},
        "trainings": {
            "released": {
                "backbone": "tiny",
                "clip": {"frames": 2, "height": SIZE[0], "width": SIZE[1]},
                "model": {
                    "prompts": {"length": 2, "depth": 2, "metadata": False, "train": False},
                    "pooling": {"kind": "attention", "train": False},
                },
            }
        },
        "variants": {"row": {"training": "released", "label": "row"}},
        "runtime": {"workers": 0, "device": "cpu"},
    }
    Path("config.yaml").write_text(yaml.safe_dump(content))
    assert main(["index", "--config", "config.yaml"]) == 0
    torch.manual_seed(0)
    model = Naive(TINY, classes=3, cameras=38, prompts=(2, 2), image_size=SIZE)
    tensors["visual.positional_embedding"] = resize_positions(
        tensors["visual.positional_embedding"], SIZE[0] // 16, SIZE[1] // 16, "bilinear"
    )
    model.load_state_dict(clip_names(tensors), strict=False)
    save(model.state_dict())
    return model.eval()


def save(checkpoint: dict[str, Tensor]) -> None:
    torch.save({f"module.{name}": tensor for name, tensor in checkpoint.items()}, "theirs.pth")


def assert_extracted(model: Naive) -> None:
    """`reid extract` gives the features of theirs, of every tracklet of A2G."""
    assert main(["extract", *COMMAND[2:], "--seed", "7", "--protocol", "A2G"]) == 0
    extracted = load_file("results/small/features/released/seed7/A2G.safetensors")["features"]
    tracklets = read_split(Path("results/small/index/A2G.parquet"))
    clip = Clip(frames=2, height=SIZE[0], width=SIZE[1])
    dataset = TrackletDataset(tracklets, Path("data"), clip=clip, train=False)
    clips = normalize(torch.cat([dataset[i].frames for i in range(len(dataset))]))
    cameras = torch.tensor([tracklet.camera for tracklet in tracklets])
    with torch.inference_mode():
        theirs = model.embed(clips.transpose(1, 2), cameras)
    torch.testing.assert_close(extracted, theirs, rtol=0, atol=1e-4)


def test_imported_features_are_theirs(theirs: Naive, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND) == 0
    report = capsys.readouterr().out
    assert "module" not in report
    assert "cv_embed: used as prompts.camera" in report
    assert "missing" not in report
    assert "left over" not in report
    assert "stored with the training" not in report
    assert not any(name.startswith("visual.conv1") for name in load_file(TARGET))
    manifest = json.loads(TARGET.with_name("stage2.manifest.json").read_text())
    assert manifest["stamp"]["step"] == "import_checkpoint"
    assert_extracted(theirs)
    assert main(COMMAND) == 1
    assert "exists: move it away" in capsys.readouterr().err


def test_a_tower_of_its_own_is_stored(theirs: Naive, capsys: pytest.CaptureFixture[str]) -> None:
    with torch.no_grad():
        theirs.image_encoder.transformer.resblocks[1].mlp.c_fc.weight += 0.01
    save(theirs.state_dict())
    assert main(COMMAND) == 0
    assert "1 of 44 frozen tensors of the tower are not those of tiny.safetensors" in (
        capsys.readouterr().out
    )
    assert_extracted(theirs)


class Malicious:
    def __reduce__(self) -> object:
        return os.mkdir, ("ran",)


def test_what_cannot_be_imported_is_one_line(
    theirs: Naive, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(**change: object) -> str:
        torch.save({**theirs.state_dict(), **change}, "theirs.pth")
        assert main(COMMAND) == 1
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert message.count("\n") == 1
        assert not TARGET.exists()
        return message

    assert "theirs.pth was trained on 9 identities, but" in error(
        **{"classifier.weight": torch.zeros(9, 128)}
    )
    assert "left over extra.weight" in error(**{"extra.weight": torch.zeros(1)})
    assert "extra is a posix.mkdir: expected a plain tensor" in error(extra=Malicious())
    assert not Path("ran").exists()
    Path("theirs.pth").unlink()
    assert main(COMMAND) == 1
    assert "theirs.pth do not exist" in capsys.readouterr().err
    torch.save(state_dict(TINY), "theirs.pth")
    assert main(COMMAND) == 1
    assert "no tensor 'classifier.weight'" in capsys.readouterr().err


def test_allowed_tensors_and_no_index(theirs: Naive, capsys: pytest.CaptureFixture[str]) -> None:
    Path("results/small/index/train.parquet").unlink()
    save({**theirs.state_dict(), "extra.weight": torch.zeros(1)})
    assert main([*COMMAND, "--allow", "extra.*"]) == 0
    assert "extra.weight: left over" in capsys.readouterr().out
