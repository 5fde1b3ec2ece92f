"""Pictures: what is blurred, what is measured, which frames are taken."""

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from reid.config import Clip, Dataset, Runtime
from reid.data import index as indexing
from reid.errors import UserError
from reid.report.pictures import CELL, HEAD, Album, hide_head, sharpness
from tests.trees import make_tree

CLIP = Clip(frames=3, height=64, width=32)


def noise(height, width=None, seed=0):
    size = (height, width or max(1, height // 2), 3)
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


@pytest.mark.parametrize("height", [1, 4, 9, 40, 200])
def test_a_head_is_gone_and_the_rest_stays(height):
    frame = noise(height)
    before = frame.copy()
    hidden = hide_head(frame)
    rows = math.ceil(HEAD * height)
    assert np.array_equal(frame, before)
    assert np.array_equal(hidden[rows:], frame[rows:])
    head = hidden[:rows].astype(int)
    # Nothing is left but a change from the left to the right: no row differs from the first.
    assert np.abs(head - head[:1]).max() <= 1
    steps = np.diff(head[0], axis=0)
    assert (np.abs(np.sign(steps).sum(axis=0)) == np.abs(np.sign(steps)).sum(axis=0)).all()
    if height >= 40:
        assert head.std() < 0.2 * frame[:rows].std()


@pytest.fixture
def tracklets(tmp_path):
    make_tree(tmp_path / "data", frames=5)
    return indexing.build(tmp_path / "data").splits["A2G"]


def album(tmp_path, tracklets, faces="blur"):
    dataset = Dataset(root=tmp_path / "data")
    return Album(tracklets, dataset, Runtime(), CLIP, faces)


def decoded(picture):
    head, data = picture.uri.split(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_every_picture_goes_past_the_switch(tmp_path, tracklets):
    blurred = album(tmp_path, tracklets).strip(tracklets[0], 2)
    kept = album(tmp_path, tracklets, "keep").strip(tracklets[0], 2)
    one, other = (np.asarray(decoded(picture), np.int32) for picture in (blurred, kept))
    assert one.shape == other.shape == (CELL[1], 2 * CELL[0], 3)
    change = np.abs(one - other).mean(axis=(1, 2))
    top = math.ceil(HEAD * CELL[1])
    # The crops are few pixels high: bicubic spreads an edge over some rows of the cell.
    assert change[: top // 2].min() > 1
    assert change[2 * top :].max() < 1


def test_frames_are_those_of_extraction(tmp_path, tracklets):
    frames = album(tmp_path, tracklets).frames(tracklets[0])
    names = [tracklets[0].frames[place] for place in (0, 1, 2)]
    for frame, name in zip(frames, names, strict=True):
        with Image.open(tmp_path / "data" / tracklets[0].path / name) as image:
            assert np.array_equal(frame, np.asarray(image))


def test_a_strip_is_no_longer_than_the_clip(tmp_path, tracklets):
    picture = album(tmp_path, tracklets).strip(tracklets[0], 8)
    assert (picture.width, picture.height) == (3 * CELL[0], CELL[1])


def test_a_missing_frame_is_named(tmp_path, tracklets):
    (tmp_path / "data" / tracklets[0].path / tracklets[0].frames[0]).unlink()
    with pytest.raises(UserError, match=str(tracklets[0].frames[0])):
        album(tmp_path, tracklets).strip(tracklets[0], 1)


def test_sharpness_is_the_variance_of_the_laplacian():
    frame = noise(64, 32)
    gray = np.asarray(Image.fromarray(frame).convert("L"), float)
    laplacian = [
        gray[y - 1, x] + gray[y + 1, x] + gray[y, x - 1] + gray[y, x + 1] - 4 * gray[y, x]
        for y in range(1, 63)
        for x in range(1, 31)
    ]
    assert sharpness(frame, CLIP) == pytest.approx(np.var(laplacian), rel=1e-5)
