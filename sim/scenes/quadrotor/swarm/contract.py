"""`quadrotor/swarm`: what the task shows, takes and rewards, and how its environments are made."""

from dataclasses import asdict, replace

import torch

from controllers.interface import Field
from sim.emulate import ScenePlant
from sim.env import BatchEnv
from sim.param import Param
from sim.randomization import Family
from sim.scenes.quadrotor.swarm.config import Curriculum, SwarmConfig, airframe_params, check
from sim.scenes.quadrotor.swarm.plant import SwarmRoom
from sim.scenes.quadrotor.swarm.task import SwarmTask
from sim.spec import SceneSpec
from sim.starts import CollisionReplay


def swarm_spec(
    config: SwarmConfig, *, params: dict[str, Param], summary: str, actions: dict[str, tuple[Field, ...]]
) -> SceneSpec:
    """The contract of the task under this configuration; raises BadInput for settings that no world can have."""
    check(config)
    return SceneSpec(
        id="quadrotor/swarm",
        summary=summary,
        robot="crazyflie",
        mode=config.mode,
        params=airframe_params(params, config.airframe),
        observation=_in_heading(config) if config.frame == "yaw" else _published(config),
        action=actions[config.mode],
        rate_hz=100.0,
        episode_s=config.episode_s,
        rewards=asdict(config.weights),
        terminations=("contact",) if config.contact_ends else (),
        success=f"no contact of any kind, and a mean distance of at most {config.radius_m:g} m from the goal over the "
        "last second (0.4 m where drones share a goal)",
        agents=config.drones,
    )


def _published(config: SwarmConfig) -> tuple[Field, ...]:
    """The forty numbers of quad-swarm-rl, in the world's frame: they change when the world is turned about z."""
    k = config.neighbours
    near = {"entity": "neighbour", "members": k}
    return (
        Field("error", "error:position_world", 3, "m", "world", clip=10.0),
        Field("velocity", "velocity_world", 3, "m/s", "world", clip=10.0),
        Field("rotation", "rotation", 9, "1"),
        Field("rate", "angular_velocity_body", 3, "rad/s", "body", clip=40.0),
        Field("height", "height", 1, "m", clip=10.0),
        Field("neighbour_position", "neighbour_position", 3 * k, "m", "world", clip=10.0, **near),
        Field("neighbour_velocity", "neighbour_velocity", 3 * k, "m/s", "world", clip=6.0, **near),
        Field("obstacle_grid", "obstacle_grid_world", 9, "m", clip=10.0, entity="obstacle"),
    )


def _in_heading(config: SwarmConfig) -> tuple[Field, ...]:
    """Gravity-aligned and turned with the heading: the same after any turn of the world about z."""
    k, m = config.neighbours, config.obstacles_seen
    near, far = {"entity": "neighbour", "members": k}, {"entity": "obstacle", "members": m}
    return (
        Field("error", "error:position_world", 3, "m", "yaw", scale=0.25, clip=1.5),
        Field("error_near", "error:position_world", 3, "m", "yaw", scale=4.0, clip=1.0),
        Field("velocity", "velocity_world", 3, "m/s", "yaw", scale=0.5, clip=3.0),
        Field("gravity", "gravity", 3, "1", "body", clip=1.0),
        Field("height", "height", 1, "m", scale=0.5, clip=2.0),
        Field("rate", "angular_velocity_body", 3, "rad/s", "body", scale=0.2, clip=4.0, history=config.history),
        Field("command", "command", 4, "1", clip=2.0, history=config.history),
        Field("neighbour_position", "neighbour_position", 3 * k, "m", "yaw", scale=0.5, clip=2.0, **near),
        Field("neighbour_velocity", "neighbour_velocity", 3 * k, "m/s", "yaw", scale=0.5, clip=2.0, **near),
        Field("neighbour_near", "neighbour_distance", k, "m", scale=2.0, clip=2.0, **near),
        Field("neighbour_closing", "neighbour_closing", k, "m/s", scale=0.5, clip=2.0, **near),
        Field("neighbour_present", "neighbour_present", k, "1", **near),
        Field("obstacle_direction", "obstacle_direction", 2 * m, "1", "yaw", **far),
        Field("obstacle_clearance", "obstacle_clearance", m, "m", scale=0.5, clip=1.0, **far),
        Field("obstacle_near", "obstacle_clearance", m, "m", scale=2.5, clip=1.0, **far),
        Field("obstacle_closing", "obstacle_closing", m, "m/s", scale=0.5, clip=2.0, **far),
        Field("obstacle_present", "obstacle_present", m, "1", **far),
        Field("obstacle_grid", "obstacle_grid_yaw", 9, "m", clip=1.0, entity="obstacle"),
    )


def make_swarm_env(
    num_envs: int, spec: SceneSpec, *, family: Family, seed: int, device: str | torch.device, config: SwarmConfig
) -> BatchEnv:
    """Rooms of `config.drones` drones, `num_envs` rows in all."""
    task = SwarmTask(num_envs, spec=spec, config=config, family=family, device=device)
    env = BatchEnv(task, seed=seed, engine=config.engine)
    if config.replay > 0.0:
        env.starts = CollisionReplay(config.drones, spec.rate_hz, config.replay)
    return env


def judged(config: SwarmConfig) -> SwarmConfig:
    """The settings under which a policy that was trained with these is evaluated: whole flights, no aids."""
    seconds = SwarmConfig.episode_s
    return replace(config, contact_ends=False, empty=0.0, replay=0.0, curriculum=Curriculum(), episode_s=seconds)


def track(env: BatchEnv) -> torch.Tensor:
    """True positions (N, 3) relative to the goal, m."""
    s = env.task.state
    return (s["body"][:3] - s["goal"]).T.clone()


def swarm_plant(spec: SceneSpec, *, family: Family, seed: int, config: SwarmConfig) -> ScenePlant:
    """The world of `config.drones` emulated drones in one room; they start at rest on the floor."""
    task = SwarmTask(config.drones, spec=spec, config=config, family=family)
    return ScenePlant(SwarmRoom(task, seed))
