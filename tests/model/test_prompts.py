"""Conditional prompts: the rows that a capture geometry picks, and their sum (MODEL 4.2, 6)."""

import math

import pytest
import torch

from reid.config import Prompts
from reid.model.prompts import ConditionalPrompts

NAN = math.nan
BINS = [
    # meters of 18 uniform bins on [0, 120]: 6.67 m each; unknown is bin 18
    (0.0, 0), (6.6, 0), (6.7, 1), (60.0, 9), (119.9, 17), (120.0, 17), (130.0, 17), (NAN, 18),
]  # fmt: skip
ANGLES = [(30.0, 0), (44.0, 0), (46.0, 1), (60.0, 1), (76.0, 2), (90.0, 2), (NAN, 3)]


def prompts(**options: bool) -> ConditionalPrompts:
    """Prompts in which every number of every table is another one."""
    module = ConditionalPrompts(Prompts(length=2, depth=3, **options), cameras=3, width=4)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for table in module.parameters():
            table.copy_(torch.randn(table.shape, generator=generator))
    return module


@pytest.mark.parametrize(
    ("column", "table", "value", "row"),
    [(0, "altitude", value, row) for value, row in BINS]
    + [(1, "distance", value, row) for value, row in BINS]
    + [(2, "angle", value, row) for value, row in ANGLES],
)
def test_each_value_picks_its_bin(column: int, table: str, value: float, row: int) -> None:
    module = prompts(camera=False)
    metadata = torch.full((1, 3), NAN)
    metadata[0, column] = value
    unknown = {"altitude": 18, "distance": 18, "angle": 3} | {table: row}
    expected = sum(getattr(module, name)[:, :, place] for name, place in unknown.items())
    blocks = module(torch.tensor([0]), metadata)
    torch.testing.assert_close(torch.stack(blocks)[:, 0], expected)


def test_a_prompt_is_the_sum_of_camera_and_metadata_tables() -> None:
    module = prompts()
    cameras = torch.tensor([2, 0])
    metadata = torch.tensor([[30.0, 80.0, 60.0], [NAN, NAN, NAN]])
    blocks = module(cameras, metadata)
    assert len(blocks) == 3
    rows = {"camera": (2, 0), "altitude": (4, 18), "distance": (12, 18), "angle": (1, 3)}
    expected = sum(getattr(module, name)[:, :, list(pair)] for name, pair in rows.items())
    torch.testing.assert_close(torch.stack(blocks), expected.transpose(1, 2))


def test_metadata_tables_start_at_zero_beside_a_camera_table() -> None:
    torch.manual_seed(0)
    both = ConditionalPrompts(Prompts(), cameras=3, width=64)
    assert not any(t.any() for t in (both.altitude, both.distance, both.angle))
    assert both.camera.detach().std() == pytest.approx(0.02, rel=0.1)
    alone = ConditionalPrompts(Prompts(camera=False), cameras=3, width=64)
    assert alone.camera is None
    assert all(t.detach().std() == pytest.approx(0.02, rel=0.1) for t in alone.parameters())
