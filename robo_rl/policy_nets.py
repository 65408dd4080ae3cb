"""The policy's network as the configuration asks for it, at given widths or within a given number of parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from hardware.errors import BadInput, NotFoundError
from robo_rl.config import NETWORKS
from robo_rl.entity_nets import DeepSets, Mixer, Product, Typed, Widths
from robo_rl.fast_linear import LinearFn
from robo_rl.layout import Layout
from robo_rl.nets import MLP
from robo_rl.two_token import TwoToken

KINDS = {"two_token": TwoToken, "typed": Typed, "deep_sets": DeepSets}


class NetConfig(Protocol):
    """What a configuration says about its policy's network; see `PPOConfig`."""

    @property
    def network(self) -> str: ...
    @property
    def hidden(self) -> tuple[int, ...]: ...
    @property
    def activation(self) -> str: ...
    @property
    def token_width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def parameters(self) -> int: ...


@dataclass(frozen=True)
class NetShape:
    """Everything that fixes a policy network but its weights."""

    kind: str
    layout: Layout
    actions: int
    activation: str
    hidden: tuple[int, ...] = ()
    """Of an MLP."""
    widths: Widths | None = None
    """Of an entity network."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of an MLP: inputs, hidden layers, outputs."""
        return self.layout.size, *self.hidden, self.actions


def shape_of(config: NetConfig, layout: Layout, actions: int) -> NetShape:
    """The network that the configuration asks for, its widths worked out where only a number of parameters is given."""
    kind = config.network
    if kind not in NETWORKS:
        raise NotFoundError("network", kind, NETWORKS)
    if kind == "mlp":
        make = lambda width, dense: NetShape(  # noqa: E731
            kind, layout, actions, config.activation, hidden=(*(width,) * (len(config.hidden) - 1), dense)
        )
        if not config.parameters or not config.hidden:
            return NetShape(kind, layout, actions, config.activation, hidden=config.hidden)
        return _fitted(make, 1, config.parameters)
    if not layout.parts or not layout.own:
        raise BadInput(
            f"algo.network = '{kind}' needs fields of the robot itself and of at least one entity; this observation "
            f"has {len(layout.own)} numbers of its own and entities: {', '.join(layout.entities) or 'none'}; use mlp"
        )
    made = lambda width, dense: NetShape(  # noqa: E731
        kind, layout, actions, config.activation, widths=Widths(width, config.heads, dense)
    )
    if not config.parameters:
        return made(config.token_width, 2 * config.token_width)
    return _fitted(made, 2, config.parameters)


def build(shape: NetShape, linear: LinearFn = F.linear, generator: torch.Generator | None = None) -> nn.Module:
    """The network with fresh weights."""
    if shape.widths is None:
        return MLP(shape.sizes, shape.activation, last_gain=0.01, linear=linear, generator=generator)
    net = _bare(shape)
    for part in net.modules():
        if isinstance(part, Product):
            part.linear = linear
        if isinstance(part, (Product, Mixer)):
            part.reset(generator)
    return net


def parameter_count(shape: NetShape) -> int:
    """Weights and biases of the policy's mean: what is exported, without the critic and the standard deviation."""
    if shape.widths is None:
        return sum((inputs + 1) * outputs for inputs, outputs in pairwise(shape.sizes))
    with torch.device("meta"):
        return sum(p.numel() for p in _bare(shape).parameters())


def _bare(shape: NetShape) -> nn.Module:
    if shape.widths is None:
        raise BadInput("an MLP has no tokens")
    return KINDS[shape.kind](shape.layout, shape.actions, shape.widths, shape.activation)


def _fitted(make: Callable[[int, int], NetShape], ratio: int, limit: int) -> NetShape:
    """The widest network of at most `limit` parameters: first the common width, then what is left goes to the last
    hidden layer, which is `ratio` times as wide or a little wider.

    Raises BadInput where even a width of 1 is too much.
    """
    count = lambda width, dense: parameter_count(make(width, dense))  # noqa: E731
    if (least := count(1, ratio)) > limit:
        raise BadInput(f"algo.parameters = {limit}; expected at least {least}, the smallest network of this kind")
    width = _largest(lambda w: count(w, ratio * w) <= limit)
    dense = _largest(lambda d: count(width, ratio * width + d - 1) <= limit) + ratio * width - 1
    return make(width, dense)


def _largest(fits: Callable[[int], bool]) -> int:
    """The largest whole number from 1 up that fits; 1 does."""
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
