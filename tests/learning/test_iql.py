"""IQL and RIQL: losses against numbers worked out by hand, a problem with a known answer, exact resume."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import optimize

from hardware.errors import BadInput
from robo_rl import recipe
from robo_rl.algorithms.iql import (
    IqlLearner,
    advantage_weight,
    critic_loss,
    expectile_loss,
    pessimistic,
    td_target,
)
from robo_rl.commands.eval import baseline_law
from robo_rl.config import RunConfig
from robo_rl.datasets.collect import collect
from robo_rl.datasets.transitions import write
from robo_rl.offline import Batch
from robo_rl.recipes import iql, riql
from sim.registry import make_env, scene_entry

SCENE = "quadrotor/hover"


def test_the_losses_are_those_worked_out_by_hand() -> None:
    u = torch.tensor([2.0, -1.0, 0.5])
    # 0.7 * 4, 0.3 * 1, 0.7 * 0.25
    assert expectile_loss(u, 0.7).item() == pytest.approx((2.8 + 0.3 + 0.175) / 3)
    assert expectile_loss(u, 0.5).item() == pytest.approx(0.5 * (4 + 1 + 0.25) / 3)
    values, target = torch.tensor([[1.0, 3.0], [2.0, 2.0]]), torch.tensor([1.0, 1.0])
    assert critic_loss(values, target).item() == pytest.approx((0 + 4) / 2 + (1 + 1) / 2)
    # Huber with delta 1: error 2 gives 1 * (2 - 1/2), error 1 gives 1/2.
    assert critic_loss(values, target, huber=1.0).item() == pytest.approx((0 + 1.5) / 2 + (0.5 + 0.5) / 2)
    five = torch.tensor([[5.0], [1.0], [2.0], [4.0], [3.0]])
    assert pessimistic(five).item() == 1.0
    assert pessimistic(five, 0.25).item() == 2.0
    assert pessimistic(five, 0.1).item() == pytest.approx(1.4)
    weights = advantage_weight(torch.tensor([0.0, 1.0, 2.0, -1.0]), 3.0, 100.0)
    torch.testing.assert_close(weights, torch.tensor([1.0, math.exp(3), 100.0, math.exp(-3)]))
    got = td_target(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0]), torch.tensor([10.0, 10.0]), 0.9)
    assert got.tolist() == [10.0, 1.0]


def test_the_expectile_is_the_one_of_its_definition() -> None:
    """The minimum of the loss over a constant V solves tau E[(q - v)+] = (1 - tau) E[(v - q)+], by scipy."""
    q = torch.randn(2000, generator=torch.Generator().manual_seed(1)) * 2.0 + 1.0
    for tau in (0.5, 0.7, 0.9):
        best = optimize.minimize_scalar(lambda v, t=tau: expectile_loss(q - v, t).item(), bounds=(-5, 8))
        above = (q - best.x).clamp(min=0).mean().item()
        below = (best.x - q).clamp(min=0).mean().item()
        assert tau * above == pytest.approx((1 - tau) * below, rel=1e-3)


@pytest.mark.parametrize("name", ["iql", "riql"])
def test_a_chain_with_a_known_value_is_solved(name: str) -> None:
    """Two states; action +-1. From state 0, +1 pays 0 and leads to state 1, -1 pays 0 and stays; from state 1, +1 pays
    1 and ends, -1 pays 0 and ends. With expectile near 1, V(1) = 1 and V(0) = gamma; Q(0, -1) is gamma^2. The policy's
    mean is that of +1 and -1 under the weights exp(3 (Q - V)): tanh of half of 3 times the difference of Q."""
    module = iql if name == "iql" else riql
    config = dataclasses.replace(
        module.CONFIG, gamma=0.9, expectile=0.95, hidden=(32,), learning_rate=3e-3, tau=0.05, ema=0.99
    )
    rows = [(0, 1, 0.0, 1, 0), (0, -1, 0.0, 0, 0), (1, 1, 1.0, 1, 1), (1, -1, 0.0, 1, 1)]
    column = lambda i: torch.tensor([r[i] for r in rows] * 16, dtype=torch.float32)  # noqa: E731
    one_hot = lambda i: torch.eye(2)[column(i).long()]  # noqa: E731
    ones = torch.ones(64)
    batch = Batch(one_hot(0), column(1)[:, None], column(2), one_hot(3), column(4), 0 * ones, ones)
    learner = IqlLearner(config, 2, 1, seed=0)
    for _ in range(800):
        learner.step(batch, 1.0)
    with torch.no_grad():
        values = learner.value(torch.eye(2)).squeeze(-1).tolist()
        actions = learner.net()(torch.eye(2)).squeeze(-1).tolist()
        q = learner.critics(torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, -1.0]])).squeeze(-1).mean(0).tolist()
    assert values == pytest.approx([0.9, 1.0], abs=0.08)
    assert q == pytest.approx([0.81, 0.0], abs=0.08)  # staying wastes one step; the bad end is worth nothing
    assert actions == pytest.approx([math.tanh(1.5 * 0.09), math.tanh(1.5)], abs=0.05)


def test_huber_and_quantile_bear_wrong_rewards_better() -> None:
    """One state, every episode ends at once, reward 1; a tenth of the rows says -50. The mean of the data is -4.1."""
    reward = torch.where(torch.arange(1000) % 10 == 0, -50.0, 1.0)
    obs, nothing = torch.ones(1000, 1), torch.zeros(1000)
    action = torch.rand(1000, 1, generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch = Batch(obs, action, reward, obs, nothing + 1, nothing, nothing + 1)
    found = {}
    for name, module in (("iql", iql), ("riql", riql)):
        config = dataclasses.replace(module.CONFIG, hidden=(16,), learning_rate=1e-2)
        learner = IqlLearner(config, 1, 1, seed=0)
        for _ in range(400):
            learner.step(batch, 1.0)
        with torch.no_grad():
            found[name] = learner.critics(torch.tensor([[1.0, 0.0]])).mean().item()
    assert found["iql"] < -2.0
    assert abs(found["riql"] - 1.0) < 0.5


def _config(folder: Path, name: str) -> RunConfig:
    module = iql if name == "iql" else riql
    algo = dataclasses.replace(module.CONFIG, hidden=(16,), batch=32, report_every=5, anneal_steps=20)
    config = RunConfig(SCENE, num_envs=1, algorithm=name, data=str(folder), algo=algo, linear="torch")
    return dataclasses.replace(config, scene_config=scene_entry(SCENE).config)


@pytest.mark.parametrize("name", ["iql", "riql"])
def test_going_on_from_a_checkpoint_is_the_same_run_to_the_bit(name: str, tmp_path: Path) -> None:
    world = dataclasses.replace(scene_entry(SCENE).config, episode_s=0.5, hold_from_s=0.0)
    data = collect(SCENE, baseline_law(scene_entry(SCENE).baseline), episodes=4, noise=0.1, config=world)
    config, env = _config(write(tmp_path / "set", data), name), make_env(SCENE, 1)
    recipe.check(config)
    straight, first, second = (recipe.recipe(name).prepare(config, env, None, None) for _ in range(3))  # type: ignore[arg-type]
    rows = [straight.iterate() for _ in range(4)]
    for _ in range(2):
        first.iterate()
    torch.save(first.state(), tmp_path / "state.pt")
    second.load(torch.load(tmp_path / "state.pt"))
    assert repr([second.iterate() for _ in range(2)]) == repr(rows[2:])
    for a, b in zip(straight.policy()[0].parameters(), second.policy()[0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_rewards_are_scaled_by_their_spread(tmp_path: Path) -> None:
    world = dataclasses.replace(scene_entry(SCENE).config, episode_s=0.5, hold_from_s=0.0)
    data = collect(SCENE, baseline_law(scene_entry(SCENE).baseline), episodes=4, config=world)
    config = _config(write(tmp_path / "set", data), "iql")
    table = iql.prepare(config, make_env(SCENE, 1)).table
    quarter, three = np.quantile(table.reward.numpy(), [0.25, 0.75])
    assert three - quarter == pytest.approx(1.349, rel=1e-3)  # of a standard normal distribution
    normal = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    assert iql.spread(2.0 * normal) == pytest.approx(2.0, rel=0.02)
    normal[:1000] = 1e6
    assert iql.spread(2.0 * normal) == pytest.approx(2.0, rel=0.04)
    assert iql.spread(torch.tensor([0.0] * 15 + [4.0])) == pytest.approx(4.0 * math.sqrt(15) / 16)
    assert iql.spread(torch.zeros(3)) == 1.0
    fixed = dataclasses.replace(config, algo=dataclasses.replace(config.algo, reward_scale=10.0))
    np.testing.assert_allclose(iql.prepare(fixed, make_env(SCENE, 1)).table.reward.numpy(), 10 * data.reward, rtol=1e-5)


@pytest.mark.parametrize(
    ("algo", "message"),
    [
        ({"expectile": 0.4}, "algo.expectile = 0.4; expected 0.5 to 1"),
        ({"gamma": 1.5}, "algo.gamma = 1.5"),
        ({"critics": 0}, "algo.critics = 0"),
        ({"weight_clip": 0.5}, "algo.weight_clip = 0.5; expected at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(algo: dict[str, object], message: str) -> None:
    config = RunConfig(SCENE, algorithm="iql", data="x", algo=dataclasses.replace(iql.CONFIG, **algo))
    with pytest.raises(BadInput, match=message):
        recipe.check(config)
