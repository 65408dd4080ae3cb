"""The losses and rules of PPO against numbers worked out by hand and against torch.distributions."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from robo_rl.algorithms.ppo import (
    adapt_learning_rate_,
    annealed,
    gaussian_entropy,
    gaussian_kl,
    gaussian_log_prob,
    ppo_gradients,
    ppo_losses,
    surrogate_loss,
    value_loss,
)


def test_surrogate_by_hand() -> None:
    # Rows: 1.5 * 1 held at 1.2; 0.5 * 1 stays; 1.5 * -1 stays -1.5; 0.5 * -1 held at -0.8. Mean of 1.2, .5, -1.5, -.8.
    ratio, advantage = torch.tensor([1.5, 0.5, 1.5, 0.5]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert surrogate_loss(ratio, advantage, 0.2).item() == pytest.approx(0.6 / 4)


def test_value_loss_by_hand() -> None:
    # Old 0, clip 0.2. Row 1: value 1, return 0.5: (0.5)^2 = .25 or held at .2: .09 -> .25. Row 2: value 1, return 2:
    # 1 or (0.2 - 2)^2 = 3.24 -> 3.24.
    value, old, returns = torch.tensor([1.0, 1.0]), torch.zeros(2), torch.tensor([0.5, 2.0])
    assert value_loss(value, old, returns, 0.2).item() == pytest.approx((0.25 + 3.24) / 2)
    assert value_loss(value, old, returns, None).item() == pytest.approx((0.25 + 1.0) / 2)


def test_gaussian_functions_agree_with_torch_distributions() -> None:
    torch.manual_seed(0)
    mean, old_mean, action = torch.randn(3, 5, 4)
    log_std, old_log_std = torch.randn(4) * 0.3, torch.randn(4) * 0.3
    new, old = (Independent(Normal(m, s.exp()), 1) for m, s in ((mean, log_std), (old_mean, old_log_std)))
    constant = 2 * math.log(2 * math.pi)
    torch.testing.assert_close(gaussian_log_prob(action, mean, log_std) - constant, new.log_prob(action))
    torch.testing.assert_close(gaussian_kl(old_mean, old_log_std, mean, log_std), kl_divergence(old, new))
    torch.testing.assert_close(gaussian_entropy(log_std), new.entropy()[0])


def test_gradient_points_towards_good_actions_and_stops_at_the_clip() -> None:
    mean = torch.zeros(2, 1, requires_grad=True)
    log_std = torch.zeros(1, requires_grad=True)
    action = torch.tensor([[0.5], [0.5]])
    common = {"clip": 0.2, "clip_value": False, "value_coef": 1.0, "entropy_coef": 0.0}
    batch = {"old_mean": torch.zeros(2, 1), "old_log_std": torch.zeros(1), "old_value": torch.zeros(2)}
    old_log_prob = gaussian_log_prob(action, torch.zeros(2, 1), torch.zeros(1))
    old_log_prob[1] -= 1.0  # ratio e: beyond the interval, and the advantage is positive: no gradient
    losses = ppo_losses(
        mean,
        log_std,
        torch.zeros(2),
        action=action,
        old_log_prob=old_log_prob,
        advantage=torch.ones(2),
        returns=torch.zeros(2),
        **batch,
        **common,
    )
    losses.total.backward()
    assert mean.grad is not None
    assert mean.grad[0, 0].item() == pytest.approx(-0.25)  # -(1/2) * advantage * ratio * (a - mean) / std^2
    assert mean.grad[1, 0].item() == 0.0
    assert losses.clipped.item() == 0.5
    assert losses.kl.item() == 0.0


@pytest.mark.parametrize("entropy_coef", [0.0, 0.01])
@pytest.mark.parametrize("weighted", [False, True])
def test_derivatives_in_closed_form_are_those_of_autograd(entropy_coef: float, weighted: bool) -> None:
    noise = torch.Generator().manual_seed(7)
    draw = lambda *shape: torch.randn(*shape, generator=noise, dtype=torch.float64)  # noqa: E731
    mean, value, log_std = draw(200, 3), draw(200), draw(3) * 0.2
    leaves = [x.requires_grad_() for x in (mean, log_std, value)]
    rows = {"old_mean": mean.detach() + 0.2 * draw(200, 3), "returns": draw(200), "advantage": draw(200)}
    rows["action"] = rows["old_mean"] + draw(200, 3)
    old_log_std = torch.zeros(3, dtype=torch.float64)
    rows["old_log_prob"] = gaussian_log_prob(rows["action"], rows["old_mean"], old_log_std)
    weight = (draw(200) > 0.0).double() if weighted else None
    common = {"clip": 0.2, "value_coef": 0.7, "entropy_coef": entropy_coef, "old_log_std": old_log_std}
    theirs = ppo_losses(*leaves, **rows, **common, weight=weight, old_value=draw(200), clip_value=False)
    theirs.total.backward()
    with torch.no_grad():
        losses, gradients = ppo_gradients(*leaves, **rows, **common, weight=weight)
    assert 0.2 < losses.clipped < 0.8
    for a, b in zip(losses, theirs, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-12, atol=1e-12)
    for x, g in zip(leaves, gradients, strict=True):
        torch.testing.assert_close(g, x.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("kl", "expected"), [(0.05, 1e-3 / 1.5), (0.001, 1.5e-3), (0.01, 1e-3)], ids=["too far", "too timid", "right"]
)
def test_learning_rate_follows_the_divergence(kl: float, expected: float) -> None:
    rate = torch.tensor(1e-3)
    adapt_learning_rate_(rate, torch.tensor(kl), target=0.01, low=1e-5, high=1e-2)
    assert rate.item() == pytest.approx(expected)


def test_learning_rate_stays_within_bounds() -> None:
    rate = torch.tensor(1e-3)
    adapt_learning_rate_(rate, torch.tensor(0.0), target=0.01, low=1e-5, high=1.2e-3)
    assert rate.item() == pytest.approx(1.2e-3)


def test_annealing_is_linear_and_then_flat() -> None:
    assert [annealed(2.0, s, 100) for s in (0, 50, 100, 1000)] == pytest.approx([2.0, 1.05, 0.1, 0.1])
    assert annealed(2.0, 1000, 0) == 2.0
