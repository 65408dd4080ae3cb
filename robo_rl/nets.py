"""Networks of the policy and the value, and one flat vector that holds all their parameters."""

import itertools
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hardware.errors import NotFoundError
from robo_rl.config import ACTIVATIONS
from robo_rl.fast_linear import LinearFn, fast_linear
from robo_rl.fused_mlp import fused_mlp, layers_backward, layers_forward

ALIGNMENT = 16
"""Parameters start at multiples of this many floats (64 bytes), which vector instructions like."""


class MLP(nn.Module):
    """Dense layers with one nonlinearity between them; `linear` computes the products.

    With `layer_norm`, each hidden layer is standardised over its units before the nonlinearity, without gain or bias
    of its own: a critic's values then cannot grow without bound away from the data (Ball et al. 2023).
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        activation: str = "elu",
        *,
        last_gain: float = 1.0,
        layer_norm: bool = False,
        linear: LinearFn = F.linear,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise NotFoundError("activation", activation, ACTIVATIONS)
        self.activation, self.linear, self.layer_norm = activation, linear, layer_norm
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            weight = torch.empty(outputs, inputs)
            gain = last_gain if i == len(sizes) - 2 else 2.0**0.5
            nn.init.orthogonal_(weight, gain, generator=generator)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(outputs)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, sizes[0]) -> (B, sizes[-1])."""
        fusible = not self.layer_norm and not torch.compiler.is_compiling()
        if fusible and torch.is_grad_enabled() and not x.requires_grad:
            return fused_mlp(x, self.activation, self.linear is fast_linear, *self.weights, *self.biases)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = self.linear(x, weight, bias)
            if i < last:
                x = self._activate(F.layer_norm(x, x.shape[-1:]) if self.layer_norm else x)
        return x

    def pull(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], None]]:
        """(B, sizes[0]) -> the result, and what writes the parameters' gradients, given that of the result (B, O).

        As `forward` and `backward`, without a graph in between. The function overwrites gradients that exist.
        """
        fast = self.linear is fast_linear
        weights = [w.detach() for w in self.weights]
        result, inputs = layers_forward(x, self.activation, fast, weights, [b.detach() for b in self.biases])

        def back(grad: Tensor) -> None:
            grads = layers_backward(grad, self.activation, fast, inputs, weights)
            for p, g in zip((*self.weights, *self.biases), grads, strict=True):
                if p.grad is not None:
                    p.grad.copy_(g)

        return result, back

    def _activate(self, x: Tensor) -> Tensor:
        if self.activation == "elu":
            return F.elu(x, inplace=True)  # its gradient needs only the result
        return torch.relu_(x) if self.activation == "relu" else torch.tanh(x)


class Ensemble(nn.Module):
    """E networks of one shape with weights of their own."""

    def __init__(self, nets: Iterable[MLP]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I), the same rows for all, or (E, B, I), each its own -> (E, B, O)."""
        return torch.stack([net(x if x.ndim == 2 else x[i]) for i, net in enumerate(self.nets)])


class Actor(nn.Module):
    """Gaussian policy: a mean (B, A) from the normalised observation, and one logarithmic deviation per component."""

    def __init__(self, net: nn.Module, action_size: int, init_std: float) -> None:
        super().__init__()
        self.net = net
        self.log_std = nn.Parameter(torch.full((action_size,), init_std).log())

    def forward(self, obs: Tensor) -> Tensor:
        """Mean action (B, A)."""
        return self.net(obs)


def pulled(net: nn.Module, x: Tensor) -> tuple[Tensor, Callable[[Tensor], None]]:
    """`net(x)` without a graph around it, and what writes the parameters' gradients, which are zero before.

    By hand where the network can, by a graph inside otherwise.
    """
    pull = getattr(net, "pull", None)
    if pull is not None and not getattr(net, "layer_norm", False):
        return pull(x)
    with torch.enable_grad():
        result = net(x)
    return result.detach(), result.backward


class FlatParameters:
    """All parameters as views of one vector, gradients likewise: one kernel clips, reduces, averages or steps them."""

    def __init__(self, parts: Iterable[nn.Module], extra: int = 0) -> None:
        """`extra` more floats at the end of the gradient travel with it between processes."""
        modules = list(parts)
        views: list[tuple[nn.Parameter, int]] = []
        self.bounds: list[tuple[int, int]] = []
        end = 0
        for module in modules:
            begin = end
            for p in module.parameters():
                views.append((p, end))
                end += -(-p.numel() // ALIGNMENT) * ALIGNMENT
            self.bounds.append((begin, end))
        like = views[0][0]
        self.value = nn.Parameter(torch.zeros(end, device=like.device))
        self.grad_and_extra = torch.zeros(end + extra, device=like.device)
        self.grad = self.grad_and_extra[:end]
        self.extra = self.grad_and_extra[end:]
        self.value.grad = self.grad
        for p, offset in views:
            where = slice(offset, offset + p.numel())
            self.value.data[where] = p.data.flatten()
            p.data = self.value.data[where].view_as(p)
            p.grad = self.grad[where].view_as(p)

    def clip_grad_(self, part: int, max_norm: float) -> Tensor:
        """Scales the gradient of one part down to a norm of at most `max_norm`; returns the norm before."""
        begin, end = self.bounds[part]
        grad = self.grad[begin:end]
        norm = torch.linalg.vector_norm(grad)
        grad.mul_(torch.clamp(max_norm / (norm + 1e-6), max=1.0))
        return norm
