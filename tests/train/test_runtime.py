"""Options of `runtime` change speed and memory, not the loss or the gradient."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import reid.model.vit as vit
from reid.config import Adapters, Clip, ColorJitter, Model, Pooling, Prompts, Runtime, Training
from reid.data.dataset import Batch
from reid.errors import UserError
from reid.model.network import VideoReID
from reid.model.param_groups import trainable_groups
from reid.model.vit import VIT_L14
from reid.train import memory
from reid.train.common import build_model
from reid.train.distributed import World
from reid.train.interrupt import Interrupt
from reid.train.session import Engine
from reid.train.stage2 import batch_loss, prepare
from tests.clips import TINY, random_weights
from tests.runs import STAGE2, Lab
from tests.train.conftest import at_call

TRAINING = Training(
    clip=Clip(frames=2, height=32, width=32),
    model=Model(
        prompts=Prompts(depth=2, length=2),
        adapters=Adapters(width=64),
        pooling=Pooling(kind="attention"),
    ),
    augment={"color_jitter": ColorJitter(brightness=0.1), "pad": 2},
    finetune={"blocks": 1},
)
LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 0, 0])
Numbers = tuple[dict[str, float], dict[str, Tensor]]
"""Loss terms; gradients and BN statistics."""


def a_batch() -> Batch:
    rng = torch.Generator().manual_seed(3)
    return Batch(
        frames=torch.randint(256, (8, 2, 3, 32, 32), generator=rng, dtype=torch.uint8),
        label=LABELS,
        camera=torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]),
        metadata=torch.tensor([[10.0, 20.0, 30.0]]).repeat(8, 1),
        heights=10 + 50 * torch.rand(8, 2, generator=rng),
        index=torch.arange(8),
        seed=tuple(range(8)),
    )


def step(**runtime: Any) -> Numbers:
    """One step of stage 2 with these runtime options, but for the optimizer's part."""
    options = Runtime(device="cpu", **runtime)
    engine = Engine(torch.device("cpu"), Path(), Interrupt(), options)
    model = build_model(TRAINING, random_weights(TINY), identities=3, cameras=3, seed=0)
    trainable_groups(model, finetune=TRAINING.finetune, stage2=TRAINING.stage2)
    prepare(model.train(), options)
    bank = torch.randn(3, TINY.embed, generator=torch.Generator().manual_seed(1))
    loss = batch_loss(model, bank, a_batch(), TRAINING, engine=engine)
    loss.total.backward()
    if loss.after_backward:
        loss.after_backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    buffers = {name: buffer.clone().float() for name, buffer in model.named_buffers()}
    return {name: term.item() for name, term in loss.terms.items()}, gradients | buffers


def assert_equal(got: Mapping[str, Any], wanted: Mapping[str, Any], tolerance: float) -> None:
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(
            torch.as_tensor(got[name]),
            torch.as_tensor(value),
            atol=tolerance * max(1.0, float(torch.as_tensor(value).abs().max())),
            rtol=0,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.fixture(scope="module")
def whole() -> Numbers:
    return step()


@pytest.mark.parametrize(
    "options",
    [{"micro_batch": size} for size in (1, 3, 8)] + [{"activation_checkpointing": True}],
    ids=str,
)
def test_the_loss_and_gradient_of_the_whole_batch_in_less_memory(
    whole: Numbers, options: dict[str, Any]
) -> None:
    terms, gradients = step(**options)
    assert_equal(terms, whole[0], 1e-6)
    assert_equal(gradients, whole[1], 1e-5)


def test_micro_batches_are_that_small_and_activations_checkpointed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes, checkpointed = [], []
    forward, checkpoint = VideoReID.forward, vit.checkpoint

    def count(self: VideoReID, clips: Tensor, *arguments: Any) -> Any:
        sizes.append(len(clips))
        return forward(self, clips, *arguments)

    def count_blocks(*arguments: Any, **options: Any) -> Any:
        checkpointed.append(torch.is_grad_enabled())
        return checkpoint(*arguments, **options)

    monkeypatch.setattr(VideoReID, "forward", count)
    monkeypatch.setattr(vit, "checkpoint", count_blocks)
    step(micro_batch=3, activation_checkpointing=True)
    assert sizes == [3, 3, 2] * 2
    assert checkpointed.count(True) == 3 * (TINY.depth - 1)


def test_compile_gives_the_same(whole: Numbers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Traced and differentiated as always, but run by torch's own kernels: the C++ that is
    # otherwise generated takes minutes to build on two cores.
    compiled = []

    def compile_module(module: torch.nn.Module) -> None:
        compiled.append(module)
        torch.nn.Module._original_compile(module, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "_original_compile", torch.nn.Module.compile, False)
    monkeypatch.setattr(torch.nn.Module, "compile", compile_module)
    terms, gradients = step(compile=True)
    assert len(compiled) == TINY.depth
    assert_equal(terms, whole[0], 1e-5)
    assert_equal(gradients, whole[1], 1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_is_near_and_really_mixed(whole: Numbers, precision: str) -> None:
    terms, _ = step(precision=precision)
    assert_equal(terms, whole[0], 0.05)
    assert terms != whole[0]


def test_a_batch_must_divide_among_processes() -> None:
    with pytest.raises(UserError, match=r"batch_size \(8\) must be a multiple of the 3 processes"):
        World(rank=0, size=3).share(8)


def test_a_gpu_without_enough_memory_is_one_line_of_advice(lab: Lab) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("Tried to allocate 20 GiB")

    assert lab.finish(*STAGE2, before=at_call(torch.optim.Adam, "step", 2, fail)) == 1
    assert re.search(r"GPU is out of memory .Tried to allocate 20 GiB.*micro_batch", lab.log())
    assert '"event": "failed"' in (lab.work() / "attempts.jsonl").read_text().splitlines()[-1]


def test_interrupt_keeps_time_for_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    interrupt = Interrupt(time_limit=1000)
    now = 900
    assert interrupt.due(needed=60) is None
    now = 915
    assert interrupt.due(needed=60) is not None


def test_the_memory_estimate_names_the_micro_batch_that_fits() -> None:
    training = Training(
        model=Model(stride=14, prompts=Prompts(length=4), pooling=Pooling(kind="attention")),
        finetune={"blocks": 2},
        stage2={"batch_size": 24},
    )
    with torch.device("meta"):
        model = VideoReID(
            training.model, VIT_L14, num_classes=185, num_cameras=3, image_size=(256, 128)
        )
    trainable_groups(model, finetune=training.finetune, stage2=training.stage2)
    _, frame = memory.estimate(model, half=False, activation_checkpointing=False)
    assert frame == pytest.approx(269e6, rel=0.03)  # MODEL section 5

    def check(gib: float, **runtime: Any) -> None:
        options = Runtime(device="cpu", precision="bf16", **runtime)
        engine = Engine(torch.device("cpu"), Path(), Interrupt(), options)
        memory.check(model, training, engine, available=int(gib * 2**30))

    with pytest.raises(UserError, match=r"24 tracklets of 16 .* runtime\.micro_batch to 12"):
        check(39)
    check(39, micro_batch=12)
    check(39, activation_checkpointing=True)
    with pytest.raises(UserError, match="not even one tracklet fits"):
        check(4)
