"""Gradient caching (GradCache): the loss of a whole batch from micro-batches that fit in memory.

Triplet and contrastive terms relate all tracklets of a batch, so gradients of micro-batches cannot
simply be added up. All features are computed first, without a graph; the loss on them gives the
gradient of each feature; then each micro-batch is embedded again, with a graph, and its part of
that gradient is backpropagated. Exact, for one more forward pass. The same holds across processes,
each with its share of the batch.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from reid.train.distributed import World

MicroBatch = TypeVar("MicroBatch")


def embed_batch(
    embed: Callable[[MicroBatch], tuple[Tensor, ...]],
    micro_batches: Sequence[MicroBatch],
    *,
    world: World,
    parameters: Sequence[nn.Parameter],
) -> tuple[tuple[Tensor, ...], Callable[[], None] | None]:
    """Features of the whole batch, and a function to call after `backward` of their loss, if any.

    `embed` maps a micro-batch to feature tensors (n, C). With one micro-batch in one process the
    features carry their graph and nothing is left to call. `parameters`: those that `embed` uses.
    """
    if len(micro_batches) == 1 and world.size == 1:
        return embed(micro_batches[0]), None
    graphs = [embed(micro_batches[0])] if len(micro_batches) == 1 else []
    if graphs:
        cached = [tuple(feature.detach() for feature in graphs[0])]
    else:
        with torch.no_grad():
            cached = [embed(micro_batch) for micro_batch in micro_batches]
    share = [torch.cat(parts) for parts in zip(*cached, strict=True)]
    leaves = tuple(world.gather(features).requires_grad_() for features in share)

    def backpropagate() -> None:
        start = world.rank * len(share[0])
        for number, micro_batch in enumerate(micro_batches):
            features = graphs[number] if graphs else embed(micro_batch)
            rows = slice(start, start + len(features[0]))
            start = rows.stop
            pairs = [
                (feature, leaf.grad[rows].to(feature.dtype))
                for feature, leaf in zip(features, leaves, strict=True)
                if leaf.grad is not None
            ]
            torch.autograd.backward([f for f, _ in pairs], [gradient for _, gradient in pairs])
        world.sum_gradients(parameters)

    return leaves, backpropagate
