"""Advantages against numbers worked out by hand, and the example that tells three ways of bootstrapping apart."""

import torch
from torch import Tensor

from robo_rl.gae import gae_
from robo_rl.norm import RunningNorm
from robo_rl.rollout import allocate, collect_, evaluate_
from sim.spec import Step


def advantages(reward: list, value: list, *, boot: list, term: list, trunc: list, gamma: float, lam: float) -> Tensor:
    rows = lambda x: torch.tensor(x, dtype=torch.float64)[:, None]  # noqa: E731
    flags = lambda x: torch.tensor(x, dtype=torch.bool)[:, None]  # noqa: E731
    out = torch.zeros(len(reward), 1, dtype=torch.float64)
    gae_(
        out,
        reward=rows(reward),
        value=rows(value),
        bootstrap=rows(boot),
        terminated=flags(term),
        truncated=flags(trunc),
        gamma=gamma,
        gae_lambda=lam,
    )
    return out[:, 0]


def test_unbroken_episode_by_hand() -> None:
    # delta = r + 0.5 v' - v = (1 + 1 - 1, 2 + 2 - 2, 3 + 4 - 4) = (1, 2, 3); decay 0.25
    # A2 = 3; A1 = 2 + 0.25 * 3 = 2.75; A0 = 1 + 0.25 * 2.75 = 1.6875
    got = advantages([1, 2, 3], [1, 2, 4, 8], boot=[0, 0, 0], term=[0] * 3, trunc=[0] * 3, gamma=0.5, lam=0.5)
    torch.testing.assert_close(got, torch.tensor([1.6875, 2.75, 3.0], dtype=torch.float64))


def test_termination_is_worth_nothing_and_cuts_the_trace() -> None:
    # delta1 = 2 + 0 - 2 = 0 and nothing of A2 = 3 reaches A1: A1 = 0, A0 = 1 + 0.25 * 0
    got = advantages([1, 2, 3], [1, 2, 4, 8], boot=[0, 0, 0], term=[0, 1, 0], trunc=[0] * 3, gamma=0.5, lam=0.5)
    torch.testing.assert_close(got, torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64))


def test_time_out_counts_its_own_last_observation_and_cuts_the_trace() -> None:
    # delta1 = 2 + 0.5 * 10 - 2 = 5; A1 = 5; A0 = 1 + 0.25 * 5 = 2.25. The 4 is the next episode's value: unused.
    got = advantages([1, 2, 3], [1, 2, 4, 8], boot=[0, 10, 0], term=[0] * 3, trunc=[0, 1, 0], gamma=0.5, lam=0.5)
    torch.testing.assert_close(got, torch.tensor([2.25, 5.0, 3.0], dtype=torch.float64))


def test_termination_takes_precedence_over_a_time_out_in_the_same_step() -> None:
    got = advantages([1], [1, 9], boot=[10], term=[1], trunc=[1], gamma=0.5, lam=0.5)
    torch.testing.assert_close(got, torch.tensor([0.0], dtype=torch.float64))


class Cycle:
    """s0 -> s1 -> s0 -> ..., reward 0 at s0 and 1 at s1, cut off after two steps; the state is the observation."""

    num_envs = 4

    def reset(self, seed: int | None = None) -> dict[str, Tensor]:
        self.state = torch.zeros(self.num_envs, 1)
        return {"policy": self.state}

    def step(self, action: Tensor) -> Step:
        reward = self.state[:, 0].clone()
        over = reward > 0.5
        final = 1.0 - self.state
        self.state = torch.where(over[:, None], 0.0, final)
        nothing = torch.zeros(self.num_envs)
        return Step({"policy": self.state}, reward, nothing, over & False, over, {"policy": final}, {})


class Walker:
    """A policy that does nothing."""

    norms = {"policy": RunningNorm(1)}
    critic_group = "policy"
    log_std = torch.zeros(1)

    @staticmethod
    def act(obs: Tensor) -> Tensor:
        return torch.zeros(len(obs), 1)


def test_two_state_cycle_learns_the_true_value() -> None:
    """V(s1) = 1 / (1 - 0.81) = 5.263; bootstrapping from V(s_t) would give 10, not bootstrapping 1."""
    env, table = Cycle(), torch.zeros(2)
    rollout = allocate({"policy": 1}, {"policy"}, "policy", 6, env.num_envs, 1, torch.device("cpu"))
    rollout.obs["policy"][0] = env.reset()["policy"]
    for _ in range(300):
        collect_(rollout, env, Walker(), torch.Generator())
        evaluate_(rollout, lambda obs, table=table: table[obs.long()], Walker.norms["policy"], "policy", 0.9, 0.0)
        where = rollout.obs["policy"][:-1, :, 0].long()
        table = torch.stack([rollout.returns[where == s].mean() for s in (0, 1)])
        rollout.obs["policy"][0] = rollout.obs["policy"][-1]
    torch.testing.assert_close(table, torch.tensor([0.9 / 0.19, 1.0 / 0.19]), atol=1e-3, rtol=0.0)
