"""Runtime knobs change speed and memory, not the loss or the gradient."""

import multiprocessing
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from reid.config import Adapters, Clip, ColorJitter, Model, Pooling, Prompts, Runtime, Training
from reid.data.dataset import Batch
from reid.errors import UserError
from reid.model.network import VideoReID
from reid.model.param_groups import trainable_groups
from reid.model.vit import VIT_L14, Geometry
from reid.train import memory
from reid.train.distributed import World, join, leave
from reid.train.engine import Engine
from reid.train.interrupt import Interrupt
from reid.train.stage2 import WholeBatch, batch_loss, build_model, prepare
from tests.clips import TINY, random_weights

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


def engine(
    precision: Literal["fp32", "bf16", "fp16"] = "fp32", world: World | None = None
) -> Engine:
    return Engine(torch.device("cpu"), Interrupt(), precision, world or World())


def a_batch(rows: slice = slice(None)) -> WholeBatch:
    rng = torch.Generator().manual_seed(3)
    whole = Batch(
        frames=torch.randint(256, (8, 2, 3, 32, 32), generator=rng, dtype=torch.uint8),
        label=LABELS,
        camera=torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]),
        metadata=torch.tensor([[10.0, 20.0, 30.0]]).repeat(8, 1),
        heights=10 + 50 * torch.rand(8, 2, generator=rng),
        index=torch.arange(8),
        seed=tuple(range(8)),
    )
    own = Batch(
        **{
            name: getattr(whole, name)[rows]
            for name in ("frames", "label", "camera", "metadata", "heights", "index", "seed")
        }
    )
    return WholeBatch(own, LABELS)


def a_model(runtime: Runtime | None = None) -> VideoReID:
    model = build_model(TRAINING, random_weights(TINY), identities=3, cameras=3, seed=0)
    trainable_groups(model, finetune=TRAINING.finetune, stage2=TRAINING.stage2)
    model.train()
    prepare(model, runtime or Runtime(device="cpu"), TRAINING, engine())
    return model


def step(
    model: VideoReID,
    *,
    micro_batch: int = 0,
    batch: WholeBatch | None = None,
    runs_on: Engine | None = None,
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Loss terms and gradients of one step, and the BN statistics after it."""
    bank = torch.randn(3, TINY.embed, generator=torch.Generator().manual_seed(1))
    outcome = batch_loss(
        model,
        bank,
        batch or a_batch(),
        TRAINING,
        engine=runs_on or engine(),
        micro_batch=micro_batch,
    )
    torch.stack(list(outcome.terms.values())).sum().backward()
    if outcome.after_backward:
        outcome.after_backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    buffers = {name: buffer.clone().float() for name, buffer in model.named_buffers()}
    return {name: term.item() for name, term in outcome.terms.items()}, gradients | buffers


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
def whole() -> tuple[dict[str, float], dict[str, Tensor]]:
    return step(a_model())


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 8])
def test_micro_batches_give_the_loss_and_gradient_of_the_whole(
    whole: tuple[dict[str, float], dict[str, Tensor]], micro_batch: int
) -> None:
    terms, gradients = step(a_model(), micro_batch=micro_batch)
    assert_equal(terms, whole[0], 1e-6)
    assert_equal(gradients, whole[1], 1e-5)


def test_activation_checkpointing_gives_the_same(
    whole: tuple[dict[str, float], dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from reid.model import vit

    used = []
    original = vit.checkpoint
    monkeypatch.setattr(vit, "checkpoint", lambda *a, **k: (used.append(1), original(*a, **k))[1])
    terms, gradients = step(a_model(Runtime(device="cpu", activation_checkpointing=True)))
    assert len(used) == TINY.depth - 1
    assert_equal(terms, whole[0], 1e-6)
    assert_equal(gradients, whole[1], 1e-6)


def test_compile_gives_the_same(
    whole: tuple[dict[str, float], dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Traced and differentiated as always, but run by torch's own kernels: the C++ that is
    # otherwise generated takes minutes to build on two cores.
    original = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module: original(module, backend="aot_eager")
    )
    model = a_model(Runtime(device="cpu", compile=True))
    assert all(block._compiled_call_impl is not None for block in model.visual.blocks)
    terms, gradients = step(model)
    assert_equal(terms, whole[0], 1e-5)
    assert_equal(gradients, whole[1], 1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_is_near_and_really_mixed(
    whole: tuple[dict[str, float], dict[str, Tensor]], precision: Literal["bf16", "fp16"]
) -> None:
    terms, _ = step(a_model(), runs_on=engine(precision))
    assert_equal(terms, whole[0], 0.05)
    assert terms != whole[0]


def _rank(rank: int, port: int, out: Any) -> None:
    torch.set_num_threads(1)
    environment = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    import os

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    world = join(environment, cuda=False)
    rows = world.share(8)
    results = []
    for micro_batch in (0, 2):
        terms, gradients = step(
            a_model(),
            batch=a_batch(rows),
            runs_on=engine(world=world),
            micro_batch=micro_batch,
        )
        results.append((terms, {name: g.numpy() for name, g in gradients.items()}))
    leave(world)
    out.put((rank, results))


def test_two_processes_give_the_loss_and_gradient_of_one(
    whole: tuple[dict[str, float], dict[str, Tensor]],
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    out: Any = context.Queue()
    processes = [context.Process(target=_rank, args=(rank, port, out)) for rank in (0, 1)]
    for process in processes:
        process.start()
    found = dict(out.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    for rank in (0, 1):
        for terms, gradients in found[rank]:
            assert_equal(terms, whole[0], 1e-6)
            assert_equal({n: torch.from_numpy(g) for n, g in gradients.items()}, whole[1], 1e-6)


def test_batch_must_divide_among_processes() -> None:
    with pytest.raises(UserError, match="batch_size \\(8\\) must be a multiple of the 3 processes"):
        World(rank=0, size=3).share(8)


def meta_model(geometry: Geometry) -> VideoReID:
    training = Training(
        model=Model(stride=14, prompts=Prompts(length=4), pooling=Pooling(kind="attention")),
        finetune={"blocks": 2},
    )
    with torch.device("meta"):
        model = VideoReID(
            training.model, geometry, num_classes=185, num_cameras=3, image_size=(256, 128)
        )
    trainable_groups(model, finetune=training.finetune, stage2=training.stage2)
    return model


def test_memory_estimate_reproduces_the_measured_bytes_per_frame() -> None:
    model = meta_model(VIT_L14)
    need = memory.estimate(model, half=False, activation_checkpointing=False)
    assert need.frame == pytest.approx(269e6, rel=0.03)  # MODEL section 5


def test_l14_says_before_it_starts_what_fits_a_40_gb_card() -> None:
    model, card = meta_model(VIT_L14), 39 * 2**30
    need = memory.estimate(model, half=True, activation_checkpointing=False)
    with pytest.raises(UserError, match=r"set runtime\.micro_batch to 12"):
        memory.check(need, available=card, tracklets=24, frames=16, batch=24)
    memory.check(need, available=card, tracklets=12, frames=16, batch=24)
    spare = memory.estimate(model, half=True, activation_checkpointing=True)
    memory.check(spare, available=card, tracklets=24, frames=16, batch=24)
    with pytest.raises(UserError, match="not one tracklet fits"):
        memory.check(need, available=4 * 2**30, tracklets=24, frames=16, batch=24)


def test_interrupt_keeps_time_for_the_next_step() -> None:
    now = 0.0
    interrupt = Interrupt(time_limit=1000, clock=lambda: now)
    now = 900
    assert interrupt.due(needed=60) is None
    now = 915
    assert interrupt.due(needed=60) is not None


def test_journal_is_cut_back_on_resume(tmp_path: Path) -> None:
    from reid.train.journal import Journal

    path = tmp_path / "metrics.jsonl"
    journal = Journal(path)
    journal.write({"loss": 1.0})
    offset = journal.sync()
    journal.write({"loss": np.inf})
    journal.close()
    assert path.read_text() == '{"loss": 1.0}\n{"loss": null}\n'
    Journal(path, offset).close()
    assert path.read_text() == '{"loss": 1.0}\n'
    with pytest.raises(UserError, match="fewer than the 99"):
        Journal(path, 99)
