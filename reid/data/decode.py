"""From the bytes of a JPEG to a frame of a batch, two ways with equal results.

`pillow` is the plain path: Pillow decodes and resizes. `fast` decodes by libjpeg-turbo without
Pillow's set-up, which costs more than decoding a tiny crop, and resizes by reid.data.resize;
every gray level is the same (tested), so the choice is one of speed only.
"""

from collections.abc import Callable
from io import BytesIO
from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from reid.data.resize import resize_into
from reid.errors import UserError

Decoder = Literal["fast", "pillow"]

_COLOURS = ("YCbCr", "Gray", "RGB")
_MOST_PIXELS = 1 << 24


def decode_into(
    data: bytes,
    out: np.ndarray,
    *,
    decoder: Decoder,
    name: str,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> int:
    """Decode a JPEG and resize it (bicubic, as Pillow) into `out`, uint8 (3, H, W), contiguous.

    `change` makes of the decoded image, uint8 (h, w, 3), the one to resize. Returns the height of
    the image as stored, in pixels. `name` stands for the file in errors. Raises UserError when
    `data` is not a whole JPEG.
    """
    if decoder == "pillow":
        image = _decode_pillow(data, name)
        if change is not None:
            image = Image.fromarray(change(np.array(image)))
        size = (out.shape[2], out.shape[1])
        out[...] = np.asarray(image.resize(size, Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        stored: int = image.height
        return stored
    pixels = decode(data, name=name)
    resize_into(pixels if change is None else change(pixels), out)
    return len(pixels)


def decode(data: bytes, *, name: str) -> np.ndarray:
    """Decode a JPEG to uint8 (h, w, 3) RGB. Raises UserError when `data` is not a whole JPEG."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        usual = colors in _COLOURS and height * width <= _MOST_PIXELS
        pixels: np.ndarray | None = simplejpeg.decode_jpeg(data) if usual else None
    except ValueError:
        pixels = None
    # Unusual (CMYK, huge), odd or damaged: Pillow's verdict is the one that counts.
    return np.array(_decode_pillow(data, name)) if pixels is None else pixels


def _decode_pillow(data: bytes, name: str) -> Image.Image:
    try:
        with Image.open(BytesIO(data), formats=("JPEG",)) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not a JPEG" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(
            f"{name} is not a whole JPEG ({reason}): replace or delete it and run `reid index`"
        ) from None
