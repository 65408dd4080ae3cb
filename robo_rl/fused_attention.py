"""Attention among few short tokens, with the rows of a batch on the last axis, as one node of the autograd graph.

For tokens of some ten numbers a batched matrix product per row and head costs mostly its own calls. Here every
operation runs over all rows; one query at a time, so that what is multiplied stays in the cache. T tokens, H heads of d
numbers.
"""

from typing import Any

import torch
from torch import Tensor


def attend(query: Tensor, key: Tensor, value: Tensor, absent: Tensor | None) -> Tensor:
    """softmax(query . key + absent) value: three of (T, H, d, B), and what to add per key (T, B) -> (T, H, d, B)."""
    return _Attend.apply(query, key, value, absent)  # pyright: ignore[reportReturnType]


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, absent: Tensor | None) -> Tensor:
        shares: list[Tensor] = []
        result = torch.empty_like(query)
        for q, out in zip(query, result, strict=True):
            scores = (q * key).sum(2)
            if absent is not None:
                scores += absent[:, None]
            shares.append(torch.softmax(scores, 0))
            torch.sum(shares[-1][:, :, None] * value, 0, out=out)
        ctx.save_for_backward(query, key, value, *shares)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, *shares = ctx.saved_tensors
        by_query, by_key, by_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for q, share, g, out in zip(query, shares, grad, by_query, strict=True):
            by_share = (g * value).sum(2)
            by_score = (by_share - (by_share * share).sum(0)).mul_(share)[:, :, None]
            torch.sum(by_score * key, 0, out=out)
            by_key.addcmul_(by_score, q)
            by_value.addcmul_(share[:, :, None], g)
        return by_query, by_key, by_value, None
