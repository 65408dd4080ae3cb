"""Running mean and variance of observations, mergeable across rollouts and processes."""

from collections.abc import Callable

import torch
from torch import Tensor

MIN_STD = 1e-2
"""Added to a standard deviation before dividing by it: a component that never moves is not blown up."""


class RunningNorm:
    """Mean and variance (D) of everything seen, merged by the parallel rule of Chan, Golub and LeVeque (1979).

    Frozen between calls of `update`, so that a rollout and the updates made from it see one and the same scaling.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu", clip: float = 10.0) -> None:
        self.clip = clip
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean = torch.zeros(size, dtype=torch.float64, device=device)
        self.m2 = torch.zeros(size, dtype=torch.float64, device=device)
        self.scale = torch.ones(size, device=device)
        self.shift = torch.zeros(size, device=device)

    def update(self, x: Tensor, reduce: Callable[[Tensor], Tensor] = lambda sums: sums) -> None:
        """Merges rows (..., D); `reduce` sums over processes. Two passes, so that nothing cancels far from zero."""
        rows = x.reshape(-1, x.shape[-1])
        count = rows.new_full((1,), float(rows.shape[0]), dtype=torch.float64)
        n, total = reduce(torch.cat([count, rows.sum(0, dtype=torch.float64)])).split([1, rows.shape[1]])
        batch_mean = total / n
        away = rows - batch_mean.to(rows.dtype)
        batch_m2 = reduce(torch.linalg.vector_norm(away, dim=0).double().square())
        delta, both = batch_mean - self.mean, self.count + n
        self.m2 += batch_m2 + delta * delta * (self.count * n / both)
        self.mean += delta * (n / both)
        self.count.copy_(both[0])
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
        std = torch.sqrt(self.m2 / self.count.clamp(min=1.0)) + MIN_STD
        # What has never moved says nothing, and is shown as 0: a network has not learnt what to do when it does move.
        moved = torch.where(self.m2 > 0, 1.0 / std, torch.zeros_like(std))
        self.scale = torch.where(self.count > 0, moved, torch.ones_like(std)).float()
        self.shift = (-self.mean * self.scale.double()).float()
