"""Speed of a stage-2 step against the same mathematics written naively.

    OMP_NUM_THREADS=1 python -m benchmarks.train_step --rounds 5
    python -m benchmarks.train_step --device cuda --precision bf16 --compile --batch 24 --frames 16

A step: embed the batch, eight loss terms, backward, Adam. The naive one goes through the text
tower for its labels and has an optimizer group per tensor, as the released code. Loading and
augmentation are not in it. Both train adapters, prompts, pools, necks and heads.
"""

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch

from benchmarks.measure import describe_machine
from benchmarks.towers import DTYPES, SHAPES, Pair, head, make_pair, peak, table, take_turns, work
from reid.config import FineTune, Losses, Stage2
from reid.model.param_groups import trainable_groups
from reid.train.losses import stage2_loss


def steps(pair: Pair, *, autocast: Callable[[], object]) -> dict[str, Callable[[], float]]:
    """A training step of each network; each returns its loss."""
    groups = trainable_groups(pair.reid, finetune=FineTune(), stage2=Stage2())
    ours = torch.optim.Adam(
        [
            {"params": list(g.parameters.values()), "lr": g.lr, "weight_decay": g.weight_decay}
            for g in groups
        ],
        fused=True,
    )
    pair.naive.freeze()
    theirs = torch.optim.Adam(
        [
            {"params": [p], "lr": 1e-4, "weight_decay": 2.5e-4}
            for p in pair.naive.parameters()
            if p.requires_grad
        ]
    )
    pair.reid.train()
    pair.naive.train()
    released_order = pair.released_order

    def reid() -> float:
        with autocast():
            features = pair.reid(pair.clips, pair.cameras, pair.metadata)
            logits = pair.reid.classify(features)
        loss = stage2_loss(features, logits, pair.bank, pair.labels, Losses()).total
        ours.zero_grad(set_to_none=True)
        loss.backward()
        ours.step()
        return loss.item()

    def naive() -> float:
        with autocast():
            loss = pair.naive.loss(released_order, pair.cameras, pair.labels, pair.bank)
        theirs.zero_grad(set_to_none=True)
        loss.backward()
        theirs.step()
        return loss.item()

    return {"reid": reid, "naive": naive}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, help="tracklets; each shape has its own default")
    parser.add_argument("--frames", type=int, help="of a tracklet")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=list(DTYPES), help="by autocast")
    parser.add_argument("--compile", action="store_true", help="torch.compile our blocks")
    parser.add_argument("--checkpointing", action="store_true", help="recompute our blocks")
    options = parser.parse_args()
    device, dtype = torch.device(options.device), DTYPES[options.precision]
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here: GPU figures are not measured")

    def autocast() -> object:
        if dtype == torch.float32:
            return nullcontext()
        return torch.autocast(device.type, dtype)

    print(describe_machine(), f"; {torch.get_num_threads()} threads of torch")
    best = peak(device, dtype)
    print(f"measured peak of a matrix product: {best / 1e12:.3g} TFLOP/s {options.precision}\n")
    print("\n".join(head(device)))
    for name in options.shapes:
        shape = SHAPES[name]
        shape = replace(
            shape,
            tracklets=options.batch or shape.tracklets,
            frames=options.frames or shape.frames,
        )
        pair = make_pair(shape, device)
        difference = pair.difference()
        calls = steps(pair, autocast=autocast)
        pair.reid.visual.checkpointing = options.checkpointing
        if options.compile:
            for block in pair.reid.visual.blocks:
                block.compile()
        first = {label: call() for label, call in calls.items()}
        memory = {}
        if device.type == "cuda":
            for label, call in calls.items():
                torch.cuda.reset_peak_memory_stats()
                call()
                memory[label] = torch.cuda.max_memory_allocated()
        found = take_turns(calls, options.rounds, device)
        rows = table(
            f"{name}, {shape.tracklets} x {shape.frames}",
            found,
            frames=shape.all_frames,
            flops=work(shape).training,
            peak=best,
            memory=memory,
        )
        print("\n".join(rows), flush=True)
        print(
            f"<!-- features differ by {difference:.1e}, first losses "
            f"{first['reid']:.6f} and {first['naive']:.6f} -->"
        )


if __name__ == "__main__":
    main()
