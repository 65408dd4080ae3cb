"""`quadrotor/hover` and `quadrotor/swarm`: what hover shows, takes, rewards; and where to find the parts of both."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from controllers.interface import Field
from hardware.errors import BadInput
from sim.emulate import ScenePlant
from sim.env import BatchEnv
from sim.randomization import Family
from sim.ranges import read_ranges
from sim.registry import SceneEntry
from sim.scenes.quadrotor.baseline import hover_baseline
from sim.scenes.quadrotor.hover import GOAL, HoverConfig, HoverTask
from sim.scenes.quadrotor.logged import hover_reward
from sim.scenes.quadrotor.openloop import OpenLoopDrones
from sim.scenes.quadrotor.rollout import QuadrotorRollout
from sim.scenes.quadrotor.swarm import contract as swarm
from sim.scenes.quadrotor.swarm import speed as swarm_speed
from sim.scenes.quadrotor.swarm.baseline import BASELINES, swarm_baseline
from sim.scenes.quadrotor.swarm.config import SwarmConfig
from sim.spec import SceneSpec

RANGES = read_ranges(Path(__file__).with_name("ranges.toml"))

REWARDS = {
    "near": 0.5,
    "close": 0.5,
    "exact": 0.5,
    "speed": -0.15,
    "action_change": -0.05,
    "rate_xy": -0.004,
    "rate_z": -0.02,
    "tilt": -0.1,
    "crash": -10.0,
}
"""Weights; all but `crash` are summed, bounded below by -1 and multiplied by 0.1. `tilt` only with rotor thrusts."""


def make_spec(config: HoverConfig) -> SceneSpec:
    """The contract of the task under this configuration; raises BadInput for a command mode without an action."""
    if config.mode not in _ACTIONS:
        raise BadInput(f"quadrotor/hover has no action for mode '{config.mode}'; modes: {', '.join(_ACTIONS)}")
    return SceneSpec(
        id="quadrotor/hover",
        summary=RANGES.tasks["hover"]["summary"],
        robot="crazyflie",
        mode=config.mode,
        params=RANGES.params,
        observation=_observation(config.mode),
        action=_ACTIONS[config.mode],
        rate_hz=100.0,
        episode_s=config.episode_s,
        rewards=REWARDS,
        terminations=("crash",),
        success=f"no crash, and truly within {config.radius_m:g} m of the goal at every step from "
        f"{config.hold_from_s:g} s to {config.episode_s:g} s",
    )


_ACTIONS = {
    "attitude_thrust": (
        Field("roll", "roll", 1, "rad", scale=0.5),
        Field("pitch", "pitch", 1, "rad", scale=0.5),
        Field("yaw_rate", "yaw_rate", 1, "rad/s", scale=1.5),
        Field("thrust", "thrust", 1, "1", offset=0.55, scale=0.3655),
    ),
    "rotor_thrust": tuple(Field(f"rotor_{i}", f"rotor_{i}", 1, "1", offset=0.55, scale=0.45) for i in (1, 2, 3, 4)),
}


def _observation(mode: str) -> tuple[Field, ...]:
    """Vectors in the frame that turns with the heading for set points, in the body frame for rotors.

    Rotor thrusts need a past: how far the rotors lag and what they give shows in the angular acceleration that earlier
    commands caused. With one rate and two commands, drones whose rotors brake slowly kept swinging: 92 % succeeded
    after 15 million steps, against 98 % after 6 million with these.
    """
    frame, rates, commands = ("yaw", 1, 1) if mode == "attitude_thrust" else ("body", 3, 4)
    return (
        Field("error", "error:position_world", 3, "m", frame, scale=0.5, clip=1.25),
        Field("error_near", "error:position_world", 3, "m", frame, scale=4.0, clip=1.0),
        Field("velocity", "velocity_world", 3, "m/s", frame, scale=0.5, clip=3.0),
        Field("gravity", "gravity", 3, "1", "body", clip=1.0),
        Field("rate", "angular_velocity_body", 3, "rad/s", "body", scale=0.2, clip=4.0, history=rates),
        Field("command", "command", 4, "1", clip=2.0, history=commands),
    )


def make_hover(
    num_envs: int, *, family: Family, seed: int, device: str | torch.device, config: HoverConfig
) -> BatchEnv:
    """N environments of the hover task."""
    task = HoverTask(num_envs, spec=make_spec(config), config=config, family=family, device=device)
    return BatchEnv(task, seed=seed, engine=config.engine)


def make_hover_bullet(
    num_envs: int, *, family: Family, seed: int, device: str | torch.device, config: HoverConfig
) -> BatchEnv:
    """The same with drones that PyBullet moves."""
    from sim.scenes.quadrotor.bullet import hover_task  # imports PyBullet

    task = hover_task(num_envs, spec=make_spec(config), config=config, family=family, device=device)
    return BatchEnv(task, seed=seed, engine=config.engine)


def track(env: BatchEnv) -> torch.Tensor:
    """True positions (N, 3) relative to the goal, m."""
    return (env.task.state["body"][:3] - torch.tensor(GOAL, device=env.device)[:, None]).T.clone()


def hover_plant(num_robots: int, *, family: Family, seed: int, config: HoverConfig) -> ScenePlant:
    """The world of `num_robots` emulated drones, drawn from a family; they start at rest on the floor."""
    task = HoverTask(num_robots, spec=make_spec(config), config=config, family=family)
    task.restart(None, torch.Generator().manual_seed(seed))
    return ScenePlant(task.worlds)


def open_loop(num: int, *, mode: str, config: HoverConfig) -> OpenLoopDrones:
    """N nominal drones for a log flown in a command mode; raises BadInput for a mode that the scene does not have."""
    if mode not in _ACTIONS:
        raise BadInput(f"quadrotor/hover cannot replay mode '{mode}'; modes: {', '.join(_ACTIONS)}")
    config = replace(config, mode=mode)
    spec = make_spec(config)
    return OpenLoopDrones(HoverTask(num, spec=spec, config=config, family="nominal"), spec)


def logged_reward(
    before: Mapping[str, Any], after: Mapping[str, Any], goal: Mapping[str, Any], *, config: HoverConfig, **sent: Any
) -> Any:
    """Rewards (T,) of recorded steps; see SceneEntry.logged_reward."""
    config = replace(config, engine="eager")
    spec = make_spec(config)
    task = HoverTask(len(sent["action"]), spec=spec, config=config, family="nominal")
    return hover_reward(task, spec, after, goal, sent["action"], sent["last_action"])


def rollout(*, mode: str, config: HoverConfig) -> QuadrotorRollout:
    """The drone as a function of its parameters, for a log flown in a command mode."""
    if mode not in _ACTIONS:
        raise BadInput(f"quadrotor/hover cannot identify from mode '{mode}'; modes: {', '.join(_ACTIONS)}")
    spec = make_spec(replace(config, mode=mode))
    return QuadrotorRollout(spec.params, mode=mode, rate_hz=spec.rate_hz, disturbances=config.disturbances)


_ROLLOUTS = {"num_envs": 1024, "processes": 2, "minibatches": 16}
TRAINING = {
    "attitude_thrust": {
        "ppo": _ROLLOUTS | {"std_floor": 0.12, "target_kl": 0.016, "steps": 7_000_000, "anneal_steps": 7_000_000},
    },
    "rotor_thrust": {
        "ppo": _ROLLOUTS | {"std_floor": 0.07, "target_kl": 0.02, "steps": 11_000_000, "anneal_steps": 11_000_000},
    },
}
"""Where they differ from the algorithm's own. The noise floor still lets a policy hold still; small minibatches (1,536
rows) and a critic whose updates are not clipped decide how many steps it takes."""


def swarm_spec(config: SwarmConfig) -> SceneSpec:
    """The contract of the swarm task."""
    return swarm.swarm_spec(
        config, params=dict(RANGES.params), summary=RANGES.tasks["swarm"]["summary"], actions=_ACTIONS
    )


def make_swarm(
    num_envs: int, *, family: Family, seed: int, device: str | torch.device, config: SwarmConfig
) -> BatchEnv:
    """`num_envs` rows: rooms of `config.drones` drones each."""
    return swarm.make_swarm_env(num_envs, swarm_spec(config), family=family, seed=seed, device=device, config=config)


def make_swarm_bullet(
    num_envs: int, *, family: Family, seed: int, device: str | torch.device, config: SwarmConfig
) -> BatchEnv:
    """The same with drones that PyBullet moves."""
    from sim.scenes.quadrotor.swarm.pybullet import swarm_task  # imports PyBullet

    task = swarm_task(num_envs, spec=swarm_spec(config), config=config, family=family, device=device)
    return BatchEnv(task, seed=seed, engine=config.engine)


def swarm_plant(num_robots: int, *, family: Family, seed: int, config: SwarmConfig) -> ScenePlant:
    """One room with `num_robots` emulated drones; they start at rest on the floor."""
    config = replace(config, drones=num_robots)
    return swarm.swarm_plant(swarm_spec(config), family=family, seed=seed, config=config)


def draw_flight(out: Path, make: Callable[[], Any], laws: Mapping[str, Any], title: str) -> None:
    """A swarm's flight under each law; see sim.registry.SceneEntry.picture."""
    from sim.scenes.quadrotor.swarm.picture import picture  # matplotlib is slow to import

    picture(out, make, laws, title)


_FLIGHTS = {"num_envs": 1024, "processes": 1, "rollout_steps": 32, "minibatches": 16, "epochs": 3}
_CREDIT = {"gamma": 0.995, "gae_lambda": 0.97, "target_kl": 0.02, "steps": 95_000_000, "anneal_steps": 95_000_000}
_WHILE_TRAINING = {
    "contact_ends": True,
    "episode_s": 7.0,
    "empty": 0.1,
    "engine": "compiled",
    "curriculum": {"gate": "steps", "steps": 10_000_000, "contact": 0.2},
}
SWARM_TRAINING = {
    mode: {"ppo": _FLIGHTS | _CREDIT | {"std_floor": floor, "scene": _WHILE_TRAINING}}
    for mode, floor in (("rotor_thrust", 0.06), ("attitude_thrust", 0.12))
}
"""A contact ends a flight in training, and rooms last as long as a way through them: hovering at the goal teaches
nothing new. Obstacles come with the first ten million steps."""


TASKS = {
    "hover": SceneEntry(
        config=HoverConfig(),
        spec=make_spec,
        make=make_hover,
        baseline=hover_baseline,
        training=TRAINING,
        plant=hover_plant,
        track=track,
        open_loop=open_loop,
        rollout=rollout,
        backends={"pybullet": make_hover_bullet},
        logged_reward=logged_reward,
    ),
    "swarm": SceneEntry(
        config=SwarmConfig(),
        spec=swarm_spec,
        make=make_swarm,
        baseline=swarm_baseline,
        baselines={name: functools.partial(swarm_baseline, choice=name) for name in BASELINES},
        training=SWARM_TRAINING,
        plant=swarm_plant,
        track=swarm.track,
        picture=draw_flight,
        backends={"pybullet": make_swarm_bullet},
        judged=swarm.judged,
        alone={"drones": 1},
        speed=swarm_speed.works,
    ),
}
