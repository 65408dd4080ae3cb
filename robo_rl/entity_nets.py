"""Policies over entities: what a robot sees of others goes through weights that all members of a kind share.

Three ways from the same columns (`robo_rl.layout`) to an action:
- `robo_rl.two_token`: one token per entity, self-attention among them (Huang et al. 2024, arXiv 2309.13285);
- `Typed`: one token for the robot and one per member, attention with queries, keys and values of its type's own (after
  the typed edges of Liu et al. 2024, HEIGHT, arXiv 2411.12150; one block, no recurrence);
- `DeepSets`: a mean over the members' encodings (Zaheer et al. 2017, arXiv 1703.06114).

A member whose presence flag is not above one half changes nothing, whatever its numbers are. B rows, T tokens, H heads.
The operators are few and plain, for this is also what is exported.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robo_rl.fast_linear import LinearFn
from robo_rl.fused_attention import attend
from robo_rl.layout import Layout, Part

EPSILON = 1e-6
"""Of the layer norm, as in the public code of the paper."""
NEVER = -1e9
"""Added to the score of an absent token: its weight becomes exactly zero."""
NARROW = 48
"""Layers with fewer inputs or outputs keep torch's product."""


@dataclass(frozen=True)
class Widths:
    """Sizes of an entity network."""

    token: int
    """Numbers D per token."""
    heads: int
    """Attention heads H, each of ceil(D / H) numbers."""
    dense: int
    """Units of the last hidden layer."""

    @property
    def head(self) -> int:
        """Numbers per head."""
        return -(-self.token // self.heads)


class Product(nn.Module):
    """Weights (outputs, inputs) without a bias; left unset until `reset`."""

    def __init__(self, inputs: int, outputs: int, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self.linear: LinearFn = F.linear
        self.weight = nn.Parameter(torch.empty(outputs, inputs))

    def reset(self, generator: torch.Generator | None) -> None:
        """Orthogonal weights."""
        nn.init.orthogonal_(self.weight, self.gain, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return self._times(x, None)

    def _times(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if self.linear is F.linear or min(self.weight.shape) < NARROW:
            return F.linear(x, self.weight, bias)
        rows = self.linear(x.reshape(-1, x.shape[-1]), self.weight, bias)
        return rows.reshape(*x.shape[:-1], -1)


class Dense(Product):
    """Weights and a bias."""

    def __init__(self, inputs: int, outputs: int, gain: float = 2.0**0.5) -> None:
        super().__init__(inputs, outputs, gain)
        self.bias = nn.Parameter(torch.empty(outputs))

    def reset(self, generator: torch.Generator | None) -> None:
        """Orthogonal weights, no bias."""
        super().reset(generator)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return self._times(x, self.bias)


class Encoder(nn.Module):
    """Two dense layers, each with the nonlinearity."""

    def __init__(self, inputs: int, width: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.first, self.second = Dense(inputs, width), Dense(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., D)."""
        return activated(self.second(activated(self.first(x), self.activation)), self.activation)


class Projections(nn.Module):
    """Queries, keys and values of one type of token."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.widths = widths
        inner = widths.heads * widths.head
        self.query, self.key, self.value = (Product(widths.token, inner) for _ in range(3))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> three of (B, H, T, head)."""
        query, key, value = (self._heads(f(tokens)) for f in (self.query, self.key, self.value))
        return query, key, value

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[1], self.widths.heads, self.widths.head).transpose(1, 2)


class Mixer(nn.Module):
    """Scaled dot-product attention among tokens, its output product, residual and layer norm."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.widths = widths
        self.out = Product(widths.heads * widths.head, widths.token)
        self.norm_weight, self.norm_bias = (nn.Parameter(torch.empty(widths.token)) for _ in range(2))

    def reset(self, generator: torch.Generator | None) -> None:
        """The norm's gain 1 and bias 0."""
        nn.init.ones_(self.norm_weight)
        nn.init.zeros_(self.norm_bias)

    def forward(self, tokens: Tensor, query: Tensor, key: Tensor, value: Tensor, absent: Tensor | None) -> Tensor:
        """(B, T, D), three of (B, H, T, head), and what to add to the scores of keys (B, T) -> (B, T, D)."""
        scale = 1.0 / math.sqrt(self.widths.head)
        if torch.compiler.is_compiling() or torch.compiler.is_exporting() or query.device.type != "cpu":
            scores = query @ key.transpose(2, 3) * scale
            if absent is not None:
                scores = scores + absent[:, None, None, :]
            mixed = (torch.softmax(scores, dim=-1) @ value).transpose(1, 2)
        else:
            q, k, v = (x.permute(2, 1, 3, 0).contiguous() for x in (query * scale, key, value))
            mixed = attend(q, k, v, None if absent is None else absent.t()).permute(3, 0, 1, 2)
        mixed = self.out(mixed.reshape(-1, tokens.shape[1], self.widths.heads * self.widths.head))
        return F.layer_norm(tokens + mixed, (self.widths.token,), self.norm_weight, self.norm_bias, EPSILON)


class Members(nn.Module):
    """The columns of one part of a layout."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part
        self.columns = columns_of([c for member in part.columns for c in member])
        self.flags = columns_of(part.present) if part.present else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, size) -> numbers (B, M, d) and presence (B, M) as 1 or 0, None where all are always there."""
        numbers = self.columns(x).reshape(-1, self.part.members, self.part.numbers)
        return numbers, None if self.flags is None else torch.where(self.flags(x) > 0.5, 1.0, 0.0).to(x.dtype)


class Typed(nn.Module):
    """Tokens of the robot and of every member; each type has an encoder, queries, keys and values of its own.

    Read out are the robot's token and, per part, the mean over the tokens of the members that are present.
    """

    def __init__(self, layout: Layout, actions: int, widths: Widths, activation: str = "elu") -> None:
        super().__init__()
        self.activation, self.token = activation, widths.token
        self.own_columns = columns_of(layout.own)
        self.members = nn.ModuleList(Members(p) for p in layout.parts)
        numbers = [len(layout.own), *(p.numbers for p in layout.parts)]
        self.encoders = nn.ModuleList(Encoder(n, widths.token, activation) for n in numbers)
        self.projections = nn.ModuleList(Projections(widths) for _ in numbers)
        self.mixer = Mixer(widths)
        self.dense = Dense(len(numbers) * widths.token, widths.dense)
        self.last = Dense(widths.dense, actions, gain=0.01)
        counts = [1, *(p.members for p in layout.parts)]
        self.begins = [sum(counts[:i]) for i in range(len(counts) + 1)]
        self.spread = nn.Buffer(_spread(layout, self.begins), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, size) -> (B, A)."""
        others, present = zip(*(m(x) for m in self.members), strict=True)
        kinds = (self.own_columns(x)[:, None, :], *others)
        kinds = [encoder(k) for encoder, k in zip(self.encoders, kinds, strict=True)]
        projected = [f(k) for f, k in zip(self.projections, kinds, strict=True)]
        query, key, value = (torch.cat(group, 2) for group in zip(*projected, strict=True))
        flags = [p for p in present if p is not None]
        absent = ((torch.cat(flags, 1) - 1.0) * -NEVER) @ self.spread if flags else None
        mixed = self.mixer(torch.cat(kinds, 1), query, key, value, absent)
        read = [mixed[:, 0]]
        for p, begin, end in zip(present, self.begins[1:-1], self.begins[2:], strict=True):
            read.append(masked_mean(mixed[:, begin:end], p))
        return self.last(activated(self.dense(torch.cat(read, 1)), self.activation))


class DeepSets(nn.Module):
    """An encoder per part, shared by its members, and the mean over those that are present."""

    def __init__(self, layout: Layout, actions: int, widths: Widths, activation: str = "elu") -> None:
        super().__init__()
        self.activation = activation
        self.own_columns = columns_of(layout.own)
        self.members = nn.ModuleList(Members(p) for p in layout.parts)
        self.own = Encoder(len(layout.own), widths.token, activation)
        self.encoders = nn.ModuleList(Encoder(p.numbers, widths.token, activation) for p in layout.parts)
        self.dense = Dense((1 + len(layout.parts)) * widths.token, widths.dense)
        self.last = Dense(widths.dense, actions, gain=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """(B, size) -> (B, A)."""
        read = [self.own(self.own_columns(x))]
        for members, encoder in zip(self.members, self.encoders, strict=True):
            numbers, present = members(x)
            read.append(masked_mean(encoder(numbers), present))
        return self.last(activated(self.dense(torch.cat(read, 1)), self.activation))


class Slice(nn.Module):
    """Columns first .. last of an observation."""

    def __init__(self, begin: int, end: int) -> None:
        super().__init__()
        self.begin, self.end = begin, end

    def forward(self, x: Tensor) -> Tensor:
        """(B, size) -> (B, end - begin)."""
        return x[:, self.begin : self.end]


class Pick(nn.Module):
    """Some columns of an observation, in a given order."""

    def __init__(self, columns: tuple[int, ...]) -> None:
        super().__init__()
        self.columns = nn.Buffer(torch.tensor(columns), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, size) -> (B, n)."""
        return torch.index_select(x, 1, self.columns)


def columns_of(columns: Sequence[int]) -> nn.Module:
    """The cheapest module that takes these columns."""
    begin = columns[0]
    if tuple(columns) == tuple(range(begin, begin + len(columns))):
        return Slice(begin, begin + len(columns))
    return Pick(tuple(columns))


def masked_mean(members: Tensor, present: Tensor | None) -> Tensor:
    """(B, M, D) and flags (B, M) -> mean (B, D) over those present, 0 where none is; without flags over all."""
    if present is None:
        return members[:, 0] if members.shape[1] == 1 else members.mean(1)
    total = (members * present[:, :, None]).sum(1)
    return total if members.shape[1] == 1 else total / torch.clamp(present.sum(1, keepdim=True), min=1.0)


def activated(x: Tensor, activation: str) -> Tensor:
    """The nonlinearity by name."""
    if activation == "elu":
        return F.elu(x)
    return torch.relu(x) if activation == "relu" else torch.tanh(x)


def _spread(layout: Layout, begins: Sequence[int]) -> Tensor:
    """(flags, T): which token each presence flag belongs to."""
    tokens = [begin + m for p, begin in zip(layout.parts, begins[1:], strict=False) for m in range(len(p.present))]
    spread = torch.zeros(len(tokens), begins[-1])
    spread[range(len(tokens)), tokens] = 1.0
    return spread
