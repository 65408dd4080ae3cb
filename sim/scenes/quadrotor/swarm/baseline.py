"""Classical pilots of the swarm task: a potential field, and barrier certificates around the way to the goal."""

from collections.abc import Callable, Mapping
from typing import Literal, cast

import torch
from torch import Tensor

from controllers import avoidance, geometric
from controllers.surroundings import Around
from hardware.errors import BadInput
from sim.env import BatchEnv
from sim.param import Param
from sim.scenes.quadrotor.swarm.task import SwarmTask

Choice = Literal["barrier", "potential"]
TRACKING = {
    "attitude_thrust": geometric.TrackingGains(acceleration_max=6.5),
    "rotor_thrust": geometric.TrackingGains(acceleration_max=6.5, attitude=40.0, rate=10.0),
}
"""Rotor thrusts: slower than in hover, so that drones with slow rotors stay upright."""
GAINS: dict[Choice, dict[str, avoidance.AvoidanceGains]] = {
    "barrier": {
        "attitude_thrust": avoidance.AvoidanceGains(),
        "rotor_thrust": avoidance.AvoidanceGains(clear_m=0.08, delay_s=0.2),
    },
    "potential": {
        "attitude_thrust": avoidance.AvoidanceGains(delay_s=0.15),
        "rotor_thrust": avoidance.AvoidanceGains(delay_s=0.2),
    },
}
"""Tuned on other seeds than those of evaluations."""
BASELINES: tuple[Choice, ...] = ("barrier", "potential")


class SwarmBaseline:
    """Actions (N, 4) for the environment's present state, one call per step.

    Each drone uses its own noisy signals, what it has heard of all the others, all obstacles of its map and the room:
    more than the policy's few members, nothing that a drone could not know. It takes the nominal drone for its own.
    """

    def __init__(self, env: BatchEnv, choice: Choice = "barrier") -> None:
        if choice not in GAINS:
            raise BadInput(f"baseline '{choice}' not found; baselines: {', '.join(GAINS)}")
        self.env, self.choice = env, choice
        self.task = cast(SwarmTask, env.task)
        self.gains, self.tracking = GAINS[choice][env.spec.mode], TRACKING[env.spec.mode]
        self.airframe = nominal_airframe(env.spec.params)
        self.curve = env.spec.params["thrust_curve"].nominal
        size = self.task.config.room_m
        self.room = avoidance.Room((-size[0] / 2, -size[1] / 2, 0.0), (size[0] / 2, size[1] / 2, size[2]))
        self.decisions = 0
        self.active = torch.zeros((), dtype=torch.long, device=env.device)
        """Decisions that the certificates changed."""
        self.infeasible = torch.zeros((), dtype=torch.long, device=env.device)
        """Decisions without a safe acceleration, in which the drone braked."""
        self._scale = torch.tensor([f.scale for f in env.interface.action], device=env.device)
        self._offset = torch.tensor([f.offset for f in env.interface.action], device=env.device)
        self._estimate: geometric.Estimate | None = None
        self._maps: tuple[object, Tensor, Tensor] | None = None

    def __call__(self) -> Tensor:
        """Actions (N, 4) in -1..1."""
        state, goal = self._measured()
        around, estimate = self._around(), self._observed(state)
        position, velocity = state["position_world"], state["velocity_world"]
        if self.choice == "barrier":
            found = avoidance.barrier(position, velocity, goal, around, self.room, gains=self.gains)
            self._count(found)
            wanted = found.acceleration
        else:
            wanted = avoidance.potential_field(position, velocity, goal, around, self.room, gains=self.gains)
        thrust = geometric.lifted(wanted, estimate, gains=self.tracking)
        law = geometric.attitude_along if self.env.spec.mode == "attitude_thrust" else geometric.rotors_along
        return self._action(law(thrust, state, state, airframe=self.airframe, gains=self.tracking))  # holds its yaw

    def guard(self, action: Tensor) -> Tensor:
        """Somebody else's actions (N, 4), in mode attitude_thrust, behind the barrier certificates."""
        if self.env.spec.mode != "attitude_thrust":
            raise BadInput(f"barrier certificates filter the mode attitude_thrust, not {self.env.spec.mode}")
        state, _ = self._measured()
        command = self.env.interface.command(action)
        command = torch.cat([command[:, :3], self._force(command[:, 3:])], 1)
        passed, found = avoidance.certified_set_points(
            command,
            state,
            self._observed(state),
            self._around(),
            self.room,
            airframe=self.airframe,
            tracking=self.tracking,
            gains=self.gains,
        )
        self._count(found)
        return torch.where(found.active[:, None], self._action(passed), action)

    def _measured(self) -> tuple[Mapping[str, Tensor], Tensor]:
        view = self.task.view(None)
        return self.task.measured(view), self.task.goal(view)["position_world"]

    def _observed(self, state: Mapping[str, Tensor]) -> geometric.Estimate:
        """Velocity and disturbance; they start anew wherever an episode does."""
        begun = geometric.start(state)
        if self._estimate is None:
            self._estimate = begun
            return begun
        sent, attitude = self.env.command, self.env.spec.mode == "attitude_thrust"
        thrust = self._force(sent[:, 3] if attitude else sent).reshape(len(sent), -1).mean(1)
        dt_s = 1.0 / self.env.spec.rate_hz
        now = geometric.observe(state, self._estimate, thrust, airframe=self.airframe, gains=self.tracking, dt_s=dt_s)
        new = (self.env.age == 0)[:, None]
        self._estimate = geometric.Estimate(*(torch.where(new, a, b) for a, b in zip(begun, now, strict=True)))
        return self._estimate

    def _around(self) -> Around:
        task = self.task
        agents, n = task.agents, task.num_envs
        shared, flying = task.state["shared"].reshape(6, agents, -1), task.state["flying"].reshape(agents, -1)
        rows = lambda planes: planes.movedim(-1, 0)[None].expand(agents, -1, *planes.shape[:-1])  # noqa: E731
        heard = rows(shared).reshape(n, 6, agents).transpose(1, 2)
        itself = torch.eye(agents, dtype=torch.bool, device=shared.device).repeat_interleave(n // agents, 0)
        axes, radius = self._cylinders()
        maps = task.state["map"]
        axes, radius = axes[maps], radius[maps]
        known = rows(flying).reshape(n, agents) & ~itself
        return Around(heard[..., :3], heard[..., 3:], known, axes, torch.isfinite(radius), radius.nan_to_num(0.0))

    def _cylinders(self) -> tuple[Tensor, Tensor]:
        """Axes (M, L, 2) and radii (M, L) of the maps' cylinders, NaN where there is none; L is the fullest map's."""
        bank = self.task.bank
        if self._maps is None or self._maps[0] is not bank:
            most = int(bank.count.max())
            order = (~bank.present).to(torch.uint8).argsort(stable=True, dim=1)[:, :most]
            there = bank.present.gather(1, order)
            axes = bank.axes.gather(1, order[..., None].expand(-1, -1, 2))
            self._maps = bank, axes, torch.where(there, bank.radius[:, None], torch.nan)
        return self._maps[1], self._maps[2]

    def _count(self, found: avoidance.Filtered) -> None:
        self.decisions += len(found.active)
        self.active += found.active.sum()
        self.infeasible += found.infeasible.sum()

    def _action(self, command: Tensor) -> Tensor:
        """Actions of commands (N, 4) whose thrusts are shares of the largest force."""
        if self.env.spec.mode == "attitude_thrust":
            command = torch.cat([command[:, :3], self._rotor(command[:, 3:])], 1)
        else:
            command = self._rotor(command)
        return ((command - self._offset) / self._scale).clamp(-1.0, 1.0)

    def _force(self, rotor: Tensor) -> Tensor:
        """Share of the largest force at a normalised command, by the nominal thrust curve."""
        return rotor * (1.0 - self.curve + self.curve * rotor)

    def _rotor(self, force: Tensor) -> Tensor:
        """Inverse of `_force`."""
        k = self.curve
        if k == 0.0:
            return force
        return (torch.sqrt((1.0 - k) ** 2 + 4.0 * k * force.clamp(min=0.0)) - (1.0 - k)) / (2.0 * k)


def swarm_baseline(env: BatchEnv, choice: Choice = "barrier") -> Callable[[], Tensor]:
    """A function that gives the actions (N, 4) for the environment's present state."""
    return SwarmBaseline(env, choice)


def nominal_airframe(params: Mapping[str, Param]) -> geometric.Airframe:
    """The drone of the parameters' nominal values."""
    value = {name: p.nominal for name, p in params.items()}
    weight = value["mass"] * 9.81
    return geometric.Airframe(
        mass_kg=value["mass"],
        inertia_kgm2=(value["inertia_xx"], value["inertia_yy"], value["inertia_zz"]),
        arm_m=value.get("arm", 0.046),
        torque_per_thrust_m=value["torque_per_thrust"],
        rotor_thrust_max_n=0.25 * value["thrust_to_weight"] * weight,
    )
