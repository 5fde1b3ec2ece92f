"""The picture of the README is the one that its script draws."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"


def test_the_picture_is_up_to_date(tmp_path: Path) -> None:
    drawn, kept = tmp_path / "scale.png", IMAGES / "scale.png"
    subprocess.run([sys.executable, IMAGES / "scale.py", drawn], check=True)
    assert kept.stat().st_size < 300_000
    with Image.open(drawn) as one, Image.open(kept) as other:
        assert one.size == other.size
        difference = np.abs(np.asarray(one.convert("RGB"), int) - np.asarray(other.convert("RGB")))
    # Rounding of the renderer may dither another pixel; people and texts stay.
    assert difference.mean() < 2, "run docs/images/scale.py"
