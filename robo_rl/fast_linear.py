"""Dense layers through oneDNN where it beats the default product.

On AMD processors torch's default fp32 product takes a slow path; `torch.ops.mkldnn._linear_pointwise` reaches about
twice its rate. The operation is private to torch, so it is looked for, timed against the default, and left alone
where it is missing or no faster. Gradients go through the same operation.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LinearFn = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(x (B, I), weight (O, I), bias (O) or None) -> (B, O)."""

MIN_GAIN = 1.2
"""How much faster oneDNN must be to be chosen; well above timing noise, so that the choice repeats on one machine."""


def available() -> bool:
    """Whether this build of torch has the operation and it computes on this processor."""
    try:
        x = torch.ones(2, 3)
        return bool(torch.equal(onednn_product(x, x, None), x @ x.t()))
    except (AttributeError, RuntimeError, NotImplementedError):
        return False


def choose(kind: str, rows: int, widths: tuple[int, ...], device: str) -> tuple[str, LinearFn, float]:
    """Name, function and measured gain of the product to use for layers of these widths on minibatches of `rows`."""
    if kind == "torch" or not device.startswith("cpu") or not available():
        return "torch", F.linear, 1.0
    if kind == "onednn":
        return "onednn", fast_linear, 1.0
    rows, wide = min(rows, 4096), max(widths)
    gain = _seconds(F.linear, rows, wide) / _seconds(fast_linear, rows, wide)
    return ("onednn", fast_linear, gain) if gain > MIN_GAIN else ("torch", F.linear, gain)


def fast_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (B, I) times weight (O, I) transposed, plus bias (O) if any; differentiable, and opaque to torch.compile."""
    if torch.compiler.is_compiling():
        return _linear_op(x, weight, bias)
    return _Linear.apply(x, weight, bias)  # pyright: ignore[reportReturnType]


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (B, I) times weight (O, I) transposed, plus bias (O), without a gradient."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """grad^T x, (O, I), by the call whose rows are the shorter side: up to twice as fast as the other order."""
    if grad.shape[1] <= x.shape[1]:
        return onednn_product(grad.t(), x.t(), None)
    return onednn_product(x.t(), grad.t(), None).t()


class _Linear(torch.autograd.Function):
    """The eager path: no dispatch through a registered operator, which small minibatches would feel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn_product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        return (
            onednn_product(grad, weight.t(), None) if need_x else None,
            weight_gradient(x, grad) if need_weight else None,
            grad.sum(0) if need_bias else None,
        )


@torch.library.custom_op("robo_rl::linear", mutates_args=())
def _linear_op(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return onednn_product(x, weight, bias)


@_linear_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.custom_op("robo_rl::linear_grad_input", mutates_args=())
def _grad_input_op(grad: Tensor, weight: Tensor) -> Tensor:
    return onednn_product(grad.contiguous(), weight.t(), None)


@_grad_input_op.register_fake
def _(grad: Tensor, weight: Tensor) -> Tensor:
    return grad.new_empty(grad.shape[0], weight.shape[1])


@torch.library.custom_op("robo_rl::linear_grad_weight", mutates_args=())
def _grad_weight_op(x: Tensor, grad: Tensor) -> Tensor:
    return weight_gradient(x, grad.contiguous()).contiguous()


@_grad_weight_op.register_fake
def _(x: Tensor, grad: Tensor) -> Tensor:
    return grad.new_empty(grad.shape[1], x.shape[1])


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
    x, weight = ctx.saved_tensors
    need_x, _, need_bias = ctx.needs_input_grad
    grad_x = _grad_input_op(grad, weight) if need_x else None
    return grad_x, _grad_weight_op(x, grad), grad.sum(0) if need_bias else None


torch.library.register_autograd("robo_rl::linear", _backward, setup_context=_setup_context)


def _seconds(linear: LinearFn, rows: int, width: int) -> float:
    """Shortest of several forward and backward passes of one square layer."""
    x = torch.linspace(-1.0, 1.0, rows * width).view(rows, width).requires_grad_()
    weight = torch.linspace(-1.0, 1.0, width * width).view(width, width).requires_grad_()
    bias = torch.zeros(width, requires_grad=True)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        linear(x, weight, bias).sum().backward()
        best = min(best, time.perf_counter() - start)
    return best
