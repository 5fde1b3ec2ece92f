"""Prompt-based cross-view conditioning, PBP (paper Sec. 3.1; MODEL 4.2 and 6).

E_i = camera[c] + altitude[b1] + distance[b2] + angle[b3]: the camera bank as in the released
code; the metadata banks are our reading of the paper's 18 / 18 / 3 bins (an interpretation).
"""

import torch
from torch import Tensor, nn

from reid.config import Prompts

MAXIMUM_METRES = 120.0
"""Altitudes and distances of the benchmark end here."""
ANGLES = (30.0, 60.0, 90.0)
"""Viewing angles of the benchmark, in degrees."""


def meter_bins(meters: Tensor, bins: int) -> Tensor:
    """Uniform bins on [0, 120] m; unknown (NaN) is the extra bin `bins`. (B,) -> (B,) int64."""
    known = torch.nan_to_num(meters, nan=0.0)
    uniform = (known / MAXIMUM_METRES * bins).long().clamp(0, bins - 1)
    return torch.where(meters.isnan(), bins, uniform)


def angle_bins(degrees: Tensor) -> Tensor:
    """Index of the nearest of 30, 60, 90 degrees; unknown (NaN) is 3. (B,) -> (B,) int64."""
    grid = torch.tensor(ANGLES, device=degrees.device, dtype=degrees.dtype)
    nearest = (torch.nan_to_num(degrees)[:, None] - grid).abs().argmin(dim=1)
    return torch.where(degrees.isnan(), len(ANGLES), nearest)


class ConditionalPrompts(nn.Module):
    """Learned prompt banks by camera and by capture geometry, one per prompted block."""

    def __init__(self, options: Prompts, *, cameras: int, width: int) -> None:
        super().__init__()
        self.options = options

        def bank(rows: int, std: float) -> nn.Parameter:
            table = torch.zeros(options.depth, options.length, rows, width)
            return nn.Parameter(nn.init.trunc_normal_(table, std=std) if std else table)

        self.camera = bank(cameras, 0.02) if options.camera else None
        # Zero at the start: training begins as the camera-only prompts of the released code.
        # Without a camera bank they must differ, or nothing breaks their symmetry.
        std = 0.0 if options.camera else 0.02
        self.altitude = bank(options.altitude_bins + 1, std) if options.metadata else None
        self.distance = bank(options.distance_bins + 1, std) if options.metadata else None
        self.angle = bank(len(ANGLES) + 1, std) if options.metadata else None
        self.requires_grad_(options.train)

    def forward(self, cameras: Tensor, metadata: Tensor) -> tuple[Tensor, ...]:
        """Cameras (B,) and metadata (B, 3) [m, m, degrees; NaN unknown] -> K of (B, P, d)."""
        rows = {
            "camera": cameras,
            "altitude": meter_bins(metadata[:, 0], self.options.altitude_bins),
            "distance": meter_bins(metadata[:, 1], self.options.distance_bins),
            "angle": angle_bins(metadata[:, 2]),
        }
        chosen = [table[:, :, rows[name]] for name, table in self.named_parameters(recurse=False)]
        total = torch.stack(chosen).sum(dim=0) if len(chosen) > 1 else chosen[0]
        return total.transpose(1, 2).unbind()
