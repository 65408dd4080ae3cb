"""Off-policy evaluation: a chain with a known value, importance weights worked out by hand, and when to say nothing."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from controllers.artifact import PolicyArtifact
from hardware.errors import BadInput
from robo_rl import ope
from robo_rl.algorithms.fqe import (
    FqeConfig,
    Table,
    discounted_returns,
    effective_sample_size,
    fitted_q,
    fqe_target,
    per_decision,
)
from robo_rl.datasets.collect import collect
from robo_rl.datasets.transitions import DataSet
from robo_rl.evaluate import law_of
from robo_rl.zoo import resolve
from sim.registry import scene_entry


def test_a_chain_with_a_known_value() -> None:
    """From state 0, +1 leads to state 1 and -1 stays; from state 1, +1 pays 1 and ends, -1 pays 0 and ends. The policy
    always says +1: Q = (0.9, 1) for it; -1 first costs one more step, or everything: Q = (0.81, 0)."""
    rows = [(0, 1, 0.0, 1, 0), (0, -1, 0.0, 0, 0), (1, 1, 1.0, 1, 1), (1, -1, 0.0, 1, 1)] * 16
    column = lambda i: torch.tensor([r[i] for r in rows], dtype=torch.float32)  # noqa: E731
    one_hot = lambda i: torch.eye(2)[column(i).long()]  # noqa: E731
    table = Table(one_hot(0), column(1)[:, None], column(2), one_hot(3), torch.ones(64, 1), column(4))
    config = FqeConfig(gamma=0.9, steps=1200, batch=64, learning_rate=3e-3, tau=0.05, hidden=(32,))
    net = fitted_q(table, config, 0, torch.ones(64))
    pairs = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 0.0, -1.0], [0.0, 1.0, -1.0]])
    with torch.no_grad():
        assert net(pairs).squeeze(-1).tolist() == pytest.approx([0.9, 1.0, 0.81, 0.0], abs=0.05)
    assert fqe_target(torch.tensor(1.0), torch.tensor(1.0), torch.tensor(9.0), 0.9).item() == 1.0


def test_importance_weights_worked_out_by_hand() -> None:
    """Two episodes, ratios (2, 1/2) and (1, 3), rewards (1, 2) and (3, 4), gamma 1/2.

    First steps: weights 2/3 and 1/3; second steps: products 1 and 3, weights 1/4 and 3/4.
    """
    ratio = np.log(np.array([2.0, 0.5, 1.0, 3.0]))
    got, weights = per_decision(ratio, np.array([1.0, 2.0, 3.0, 4.0]), np.array([5, 5, 7, 7]), 0.5)
    np.testing.assert_allclose(got, [2 / 3 * 1 + 1 / 4 * 1, 1 / 3 * 3 + 3 / 4 * 2])
    np.testing.assert_allclose(weights, [0.25, 0.75])
    assert effective_sample_size(weights) == pytest.approx(1.0 / (0.0625 + 0.5625))
    assert effective_sample_size(np.ones(7)) == pytest.approx(7.0)


def test_a_policy_that_is_the_behaviour_is_worth_the_mean_return() -> None:
    rng = np.random.default_rng(0)
    episode = np.repeat(np.arange(6), [3, 5, 2, 5, 4, 1])
    reward = rng.normal(size=20)
    returns = discounted_returns(reward, episode, 0.9)
    by_hand = [sum(0.9**k * r for k, r in enumerate(reward[episode == e])) for e in range(6)]
    np.testing.assert_allclose(returns, by_hand)
    got, weights = per_decision(np.zeros(20), reward, episode, 0.9)
    assert got.sum() == pytest.approx(returns.mean())
    assert effective_sample_size(weights) == pytest.approx(6.0)


@pytest.fixture(scope="module")
def artifact() -> PolicyArtifact:
    return PolicyArtifact.load(resolve("zoo:quadrotor-hover"))


@pytest.fixture(scope="module")
def flights(artifact: PolicyArtifact) -> DataSet:
    config = dataclasses.replace(scene_entry("quadrotor/hover").config, episode_s=0.4, hold_from_s=0.0)
    return collect("quadrotor/hover", lambda env: law_of(artifact), episodes=60, noise=0.2, seed=2, config=config)


def test_fitted_values_hold_the_true_return_of_a_policy_near_the_data(
    artifact: PolicyArtifact, flights: DataSet
) -> None:
    """The truth: the policy without noise from the same starts, for so long that the rest counts nothing (0.9^100)."""
    config = FqeConfig(gamma=0.9, steps=1500, tau=0.02, hidden=(64, 64), networks=2)
    found = ope.estimate(artifact, flights, config=config)
    world = dataclasses.replace(scene_entry("quadrotor/hover").config, episode_s=1.0, hold_from_s=0.0)
    truth = collect("quadrotor/hover", lambda env: law_of(artifact), episodes=60, seed=2, config=world)
    true = discounted_returns(truth.reward.astype(float), truth.episode, 0.9)
    low, high = found["fqe"]["ci95"]
    assert low <= true.mean() <= high
    assert high - low < true.std()  # far narrower than one start differs from another
    assert found["episodes"] == 60


def test_weights_that_rest_on_few_episodes_are_no_estimate(artifact: PolicyArtifact, flights: DataSet) -> None:
    """Forty steps of noise in four components leave one episode or two."""
    config = FqeConfig(steps=50, hidden=(32,), networks=1)
    wis = ope.estimate(artifact, flights, config=config)["wis"]
    assert wis["value"] is None
    assert wis["effective_episodes"] < ope.LEAST_EPISODES
    assert "effective episodes, at least 10 needed" in wis["reason"]


def test_too_few_episodes_or_actions_far_away_are_insufficient(artifact: PolicyArtifact, flights: DataSet) -> None:
    config = FqeConfig(steps=10, hidden=(8,), networks=1)
    few = {n: getattr(flights, n)[:160] for n in ("obs", "action", "reward", "next_obs", "terminated", "truncated")}
    few |= {n: getattr(flights, n)[:160] for n in ("episode", "intervention", "weight")}
    found = ope.estimate(artifact, dataclasses.replace(flights, **few, extra={}), config=config)
    assert found["fqe"]["value"] is found["wis"]["value"] is None
    assert found["fqe"]["reason"] == "insufficient data: 4 episodes, at least 10 needed"
    away = dataclasses.replace(flights, action=np.where(flights.action > 0, -1, 1).astype(np.float32))
    assert "the policy's actions lie" in ope.estimate(artifact, away, config=config)["fqe"]["reason"]
    other = dataclasses.replace(flights, card=dataclasses.replace(flights.card, observation=()))
    with pytest.raises(BadInput, match="has other fields than the data set"):
        ope.estimate(artifact, other)
    assert math.isfinite(found["recorded_return"])
