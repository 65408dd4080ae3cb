"""Networks: the fused pass against torch's layers, and parameters that share one vector."""

import pytest
import torch
from torch import nn

from hardware.errors import NotFoundError
from robo_rl import fast_linear
from robo_rl.nets import MLP, FlatParameters, pulled

ACTIVATIONS = {"elu": nn.ELU, "relu": nn.ReLU, "tanh": nn.Tanh}
LINEARS = [nn.functional.linear] + ([fast_linear.fast_linear] if fast_linear.available() else [])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("linear", LINEARS)
def test_values_and_gradients_equal_those_of_torchs_modules(activation: str, linear: fast_linear.LinearFn) -> None:
    torch.manual_seed(0)
    ours = MLP((19, 64, 32, 3), activation, linear=linear)
    layers: list[nn.Module] = []
    for weight, bias in zip(ours.weights, ours.biases, strict=True):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight.data.copy_(weight.data)
        layer.bias.data.copy_(torch.randn_like(bias))
        bias.data.copy_(layer.bias.data)
        layers += [layer, ACTIVATIONS[activation]()]
    theirs = nn.Sequential(*layers[:-1])
    x, pull = torch.randn(300, 19), torch.randn(300, 3)
    for net in (ours, theirs):
        (net(x) * pull).sum().backward()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    for i in range(3):
        layer = theirs[2 * i]
        assert isinstance(layer, nn.Linear)
        torch.testing.assert_close(ours.weights[i].grad, layer.weight.grad, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(ours.biases[i].grad, layer.bias.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("linear", LINEARS)
def test_gradients_by_hand_are_those_of_the_graph(activation: str, linear: fast_linear.LinearFn) -> None:
    net = MLP((19, 32, 24, 3), activation, linear=linear, generator=torch.Generator().manual_seed(0))
    flat = FlatParameters([net])
    x, pull = torch.randn(300, 19), torch.randn(300, 3)
    out = net(x)
    out.backward(pull)
    expected = flat.grad.clone()
    flat.grad.zero_()
    result, back = pulled(net, x)
    back(pull)
    assert torch.equal(result, out)
    assert not result.requires_grad
    assert torch.equal(flat.grad, expected)


def test_gradient_reaches_the_input_where_it_is_wanted() -> None:
    net = MLP((3, 4, 1))
    x = torch.randn(5, 3, requires_grad=True)
    net(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_unknown_activation_is_named() -> None:
    with pytest.raises(NotFoundError, match="activation 'gelu' not found; known: elu, relu, tanh"):
        MLP((3, 4, 1), "gelu")


def test_parameters_and_gradients_are_views_of_one_vector() -> None:
    parts = [MLP((3, 5, 2)), MLP((3, 5, 1))]
    flat = FlatParameters(parts, extra=1)
    for net in parts:
        net(torch.randn(7, 3)).sum().backward()
    assert flat.grad.abs().sum() > 0
    with torch.no_grad():
        flat.value.zero_()
    assert all((p == 0).all() for net in parts for p in net.parameters())
    begin, end = flat.bounds[1]
    before = flat.grad[:begin].clone()
    norm = flat.clip_grad_(1, 0.5)
    assert norm > 0.5
    assert flat.grad[begin:end].norm().item() == pytest.approx(0.5, rel=1e-4)
    assert torch.equal(flat.grad[:begin], before)  # the other part keeps its own
