"""N quadrotors in free space: physics, firmware, delays, battery and sensor noise, as planes."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hardware.robots.crazyflie.firmware import (
    CascadeState,
    TickGains,
    cascade,
    commander_thrust,
    gains_on,
    per_tick,
    rotor_ceiling,
    start_cascade,
)
from sim.dynamics import quadrotor as body
from sim.engine import Engine, prepared
from sim.param import Param
from sim.randomization import draw
from sim.sensors import corrupted

ROTOR_INERTIA = 3.0e-8
"""Propeller and motor about the spin axis, kg m^2: guess, see hardware/robots/crazyflie/airframe.toml."""
NOISE = ("noise_position", "noise_velocity", "noise_rate", "noise_attitude")
CASCADE_ROWS = (3, 3, 3, 1, 1)
"""Planes of CascadeState's fields in the packed state."""
COEFFICIENTS = sum(rows for _, rows in body.COEFFICIENT_ROWS)
Starts = Callable[[Mapping[str, Tensor], int, torch.Generator], Tensor]
"""starts(params, count, generator) -> states (17, count)."""


class QuadrotorWorlds:
    """The physics of N worlds; `state` holds planes with the batch last.

    The planes: body (17, N); cascade (11, N); noise (12, N); commands (H, 4, N), newest first; and `fixed`, which stays
    as it is for an episode: parameters, coefficients, lag decay, deviation of the noise. New worlds are drawn N at a
    time into a pool and dealt out one by one, so that an episode's end costs a copy.
    """

    def __init__(
        self,
        params: Mapping[str, Param],
        bounds: Tensor,
        num_envs: int,
        *,
        starts: Starts,
        neutral: Tensor,
        mode: str,
        rate_hz: float,
        substeps: int,
        max_delay_s: float,
        biased: bool,
        rotor_gyro: bool,
        engine: Engine,
        step: Callable[..., Tensor] = body.step_semi_implicit,
    ) -> None:
        self._names, self._bounds, self._starts = list(params), bounds, starts
        self._index = {name: i for i, name in enumerate(self._names)}
        self._neutral = neutral
        self.contexts: Tensor | None = None
        """(P, N) parameters that every restart takes instead of drawing them."""
        self.num_envs, self.device = num_envs, bounds.device
        period_s = 1.0 / rate_hz
        self._dt_s = period_s / substeps
        older = math.ceil(max_delay_s * rate_hz - 1e-6)
        self._rows = {"body": body.STATE_SIZE, "cascade": sum(CASCADE_ROWS), "noise": 12}
        self._rows["fixed"] = len(params) + COEFFICIENTS + 2 + 4
        make = lambda *shape: torch.zeros((*shape, num_envs), device=self.device)  # noqa: E731
        self.state: dict[str, Tensor] = {name: make(rows) for name, rows in self._rows.items()}
        self.state["commands"] = make(1 + older, 4)
        self.shared = {"pool": make(sum(self._rows.values())), "dealt": torch.tensor(num_envs)}
        """Prepared worlds and how many of them have been dealt out."""
        gains = per_tick(gains_on(self.state["body"][:3]), self._dt_s)
        moments = [[[i * self._dt_s + j * period_s] for j in range(older)] for i in range(substeps)]
        flight: dict[str, Any] = {
            "moments": torch.tensor(moments, device=self.device).reshape(substeps, older, 1),
            "gains": gains,
            "attitude": mode == "attitude_thrust",
            "biased": biased,
            "dt_s": self._dt_s,
            "rotor_gyro": rotor_gyro,
            "step": step,
        }
        self._biased = biased
        self._fly = prepared(functools.partial(_fly, **flight), engine)
        self._circumstances = [
            self._index[n] for n in ("battery_voltage", "battery_sag", "command_delay", "bias_roll", "bias_pitch")
        ]

    def restart(self, ids: Tensor | None, generator: torch.Generator) -> None:
        """New worlds at new starts for rows `ids` (None: all)."""
        if self.contexts is not None:
            fresh = self._started(self.contexts if ids is None else self.contexts[:, ids], generator)
        else:
            fresh = self._draw(self.num_envs, generator) if ids is None else self._deal(len(ids), generator)
        parts = dict(zip(self._rows, fresh.split(list(self._rows.values())), strict=True))
        commands = self._neutral[:, None]
        if ids is None:
            self.shared["dealt"] = torch.tensor(self.num_envs)  # what was prepared before is not dealt any more
            self.state |= {name: part.clone() for name, part in parts.items()}
            self.state["commands"] = commands.expand_as(self.state["commands"]).clone()
        else:
            for name, part in parts.items():
                self.state[name][:, ids] = part
            self.state["commands"][..., ids] = commands

    def advance(self, command: Tensor, generator: torch.Generator) -> None:
        """One control period under commands (N, 4); the noise of the next measurement is drawn here, once."""
        s = self.state
        s["commands"] = torch.cat([command.T[None], s["commands"][:-1]])
        params, coefficients, decay, _ = self._split(s["fixed"])
        s["body"], s["cascade"] = self._fly(
            s["body"], s["cascade"], s["commands"], params[self._circumstances], coefficients, decay
        )
        s["noise"] = torch.randn((12, self.num_envs), generator=generator, device=self.device)

    def view(self, ids: Tensor | None) -> dict[str, Tensor]:
        """What signals and observations are made of, for rows `ids`: body, noise, fixed and the last command."""
        s = self.state
        seen = {"body": s["body"], "noise": s["noise"], "fixed": s["fixed"], "command": s["commands"][0]}
        return seen if ids is None else {name: planes[:, ids] for name, planes in seen.items()}

    def measured(self, view: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Signals with noise and bias, name -> (n, k)."""
        params, _, _, deviation = self._split(view["fixed"])
        noise = view["noise"].view(4, 3, -1)
        position, velocity, quat, rate, _ = view["body"].split(body.STATE_PARTS)
        tilt = noise[3] * deviation[3]
        if self._biased:
            bias = params[[self._index["bias_roll"], self._index["bias_pitch"]]]
            tilt = torch.cat([tilt[:2] + bias, tilt[2:]])
        return {
            "position_world": corrupted(position, noise[0], deviation[0]).T,
            "velocity_world": corrupted(velocity, noise[1], deviation[1]).T,
            "angular_velocity_body": corrupted(rate, noise[2], deviation[2]).T,
            "quat_wxyz": body.turn_small(quat, tilt).T,
            "battery_voltage": self.battery_voltage(view),
        }

    def truth(self) -> dict[str, Tensor]:
        """Signals of all worlds without noise, name -> (N, k)."""
        position, velocity, quat, rate, _ = self.state["body"].split(body.STATE_PARTS)
        return {
            "position_world": position.T,
            "velocity_world": velocity.T,
            "angular_velocity_body": rate.T,
            "quat_wxyz": quat.T,
            "battery_voltage": self.battery_voltage(self.view(None)),
        }

    def params(self, view: Mapping[str, Tensor]) -> Tensor:
        """The worlds' parameters (P, n), in the order of ranges.toml."""
        return view["fixed"][: len(self._names)]

    def battery_voltage(self, view: Mapping[str, Tensor]) -> Tensor:
        """Voltage under the present load, (n,)."""
        params, load = self.params(view), view["body"][body.ROTOR].mean(0)
        return params[self._index["battery_voltage"]] - params[self._index["battery_sag"]] * load

    def park(self, ids: Tensor) -> None:
        """Puts drones at rest on the floor, half a metre apart along y, rotors stopped."""
        spread = 0.5 * (torch.arange(self.num_envs, device=self.device) - 0.5 * (self.num_envs - 1))
        rest = body.rest_state((len(ids),), self.state["body"])
        rest[1] = spread[ids]
        self.state["body"] = self.state["body"].index_copy(1, ids, rest)

    def drive(self, actuators: Tensor, dt_s: float) -> None:
        """Advances all drones by `dt_s` under rotor commands (4, N): no delay and no firmware, but a floor at z = 0.

        The floor holds: a drone that reaches it stands there upright, and leaves it when its thrust lifts it.
        """
        _, coefficients, _, _ = self._split(self.state["fixed"])
        ceiling = rotor_ceiling(self.battery_voltage(self.view(None)))
        command = torch.minimum(actuators.clamp(min=0.0), ceiling)
        c = body.unpack(coefficients)
        flown = body.step_semi_implicit(self.state["body"], command, c, dt_s=dt_s, rotor_gyro=True)
        position, _, quat, _, rotor = flown.split(body.STATE_PARTS)
        forms = body.rotation_forms(quat)
        half_yaw = 0.5 * torch.atan2(forms[4], forms[6])
        zero = torch.zeros_like(half_yaw)
        upright = torch.stack([torch.cos(half_yaw), zero, zero, torch.sin(half_yaw)])
        still = flown.new_zeros((3, self.num_envs))
        standing = torch.cat([position[:2], zero[None], still, upright, still, rotor])
        self.state["body"] = torch.where(position[2] < 0.0, standing, flown)

    def set_params(self, values: Mapping[str, Tensor | float]) -> None:
        """Sets parameters of all worlds by name, for instance those that a log identified; keeps the others."""
        params = self.params(self.view(None)).clone()
        for name, value in values.items():
            params[self._index[name]] = value
        self.state["fixed"] = self._fix(params)

    def _deal(self, count: int, generator: torch.Generator) -> Tensor:
        dealt = int(self.shared["dealt"])
        if dealt + count > self.num_envs:
            self.shared["pool"], dealt = self._draw(self.num_envs, generator), 0
        self.shared["dealt"] = torch.tensor(dealt + count)
        return self.shared["pool"][:, dealt : dealt + count]

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        return self._started(draw(self._bounds, count, generator), generator)

    def _started(self, params: Tensor, generator: torch.Generator) -> Tensor:
        count = params.shape[1]
        state = self._starts(dict(zip(self._names, params, strict=True)), count, generator)
        angles = body.euler_angles(body.rotation_forms(state[body.QUAT]))
        carried = pack_cascade(start_cascade(angles, state[body.RATE]))
        noise = torch.randn((12, count), generator=generator, device=self.device)
        return torch.cat([state, carried, noise, self._fix(params)])

    def _fix(self, params: Tensor) -> Tensor:
        named = dict(zip(self._names, params, strict=True))
        named["rotor_inertia"] = torch.full_like(named["mass"], ROTOR_INERTIA)
        c = body.coefficients(named)
        return torch.cat([params, *c, body.lag_decay(c, self._dt_s), torch.stack([named[n] for n in NOISE])])

    def _split(self, fixed: Tensor) -> tuple[Tensor, ...]:
        return fixed.split((len(self._names), COEFFICIENTS, 2, 4))


def _fly(
    state: Tensor,
    packed_cascade: Tensor,
    commands: Tensor,
    circumstances: Tensor,
    packed: Tensor,
    decay: Tensor,
    moments: Tensor,
    gains: TickGains,
    *,
    attitude: bool,
    biased: bool,
    dt_s: float,
    rotor_gyro: bool,
    step: Callable[..., Tensor],
) -> tuple[Tensor, Tensor]:
    """Body state (17, N) and cascade (11, N) after one control period; pure, so that it can be compiled.

    `commands` (H, 4, N) are the newest ones, newest first. `circumstances` holds the planes of battery voltage, sag,
    command delay and attitude bias (roll, pitch). `moments` (S, H - 1, 1) says, per substep and older command, the
    delay from which that command is still in force. `step` moves the bodies, as `step_semi_implicit` does.
    """
    c = body.unpack(packed)
    voltage, sag, delay = circumstances[0], circumstances[1], circumstances[2]
    ceiling = rotor_ceiling(voltage - sag * state[body.ROTOR].mean(0))
    in_force = commands[:1].expand(moments.shape[0], -1, -1)
    late = delay > moments
    for j in range(commands.shape[0] - 1):
        in_force = torch.where(late[:, j, None], commands[j + 1], in_force)
    if not attitude:
        for command in torch.minimum(in_force, ceiling):
            state = step(state, command, c, dt_s=dt_s, decay=decay, rotor_gyro=rotor_gyro)
        return state, packed_cascade
    carried = _unpack(packed_cascade)
    in_force = torch.cat([in_force[:, :3], commander_thrust(in_force[:, 3:])], dim=1)
    for setpoint in in_force:
        forms = body.rotation_forms(state[body.QUAT])
        angles = body.euler_angles(forms)
        if biased:
            angles = torch.cat([angles[:2] + circumstances[3:], angles[2:]])
        command, carried = cascade(setpoint, angles, state[body.RATE], carried, gains=gains)
        command = torch.minimum(command, ceiling)
        state = step(state, command, c, dt_s=dt_s, decay=decay, forms=forms, rotor_gyro=rotor_gyro)
    return state, pack_cascade(carried)


def pack_cascade(s: CascadeState) -> Tensor:
    """The firmware's state as planes (11, N)."""
    return torch.cat([s.angle_sum, s.rate_sum, s.last_rate, s.last_yaw[None], s.yaw_setpoint[None]])


def _unpack(packed: Tensor) -> CascadeState:
    a, b, c, yaw, setpoint = packed.split(CASCADE_ROWS)
    return CascadeState(a, b, c, yaw[0], setpoint[0])
