"""Digests of folders by the names in them."""

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from reid.content import Contents

NAME = st.binary(min_size=1, max_size=9).filter(lambda name: not {0, ord("/")} & {*name})
"""Any bytes but those that no file name may have."""


def digest(names: list[bytes]) -> str:
    """Of a dataset whose people in training have these names."""
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "train").mkdir()
        for name in names:
            (Path(root) / "train" / os.fsdecode(name)).mkdir()
        contents = Contents(Path(root) / "memory")
        found = contents.digest(Path(root))
        contents.save()
        assert Contents(Path(root) / "memory").digest(Path(root)) == found
        return found


@given(st.lists(NAME.filter(lambda name: name[:1] != b"."), unique=True, max_size=3))
def test_any_names_have_a_digest_that_another_name_changes(names: list[bytes]) -> None:
    assert digest(names) == digest([*names[::-1], b".DS_Store", b"Thumbs.db"])
    assert digest(names) != digest([*names, b"0123456789"])
