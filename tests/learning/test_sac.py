"""Soft actor-critic: losses against hand computations and torch.distributions, the ring, exact resume, a swing-up."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from hardware.errors import BadInput
from robo_rl.algorithms.sac import (
    SacLearner,
    actor_loss,
    critic_loss,
    squashed,
    td_target,
    temperature_loss,
)
from robo_rl.config import RunConfig
from robo_rl.nets import MLP
from robo_rl.pendulum import PendulumEnv
from robo_rl.recipes import sac
from robo_rl.replay_buffer import ReplayBuffer, Transitions
from sim.spec import Step

SMALL = dataclasses.replace(
    sac.CONFIG, hidden=(16,), batch=16, warmup_steps=32, rollout_steps=4, buffer=100, utd=0.5, learning_rate=1e-3
)


def run_config(algo: Any = SMALL, num_envs: int = 4, seed: int = 0) -> RunConfig:
    return RunConfig("pendulum", seed=seed, num_envs=num_envs, algorithm="sac", algo=algo, linear="torch")


def fresh(algo: Any = SMALL, num_envs: int = 4, seed: int = 0) -> sac.OffPolicy:
    return sac.prepare(run_config(algo, num_envs, seed), PendulumEnv(num_envs, episode=20))


def transitions(rows: int, first: float = 0.0) -> Transitions:
    count = first + torch.arange(rows, dtype=torch.float32)
    wide = count[:, None].expand(rows, 3)
    return Transitions(wide, count[:, None], count, wide + 0.5, torch.zeros(rows))


def test_target_by_hand() -> None:
    # Row 1: 1 + 0.9 (min(2, 3) - 0.5 * -1) = 1 + 0.9 * 2.5. Row 2 terminated: its reward alone.
    target = td_target(
        torch.tensor([1.0, 1.0]),
        torch.tensor([0.0, 1.0]),
        torch.tensor([[2.0, 2.0], [3.0, 3.0]]),
        torch.tensor([-1.0, -1.0]),
        gamma=0.9,
        temperature=0.5,
    )
    assert target.tolist() == pytest.approx([3.25, 1.0])


def test_losses_by_hand() -> None:
    # Critics 1 and 2 against (1, 2): errors (0, 1) and (2, 0): 1/2 + 4/2.
    assert critic_loss(torch.tensor([[1.0, 3.0], [3.0, 2.0]]), torch.tensor([1.0, 2.0])).item() == pytest.approx(2.5)
    # 0.5 * (-1, 1) - (2, 4) = (-2.5, -3.5).
    assert actor_loss(torch.tensor([2.0, 4.0]), torch.tensor([-1.0, 1.0]), 0.5).item() == pytest.approx(-3.0)


@pytest.mark.parametrize(("entropy", "direction"), [(-2.0, 1.0), (0.5, -1.0)], ids=["too certain", "too random"])
def test_temperature_moves_entropy_towards_its_target(entropy: float, direction: float) -> None:
    # Loss -log t * (log pi + target) with log pi = -entropy and target -1: gradient entropy + 1.
    log_temperature = torch.tensor(0.3, requires_grad=True)
    temperature_loss(log_temperature, torch.full((4,), -entropy), -1.0).backward()
    assert log_temperature.grad is not None
    assert log_temperature.grad.item() == pytest.approx(entropy + 1.0)
    assert math.copysign(1.0, -log_temperature.grad.item()) == direction


def test_squashed_density_agrees_with_torch_distributions() -> None:
    torch.manual_seed(0)
    mean, log_std, noise = torch.randn(5, 2), torch.randn(5, 2) * 0.3, torch.randn(5, 2)
    sample = squashed(mean, log_std, noise)
    torch.testing.assert_close(sample.action, torch.tanh(mean + log_std.exp() * noise))
    theirs = TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), [TanhTransform(cache_size=1)])
    torch.testing.assert_close(sample.log_prob, theirs.log_prob(sample.action), rtol=1e-4, atol=1e-4)


def test_squashed_density_stays_finite_where_tanh_saturates() -> None:
    # At x = 30, log(1 - tanh^2) = 2 log 2 - 60 to the last digit; 1 - tanh(30)^2 itself is 0 in single precision.
    sample = squashed(torch.tensor([[30.0]]), torch.zeros(1, 1), torch.zeros(1, 1))
    assert sample.action.item() == 1.0
    assert sample.log_prob.item() == pytest.approx(-0.5 * math.log(2 * math.pi) - 2 * math.log(2.0) + 60.0)


def test_ring_keeps_the_newest() -> None:
    ring = ReplayBuffer(5, 3, 1)
    ring.add(transitions(3))
    assert len(ring) == 3
    ring.add(transitions(4, first=3.0))
    assert len(ring) == 5
    assert sorted(ring.data.reward.tolist()) == [2.0, 3.0, 4.0, 5.0, 6.0]
    assert torch.equal(ring.data.next_obs, ring.data.obs + 0.5)
    drawn = ring.sample(200, torch.Generator().manual_seed(0))
    assert set(drawn.reward.tolist()) == {2.0, 3.0, 4.0, 5.0, 6.0}
    assert torch.equal(drawn.obs[:, 0], drawn.reward)


def test_a_batch_too_large_for_the_ring_is_refused() -> None:
    with pytest.raises(BadInput, match="6 transitions at once do not fit into a replay buffer of 5"):
        ReplayBuffer(5, 3, 1).add(transitions(6))


class Counter:
    """Observes the step number 0..2, is cut after 3 steps and then observes -1: the fresh start."""

    def __init__(self) -> None:
        self.num_envs, self.spec, self.at = 1, PendulumEnv(1).spec, 0

    def reset(self, seed: int | None = None) -> dict[str, Tensor]:
        self.at = 0
        return {"policy": torch.tensor([[-1.0]])}

    def step(self, action: Tensor) -> Step:
        self.at += 1
        over = torch.tensor([self.at == 3])
        last = torch.tensor([[float(self.at)]])
        obs = torch.tensor([[-1.0]]) if over else last
        self.at = 0 if over else self.at
        no = torch.zeros(1)
        return Step({"policy": obs}, last[0], no, torch.tensor([False]), over, {"policy": last}, {})


def test_a_time_out_is_kept_with_its_own_last_observation_and_no_termination() -> None:
    trainee = sac.prepare(run_config(dataclasses.replace(SMALL, warmup_steps=4, rollout_steps=1), 1), Counter())
    trainee.iterate()
    kept = trainee.buffer.data
    assert kept.obs[:4, 0].tolist() == [-1.0, 1.0, 2.0, -1.0]
    assert kept.next_obs[:4, 0].tolist() == [1.0, 2.0, 3.0, 1.0]
    assert kept.terminated[:4].sum() == 0


def test_slow_critics_follow_by_tau() -> None:
    learner = SacLearner(dataclasses.replace(SMALL, tau=0.25), 3, 1, seed=0)
    before = learner.flats["target"].value.data.clone()
    learner.update(transitions(16)._replace(obs=torch.randn(16, 3), next_obs=torch.randn(16, 3)))
    newest = learner.flats["critics"].value.data
    torch.testing.assert_close(learner.flats["target"].value.data, before + 0.25 * (newest - before))
    assert not torch.equal(newest, before)


def test_layer_norm_bounds_a_critic_far_from_its_data() -> None:
    """Hidden units of unit variance: the value cannot exceed |w| sqrt(width), however far the input lies."""
    net = MLP((3, 32, 1), "relu", layer_norm=True, generator=torch.Generator().manual_seed(0))
    bound = net.weights[1].norm().item() * math.sqrt(32) + 1e-3
    assert net(torch.randn(100, 3) * 1e6).abs().max().item() <= bound
    plain = MLP((3, 32, 1), "relu", generator=torch.Generator().manual_seed(0))
    assert plain(torch.randn(100, 3) * 1e6).abs().max().item() > 1e4 * bound


def leaves(tree: Any) -> list[Any]:
    return [leaf for key in sorted(tree) for leaf in leaves(tree[key])] if isinstance(tree, dict) else [tree]


@pytest.mark.parametrize(
    "algo",
    [SMALL, dataclasses.replace(SMALL, critics=4, layer_norm=True, actor_every=2, entropy_in_target=False)],
    ids=["sac", "rlpd"],
)
def test_two_halves_equal_the_whole_bit_for_bit(algo: Any) -> None:
    whole, first = fresh(algo), fresh(algo)
    for _ in range(10):  # past warm-up and around the ring
        whole.iterate()
    for _ in range(5):
        first.iterate()
    second = fresh(algo, seed=1)
    second.load(first.state())
    for _ in range(5):
        values = second.iterate()
    assert whole.learner.updates > 10
    assert values["update"] == 10.0
    for a, b in zip(leaves(whole.state()), leaves(second.state()), strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b


def test_gradient_steps_follow_the_ratio() -> None:
    trainee = fresh()
    values = [trainee.iterate() for _ in range(6)]
    # 32 random steps at first, then 16 more each time, half of which are paid back in gradient steps.
    assert [v["gradient_steps"] for v in values] == [0.0, 8.0, 16.0, 24.0, 32.0, 40.0]
    assert all(list(v) == list(values[0]) for v in values)


def test_half_of_each_batch_is_recorded_data(tmp_path: Path) -> None:
    trainee = fresh()
    trainee.prior = transitions(8)._replace(reward=torch.full((8,), 77.0))
    trainee.iterate()
    assert int((trainee._batch().reward == 77.0).sum()) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_critics": 3}, "algo.target_critics = 3 of algo.critics = 2"),
        ({"buffer": 3}, "algo.buffer = 3 does not hold one step of 4 environments"),
        ({"gamma": 1.5}, "algo.gamma = 1.5"),
        ({"batch": 0}, "algo.batch = 0; expected at least 1"),
        ({"activation": "sin"}, "algo.activation = 'sin'; expected one of elu, relu, tanh"),
        ({"learning_rate": math.nan}, "algo.learning_rate = nan; expected a finite number"),
        ({"hidden": (0,)}, "expected widths of at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        sac.check(run_config(dataclasses.replace(SMALL, **change)))


@pytest.mark.slow
def test_learns_to_swing_up() -> None:
    """Published level of SAC after 20,000 steps: -157 +- 89 (rl-baselines3-zoo); random torques earn about -1,200."""
    algo = dataclasses.replace(sac.CONFIG, hidden=(64, 64), learning_rate=2e-3, tau=0.01, warmup_steps=1000)
    trainee = sac.prepare(run_config(algo), PendulumEnv(4))
    while trainee.env_steps < 5_000:
        trainee.iterate()
    net, norm = trainee.policy()
    env = PendulumEnv(200)
    obs, total = env.reset(5)["policy"], torch.zeros(200)
    with torch.no_grad():
        for _ in range(200):
            step = env.step(net(norm.apply(obs)))
            obs, total = step.obs["policy"], total + step.reward
    assert total.mean().item() > -200.0
