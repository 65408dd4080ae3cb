"""What sensors do to the truth: noise, bias, delay and dropouts, as pure functions with the batch on the last axis."""

from typing import NamedTuple

import torch
from torch import Tensor


def corrupted(truth: Tensor, unit_noise: Tensor, deviation: Tensor, bias: Tensor | None = None) -> Tensor:
    """Measured planes (k, N): truth plus standard normal numbers (k, N) times a deviation, plus a bias."""
    measured = torch.addcmul(truth, unit_noise, deviation)
    return measured if bias is None else measured + bias


class DelayLine(NamedTuple):
    """The last values of a signal."""

    values: Tensor
    """(H, ..., N), newest first."""


def start_delay(value: Tensor, longest: int) -> DelayLine:
    """A line that remembers `longest` steps, as if `value` (..., N) had been there for ever."""
    return DelayLine(value.expand(longest + 1, *value.shape).clone())


def push(line: DelayLine, value: Tensor) -> DelayLine:
    """The line one step later, with a new value (..., N)."""
    return DelayLine(torch.cat([value[None], line.values[:-1]]))


def delayed(line: DelayLine, steps: Tensor) -> Tensor:
    """The values (..., N) of `steps` (N,) steps ago, an integer per environment within 0..longest."""
    index = steps.expand(line.values.shape[1:])[None]
    return torch.gather(line.values, 0, index)[0]


def held(value: Tensor, last: Tensor, dropped: Tensor) -> Tensor:
    """A measurement (..., N) that stays at its last value wherever the sample was dropped, (N,) bool."""
    return torch.where(dropped, last, value)


def dropouts(rate: Tensor, generator: torch.Generator) -> Tensor:
    """Which samples are lost, (N,) bool, each independently with probability `rate` (N,)."""
    return torch.rand(rate.shape, generator=generator, device=rate.device) < rate
