"""What each stage feeds its loss: which batches, frames, views, metadata, and both directions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reid import config
from reid.config import Config, Runtime, Stage1
from reid.data import index
from reid.data.augment import augment, normalize
from reid.data.sampler import pk_batches
from reid.data.stored import read_split
from reid.errors import UserError
from reid.train.common import (
    build_model,
    derive_seed,
    identities_of,
    load_tensors,
    save_tensors,
    training_clips,
)
from reid.train.interrupt import Interrupt
from reid.train.session import Engine
from reid.train.stage1 import cache_images, context_stage, text_bank
from reid.train.stage2 import hide_metadata, visual_stage
from tests.clips import TINY, random_weights
from tests.golden.experiment import working_in
from tests.train.test_losses import slow_contrastive
from tests.trees import make_tree

ENGINE = Engine(torch.device("cpu"), Path(), Interrupt(), Runtime(device="cpu", workers=0))
CLIP = {"frames": 2, "height": 32, "width": 16}
LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 2, 2])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    batches = {"batch_size": 4, "instances": 2}
    training = {
        "backbone": "tiny", "clip": CLIP, "stage1": batches, "stage2": batches,
        "model": {"prompts": {"depth": 2}}, "validation": {"share": 0.5},
    }  # fmt: skip
    content = {
        "dataset": {"name": "small", "root": "data"},
        "backbones": {"tiny": {"weights": "tiny.safetensors"}},
        "trainings": {"one": training, "all": {**training, "validation": {"share": 0}}},
        "variants": {"row": {"training": "one", "label": "row"}},
        "runtime": {"workers": 0, "device": "cpu"},
    }
    with working_in(tmp_path_factory.mktemp("stages")):
        make_tree(Path("data"), train=4, test=1, tracklets=2, frames=9)
        parsed = config.parse(content, source="test")
        index.run(parsed)
        yield parsed


class Contexts(nn.Module):
    """Stands for contexts and, with `nn.Identity`, for the text tower: a feature an identity."""

    def __init__(self) -> None:
        super().__init__()
        self.identity = nn.Parameter(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)))

    def forward(self, labels: Tensor) -> Tensor:
        return self.identity[labels]


def contexts_stage(seed: int = 1, batch_size: int = 4) -> Any:
    images = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    options = Stage1(batch_size=batch_size, instances=2)
    stands: Any = Contexts(), nn.Identity()
    return context_stage("", *stands, images, LABELS, options=options, seed=seed)


def clips_stage(config: Config, seed: int) -> Any:
    dataset, training = training_clips(config, "all", 1, None), config.trainings["all"]
    model = build_model(training, random_weights(TINY), identities=4, cameras=3, seed=1)
    options = {"training": training, "seed": seed, "engine": ENGINE}
    return visual_stage("", model, torch.zeros(4, TINY.embed), dataset, [], **options)


def test_every_epoch_has_batches_of_its_own_which_repeat_by_seed(settings: Config) -> None:
    for make in (contexts_stage, lambda seed: clips_stage(settings, seed)):
        epochs = [str(make(1).batches(epoch)) for epoch in range(4)]
        assert len(set(epochs)) == 4
        assert str(make(1).batches(2)) == epochs[2]
        assert str(make(2).batches(0)) != epochs[0]


def test_stage_1_draws_each_image_once_an_epoch() -> None:
    assert torch.cat(contexts_stage().batches(3)).sort().values.tolist() == list(range(8))
    with pytest.raises(UserError, match=r"stage1\.batch_size is 10 but there are only 8"):
        contexts_stage(batch_size=10)


def test_stage_2_loads_the_clips_that_it_draws(settings: Config) -> None:
    stage, dataset = clips_stage(settings, 1), training_clips(settings, "all", 1, None)
    keys = stage.batches(0)[:2]
    for batch, draws in zip(stage.load(keys), keys, strict=True):
        assert batch.seed == tuple(draw.seed for draw in draws)
        assert torch.equal(batch.frames, dataset.load(draws).frames)


def test_stage_1_is_contrastive_in_both_directions() -> None:
    stage = contexts_stage()
    images, labels = next(iter(stage.load([torch.tensor([0, 1, 4, 6])])))
    assert labels.tolist() == [0, 0, 2, 2]
    terms = stage.loss((images, labels)).terms
    texts = stage.tensors["identity"][labels].double().tolist()
    rows, y = images.double().tolist(), labels.tolist()
    assert {name: term.item() for name, term in terms.items()} == {
        "image_to_text": pytest.approx(slow_contrastive(rows, texts, y), rel=1e-5),
        "text_to_image": pytest.approx(slow_contrastive(texts, rows, y), rel=1e-5),
    }
    (group,) = stage.groups
    assert (group.lr, group.weight_decay) == (Stage1().lr, Stage1().weight_decay)


def test_the_bank_has_a_text_feature_of_every_identity() -> None:
    contexts = Contexts()
    stands: Any = contexts, nn.Identity()
    assert torch.equal(text_bank(*stands, rows=2), contexts.identity)


@pytest.mark.parametrize("view", ["clean", "augmented"])
def test_stage_1_caches_the_features_of_the_view(settings: Config, view: str) -> None:
    training = settings.trainings["all"].model_copy(
        update={"stage1": Stage1(view=view, batch_size=4, instances=2)}
    )
    weights = random_weights(TINY)
    dataset = training_clips(settings, "all", 3, None)
    features, labels = cache_images(dataset, training, weights, seed=3, engine=ENGINE)
    drawn = pk_batches(
        dataset.labels,
        stage="stage1",
        batch_size=4,
        instances=2,
        seed=derive_seed(3, "stage 1 views"),
        epoch=0,
    )
    batch = dataset.load([draw for draws in drawn for draw in draws])
    clips = {
        "clean": normalize(batch.frames),
        "augmented": augment(batch.frames, options=training.augment, seeds=batch.seed),
    }
    assert not torch.equal(clips["clean"], clips["augmented"])
    model = build_model(training, weights, identities=1, cameras=1, seed=0).eval()
    with torch.inference_mode():
        expected = model.plain_clip(clips[view])
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-4)
    assert torch.equal(labels, batch.label)


def test_identities_held_out_are_not_trained_on(settings: Config) -> None:
    everyone = set(identities_of(read_split(Path("results/small/index/train.parquet"))))
    some, whole = (
        identities_of(training_clips(settings, n, 1, None).tracklets) for n in ("one", "all")
    )
    assert (len(everyone), len(some), set(some) < everyone) == (4, 2, True)
    assert set(whole) == everyone


def test_metadata_is_hidden_for_that_share_of_clips_whole_and_by_seed() -> None:
    metadata = torch.rand(1000, 3)
    for probability in (0.0, 0.2, 1.0):
        hidden = hide_metadata(metadata, probability, range(1000))
        unknown = hidden.isnan()
        assert (unknown.all(dim=1) == unknown.any(dim=1)).all()
        assert unknown[:, 0].float().mean().item() == pytest.approx(probability, abs=0.04)
        assert torch.equal(hidden[~unknown], metadata[~unknown])
    again = hide_metadata(metadata[500:], 0.2, range(500, 1000))
    torch.testing.assert_close(
        again, hide_metadata(metadata, 0.2, range(1000))[500:], equal_nan=True
    )


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2), "a": torch.zeros(3)}
    facts = {"seed": 1, "identities": [1, 2], "backbone": "abc", "model": {"stride": 0}}
    files = [tmp_path / f"{number}.safetensors" for number in range(8)]
    for file in files:
        save_tensors(file, tensors, facts)
    assert len({file.read_bytes() for file in files}) == 1
    loaded, found = load_tensors(files[0], made_by="reid train stage1")
    assert found == facts
    assert loaded.keys() == tensors.keys()
