"""Algorithms that take a folder of transitions of a real scene: greenhouse days on record, weather replayed."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from hardware.errors import BadInput
from robo_rl.algorithms.apg import TrackingPolicy
from robo_rl.commands.eval import baseline_law
from robo_rl.config import RunConfig
from robo_rl.datasets.collect import collect
from robo_rl.datasets.transitions import read, write
from robo_rl.recipes import mbdp, sac
from sim.registry import make_env, scene_entry

SCENE = "greenhouse/lettuce"
WORLD = dataclasses.replace(scene_entry(SCENE).config, season_days=1.0)
WEATHER = ("season", "forecast", "outdoor")
MBDP = dataclasses.replace(
    mbdp.CONFIG, models=3, model_hidden=(16,), hidden=(8,), model_steps=30, starts=4, horizon=5, report_every=10
)
SAC = dataclasses.replace(sac.CONFIG, hidden=(8,), batch=16, warmup_steps=8, rollout_steps=4, buffer=100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    law = baseline_law(scene_entry(SCENE).baseline)
    data = collect(SCENE, law, episodes=4, noise=0.5, seed=0, config=WORLD, name="rule")
    return write(tmp_path_factory.mktemp("days") / "rule", data)


def config(algorithm: str, algo: Any, folder: Path) -> RunConfig:
    return RunConfig(SCENE, num_envs=2, algorithm=algorithm, algo=algo, data=str(folder), scene_config=WORLD)


def test_models_predict_the_climate_and_replay_the_weather(folder: Path) -> None:
    env = make_env(SCENE, 1, config=WORLD)
    algo = dataclasses.replace(MBDP, exogenous=WEATHER)
    trainee = mbdp.prepare(config("mbdp", algo, folder), env, data=folder)
    named = [f.source for f in env.spec.observation for _ in range(f.size)]
    predicted = {named[i] for i in trainee.record.columns.tolist()}
    assert predicted == {"air_temperature", "relative_humidity", "co2", "crop_dry_weight"}
    assert isinstance(trainee.actor, TrackingPolicy)
    assert trainee.step.tolist() == pytest.approx([0.2, 0.2, 0.2])  # 10 % of the stroke, which is 2 in action units
    for _ in range(5):
        values = trainee.iterate()
    assert values["imagined_return"] == values["imagined_return"]
    net, norm = trainee.policy()
    obs = torch.as_tensor(read(folder).obs[:50])
    assert net(norm.apply(obs)).abs().max() <= 1.0


def test_the_record_holds_what_the_guard_let_through(folder: Path) -> None:
    """Within an episode no recorded action is farther from the one before than the guard allows; so in imagination."""
    data = read(folder)
    change = abs(data.action[1:] - data.action[:-1])[data.episode[1:] == data.episode[:-1]]
    assert 0.1 < change.max() <= 0.2 + 1e-5


def test_half_of_a_batch_of_sac_comes_from_the_folder(folder: Path) -> None:
    env = make_env(SCENE, 2, config=WORLD)
    trainee = sac.prepare(config("sac", SAC, folder), env, data=folder)
    data = read(folder)
    assert trainee.prior is not None
    assert trainee.prior.obs.shape == data.obs.shape
    assert trainee.prior.terminated.sum().item() == data.terminated.sum() == 4
    for _ in range(3):
        values = trainee.iterate()
    assert values["gradient_steps"] > 0


def test_data_of_other_fields_is_refused(folder: Path) -> None:
    world = dataclasses.replace(WORLD, forecast="none")
    env = make_env(SCENE, 1, config=world)
    for module, algo in ((sac, SAC), (mbdp, MBDP)):
        with pytest.raises(BadInput, match="was made with other fields than scene greenhouse/lettuce has now"):
            module.prepare(config(module.__name__.rpartition(".")[2], algo, folder), env, data=folder)
