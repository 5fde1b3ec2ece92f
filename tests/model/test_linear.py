"""The product that does not go through torch's own choice of library, against torch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reid.model.adapters import through_quick_gelu
from reid.model.linear import by_onednn, linear


@pytest.mark.parametrize("shape", [(3, 5, 7), (9, 7), (1, 7), (4, 1, 7), (2, 3, 4, 7)])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_values_are_those_of_torch(shape, with_bias, transposed):
    x, weight, bias = torch.randn(shape), torch.randn(6, 7), torch.randn(6)
    if transposed:
        x = x.transpose(0, -2).contiguous().transpose(0, -2)
    with torch.inference_mode():
        assert by_onednn(x)
        out = linear(x, weight, bias if with_bias else None)
        torch.testing.assert_close(out, F.linear(x, weight, bias if with_bias else None))
        assert out.is_contiguous()


def test_what_onednn_cannot_do_is_left_to_torch():
    x, weight = torch.randn(3, 7, requires_grad=True), torch.randn(6, 7)
    linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(dim=0).expand(3, 7))
    with torch.no_grad():
        assert linear(x[0], weight).shape == (6,)
        assert linear(x[:0], weight).shape == (0, 6)
        assert linear(x.double(), weight.double()).dtype == torch.float64
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x, weight).dtype == torch.bfloat16
        compiled = torch.compile(lambda: linear(x, weight), backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(), F.linear(x, weight))


def test_quick_gelu_is_the_same_with_and_without_gradients():
    first, last = nn.Linear(7, 28), nn.Linear(28, 7)
    x = torch.randn(2, 5, 7)
    hidden = first(x)
    wanted = last(hidden * torch.sigmoid(1.702 * hidden))
    torch.testing.assert_close(through_quick_gelu(x, first, last), wanted)
    with torch.inference_mode():
        torch.testing.assert_close(through_quick_gelu(x, first, last), wanted)
