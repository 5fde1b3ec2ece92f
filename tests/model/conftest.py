"""The tensors of a tiny CLIP."""

import pytest
from torch import Tensor

from tests.clips import TINY, state_dict


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """In OpenAI's names."""
    return state_dict(TINY)
