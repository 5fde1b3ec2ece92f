"""From the bytes of a JPEG to a frame of a clip, by torchvision.

The released code decodes and resizes with Pillow. Decoded pixels are the same (both use libjpeg);
resized ones are within two gray levels of Pillow's for photographs (tested). torchvision resizes
rows, then columns, as Pillow before version 13; Pillow 13 swaps them for some sizes, which on pure
noise, whose overshoot is clipped in between, makes up to 25 levels.
"""

from io import BytesIO

import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from reid.errors import UserError

_CROP_BYTES = 1 << 18
"""Larger files are no crops: their size in pixels is looked at before they are decoded."""
_MOST_PIXELS = 1 << 26


def decode(data: bytes, *, name: str) -> Tensor:
    """Decode a JPEG to uint8 (3, h, w) RGB.

    `name` stands for the file in errors. Raises UserError when `data` is not a whole JPEG of a
    reasonable size.
    """
    try:
        if len(data) > _CROP_BYTES:
            with Image.open(BytesIO(data), formats=("JPEG",)) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels are too many")
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        pixels: Tensor = decode_jpeg(encoded, mode=ImageReadMode.RGB)
        return pixels
    except (RuntimeError, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0].partition(":")[0]
        raise UserError(
            f"{name} is not a whole JPEG ({reason}): replace or delete it and run `reid index`"
        ) from None


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 (3, h, w) to (3, height, width): bicubic, antialiased when it shrinks."""
    resized: Tensor = F.resize(image, [height, width], InterpolationMode.BICUBIC, antialias=True)
    return resized
