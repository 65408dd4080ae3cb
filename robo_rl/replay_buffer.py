"""Transitions that are learnt from again and again: a ring of the newest, and batches drawn from it."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hardware.errors import BadInput


class Transitions(NamedTuple):
    """B steps of an environment.

    `next_obs` is what was observed before any restart, so a time-out bootstraps from the right state and needs no flag.
    """

    obs: Tensor
    """(B, D) group `policy`, as observed."""
    action: Tensor
    """(B, A) in -1..1."""
    reward: Tensor
    """(B,)."""
    next_obs: Tensor
    terminated: Tensor
    """(B,) 1.0 where the task ended the episode, which cuts the bootstrap."""

    def rows(self, ids: Tensor) -> "Transitions":
        """The transitions `ids` (n,)."""
        return Transitions(*(values.index_select(0, ids) for values in self))


class ReplayBuffer:
    """Ring of the newest `capacity` transitions, allocated once."""

    def __init__(self, capacity: int, obs: int, actions: int, device: torch.device | str = "cpu") -> None:
        make = lambda *shape: torch.zeros(capacity, *shape, device=device)  # noqa: E731
        self.data = Transitions(make(obs), make(actions), make(), make(obs), make())
        self.capacity, self.added = capacity, 0

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, rows: Transitions) -> None:
        """Appends n rows; the oldest make room."""
        n = rows.obs.shape[0]
        if n > self.capacity:
            raise BadInput(f"{n} transitions at once do not fit into a replay buffer of {self.capacity}")
        ids = torch.arange(self.added, self.added + n, device=self.data.obs.device) % self.capacity
        for kept, new in zip(self.data, rows, strict=True):
            kept.index_copy_(0, ids, new.to(kept))
        self.added += n

    def sample(self, count: int, generator: torch.Generator) -> Transitions:
        """`count` transitions, uniformly and with repetition."""
        return sample(self.data, len(self), count, generator)

    def state(self) -> dict[str, Any]:
        """The filled part, and where the ring stands."""
        return {name: v[: len(self)].clone() for name, v in self.data._asdict().items()} | {"added": self.added}

    def load(self, state: dict[str, Any]) -> None:
        """Puts a saved ring back."""
        self.added = int(state["added"])
        for name, values in self.data._asdict().items():
            values[: len(self)] = state[name]


def sample(data: Transitions, size: int, count: int, generator: torch.Generator) -> Transitions:
    """`count` of the first `size` transitions, uniformly and with repetition."""
    ids = torch.randint(0, size, (count,), generator=generator, device=data.obs.device)
    return data.rows(ids)


def both(first: Transitions, second: Transitions) -> Transitions:
    """One batch behind the other."""
    return Transitions(*(torch.cat(pair) for pair in zip(first, second, strict=True)))
