"""The quad-swarm paper's policy: one token per entity, self-attention among them (Huang et al. 2024, arXiv 2309.13285).

Encoders of the robot's own numbers, of all its neighbours' and of all its obstacles'; multi-head attention over the two
tokens {neighbours, obstacles} with residual and layer norm; both joined with the own encoding, a dense layer, and the
action.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robo_rl import fused_tokens
from robo_rl.entity_nets import Dense, Encoder, Members, Mixer, Projections, Widths, activated, columns_of
from robo_rl.layout import Layout


class TwoToken(nn.Module):
    """One token per entity, made of all its members' numbers (0 for those absent); entities may be more than two."""

    def __init__(self, layout: Layout, actions: int, widths: Widths, activation: str = "elu") -> None:
        super().__init__()
        self.activation, self.widths, self.tokens = activation, widths, len(layout.entities)
        self.own_columns = columns_of(layout.own)
        self.members = nn.ModuleList(Members(p) for p in layout.parts)
        self.entity_of = [layout.entities.index(p.entity) for p in layout.parts]
        self.own = Encoder(len(layout.own), widths.token, activation)
        self.sizes = [len(layout.own)] + [0] * self.tokens
        for p, e in zip(layout.parts, self.entity_of, strict=True):
            self.sizes[1 + e] += p.members * p.numbers
        self.encoders = nn.ModuleList(Encoder(n, widths.token, activation) for n in self.sizes[1:])
        self.project, self.mixer = Projections(widths), Mixer(widths)
        self.dense = Dense((1 + self.tokens) * widths.token, widths.dense)
        self.last = Dense(widths.dense, actions, gain=0.01)
        self._arrange(layout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, size) -> (B, A)."""
        if not (torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.compiler.is_exporting()):
            return fused_tokens.forward(self._planes(x), self._weights())[0].t()
        seen: list[list[Tensor]] = [[] for _ in range(self.tokens)]
        for members, e in zip(self.members, self.entity_of, strict=True):
            numbers, present = members(x)
            seen[e].append((numbers if present is None else numbers * present[:, :, None]).flatten(1))
        parts = [f(v[0] if len(v) == 1 else torch.cat(v, 1)) for f, v in zip(self.encoders, seen, strict=True)]
        tokens = torch.stack(parts, 1)
        mixed = self.mixer(tokens, *self.project(tokens), None).flatten(1)
        joined = torch.cat([self.own(self.own_columns(x)), mixed], 1)
        return self.last(activated(self.dense(joined), self.activation))

    @torch.no_grad()
    def pull(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], None]]:
        """(B, size) -> the result, and what writes the parameters' gradients, given that of the result (B, A).

        As `forward` and `backward`, without a graph in between. The function overwrites gradients that exist.
        """
        weights = self._weights()
        result, kept = fused_tokens.forward(self._planes(x), weights)

        @torch.no_grad()
        def back(grad: Tensor) -> None:
            found = fused_tokens.backward(grad.t().contiguous(), kept, weights)
            for p, g in zip(self._parameters_in_order(), found, strict=True):
                if p.grad is not None:
                    p.grad.copy_(g)

        return result.t(), back

    def _arrange(self, layout: Layout) -> None:
        """Where each encoder's inputs lie, and which of them each presence flag switches."""
        order, self.gates = list(layout.own), list[tuple[int, int, int, int]]()
        flags: list[int] = []
        for e in range(self.tokens):
            for p, of in zip(layout.parts, self.entity_of, strict=True):
                if of != e:
                    continue
                if p.present:
                    count = p.members * p.numbers
                    self.gates.append((len(order), len(order) + count, len(flags), len(flags) + p.members))
                    flags += p.present
                order += [c for member in p.columns for c in member]
        self.order = nn.Buffer(torch.tensor(order), persistent=False)
        self.flags = nn.Buffer(torch.tensor(flags, dtype=torch.long), persistent=False)

    def _planes(self, x: Tensor) -> list[Tensor]:
        """(B, size) -> inputs (n, B) of the own encoder and of each entity's."""
        planes = x.t().contiguous()
        numbers = planes.index_select(0, self.order)
        if self.gates:
            present = (planes.index_select(0, self.flags) > 0.5).to(x.dtype)
            for begin, end, first, last in self.gates:
                numbers[begin:end].view(last - first, -1, x.shape[0]).mul_(present[first:last, None])
        return list(numbers.split(self.sizes))

    def _weights(self) -> fused_tokens.Weights:
        layers = [self.own, *(f for f in self.encoders if isinstance(f, Encoder))]
        query = self.project.query.weight * (1.0 / math.sqrt(self.widths.head))
        return fused_tokens.Weights(
            first=[f.first.weight for f in layers],
            first_bias=[f.first.bias for f in layers],
            second=torch.stack([f.second.weight for f in layers]),
            second_bias=torch.stack([f.second.bias for f in layers])[:, :, None],
            query_key_value=torch.cat([query, self.project.key.weight, self.project.value.weight]),
            out=self.mixer.out.weight,
            norm=(self.mixer.norm_weight, self.mixer.norm_bias),
            dense=(self.dense.weight, self.dense.bias),
            last=(self.last.weight, self.last.bias),
            heads=self.widths.heads,
            activation=self.activation,
        )

    def _parameters_in_order(self) -> list[nn.Parameter]:
        """As `fused_tokens.backward` gives their gradients."""
        layers = [self.own, *(f for f in self.encoders if isinstance(f, Encoder))]
        encoders = [p for f in layers for p in (f.first.weight, f.first.bias, f.second.weight, f.second.bias)]
        attention = [self.project.query.weight, self.project.key.weight, self.project.value.weight]
        rest = [self.mixer.out.weight, self.mixer.norm_weight, self.mixer.norm_bias]
        return [*encoders, *attention, *rest, self.dense.weight, self.dense.bias, self.last.weight, self.last.bias]
