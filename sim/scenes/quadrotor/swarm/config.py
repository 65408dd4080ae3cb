"""Settings of the swarm task and what they must satisfy; the worlds' numbers live in ranges.toml and airframe.toml."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib import resources
from typing import Any, Literal

from hardware.errors import BadInput, NotFoundError
from sim.engine import Engine
from sim.param import Param
from sim.scenes.quadrotor.swarm.scenarios import SCENARIOS

CELL_M = 1.0
"""Obstacles stand on the centres of square cells of this size."""
FIELD_M = 8.0
"""Side of the square in the middle of the room that holds obstacles, starts and goals."""
HEIGHTS_M = (1.0, 1.5, 2.0, 2.5, 3.0)
"""Heights of starts and resting goals: cells times heights are the places there are."""
CELLS = round(FIELD_M / CELL_M) ** 2
MOST_DRONES = 128


@dataclass(frozen=True)
class Weights:
    """Reward weights, applied per control step; a contact pays once, when it begins.

    The first eleven are summed, bounded below by -2 and multiplied by 0.1. `PUBLISHED` holds those of quad-swarm-rl.
    """

    near: float = 0.5
    """1 - distance / 6 m."""
    close: float = 0.5
    """exp(-(distance / 0.3 m)^2)."""
    exact: float = 0.5
    """exp(-distance / 0.05 m)."""
    speed: float = -0.15
    """Speed (m/s), faded in by the same bell as `close`."""
    progress: float = 0.4
    """Speed towards the goal, at most 1.5 m/s: without it, flights of several metres hardly pay within the seconds that
    the discount looks ahead."""
    action_change: float = -0.05
    """Squared change of the action."""
    rate_xy: float = -0.004
    """Squared roll and pitch rate (rad/s)^2."""
    rate_z: float = -0.02
    """Squared yaw rate (rad/s)^2."""
    tilt: float = -0.1
    """1 - cosine of the tilt."""
    obstacle_closing: float = -3.0
    """Speed towards the nearest obstacle (m/s), fading with the clearance as exp(-clearance / 0.5 m)."""
    neighbour_closing: float = -0.5
    """Speed towards visible neighbours (m/s), fading with the gap as exp(-gap / 0.3 m)."""
    proximity: float = -0.05
    """Sum over other drones of max(0, 1 - distance / 0.184 m)."""
    contact_drone: float = -15.0
    contact_obstacle: float = -15.0
    contact_room: float = -15.0
    """Wall, ceiling or floor."""
    distance: float = 0.0
    """Distance (m)."""
    effort: float = 0.0
    """Norm of the action."""
    floor: float = 0.0
    """Standing on the floor; there the next term counts 1."""
    upright: float = 0.0
    """Minus the cosine of the tilt."""
    spin: float = 0.0
    """Body rate (rad/s)."""


PUBLISHED = Weights(
    **{f.name: 0.0 for f in fields(Weights)}  # pyright: ignore[reportArgumentType]
    | {"contact_drone": -5.0, "contact_obstacle": -5.0, "proximity": -0.04}
    | {"distance": -0.005, "effort": -0.00025, "floor": -0.005, "upright": -0.005, "spin": -0.0005}
)
"""Huang et al. 2024 (arXiv 2309.13285), runs/obstacles/quad_obstacle_baseline.py; their costs are multiplied by the
simulation step of 5 ms, the proximity by the control step of 10 ms."""


@dataclass(frozen=True)
class Curriculum:
    """How hard training is: a level from 0 to 1 that moves the settings below from their start to the scene's own."""

    gate: Literal["off", "steps", "success"] = "off"
    """off: always the full task. steps: the level rises linearly over `steps`. success: it rises while at least
    `enough` of the finished flights succeed."""
    steps: int = 5_000_000
    """Drone steps from level 0 to level 1 (gate `success`: at the earliest)."""
    enough: float = 0.8
    """Share of successful flights (by the published metric) above which the level rises."""
    density: float = 0.0
    """Density of obstacles at level 0."""
    drones: int | None = None
    """Number of drones at level 0, none means all; those that do not fly are masked."""
    contact: float = 0.1
    """Factor of the contact weights at level 0."""


@dataclass(frozen=True)
class SwarmConfig:
    """The task's own settings."""

    mode: Literal["rotor_thrust", "attitude_thrust"] = "rotor_thrust"
    """Command mode: rotor thrusts for a policy on board, or set points for flight by radio."""
    drones: int = 8
    """Drones per environment."""
    density: float = 0.2
    """Share of the 64 cells in the middle that hold an obstacle."""
    obstacle_diameter_m: float = 0.6
    """Diameter of the cylinders."""
    obstacle_diameter_low_m: float | None = None
    """Where given, each map draws its diameter between this and the other."""
    room_m: tuple[float, ...] = (10.0, 10.0, 10.0)
    """Width, depth and height."""
    scenario: str = "random"
    """Where the goals are and how they move: random, same_goal, mixed, swap, bezier, lissajous, ..."""
    frame: Literal["yaw", "world"] = "yaw"
    """Observation: gravity-aligned and turned with the heading, or the published one in the world's frame."""
    history: Literal[1, 2, 4] = 4
    """How many of the newest body rates and commands the turned observation shows: 1 suffices for a known drone, an
    unknown one shows itself in how it has answered."""
    neighbours: int = 2
    """Neighbours that a drone sees."""
    obstacles_seen: int = 2
    """Obstacles that a drone sees beside the distance grid, in the turned frame."""
    airframe: str = "cf21"
    """Nominal drone, a preset of the Crazyflie's airframe.toml; quad_swarm has the published sensor noise and no delay
    too."""
    downwash: bool = True
    """Drones push down those below them."""
    contacts: Literal["stochastic", "physical"] = "stochastic"
    """What a contact does: the published random bounce, or an impulse with restitution and friction."""
    contact_ends: bool = False
    """A contact ends that drone's flight, and it starts again elsewhere; for training."""
    dropout: float = 0.0
    """Share of the others' positions that are not heard of in a step; the last one stands."""
    empty: float = 0.0
    """Share of maps without obstacles, for training: a policy that has always seen some falls where there are none."""
    replay: float = 0.0
    """Probability that an environment starts 1.5 s before an earlier collision, for training."""
    disturbances: bool = False
    """Draw attitude bias, shifted centre of mass, unequal rotors and a constant force too."""
    episode_s: float = 15.0
    """Length of an episode."""
    success_radius_m: float | None = None
    """Success: mean distance over the last second within this; none means 0.25, and 0.40 where goals are shared."""
    rotor_gyro: bool = False
    """Gyroscopic torque of the rotors."""
    weights: Weights = Weights()
    """Reward."""
    curriculum: Curriculum = Curriculum()
    """Difficulty in training."""
    engine: Engine = "traced"
    """How the step is computed: eager, traced (the same without Python's overhead) or compiled."""

    @property
    def radius_m(self) -> float:
        """Bound of the mean distance over the last second."""
        if self.success_radius_m is not None:
            return self.success_radius_m
        return 0.40 if self.scenario in ("same_goal", "dynamic_same_goal", "bezier", "lissajous") else 0.25

    @property
    def most_obstacles(self) -> int:
        """Obstacles of the fullest map."""
        return int(CELLS * self.density)

    @property
    def free_places(self) -> int:
        """Places to start and to go to in the fullest map."""
        return (CELLS - self.most_obstacles) * len(HEIGHTS_M)


def check(config: SwarmConfig) -> None:
    """Raises BadInput with one line for settings that no world can have."""
    c = config
    if c.scenario not in SCENARIOS:
        raise NotFoundError("scenario", c.scenario, list(SCENARIOS))
    if not 1 <= c.drones <= MOST_DRONES:
        raise BadInput(f"drones = {c.drones}; expected 1 to {MOST_DRONES}")
    if not 0.0 <= c.density <= 0.8:  # NaN fails too
        raise BadInput(f"density = {c.density}; expected 0 to 0.8 of the cells")
    low = c.obstacle_diameter_m if c.obstacle_diameter_low_m is None else c.obstacle_diameter_low_m
    if not 0.0 < low <= c.obstacle_diameter_m <= 0.85:
        raise BadInput(f"obstacle diameters {low} to {c.obstacle_diameter_m} m; expected above 0 and at most 0.85")
    if len(c.room_m) != 3 or not all(x >= FIELD_M + 1.0 for x in c.room_m[:2]) or not c.room_m[2] >= 4.0:
        raise BadInput(f"room_m = {c.room_m}; expected at least {FIELD_M + 1:g} x {FIELD_M + 1:g} x 4 m")
    if 2 * c.drones > c.free_places:
        raise BadInput(
            f"{c.drones} drones need {2 * c.drones} places, to start and to go to; "
            f"density {c.density} leaves {c.free_places}"
        )
    if not 1 <= c.neighbours <= 16 or not 1 <= c.obstacles_seen <= 2:
        raise BadInput(f"neighbours = {c.neighbours}, obstacles_seen = {c.obstacles_seen}; expected 1 to 16 and 1 or 2")
    for name in ("dropout", "empty", "replay"):
        if not 0.0 <= getattr(c, name) < 1.0:
            raise BadInput(f"{name} = {getattr(c, name)}; expected 0 to below 1")
    if not 2.0 <= c.episode_s < math.inf:
        raise BadInput(f"episode_s = {c.episode_s}; expected at least 2")
    if not (c.success_radius_m is None or c.success_radius_m > 0.0):
        raise BadInput(f"success_radius_m = {c.success_radius_m}; expected a positive number")
    k = c.curriculum
    if not (
        0.0 <= k.density <= c.density
        and 1 <= (k.drones or c.drones) <= c.drones
        and k.steps > 0
        and 0.0 <= k.contact <= 1.0
    ):
        raise BadInput(f"curriculum {k} does not lead up to density {c.density} and {c.drones} drones")


def airframe_params(params: Mapping[str, Param], name: str) -> dict[str, Param]:
    """The scene's parameters with the nominal values of an airframe preset; raises NotFoundError listing them."""
    text = resources.files("hardware.robots.crazyflie").joinpath("airframe.toml").read_text()
    presets: dict[str, Any] = {k: v for k, v in tomllib.loads(text).items() if isinstance(v, dict)}
    if name not in presets:
        raise NotFoundError("airframe", name, list(presets))
    p = presets[name]
    nominal = {
        "mass": p["mass_kg"],
        **dict(zip(("inertia_xx", "inertia_yy", "inertia_zz"), p["inertia_kg_m2"], strict=True)),
        "thrust_to_weight": 4.0 * p["thrust_max_n"] / (p["mass_kg"] * 9.81),
        "thrust_curve": p["thrust_curve"],
        "motor_tau_up": p["tau_up_s"],
        "motor_tau_down": p["tau_down_s"],
        "torque_per_thrust": p["torque_per_thrust_m"],
        "drag_xy": p["drag_kg_s"][0],
        "drag_z": p["drag_kg_s"][2],
    }
    if name == "quad_swarm":
        nominal |= {"noise_position": 0.005, "noise_velocity": 0.01, "noise_rate": 1.75e-4, "noise_attitude": 0.0}
        nominal |= {"command_delay": 0.0, "battery_voltage": 4.2, "battery_sag": 0.0}
    return {k: replace(v, nominal=float(nominal[k])) if k in nominal else v for k, v in params.items()}
