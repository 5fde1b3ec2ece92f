from io import BytesIO

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from reid.data.decode import decode, decode_into
from reid.data.resize import resize_into
from reid.errors import UserError


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def jpeg(pixels, *, mode="RGB", **options):
    stream = BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


def pillow(image, height, width):
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized).transpose(2, 0, 1)


@settings(max_examples=150)
@given(
    st.integers(4, 300),
    st.integers(4, 300),
    st.sampled_from([(256, 128), (252, 126), (128, 64), (50, 70)]),
    st.integers(0, 2**32 - 1),
)
@example(267, 120, (256, 128), 0)  # Pillow takes the columns first
@example(256, 90, (256, 128), 0)  # one axis stays
@example(1, 1, (256, 128), 0)
@example(900, 700, (256, 128), 0)
def test_resize_equals_pillows_in_every_gray_level(height, width, target, seed):
    pixels = noise(height, width, seed)
    out = np.empty((3, *target), np.uint8)
    resize_into(pixels, out)
    assert np.array_equal(out, pillow(Image.fromarray(pixels), *target))


def test_resize_clips_overshoot_as_pillow():
    pixels = np.zeros((20, 10, 3), np.uint8)
    pixels[8:12] = 255  # hard edges: the cubic overshoots on both sides
    out = np.empty((3, 256, 128), np.uint8)
    resize_into(pixels, out)
    assert np.array_equal(out, pillow(Image.fromarray(pixels), 256, 128))


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 20}]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(4, 10), (13, 7), (71, 35), (300, 150)])
def test_both_decoders_agree(mode, options, size):
    data = jpeg(noise(*size), mode=mode, **options)
    outs = [np.empty((3, 256, 128), np.uint8) for _ in range(2)]
    heights = [
        decode_into(data, out, decoder=decoder, name="x")
        for decoder, out in zip(("fast", "pillow"), outs, strict=True)
    ]
    assert np.array_equal(*outs)
    assert heights == [size[0]] * 2
    with Image.open(BytesIO(data)) as image:
        assert np.array_equal(decode(data, name="x"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("decoder", ["fast", "pillow"])
@pytest.mark.parametrize(
    "damage", [lambda d: d[:-30], lambda d: d[:10], lambda d: b"", bytes.upper]
)
def test_damaged_data_is_an_error_that_names_the_file(decoder, damage):
    data = damage(jpeg(noise(40, 20)))
    with pytest.raises(UserError, match=r"^a/b\.jpg is not a whole JPEG"):
        decode_into(data, np.empty((3, 256, 128), np.uint8), decoder=decoder, name="a/b.jpg")


@pytest.mark.parametrize("decoder", ["fast", "pillow"])
def test_bytes_after_the_image_do_no_harm(decoder):
    data = jpeg(noise(40, 20))
    outs = [np.empty((3, 64, 32), np.uint8) for _ in range(2)]
    for out, variant in zip(outs, (data, data + b"tail" * 9), strict=True):
        decode_into(variant, out, decoder=decoder, name="x")
    assert np.array_equal(*outs)


@pytest.mark.parametrize("decoder", ["fast", "pillow"])
def test_absurdly_large_images_are_refused(decoder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1 << 22)
    data = jpeg(np.zeros((5000, 4000, 3), np.uint8))
    with pytest.raises(UserError, match="is not a whole JPEG"):
        decode_into(data, np.empty((3, 64, 32), np.uint8), decoder=decoder, name="x")
