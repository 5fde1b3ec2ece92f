"""Files of equal content are equal files."""

from pathlib import Path

import torch

from reid.train.common import load_tensors, save_tensors


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2), "a": torch.zeros(3)}
    facts = {"seed": 1, "identities": [1, 2], "backbone": "abc", "model": {"stride": 0}}
    files = [tmp_path / f"{number}.safetensors" for number in range(8)]
    for file in files:
        save_tensors(file, tensors, facts)
    assert len({file.read_bytes() for file in files}) == 1
    loaded, found = load_tensors(files[0], made_by="reid train stage1")
    assert found == facts
    assert loaded.keys() == tensors.keys()
