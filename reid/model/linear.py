"""Linear layers, on a CPU at the full width of its vectors.

There torch gives float32 products to MKL, which uses half of the vector width of processors that
Intel did not make. oneDNN, which comes with torch too, treats them all alike: twice as fast on an
AMD processor with AVX-512 (benchmarks/RESULTS.md). Its operation has no gradient, and its rounding
depends on the number of rows, so training, whose batches are split in several ways, keeps to MKL.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

AVAILABLE = hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether this torch has oneDNN's operation: not all builds do."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, as F.linear: (..., K), (N, K), (N,) -> (..., N)."""
    return product(x, weight, bias) if by_onednn(x) else F.linear(x, weight, bias)


def by_onednn(x: Tensor) -> bool:
    """Whether `linear` of this calls oneDNN."""
    return (
        not torch.compiler.is_compiling()
        and not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.dim() >= 2
        and x.numel() > 0
        and AVAILABLE
        and not torch.is_autocast_enabled("cpu")
    )


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """left @ right.T + bias by oneDNN: (..., K), (N, K), (N,) float32 on the CPU -> (..., N)."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(
        left.contiguous(), right.contiguous(), bias, "none", [], ""
    )
    return out


def _operations(left: torch.Size, right: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * left.numel() * right[0]


OPERATIONS = {torch.ops.mkldnn._linear_pointwise: _operations} if AVAILABLE else {}
"""For torch's FlopCounterMode, which does not know it."""
