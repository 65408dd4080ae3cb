"""N quadrotors in free space: physics, firmware, delays, battery and sensor noise, as planes."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hardware.geometry import quat_to_euler
from hardware.robots.crazyflie.firmware import (
    CascadeState,
    Gains,
    cascade,
    commander_thrust,
    gains_on,
    rotor_ceiling,
    start_cascade,
)
from sim.dynamics import quadrotor as body
from sim.param import Param
from sim.randomization import draw

ROTOR_INERTIA = 3.0e-8
"""Propeller and motor about the spin axis, kg m^2: guess, see hardware/robots/crazyflie/airframe.toml."""
NOISE = ("noise_position", "noise_velocity", "noise_rate", "noise_attitude")
CASCADE_ROWS = (3, 3, 3, 1, 1)
"""Planes of CascadeState's fields in the packed state."""


class QuadrotorWorlds:
    """The physics of N worlds; `state` holds planes with the batch last.

    The planes: body (17, N), cascade (11, N), commands (H, 4, N) newest first, params (P, N), noise (4, 3, N).
    """

    def __init__(
        self,
        params: Mapping[str, Param],
        bounds: Tensor,
        num_envs: int,
        *,
        mode: str,
        rate_hz: float,
        substeps: int,
        max_delay_s: float,
        biased: bool,
        rotor_gyro: bool,
        compiled: bool,
    ) -> None:
        self.names, self.bounds = list(params), bounds
        self.num_envs, self.device = num_envs, bounds.device
        self.period_s, self.substeps = 1.0 / rate_hz, substeps
        self.attitude = mode == "attitude_thrust"
        self.biased, self.rotor_gyro = biased, rotor_gyro
        depth = 1 + math.ceil(max_delay_s * rate_hz - 1e-6)
        make = lambda *shape: torch.zeros((*shape, num_envs), device=self.device)  # noqa: E731
        self.state: dict[str, Tensor] = {
            "body": make(body.STATE_SIZE),
            "cascade": make(sum(CASCADE_ROWS)),
            "commands": make(depth, 4),
            "params": make(len(params)),
            "noise": make(4, 3),
        }
        self._packed = make(sum(rows for _, rows in body.COEFFICIENT_ROWS))
        self._decay, self._deviation = make(2), make(4, 1)
        self._gains: Gains = gains_on(self.state["body"][:3])
        self._fly = _fly if not compiled else torch.compile(_fly, dynamic=False)
        self._index = {name: i for i, name in enumerate(self.names)}

    def param(self, name: str, ids: Tensor | None = None) -> Tensor:
        """The parameter's value in each world, (n,)."""
        plane = self.state["params"][self._index[name]]
        return plane if ids is None else plane[ids]

    def draw_params(self, ids: Tensor | None, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draws new parameters for rows `ids`; returns them by name."""
        drawn = draw(self.bounds, count, generator)
        self._put("params", ids, drawn)
        fresh, decay, deviation = self._derive(drawn)
        if ids is None:
            self._packed, self._decay, self._deviation = fresh, decay, deviation
        else:
            self._packed[:, ids], self._decay[:, ids], self._deviation[..., ids] = fresh, decay, deviation
        return dict(zip(self.names, drawn, strict=True))

    def start(self, ids: Tensor | None, state: Tensor, command: Tensor, generator: torch.Generator) -> None:
        """Puts rows `ids` at states (17, n), with command (4,) given for as long as the delay remembers."""
        count = state.shape[-1]
        self._put("body", ids, state)
        angles = torch.stack(quat_to_euler(state[body.QUAT].T))
        self._put("cascade", ids, _pack(start_cascade(angles, state[body.RATE])))
        depth = self.state["commands"].shape[0]
        self._put("commands", ids, command[:, None].expand(depth, 4, count))
        self._put("noise", ids, torch.randn((4, 3, count), generator=generator, device=self.device))

    def advance(self, command: Tensor, generator: torch.Generator) -> None:
        """One control period under commands (N, 4); the noise of the next measurement is drawn here, once."""
        s = self.state
        s["commands"] = torch.cat([command.T[None], s["commands"][:-1]])
        bias = None
        if self.biased:
            bias = torch.stack([self.param("bias_roll"), self.param("bias_pitch")])
        battery = torch.stack([self.param("battery_voltage"), self.param("battery_sag"), self.param("command_delay")])
        s["body"], s["cascade"] = self._fly(
            s["body"],
            s["cascade"],
            s["commands"],
            battery,
            bias,
            self._packed,
            self._decay,
            self._gains,
            attitude=self.attitude,
            substeps=self.substeps,
            period_s=self.period_s,
            rotor_gyro=self.rotor_gyro,
        )
        s["noise"] = torch.randn((4, 3, self.num_envs), generator=generator, device=self.device)

    def measured(self, ids: Tensor | None) -> dict[str, Tensor]:
        """Signals with noise and bias, name -> (n, k)."""
        state, noise = self._rows("body", ids), self._rows("noise", ids)
        noise = noise * (self._deviation if ids is None else self._deviation[..., ids])
        tilt = noise[3]
        if self.biased:
            bias = [self.param("bias_roll", ids), self.param("bias_pitch", ids), torch.zeros_like(tilt[0])]
            tilt = tilt + torch.stack(bias)
        return {
            "position_world": (state[body.POSITION] + noise[0]).T,
            "velocity_world": (state[body.VELOCITY] + noise[1]).T,
            "angular_velocity_body": (state[body.RATE] + noise[2]).T,
            "quat_wxyz": body.turn_small(state[body.QUAT], tilt).T,
            "battery_voltage": self.battery_voltage(ids),
        }

    def truth(self, ids: Tensor | None = None) -> dict[str, Tensor]:
        """Signals without noise, name -> (n, k)."""
        state = self._rows("body", ids)
        return {
            "position_world": state[body.POSITION].T,
            "velocity_world": state[body.VELOCITY].T,
            "angular_velocity_body": state[body.RATE].T,
            "quat_wxyz": state[body.QUAT].T,
            "battery_voltage": self.battery_voltage(ids),
        }

    def battery_voltage(self, ids: Tensor | None = None) -> Tensor:
        """Voltage under the present load, (n,)."""
        load = self._rows("body", ids)[body.ROTOR].mean(0)
        return self.param("battery_voltage", ids) - self.param("battery_sag", ids) * load

    def refresh(self) -> None:
        """Recomputes the coefficients from the parameters in `state`."""
        self._packed, self._decay, self._deviation = self._derive(self.state["params"])

    def _derive(self, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        named = dict(zip(self.names, drawn, strict=True))
        named["rotor_inertia"] = torch.full_like(named["mass"], ROTOR_INERTIA)
        c = body.coefficients(named)
        deviation = torch.stack([named[n] for n in NOISE])[:, None]
        return torch.cat(list(c)), body.lag_decay(c, self.period_s / self.substeps), deviation

    def _rows(self, name: str, ids: Tensor | None) -> Tensor:
        return self.state[name] if ids is None else self.state[name][..., ids]

    def _put(self, name: str, ids: Tensor | None, value: Tensor) -> None:
        if ids is None:
            self.state[name] = value.clone()
        else:
            self.state[name][..., ids] = value


def _fly(
    state: Tensor,
    packed_cascade: Tensor,
    commands: Tensor,
    battery: Tensor,
    bias: Tensor | None,
    packed: Tensor,
    decay: Tensor,
    gains: Any,
    *,
    attitude: bool,
    substeps: int,
    period_s: float,
    rotor_gyro: bool,
) -> tuple[Tensor, Tensor]:
    """Body state (17, N) and cascade (11, N) after one control period; pure, so that it can be compiled.

    A command issued j periods ago is in force from its delay on; `battery` holds voltage, sag and delay planes.
    """
    c = body.unpack(packed)
    carried = _unpack(packed_cascade)
    voltage, sag, delay = battery[0], battery[1], battery[2]
    ceiling = rotor_ceiling(voltage - sag * state[body.ROTOR].mean(0))
    dt_s = period_s / substeps
    for i in range(substeps):
        command = commands[0]
        for j in range(1, commands.shape[0]):
            command = torch.where(delay > i * dt_s + (j - 1) * period_s, commands[j], command)
        if attitude:
            angles = torch.stack(quat_to_euler(state[body.QUAT].T))
            if bias is not None:
                angles = torch.cat([angles[:2] + bias, angles[2:]])
            setpoint = torch.cat([command[:3], commander_thrust(command[3:])])
            command, carried = cascade(setpoint, angles, state[body.RATE], carried, gains=gains, dt_s=dt_s)
        command = torch.minimum(command, ceiling)
        state = body.step_semi_implicit(state, command, c, dt_s=dt_s, decay=decay, rotor_gyro=rotor_gyro)
    return state, _pack(carried) if attitude else packed_cascade


def _pack(s: CascadeState) -> Tensor:
    return torch.cat([s.angle_integral, s.rate_integral, s.last_rate, s.last_yaw[None], s.yaw_setpoint[None]])


def _unpack(packed: Tensor) -> CascadeState:
    a, b, c, yaw, setpoint = packed.split(CASCADE_ROWS)
    return CascadeState(a, b, c, yaw[0], setpoint[0])
