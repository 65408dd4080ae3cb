"""Running mean and variance of observations, mergeable across rollouts and processes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MIN_STD = 1e-2
"""Added to a standard deviation before dividing by it: a component that never moves is not blown up."""


class RunningNorm:
    """Mean and variance (D) of everything seen, merged by the parallel rule of Chan, Golub and LeVeque (1979).

    Frozen between calls of `update`, so that a rollout and the updates made from it see one and the same scaling.
    Columns `flags` stay as they are; columns of one group in `alike` (the same quantity of different members) share
    one mean and one variance, so that no member is special.
    """

    def __init__(
        self,
        size: int,
        device: torch.device | str = "cpu",
        clip: float = 10.0,
        *,
        flags: Sequence[int] = (),
        alike: Sequence[Sequence[int]] = (),
    ) -> None:
        self.clip = clip
        self._flags = torch.tensor(flags, dtype=torch.long, device=device) if flags else None
        self._alike = [torch.tensor(group, device=device) for group in alike]
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean = torch.zeros(size, dtype=torch.float64, device=device)
        self.m2 = torch.zeros(size, dtype=torch.float64, device=device)
        self.scale = torch.ones(size, device=device)
        self.shift = torch.zeros(size, device=device)

    def update(
        self, x: Tensor, reduce: Callable[[Tensor], Tensor] = lambda sums: sums, alive: Tensor | None = None
    ) -> None:
        """Merges rows (..., D), of those where `alive` (...); `reduce` sums over processes.

        Two passes, so that nothing cancels far from zero.
        """
        rows = x.reshape(-1, x.shape[-1])
        count = rows.new_full((1,), float(rows.shape[0]), dtype=torch.float64)
        weight = None if alive is None else alive.reshape(-1, 1).to(rows.dtype)
        if weight is not None:
            rows, count = rows * weight, weight.sum(0, dtype=torch.float64)
        n, total = reduce(torch.cat([count, rows.sum(0, dtype=torch.float64)])).split([1, rows.shape[1]])
        batch_mean = total / n.clamp(min=1.0)
        away = rows - batch_mean.to(rows.dtype)
        away = away if weight is None else away * weight
        batch_m2 = reduce(torch.linalg.vector_norm(away, dim=0).double().square())
        delta, both = batch_mean - self.mean, (self.count + n).clamp(min=1.0)
        self.m2 += batch_m2 + delta * delta * (self.count * n / both)
        self.mean += delta * (n / both)
        self.count += n[0]
        self._refresh()

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Normalised and clipped rows (..., D)."""
        return torch.addcmul(self.shift, x, self.scale, out=out).clamp_(-self.clip, self.clip)

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on, count included."""
        return {"count": self.count.clone(), "mean": self.mean.clone(), "m2": self.m2.clone()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Puts a saved state back."""
        self.count.copy_(state["count"])
        self.mean.copy_(state["mean"])
        self.m2.copy_(state["m2"])
        self._refresh()

    def _refresh(self) -> None:
        mean, m2 = self._shared() if self._alike else (self.mean, self.m2)
        std = torch.sqrt(m2 / self.count.clamp(min=1.0)) + MIN_STD
        # What has never moved says nothing, and is shown as 0: a network has not learnt what to do when it does move.
        moved = torch.where(m2 > 0, 1.0 / std, torch.zeros_like(std))
        self.scale = torch.where(self.count > 0, moved, torch.ones_like(std)).float()
        if self._flags is not None:
            self.scale[self._flags] = 1.0
        self.shift = (-mean * self.scale.double()).float()
        if self._flags is not None:
            self.shift[self._flags] = 0.0

    def _shared(self) -> tuple[Tensor, Tensor]:
        """Mean and m2 (D) with those of each group merged: variance within its columns plus that of their means."""
        mean, m2 = self.mean.clone(), self.m2.clone()
        for group in self._alike:
            common = self.mean[group].mean()
            m2[group] = self.m2[group].mean() + self.count * (self.mean[group] - common).square().mean()
            mean[group] = common
        return mean, m2
