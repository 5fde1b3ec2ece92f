"""JPEG to frame: the pixels of Pillow's decoder, within two gray levels of Pillow's resize."""

from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from reid.data.dataset import decode, resize
from reid.errors import UserError


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def jpeg(pixels, *, mode="RGB", **options):
    stream = BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


def planes(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).int()


def photograph(height, width, seed):
    coarse = Image.fromarray(noise(8, 4, seed)).resize((width, height), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(seed).normal(0, 6, (height, width, 3))
    return np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)


def bar(height, width, seed):
    """What a cubic overshoots."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[2 * height // 5 : 3 * height // 5] = 255
    return pixels


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([noise, photograph, bar]),
    st.integers(12, 400),
    st.floats(0.3, 0.5),
    st.sampled_from([(256, 128), (252, 126), (128, 64)]),
    st.integers(0, 2**32 - 1),
)
@example(noise, 256, 90 / 256, (256, 128), 0)  # one axis stays
@example(noise, 1, 1, (256, 128), 0)
@example(noise, 60, 4, (50, 70), 0)
@example(photograph, 900, 0.4, (256, 128), 0)
def test_resized_within_two_gray_levels_of_pillows(kind, height, aspect, target, seed):
    pixels = kind(height, max(4, int(height * aspect)), seed)
    output = resize(torch.from_numpy(pixels).permute(2, 0, 1), *target)
    assert (output.dtype, output.shape) == (torch.uint8, (3, *target))
    image = Image.fromarray(pixels)
    if kind is noise:  # rows first: what Pillow did for all sizes before version 13
        image = image.resize((target[1], image.height), Image.Resampling.BICUBIC)
    expected = planes(image.resize(target[::-1], Image.Resampling.BICUBIC))
    assert (output.int() - expected).abs().max() <= 2


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 20}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(4, 10), (13, 7), (71, 35), (300, 150)])
def test_decoded_pixels_are_pillows(mode, options, size):
    data = jpeg(noise(*size), mode=mode, **options)
    with Image.open(BytesIO(data)) as image:
        assert torch.equal(decode(data, name="x").int(), planes(image.convert("RGB")))


def test_cmyk_is_read_as_rgb():
    data = jpeg(np.full((8, 8, 3), (200, 90, 30), np.uint8), mode="CMYK", quality=100)
    with Image.open(BytesIO(data)) as image:
        expected = planes(image.convert("RGB"))
    assert (decode(data, name="x").int() - expected).abs().max() <= 2


def test_any_chroma_subsampling_is_decoded():
    """Pillow writes no 4:4:1, but of one color and 16 x 32 pixels 4:2:0 has blocks as many."""
    data = bytearray(jpeg(np.full((32, 16, 3), (200, 90, 30), np.uint8), subsampling=2))
    sampling = data.index(b"\xff\xc0") + 11
    assert data[sampling] == 0x22
    expected = decode(bytes(data), name="x")
    data[sampling] = 0x14
    assert torch.equal(decode(bytes(data), name="x"), expected)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-30],
        lambda data: data[:10],
        lambda data: b"",
        bytes.upper,
        lambda data: b"\x89PNG\r\n\x1a\n" + data,
    ],
)
def test_damaged_data_is_an_error_that_names_the_file(damage):
    with pytest.raises(UserError, match=r"^a/b\.jpg is not a whole JPEG") as caught:
        decode(damage(jpeg(noise(40, 20))), name="a/b.jpg")
    assert "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_other_bytes_are_decoded_or_refused(place, changed):
    """Never another exception, whatever the decoder raises."""
    data = bytearray(jpeg(noise(40, 20)))
    start = place % len(data)
    data[start : start + len(changed)] = changed
    with suppress(UserError):
        assert decode(bytes(data), name="x").shape[0] == 3


def test_bytes_after_the_image_do_no_harm():
    data = jpeg(noise(40, 20))
    assert torch.equal(decode(data, name="x"), decode(data + b"tail" * 9, name="x"))


def test_absurdly_large_images_are_refused_before_they_are_decoded():
    data = jpeg(np.zeros((9000, 9000, 3), np.uint8))
    with pytest.raises(UserError, match="9000 x 9000 pixels are too many"):
        decode(data, name="x")
