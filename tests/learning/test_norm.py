"""The running normaliser against numpy's moments of all data at once."""

import numpy as np
import torch

from robo_rl.norm import MIN_STD, RunningNorm


def test_merged_moments_equal_those_of_all_rows() -> None:
    rng = np.random.default_rng(1)
    parts = [rng.normal(100.0 * i, 1.0 + i, size=(50 + 30 * i, 3)).astype(np.float32) for i in range(5)]
    norm = RunningNorm(3)
    for part in parts:
        norm.update(torch.from_numpy(part))
    rows = np.concatenate(parts).astype(np.float64)
    np.testing.assert_allclose(norm.mean, rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(norm.m2 / norm.count, rows.var(0), rtol=1e-5)
    assert norm.count.item() == len(rows)


def test_merging_two_processes_equals_one() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(64, 4) + 3.0, torch.randn(64, 4) * 5.0
    one = RunningNorm(4)
    one.update(torch.cat([left, right]))
    n, mean = 64, torch.cat([left, right]).double().mean(0)
    theirs = iter(
        [
            torch.cat([torch.tensor([float(n)], dtype=torch.float64), left.double().sum(0)]),
            ((left.double() - mean) ** 2).sum(0),
        ]
    )
    two = RunningNorm(4)
    two.update(right, lambda sums: sums + next(theirs))  # as another process would add its own
    torch.testing.assert_close(two.mean, one.mean, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(two.m2, one.m2, rtol=1e-5, atol=1e-4)


def test_far_from_zero_does_not_cancel() -> None:
    norm = RunningNorm(1)
    for seed in range(4):
        norm.update(1e4 + torch.randn(1000, 1, generator=torch.Generator().manual_seed(seed)))
    assert abs((norm.m2 / norm.count).sqrt().item() - 1.0) < 0.05


def test_applied_rows_are_standard_and_clipped() -> None:
    torch.manual_seed(0)
    x = torch.randn(1000, 2) * torch.tensor([3.0, 0.5]) + 7.0
    norm = RunningNorm(2, clip=2.0)
    torch.testing.assert_close(norm.apply(x), x.clamp(-2.0, 2.0))  # before any data: nothing but the bound
    norm.update(x)
    mean, std = x.mean(0), x.std(0, correction=0)
    torch.testing.assert_close(norm.apply(x), ((x - mean) / (std + MIN_STD)).clamp(-2.0, 2.0), rtol=1e-4, atol=1e-4)


def test_a_component_that_never_moved_is_not_seen() -> None:
    norm = RunningNorm(2)
    norm.update(torch.tensor([[5.0, 1.0], [5.0, 3.0]]))
    torch.testing.assert_close(norm.apply(torch.tensor([[7.0, 3.0]])), torch.tensor([[0.0, 1.0]]), atol=0.02, rtol=0.0)
