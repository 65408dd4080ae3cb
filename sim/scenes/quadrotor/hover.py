"""The hover task: go to a point and hold it, in free space, with an unknown drone."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from controllers.interface import Interface
from hardware.errors import BadInput
from hardware.spec import load_spec
from sim.dynamics import quadrotor as body
from sim.engine import Engine, prepared
from sim.env import Verdict
from sim.randomization import Family, draw_bounds, draw_range
from sim.scenes.quadrotor.world import NOISE, QuadrotorWorlds
from sim.spec import SceneSpec

GOAL = (0.0, 0.0, 2.5)
"""Goal in the world, m. Free space: only the error enters the observation."""
CRASH_DISTANCE_M, CRASH_COSINE = 4.0, -0.5
"""An episode ends as a crash beyond this distance from the goal, or tilted by more than 120 degrees."""


@dataclass(frozen=True)
class HoverConfig:
    """The task's own settings; the worlds' numbers live in ranges.toml."""

    mode: Literal["attitude_thrust", "rotor_thrust"] = "attitude_thrust"
    """Command mode: set points for off-board flight, or rotor thrusts for a policy on board."""
    disturbances: bool = False
    """Draw attitude bias, shifted centre of mass, unequal rotors and a constant force too."""
    success_radius_m: float | None = None
    """Success: within this distance at every step of the holding time; none means 0.05 for set points, 0.10 for
    rotors."""
    hold_from_s: float = 3.5
    """Start of the holding time, which ends with the episode."""
    episode_s: float = 6.0
    """Length of an episode."""
    start_radius_m: float = 2.0
    """Starts are uniform in a ball of this radius around the goal."""
    start_tilt_rad: float = math.radians(60.0)
    """Largest tilt at the start, about a random horizontal axis."""
    start_rate_rad_s: float = 5.0
    """Largest body rate at the start, in a random direction."""
    start_speed_m_s: float = 0.5
    """Largest speed at the start, in a random direction."""
    rotor_gyro: bool = True
    """Include the rotors' own angular momentum."""
    engine: Engine = "traced"
    """How the simulator's step is run: eager, traced (recorded once, replayed without Python, bit for bit the same) or
    compiled (torch.compile: 10 to 30 s at the start, worth it for long runs)."""

    @property
    def radius_m(self) -> float:
        """Distance that counts as success."""
        if self.success_radius_m is not None:
            return self.success_radius_m
        return 0.05 if self.mode == "attitude_thrust" else 0.10


def _check(config: HoverConfig) -> None:
    """Raises BadInput for settings that make no task: without a holding time every episode would be a success."""
    if not 0.0 <= config.hold_from_s < config.episode_s < math.inf:
        raise BadInput(
            f"hold_from_s = {config.hold_from_s:g}, episode_s = {config.episode_s:g}: expected the holding time to "
            "start at 0 or later and before the end of the episode"
        )
    for name in ("radius_m", "start_radius_m", "start_tilt_rad", "start_rate_rad_s", "start_speed_m_s"):
        if not 0.0 <= getattr(config, name) < math.inf:
            raise BadInput(f"{name} = {getattr(config, name)}; expected a finite number, at least 0")


class HoverTask:
    """The hover task in N worlds; see sim.env.Task."""

    def __init__(
        self,
        num_envs: int,
        *,
        spec: SceneSpec,
        config: HoverConfig,
        family: Family = "train",
        device: str | torch.device = "cpu",
        step: Callable[..., Tensor] = body.step_semi_implicit,
    ) -> None:
        _check(config)
        self.config, self.spec = config, spec
        self.interface = Interface(load_spec(spec.robot), spec.mode, spec.observation, spec.action)
        self.num_envs, self.device = num_envs, torch.device(device)
        groups = {"disturbances"} if config.disturbances else set()
        neutral = self.interface.command(torch.zeros(1, self.interface.action_size, device=self.device))
        self.worlds = QuadrotorWorlds(
            spec.params,
            draw_bounds(spec.params, family, groups, self.device),
            num_envs,
            starts=self._starts,
            neutral=neutral[0],
            mode=config.mode,
            rate_hz=spec.rate_hz,
            substeps=5 if config.mode == "attitude_thrust" else 2,
            max_delay_s=draw_range(spec.params["command_delay"], family)[1],
            biased=config.disturbances,
            rotor_gyro=config.rotor_gyro,
            engine=config.engine,
            step=step,
        )
        self.state, self.shared = self.worlds.state, self.worlds.shared
        self.state["held"] = torch.zeros(2, num_envs, device=self.device)
        """Largest and summed distance since the holding time began."""
        self._score = prepared(self._score_flat, "traced" if config.engine == "compiled" else config.engine)
        self._goal = torch.tensor(GOAL, device=self.device)
        self._hold_from = round(config.hold_from_s * spec.rate_hz)
        self._end = round(config.episode_s * spec.rate_hz)
        self._visible = torch.tensor([i for i, name in enumerate(spec.params) if name not in NOISE]).to(self.device)
        known = {p.name: p for p in spec.params.values() if p.name not in NOISE}
        span = draw_bounds(known, "train", {"disturbances"}, self.device)
        self._middle, self._inverse_span = span.mean(1, keepdim=True), 2.0 / (span[:, 1:] - span[:, :1])

    @property
    def contexts(self) -> Tensor | None:
        """(P, N) parameters in the order of `spec.params` that every restart takes instead of drawing them."""
        return self.worlds.contexts

    @contexts.setter
    def contexts(self, params: Tensor | None) -> None:
        self.worlds.contexts = params

    @property
    def parameters(self) -> Tensor:
        """(P, N) parameters of the present worlds."""
        return self.worlds.params(self.worlds.view(None))

    def restart(self, ids: Tensor | None, generator: torch.Generator) -> None:
        """New drones at new starts."""
        self.worlds.restart(ids, generator)
        self.state["held"][:, slice(None) if ids is None else ids] = 0.0

    def advance(self, command: Tensor, generator: torch.Generator) -> None:
        """One control period."""
        self.worlds.advance(command, generator)

    def judge(self, action: Tensor, last_action: Tensor, age: Tensor) -> Verdict:
        """Reward and metrics; distances are true, not measured.

        Metrics: distance (m), crash, hold_max and hold_mean (m, since the holding time began), success (true only where
        an episode ends now and the criterion of the spec holds).
        """
        reward, crash, distance, largest, total, success = self._score(
            self.state["body"], self.state["held"], action - last_action, age
        )
        self.state["held"] = torch.stack([largest, total])
        metrics = {
            "distance": distance,
            "crash": crash,
            "hold_max": largest,
            "hold_mean": total / (age - self._hold_from + 1).clamp(min=1),
            "success": success,
        }
        return Verdict(reward, torch.zeros_like(reward), crash, metrics)

    def _score_flat(self, state: Tensor, held: Tensor, change: Tensor, age: Tensor) -> tuple[Tensor, ...]:
        """Reward, crash, distance, largest and summed distance while holding, success: a pure function of tensors."""
        error = self._goal[:, None] - state[body.POSITION]
        distance = torch.sqrt((error * error).sum(0))
        up_cosine = 1.0 - 2.0 * (state[7] * state[7] + state[8] * state[8])
        crash = ~((distance < CRASH_DISTANCE_M) & (up_cosine > CRASH_COSINE))  # NaN counts as a crash
        reward = torch.where(crash, self.spec.rewards["crash"], self._reward(state, distance, up_cosine, change))
        counted = torch.where(age >= self._hold_from, distance, 0.0)
        largest, total = torch.maximum(held[0], counted), held[1] + counted
        success = (largest <= self.config.radius_m) & (age >= self._end) & ~crash
        return reward, crash, distance, largest, total, success

    def view(self, ids: Tensor | None) -> dict[str, Tensor]:
        """What the signals of rows `ids` are made of."""
        return self.worlds.view(ids)

    def measured(self, view: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Signals as the drone reports them."""
        return self.worlds.measured(view)

    def goal(self, view: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The point to hold, (n, 3)."""
        return {"position_world": self._goal.expand(view["body"].shape[-1], 3)}

    def privileged(self, view: Mapping[str, Tensor]) -> Tensor:
        """(n, C): true error and velocity in the heading's frame, gravity, rates, rotors, last command, parameters."""
        position, velocity, quat, rate, rotor = view["body"].split(body.STATE_PARTS)
        forms = body.rotation_forms(quat)
        error = self._goal[:, None] - position
        heading = forms[[6, 4]]  # cosine and sine of the yaw, unnormalised
        cosine, sine = heading * torch.rsqrt((heading * heading).sum(0) + 1e-12)
        # One turn about z for both vectors: planes (error_x, velocity_x) and (error_y, velocity_y).
        vectors = torch.stack([error, velocity], 1)
        ahead, left = vectors[0], vectors[1]
        planes = [
            cosine * ahead + sine * left,
            cosine * left - sine * ahead,
            vectors[2],
            torch.clamp(4.0 * error, -1.0, 1.0),
            forms[[7, 8, 2]],  # the world's z axis in the body
            0.2 * rate,
            rotor,
            view["command"],
            (self.worlds.params(view)[self._visible] - self._middle) * self._inverse_span,
        ]
        return torch.cat(planes).T.contiguous()

    def _starts(self, params: Mapping[str, Tensor], count: int, generator: torch.Generator) -> Tensor:
        config = self.config
        direction = torch.randn((3, 3, count), generator=generator, device=self.device)
        direction = direction / torch.sqrt((direction * direction).sum(1, keepdim=True))
        u = torch.rand((6, count), generator=generator, device=self.device)
        position = self._goal[:, None] + direction[0] * (config.start_radius_m * u[0] ** (1.0 / 3.0))
        velocity, rate = direction[1] * (config.start_speed_m_s * u[1]), direction[2] * (config.start_rate_rad_s * u[2])
        half_tilt, axis, half_yaw = 0.5 * config.start_tilt_rad * u[3], 2.0 * math.pi * u[4], math.pi * (u[5] - 0.5)
        # Tilt about a horizontal axis after a turn by the yaw: q = (cos t, sin t n) * (cos y, 0, 0, sin y).
        ct, st, cy, sy = half_tilt.cos(), half_tilt.sin(), half_yaw.cos(), half_yaw.sin()
        nx, ny = st * axis.cos(), st * axis.sin()
        quat = torch.stack([ct * cy, nx * cy + ny * sy, ny * cy - nx * sy, ct * sy])
        rotor = body.hover_command(params).clamp(max=1.0).expand(4, count)
        return torch.cat([position, velocity, quat, rate, rotor])

    def _reward(self, state: Tensor, distance: Tensor, up_cosine: Tensor, change: Tensor) -> Tensor:
        r = self.spec.rewards
        velocity, rate = state[body.VELOCITY], state[body.RATE]
        close = torch.exp((distance * (1.0 / 0.3)).square().neg())
        reward = r["near"] * (1.0 - 0.5 * distance) + r["exact"] * torch.exp(distance * (-1.0 / 0.05))
        reward = reward + close * (r["close"] + r["speed"] * torch.sqrt((velocity * velocity).sum(0)))
        reward = torch.add(reward, (change * change).sum(1), alpha=r["action_change"])
        turn = rate * rate
        reward = torch.add(torch.add(reward, turn[0] + turn[1], alpha=r["rate_xy"]), turn[2], alpha=r["rate_z"])
        if self.config.mode == "rotor_thrust":
            reward = torch.add(reward, 1.0 - up_cosine, alpha=r["tilt"])
        return 0.1 * reward.clamp(min=-1.0)
