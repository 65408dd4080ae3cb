"""Training of policies over entities: repeatable, resumable bit for bit, and better than what it began with."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from controllers.interface import Field
from hardware.errors import BadInput
from robo_rl import checkpoint
from robo_rl.config import PPOConfig, RunConfig
from robo_rl.pendulum import PendulumEnv
from robo_rl.recipe import check
from robo_rl.recipes.ppo import OnPolicy, prepare
from robo_rl.runs import RunDir
from robo_rl.training import Budget, restore, train
from sim.spec import Step

KINDS = ("two_token", "typed", "deep_sets")
ALGO = PPOConfig(rollout_steps=8, minibatches=2, epochs=2, hidden=(8,), anneal_steps=2000, token_width=6, heads=2)
CONFIG = RunConfig("pendulum", seed=3, num_envs=16, linear="torch", algo=ALGO, checkpoint_every=3)
RODS = (
    Field("cos", "cos", 3, "1"),
    Field("sin", "sin", 3, "1", entity="rod", members=3),
    Field("speed", "speed", 3, "rad/s", entity="rod", members=3),
)
"""Three pendula whose sines and speeds count as members of an entity."""


def fresh(config: RunConfig) -> OnPolicy:
    env = PendulumEnv(config.num_envs, pendula=3, episode=20)
    env.spec = dataclasses.replace(env.spec, observation=RODS)
    return prepare(config, env)


def configured(kind: str) -> RunConfig:
    return dataclasses.replace(CONFIG, algo=dataclasses.replace(ALGO, network=kind))


def run_dir(path: Path) -> RunDir:
    (path / "checkpoints").mkdir(parents=True)
    return RunDir(path)


@pytest.mark.parametrize("kind", KINDS)
def test_two_halves_equal_the_whole_bit_for_bit(kind: str, tmp_path: Path) -> None:
    config = configured(kind)
    whole, parts = run_dir(tmp_path / "whole"), run_dir(tmp_path / "parts")
    one = fresh(config)
    train(one, config, whole, Budget(6 * 128))
    train(fresh(config), config, parts, Budget(3 * 128))
    second = fresh(config)
    at = checkpoint.newest(parts.checkpoints)
    restore(second, config, checkpoint.load(parts.checkpoints, at, 0))
    train(second, config, parts, Budget(6 * 128), resumed_at=at)
    assert whole.metrics.read_bytes() == parts.metrics.read_bytes()
    assert torch.equal(one.learner.flat.value, second.learner.flat.value)
    assert torch.equal(one.learner.average, second.learner.average)
    x = torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    ours, norm = one.policy()
    theirs, other = second.policy()
    assert torch.equal(ours(norm.apply(x)), theirs(other.apply(x)))


class Meeting:
    """N rows that see themselves and up to three others, and are paid for naming the middle between, in one step."""

    def __init__(self, num_envs: int) -> None:
        self.num_envs, self.generator = num_envs, torch.Generator().manual_seed(0)
        fields = (
            Field("own", "own", 1, "m"),
            Field("other", "other_position", 3, "m", entity="other", members=3),
            Field("there", "other_present", 3, "1", entity="other", members=3),
        )
        action = (Field("named", "named", 1, "m"),)
        self.spec = dataclasses.replace(PendulumEnv(1).spec, observation=fields, action=action)

    def reset(self, seed: int | None = None) -> dict[str, Tensor]:
        numbers = torch.randn(self.num_envs, 7, generator=self.generator)
        numbers[:, 4] = 1.0  # somebody is there
        numbers[:, 5:] = (numbers[:, 5:] > 0.0).float()
        self.numbers = numbers
        return {"policy": numbers}

    def step(self, action: Tensor) -> Step:
        others, there = self.numbers[:, 1:4], self.numbers[:, 4:]
        middle = 0.5 * self.numbers[:, 0] + 0.5 * (others * there).sum(1) / there.sum(1)
        reward = -((action[:, 0] - middle) ** 2)
        over = torch.ones(self.num_envs, dtype=torch.bool)
        return Step(self.reset(), reward, 0 * reward, over, ~over, {"policy": self.numbers}, {})


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_others_are_on_average_is_learnt(kind: str) -> None:
    """Naming nothing costs the middle's variance, 0.25 + 0.25 (1 / 4 + 1 / 3) = 0.40; what exploring costs is std^2."""
    algo = PPOConfig(rollout_steps=8, network=kind, parameters=1500, std_floor=0.05, init_std=0.3)
    trainee = prepare(RunConfig("meeting", seed=1, num_envs=256, linear="torch", algo=algo), Meeting(256))
    for _ in range(40):
        trainee.iterate()
    net, norm = trainee.policy()
    world = Meeting(2000)
    named = net(norm.apply(world.reset()["policy"]))
    assert -world.step(named).reward.mean() < 0.02


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": "gnn"}, "algo.network = 'gnn'; expected one of mlp, two_token, typed, deep_sets"),
        ({"token_width": 0}, "algo.token_width = 0; expected at least 1"),
        ({"heads": 0}, "algo.heads = 0; expected at least 1"),
        ({"parameters": -1}, "algo.parameters = -1; expected at least 0"),
    ],
)
def test_settings_that_make_no_network_are_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        check(dataclasses.replace(CONFIG, algo=dataclasses.replace(ALGO, **change)))


def test_a_world_without_entities_wants_an_mlp() -> None:
    with pytest.raises(BadInput, match=r"6 numbers of its own and entities: none; use mlp"):
        prepare(configured("typed"), PendulumEnv(16, pendula=2))
