"""Speed of feature extraction against the same mathematics written naively.

    OMP_NUM_THREADS=1 python -m benchmarks.extract --rounds 7
    python -m benchmarks.extract --device cuda --precision bf16 --compile --batch 16 --frames 16

One batch through `embed`; no loading. `naive` runs without a graph too; `naive, graph` keeps one,
as the released evaluation does.
"""

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch

from benchmarks.measure import describe_machine
from benchmarks.towers import DTYPES, SHAPES, Pair, head, make_pair, peak, table, take_turns, work


def calls(pair: Pair, *, autocast: Callable[[], object]) -> dict[str, Callable[[], object]]:
    """An extraction batch of each."""
    pair.reid.eval()
    pair.naive.eval()
    released_order = pair.released_order

    def reid() -> object:
        with torch.inference_mode(), autocast():
            return pair.reid.embed(pair.clips, pair.cameras, pair.metadata)

    def naive() -> object:
        with torch.inference_mode(), autocast():
            return pair.naive.embed(released_order, pair.cameras)

    def graph() -> object:
        with autocast():
            return pair.naive.embed(released_order, pair.cameras)

    return {"reid": reid, "naive": naive, "naive, graph": graph}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, help="tracklets; each shape has its own default")
    parser.add_argument("--frames", type=int, help="of a tracklet")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=list(DTYPES), help="by autocast")
    parser.add_argument("--compile", action="store_true", help="torch.compile our blocks")
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
        if options.compile:
            for block in pair.reid.visual.blocks:
                block.compile()
        batches = calls(pair, autocast=autocast)
        memory = {}
        if device.type == "cuda":
            for label, call in batches.items():
                torch.cuda.reset_peak_memory_stats()
                call()
                memory[label] = torch.cuda.max_memory_allocated()
        rows = table(
            f"{name}, {shape.tracklets} x {shape.frames}",
            take_turns(batches, options.rounds, device),
            frames=shape.all_frames,
            flops=work(shape).extraction,
            peak=best,
            memory=memory,
        )
        print("\n".join(rows), flush=True)
        print(f"<!-- features differ by {difference:.1e} -->")


if __name__ == "__main__":
    main()
