"""A whole multilayer perceptron as one node of the autograd graph.

Layer by layer, a small minibatch spends more time in the bookkeeping of autograd than in arithmetic. Here the forward
pass keeps each layer's result, and the backward pass walks back through them; the mathematics is that of `nn.Linear`
and the activation, and so are the kernels.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robo_rl.fast_linear import onednn_product, weight_gradient

SMALL = 16
"""Layers with fewer inputs or outputs than this keep torch's product: oneDNN has nothing to gain there."""


def fused_mlp(x: Tensor, activation: str, onednn: bool, *parameters: Tensor) -> Tensor:
    """(B, I) -> (B, O); `parameters` are all weights, then all biases. No gradient flows to `x`."""
    return _FusedMLP.apply(x, activation, onednn, *parameters)  # pyright: ignore[reportReturnType]


class _FusedMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: str, onednn: bool, *parameters: Tensor) -> Tensor:
        layers = len(parameters) // 2
        x, inputs = layers_forward(x, activation, onednn, parameters[:layers], parameters[layers:])
        ctx.activation, ctx.onednn = activation, onednn
        ctx.save_for_backward(*inputs, *parameters[:layers])
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        layers = len(saved) // 2
        inputs, weights = saved[:layers], saved[layers:]
        return None, None, None, *layers_backward(grad, ctx.activation, ctx.onednn, inputs, weights)


def layers_forward(
    x: Tensor, activation: str, onednn: bool, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """(B, I) -> the result (B, O) and each layer's input."""
    inputs = [x]
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        fast = onednn and min(weight.shape) >= SMALL
        x = onednn_product(inputs[-1], weight, bias) if fast else F.linear(inputs[-1], weight, bias)
        if i < len(weights) - 1:
            inputs.append(activate_(x, activation))
    return x, inputs


def layers_backward(
    grad: Tensor, activation: str, onednn: bool, inputs: Sequence[Tensor], weights: Sequence[Tensor]
) -> list[Tensor]:
    """The gradient of the result (B, O) -> those of all weights, then of all biases."""
    weight_grads: list[Tensor] = []
    bias_grads: list[Tensor] = []
    for i in range(len(weights) - 1, -1, -1):
        x, weight = inputs[i], weights[i]
        fast = onednn and min(weight.shape) >= SMALL
        weight_grads.append(weight_gradient(x, grad) if fast else grad.t() @ x)
        bias_grads.append(grad.sum(0))
        if i > 0:
            before = onednn_product(grad, weight.t(), None) if fast else grad @ weight
            grad = activation_gradient_(before, x, activation)
    return [*weight_grads[::-1], *bias_grads[::-1]]


def activate_(x: Tensor, activation: str) -> Tensor:
    """The nonlinearity, in place."""
    if activation == "elu":
        return F.elu_(x)
    return torch.relu_(x) if activation == "relu" else torch.tanh_(x)


def activation_gradient_(grad: Tensor, result: Tensor, activation: str) -> Tensor:
    """Gradient before the nonlinearity from the one behind it and its result; overwrites it."""
    if activation == "elu":
        return torch.ops.aten.elu_backward.grad_input(grad, 1.0, 1.0, 1.0, True, result, grad_input=grad)
    if activation == "relu":
        return torch.ops.aten.threshold_backward.grad_input(grad, result, 0.0, grad_input=grad)
    return torch.ops.aten.tanh_backward.grad_input(grad, result, grad_input=grad)
