"""The two-token network, forwards and backwards by hand, with the rows of a batch on the last axis.

Row by row, tokens of some 16 numbers are too short for a processor: what `TwoToken` spends is copies between layouts,
and the bookkeeping of a hundred small operations in autograd's graph. With a batch on the last axis (planes) every
operation runs over thousands of contiguous numbers, both ways. The mathematics is that of `TwoToken.forward`.

E tokens of D numbers, H heads of d, inner width I = H d; index 0 of "both" is the robot's own encoding.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from robo_rl.entity_nets import EPSILON
from robo_rl.fused_mlp import activate_, activation_gradient_


class Weights(NamedTuple):
    """The parameters, some of them stacked."""

    first: list[Tensor]
    """(D, n) of the own encoder and of each entity's."""
    first_bias: list[Tensor]
    second: Tensor
    """(1 + E, D, D)."""
    second_bias: Tensor
    """(1 + E, D, 1)."""
    query_key_value: Tensor
    """(3 I, D), the queries' part scaled by 1 / sqrt(d)."""
    out: Tensor
    """(D, I)."""
    norm: tuple[Tensor, Tensor]
    dense: tuple[Tensor, Tensor]
    last: tuple[Tensor, Tensor]
    heads: int
    activation: str


class Kept(NamedTuple):
    """What the way back needs."""

    inputs: list[Tensor]
    """(n, B) of each encoder."""
    hidden: Tensor
    """(1 + E, D, B) behind the first layers."""
    both: Tensor
    """(1 + E, D, B) behind the second layers: the own encoding and the tokens."""
    projected: Tensor
    """(E, 3, H, d, B)."""
    share: Tensor
    """(E of queries, E of keys, H, B) attention."""
    mixed: Tensor
    """(E, I, B)."""
    standard: Tensor
    """(E, D, B) standardised sums of token and attention."""
    spread: Tensor
    """(E, 1, B) one over their deviation."""
    joined: Tensor
    """((1 + E) D, B) input of the dense layer."""
    dense: Tensor
    """(F, B)."""


def forward(inputs: list[Tensor], w: Weights) -> tuple[Tensor, Kept]:
    """Encoders' inputs (n, B) each -> action (A, B)."""
    tokens, width, rows = len(inputs) - 1, len(w.out), inputs[0].shape[1]
    hidden = inputs[0].new_empty(1 + tokens, width, rows)
    for x, weight, bias, to in zip(inputs, w.first, w.first_bias, hidden, strict=True):
        torch.addmm(bias[:, None], weight, x, out=to)
    activate_(hidden, w.activation)
    both = activate_(torch.baddbmm(w.second_bias, w.second, hidden), w.activation)
    projected = torch.bmm(w.query_key_value.expand(tokens, -1, -1), both[1:]).view(tokens, 3, w.heads, -1, rows)
    query, key, value = projected.unbind(1)
    share = torch.softmax((query[:, None] * key[None]).sum(3), 1)
    mixed = (share[:, :, :, None] * value[None]).sum(1).view(tokens, -1, rows)
    total = torch.baddbmm(both[1:], w.out.expand(tokens, -1, -1), mixed)
    total -= total.mean(1, keepdim=True)
    spread = (total * total).mean(1, keepdim=True).add_(EPSILON).rsqrt_()
    standard = total.mul_(spread)
    joined = torch.empty_like(both)
    joined[0] = both[0]
    torch.addcmul(w.norm[1][:, None], standard, w.norm[0][:, None], out=joined[1:])
    joined = joined.view(-1, rows)
    dense = activate_(torch.addmm(w.dense[1][:, None], w.dense[0], joined), w.activation)
    result = torch.addmm(w.last[1][:, None], w.last[0], dense)
    return result, Kept(inputs, hidden, both, projected, share, mixed, standard, spread, joined, dense)


def backward(grad: Tensor, kept: Kept, w: Weights) -> list[Tensor]:
    """The gradient of the action (A, B) -> those of the parameters.

    In this order: per encoder its first weight and bias, its second weight and bias; query, key, value, out; gain and
    bias of the norm; weight and bias of the dense layer and of the last.
    """
    tokens, width, rows = kept.standard.shape
    last = grad @ kept.dense.t(), grad.sum(1)
    by_dense = activation_gradient_(w.last[0].t() @ grad, kept.dense, w.activation)
    dense = by_dense @ kept.joined.t(), by_dense.sum(1)
    by_both = (w.dense[0].t() @ by_dense).view(1 + tokens, width, rows)
    by_norm = by_both[1:]
    norm = (by_norm * kept.standard).sum((0, 2)), by_norm.sum((0, 2))
    by_sum = _norm_gradient(by_norm * w.norm[0][:, None], kept.standard, kept.spread)
    out = torch.bmm(by_sum, kept.mixed.transpose(1, 2)).sum(0)
    by_projected = _attention_gradient(torch.bmm(w.out.t().expand(tokens, -1, -1), by_sum), kept)
    query_key_value = torch.bmm(by_projected, kept.both[1:].transpose(1, 2)).sum(0)
    query_key_value[: len(query_key_value) // 3] *= 1.0 / math.sqrt(kept.projected.shape[3])
    by_both[1:] = torch.baddbmm(by_sum, w.query_key_value.t().expand(tokens, -1, -1), by_projected)
    activation_gradient_(by_both, kept.both, w.activation)
    second, second_bias = torch.bmm(by_both, kept.hidden.transpose(1, 2)), by_both.sum(2)
    by_hidden = activation_gradient_(torch.bmm(w.second.transpose(1, 2), by_both), kept.hidden, w.activation)
    first, first_bias = [g @ x.t() for g, x in zip(by_hidden, kept.inputs, strict=True)], by_hidden.sum(2)
    encoders = [g for group in zip(first, first_bias, second, second_bias, strict=True) for g in group]
    return [*encoders, *query_key_value.chunk(3), out, *norm, *dense, *last]


def _norm_gradient(grad: Tensor, standard: Tensor, spread: Tensor) -> Tensor:
    """(E, D, B) before standardisation over D, from the one behind it."""
    along = (grad * standard).mean(1, keepdim=True)
    return (grad - grad.mean(1, keepdim=True)).addcmul_(standard, along, value=-1.0).mul_(spread)


def _attention_gradient(grad: Tensor, kept: Kept) -> Tensor:
    """That of the mixed values (E, I, B) -> that of queries, keys and values (E, 3 I, B)."""
    query, key, value = kept.projected.unbind(1)
    grad = grad.view(query.shape)
    share = kept.share
    result = torch.empty_like(kept.projected)
    torch.sum(share[:, :, :, None] * grad[:, None], 0, out=result[:, 2])
    by_share = (grad[:, None] * value[None]).sum(3)
    by_score = (by_share - (by_share * share).sum(1, keepdim=True)).mul_(share)[:, :, :, None]
    torch.sum(by_score * key[None], 1, out=result[:, 0])
    torch.sum(by_score * query[:, None], 0, out=result[:, 1])
    return result.flatten(1, 3)
