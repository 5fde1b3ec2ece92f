"""Embed a batch in pieces, take the loss on the whole.

Triplet and contrastive terms relate all tracklets of a batch, so gradients of parts cannot simply
be added. Features of every piece are computed first, without a graph; the loss on all of them
gives the gradient of each feature; then each piece is embedded again, with a graph, to carry its
part of it into the parameters. Exact, at the price of one more forward pass. The same holds
across processes, each with its own pieces.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from reid.train.distributed import World

Piece = TypeVar("Piece")


def embed_whole(
    embed: Callable[[Piece], tuple[Tensor, ...]],
    pieces: Sequence[Piece],
    *,
    world: World,
    parameters: Sequence[nn.Parameter],
) -> tuple[tuple[Tensor, ...], Callable[[], None] | None]:
    """Features of the whole batch, and what to call after their loss's backward, if anything.

    `embed` maps a piece to feature tensors (n, C). One piece in one process needs no second
    pass: its features carry their graph. `parameters`: those that `embed` reads.
    """
    if len(pieces) == 1:
        own = embed(pieces[0])
        if world.size == 1:
            return own, None
        graphs = [own]
        parts = [tuple(each.detach() for each in own)]
    else:
        graphs = []
        with torch.no_grad():
            parts = [embed(piece) for piece in pieces]
    local = [torch.cat(each) for each in zip(*parts, strict=True)]
    leaves = tuple(world.gather(each).detach().requires_grad_() for each in local)
    begin = world.rank * len(local[0])

    def carry_on() -> None:
        start = begin
        for number, piece in enumerate(pieces):
            again = graphs[number] if graphs else embed(piece)
            rows = slice(start, start + len(again[0]))
            start = rows.stop
            pairs = [
                (feature, leaf.grad[rows].to(feature.dtype))
                for feature, leaf in zip(again, leaves, strict=True)
                if leaf.grad is not None
            ]
            torch.autograd.backward([f for f, _ in pairs], [gradient for _, gradient in pairs])
        world.sum_gradients(parameters)

    return leaves, carry_on
