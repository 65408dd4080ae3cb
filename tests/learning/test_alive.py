"""Rows whose step does not count: losses, statistics and episodes are those of the other rows."""

import dataclasses

import pytest
import torch
from torch import Tensor

from robo_rl.algorithms.ppo import ppo_losses
from robo_rl.config import PPOConfig, RunConfig
from robo_rl.norm import RunningNorm
from robo_rl.pendulum import PendulumEnv
from robo_rl.recipes.ppo import OnPolicy, prepare
from robo_rl.rollout import Episodes, count_episodes
from sim.spec import Step

CONFIG = RunConfig(
    "pendulum", seed=3, num_envs=16, linear="torch", algo=PPOConfig(rollout_steps=8, minibatches=2, hidden=(8,))
)


class Waiting(PendulumEnv):
    """Pendula of which some wait, and report nonsense meanwhile; `alive` (16) says who does not."""

    alive: Tensor | None = None
    nonsense = 0.0

    def step(self, action: Tensor) -> Step:
        step = super().step(action)
        if self.alive is None:
            return step
        waits = ~self.alive
        obs, final = ({"policy": v["policy"] + self.nonsense * waits[:, None]} for v in (step.obs, step.final_obs))
        return step._replace(alive=self.alive, reward=step.reward + self.nonsense * waits, obs=obs, final_obs=final)


def trained(alive: Tensor | None, nonsense: float = 0.0, updates: int = 4) -> tuple[OnPolicy, list[dict[str, float]]]:
    env = Waiting(16, pendula=2, episode=20)
    env.alive, env.nonsense = alive, nonsense
    trainee = prepare(CONFIG, env)
    # A row that waits from the start must not act on its first observation either: it is nonsense as well.
    if alive is not None:
        trainee.rollout.obs["policy"][-1] += nonsense * ~alive[:, None]
    return trainee, [trainee.iterate() for _ in range(updates)]


def batch(rows: int) -> dict[str, Tensor]:
    noise = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=noise)  # noqa: E731
    names = ("old_log_prob", "advantage", "returns", "old_value")
    return {"action": draw(rows, 3), "old_mean": draw(rows, 3)} | {name: draw(rows) for name in names}


@pytest.mark.parametrize("clip_value", [False, True])
def test_losses_and_their_gradients_are_those_of_the_rows_that_count(clip_value: bool) -> None:
    rows = batch(40)
    alive = torch.rand(40, generator=torch.Generator().manual_seed(1)) > 0.5
    mean, value = torch.randn(40, 3), torch.randn(40)
    settings = {"clip": 0.2, "clip_value": clip_value, "value_coef": 0.7, "entropy_coef": 0.01}
    found = []
    for weight, kept in ((alive.float(), torch.ones(40, dtype=torch.bool)), (None, alive)):
        leaves = [x[kept].clone().requires_grad_() for x in (mean, value)]
        log_std = torch.full((3,), -0.5, requires_grad=True)
        chosen = {name: x[kept] for name, x in rows.items()}
        losses = ppo_losses(
            leaves[0], log_std, leaves[1], **chosen, old_log_std=torch.zeros(3), **settings, weight=weight
        )
        losses.total.backward()
        grads = [x.grad for x in leaves if x.grad is not None]
        found.append((losses, [g if len(g) < 40 else g[alive] for g in grads], log_std.grad, grads))
    for ours, theirs in zip(found[0][0], found[1][0], strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(found[0][1:3], found[1][1:3])
    assert all((g[~alive] == 0.0).all() for g in found[0][3])


def test_a_minibatch_in_which_nobody_counts_moves_nothing() -> None:
    mean = torch.randn(5, 3, requires_grad=True)
    settings = {"clip": 0.2, "clip_value": False, "value_coef": 1.0, "entropy_coef": 0.0}
    losses = ppo_losses(
        mean, torch.zeros(3), torch.zeros(5), **batch(5), old_log_std=torch.zeros(3), **settings, weight=torch.zeros(5)
    )
    losses.total.backward()
    assert mean.grad is not None
    assert losses.total.item() == losses.kl.item() == mean.grad.abs().sum().item() == 0.0


def test_moments_are_those_of_the_rows_that_count() -> None:
    x = torch.randn(6, 30, 4, generator=torch.Generator().manual_seed(2)) * 3.0 + 50.0
    alive = torch.rand(6, 30, generator=torch.Generator().manual_seed(3)) > 0.4
    alive[0] = False  # a rollout of which nothing counts, before anything was seen, changes nothing
    ours, theirs = RunningNorm(4), RunningNorm(4)
    for part, counts in zip(x, alive, strict=True):
        ours.update(part + 1e4 * ~counts[:, None], alive=counts)
        if counts.any():
            theirs.update(part[counts])
    assert ours.count.item() == alive.sum().item()
    for a, b in zip((ours.mean, ours.m2), (theirs.mean, theirs.m2), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_what_waiting_rows_report_changes_nothing() -> None:
    alive = torch.arange(16) % 3 != 0
    (quiet, _), (loud, said) = trained(alive), trained(alive, nonsense=7.0)
    assert torch.equal(quiet.learner.flat.value, loud.learner.flat.value)
    assert torch.equal(quiet.learner.norms["policy"].mean, loud.learner.norms["policy"].mean)
    assert said[-1]["return_mean"] < 0.0  # the nonsense would have paid 7 per step


def test_all_alive_is_the_same_as_saying_nothing() -> None:
    (silent, _), (alive, _) = trained(None), trained(torch.ones(16, dtype=torch.bool))
    assert silent.rollout.alive is None
    torch.testing.assert_close(silent.learner.flat.value, alive.learner.flat.value, rtol=1e-4, atol=1e-5)


def test_episodes_of_waiting_rows_are_not_counted_by_hand() -> None:
    """Row 0 fails at step 1, waits for two steps, starts anew with step 4. Row 1 lives on and times out at step 3."""
    trainee, _ = trained(None, updates=1)
    rollout = trainee.rollout
    rollout = dataclasses.replace(
        rollout,
        reward=torch.tensor([[1.0, 1.0], [2.0, 1.0], [9.0, 1.0], [9.0, 1.0], [3.0, 1.0]]),
        terminated=torch.tensor([[0, 0], [1, 0], [0, 0], [0, 0], [0, 0]], dtype=torch.bool),
        truncated=torch.tensor([[0, 0], [0, 0], [0, 0], [1, 1], [0, 0]], dtype=torch.bool),
        alive=torch.tensor([[1, 1], [1, 1], [0, 1], [0, 1], [1, 1]], dtype=torch.bool),
    )
    episodes = Episodes(torch.zeros(2), torch.zeros(2))
    assert count_episodes(rollout, episodes).tolist() == [2.0, 3.0 + 4.0, 2.0 + 4.0, 1.0]
    assert episodes.total.tolist() == [3.0, 1.0]
    assert episodes.length.tolist() == [1.0, 1.0]
