"""`greenhouse/lettuce`: what the task shows, takes, rewards and calls success; and where to find its parts."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from controllers.interface import Field
from hardware.errors import BadInput
from sim.emulate import ScenePlant
from sim.env import BatchEnv
from sim.param import Param
from sim.randomization import Family
from sim.ranges import read_ranges
from sim.registry import SceneEntry
from sim.scenes.greenhouse.baseline import lettuce_baseline
from sim.scenes.greenhouse.config import LEAKS, LettuceConfig
from sim.scenes.greenhouse.lettuce import LettuceTask
from sim.scenes.greenhouse.logged import lettuce_reward
from sim.scenes.greenhouse.openloop import OpenLoopHouses
from sim.scenes.greenhouse.plant import GreenhouseWorld
from sim.scenes.greenhouse.rollout import GreenhouseRollout
from sim.spec import SceneSpec

RANGES = read_ranges(Path(__file__).with_name("ranges.toml"))
CULTIVARS = tomllib.loads(Path(__file__).with_name("cultivars.toml").read_text())
"""Name -> `reference` and `factors` on the crop's coefficients."""

ACTION = (
    Field("co2_injection", "co2_injection", 1, "mg/m^2/s", offset=0.6, scale=0.6),
    Field("ventilation", "ventilation", 1, "mm/s", offset=3.75, scale=3.75),
    Field("heating", "heating", 1, "W/m^2", offset=75.0, scale=75.0),
)
"""Positions of the actuators; the guard lets each move by 10 % of its maximum in half an hour."""


def make_spec(config: LettuceConfig) -> SceneSpec:
    """The contract of the task under this configuration."""
    if config.mode != "direct":
        raise BadInput(f"greenhouse/lettuce has no action for mode '{config.mode}'; modes: direct")
    return SceneSpec(
        id="greenhouse/lettuce",
        summary=RANGES.tasks["lettuce"]["summary"],
        robot="greenhouse_plc",
        mode=config.mode,
        params=_params(config),
        observation=_observation(config),
        action=ACTION,
        rate_hz=1.0 / config.step_s,
        episode_s=config.season_steps * config.step_s,
        rewards={"profit": 1.0, "penalty": -1.0},
        terminations=("harvest",),
        success=f"a season's return (profit minus penalties) of at least {config.success_return:g} EUR/m2",
    )


def _params(config: LettuceConfig) -> dict[str, Param]:
    """The scene's parameters with the presets of leakage and cultivar; raises BadInput for an unknown one."""
    for name, known in (("leak", LEAKS), ("cultivar", CULTIVARS)):
        if getattr(config, name) not in known:
            raise BadInput(f"{name} '{getattr(config, name)}' not found; known: {', '.join(known)}")
    params, preset = dict(RANGES.params), LEAKS[config.leak]
    if preset is not None:
        params["leak"] = replace(params["leak"], nominal=preset)
    for name, factor in CULTIVARS[config.cultivar]["factors"].items():
        params[name] = replace(params[name], nominal=factor * params[name].nominal)
    return params


def _observation(config: LettuceConfig) -> tuple[Field, ...]:
    """What is measured, the same once more close to the benchmark's bounds, time, command and weather."""
    weather = (
        Field("outdoor", "outdoor", 5, "W/m^2, degC, 1, ppm, m/s", clip=2000.0)
        if config.forecast == "none"
        else Field("forecast", "forecast", 52, "W/m^2, degC, 1, ppm", clip=2000.0)
    )
    return (
        Field("temperature", "air_temperature", 1, "degC", offset=15.0, scale=0.1, clip=5.0),
        Field("humidity", "relative_humidity", 1, "1", offset=0.8, scale=5.0, clip=5.0),
        Field("co2", "co2", 1, "ppm", offset=800.0, scale=0.0025, clip=5.0),
        Field("crop", "crop_dry_weight", 1, "kg/m^2", scale=10.0, clip=10.0),
        Field("too_cold", "air_temperature", 1, "degC", offset=10.0, clip=1.0),
        Field("too_warm", "air_temperature", 1, "degC", offset=20.0, clip=1.0),
        Field("too_humid", "relative_humidity", 1, "1", offset=0.8, scale=33.0, clip=1.0),
        Field("co2_low", "co2", 1, "ppm", offset=500.0, scale=0.02, clip=1.0),
        Field("co2_high", "co2", 1, "ppm", offset=1600.0, scale=0.02, clip=1.0),
        Field("season", "season", 3, "1", clip=1.0),
        Field("command", "command", 3, "1", clip=1.0),
        weather,
    )


def make_lettuce(
    num_envs: int, *, family: Family, seed: int, device: str | torch.device, config: LettuceConfig
) -> BatchEnv:
    """N greenhouses."""
    task = LettuceTask(num_envs, spec=make_spec(config), config=config, family=family, device=device)
    return BatchEnv(task, seed=seed, engine=config.engine, differentiable=True)


def lettuce_plant(num_robots: int, *, family: Family, seed: int, config: LettuceConfig) -> ScenePlant:
    """The world of `num_robots` emulated PLCs, drawn from a family; freshly planted."""
    task = LettuceTask(num_robots, spec=make_spec(config), config=config, family=family)
    task.restart(None, torch.Generator().manual_seed(seed))
    return ScenePlant(GreenhouseWorld(task))


def open_loop(num: int, *, mode: str, config: LettuceConfig) -> OpenLoopHouses:
    """N nominal greenhouses for a log of commands; raises BadInput for a mode that the scene does not have."""
    config = replace(config, mode=mode)
    return OpenLoopHouses(LettuceTask(num, spec=make_spec(config), config=config, family="nominal"))


def logged_reward(before: Any, after: Any, goal: Any, *, action: Any, last_action: Any, config: LettuceConfig) -> Any:
    """Rewards (T,) of recorded steps; see SceneEntry.logged_reward."""
    scale, offset = ([getattr(f, name) for f in ACTION] for name in ("scale", "offset"))
    return lettuce_reward(before, after, offset + np.asarray(scale) * action, config=config)


def rollout(*, mode: str, config: LettuceConfig) -> GreenhouseRollout:
    """The greenhouse as a function of its parameters, under measured actuators whatever the mode."""
    return GreenhouseRollout(_params(config))


_APG = {"num_envs": 256, "steps": 22_118_400, "compile": True}
_SAC = {
    "hidden": (128, 128),
    "learning_rate": 1e-3,
    "utd": 0.1,
    "reward_scale": 50.0,
    "warmup_steps": 20_000,
    "buffer": 200_000,
}


def speed(num_envs: int, compiled: bool) -> Any:
    """Further figures of speed; see sim.registry.SceneEntry.speed."""
    from sim.scenes.greenhouse import speed as measured  # it makes environments, through the registry

    return measured.works(num_envs, compiled)


def draw_season(out: Path, make: Callable[[], Any], laws: Mapping[str, Any], title: str) -> None:
    """A season under each law as PNG; see sim.registry.SceneEntry.picture."""
    from sim.scenes.greenhouse import picture  # matplotlib is slow to import

    picture.draw_season(out, make, laws, title)


TRAINING: dict[str, dict[str, Any]] = {
    "apg": {**_APG, "anneal_steps": 22_118_400},
    "ppo": {"num_envs": 256},
    "sac": {"num_envs": 64, "steps": 800_000, "checkpoint_every": 500, **_SAC},
    "iwocs": {"num_envs": 64, "steps": 800_000, "round_steps": 200_000, "checkpoint_every": 500, "sac": _SAC},
    "mbdp": {
        "exogenous": ("season", "forecast", "outdoor"),
        "gamma": 1.0,
        "starts": 32,
        "model_steps": 3_000,
        "anneal_steps": 400,
        "steps": 3_400,
    },
    "mbtl": {"params": ("leak_decades", "heat_transfer_factor"), "num_envs": 128},
    "robust-apg": {**_APG, "apg": {"anneal_steps": 22_118_400}},
}
"""Where they differ from the algorithm's own: 3,600 windows of 12 h for the gradient through the simulator. A step's
reward is some 0.002 EUR/m2: scaled, so that critics see returns of the size that they were made for."""

TASKS = {
    "lettuce": SceneEntry(
        config=LettuceConfig(),
        spec=make_spec,
        make=make_lettuce,
        baseline=lettuce_baseline,
        training={"direct": TRAINING},
        picture=draw_season,
        speed=speed,
        plant=lettuce_plant,
        open_loop=open_loop,
        rollout=rollout,
        logged_reward=logged_reward,
    )
}
