"""Drones that follow a log's commands from measured starts, each with parameters of its own; for identification.

The same dynamics and firmware as the task's worlds, in double precision, with a dead time that may be any fraction of
a control period: commands in force over a substep are the mean of those that overlap it.
"""

from collections.abc import Mapping

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
from sim.param import Param
from sim.scenes.quadrotor.world import NOISE, ROTOR_INERTIA

SUBSTEPS = 5
"""Of 2 ms, as the firmware's own loops."""
HISTORY = 40
"""Commands before a window, from which the rotors' start follows in the mode that commands them."""
POSE_LATENCY = Param(
    "pose_latency",
    0.004,
    "s",
    0.0,
    0.01,
    "set",
    "guess",
    "age of position, velocity and attitude, beside the gyro's",
    0.0,
)
"""A property of the log that no world has: estimated along with the rest, and never proposed."""
ELSEWHERE = ("battery_voltage", "battery_sag")
"""Seen in the battery's voltage, not in flight."""


class QuadrotorRollout:
    """See sim.identify.rollout.Rollout; `params` are all of the scene's, in their order."""

    delay = "command_delay"
    accuracy = 0.001

    def __init__(self, params: Mapping[str, Param], *, mode: str, rate_hz: float, disturbances: bool) -> None:
        self.rate_hz, self.window_s, self.history = rate_hz, 0.5, HISTORY
        self._attitude = mode == "attitude_thrust"
        self._all = params
        self.params = {
            n: p for n, p in params.items() if n not in NOISE and n not in ELSEWHERE and (disturbances or not p.group)
        } | {POSE_LATENCY.name: POSE_LATENCY}
        self.signals = {
            "position_world": 2e-4, "velocity_world": 2e-3, "quat_wxyz": 5e-4, "angular_velocity_body": 5e-4,
        }  # fmt: skip
        self.inputs: tuple[str, ...] = ("battery_voltage",)
        rotors = dict.fromkeys(("rotor_1", "rotor_2", "rotor_3", "rotor_4"), 0.25)
        integrals = {f"angle_sum_{a}": 0.3 for a in "xyz"}
        integrals |= {f"rate_sum_{a}": 0.6 for a in "xyz"}
        self.hidden = {**rotors, **integrals, "yaw_setpoint": 0.4} if self._attitude else {}
        self._dt_s = 1.0 / (rate_hz * SUBSTEPS)

    def __call__(
        self, params: Tensor, start: Mapping[str, Tensor], hidden: Tensor, commands: Tensor, given: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """See Rollout."""
        count = params.shape[1]
        named = {n: torch.full((count,), p.nominal, dtype=torch.float64) for n, p in self._all.items()}
        named |= dict(zip(self.params, params, strict=True))
        named["rotor_inertia"] = torch.full_like(named["mass"], ROTOR_INERTIA)
        c = body.coefficients(named)
        decay = body.lag_decay(c, 0.5 * self._dt_s)
        late = named["pose_latency"]
        delay = named["command_delay"] * self.rate_hz
        wanted = commands.permute(1, 2, 0)  # (history + T, J, N)
        rotor = self._rotors(wanted, delay, c, hidden)
        names = ("position_world", "velocity_world", "quat_wxyz", "angular_velocity_body")
        state = _advanced(torch.cat([*(start[n].T for n in names), rotor]), late)
        bias = torch.stack([named["bias_roll"], named["bias_pitch"], torch.zeros(count, dtype=torch.float64)])
        gains = per_tick(gains_on(state[:3]), self._dt_s)
        carried = self._cascade(state, hidden, gains, bias)
        path = [_advanced(state, -late)]
        voltage = given["battery_voltage"]
        for k in range(commands.shape[1] - self.history):
            ceiling = rotor_ceiling(voltage[:, k, 0])
            for j in range(SUBSTEPS):
                setpoint = in_force(wanted, self.history + k + j / SUBSTEPS, delay)
                if self._attitude:
                    setpoint = torch.cat([setpoint[:3], commander_thrust(setpoint[3:])])
                    seen = body.turn_small(state[body.QUAT], -late * state[body.RATE])
                    angles = body.euler_angles(body.rotation_forms(seen)) + bias
                    setpoint, carried = cascade(setpoint, angles, state[body.RATE], carried, gains=gains)
                command = torch.minimum(setpoint.clamp(min=0.0), ceiling)
                before, state = state, _step(state, command, c, decay, self._dt_s)
            speed = (state[body.VELOCITY] - before[body.VELOCITY]) / self._dt_s
            path.append(_advanced(state, -late, speed))
        planes = torch.stack(path, 0).permute(2, 0, 1)
        position, velocity, quat, rate, _ = planes.split(body.STATE_PARTS, dim=2)
        return dict(zip(names, (position, velocity, quat, rate), strict=True))

    def _rotors(self, wanted: Tensor, delay: Tensor, c: body.Coefficients, hidden: Tensor) -> Tensor:
        """Rotor states (4, N) at the start: near the last thrust, or what earlier rotor commands have made of them."""
        if self._attitude:
            return wanted[self.history - 1, 3:].expand(4, -1) + hidden[:, :4].T
        period = 1.0 / self.rate_hz
        decay = body.lag_decay(c, period)
        rotor = in_force(wanted, 2.0, delay, width=1.0)
        for k in range(2, self.history):
            gap = in_force(wanted, float(k), delay, width=1.0) - rotor
            rotor = rotor + gap * torch.where(gap > 0.0, decay[0], decay[1])
        return rotor

    def _cascade(self, state: Tensor, hidden: Tensor, gains: TickGains, bias: Tensor) -> CascadeState:
        angles = body.euler_angles(body.rotation_forms(state[body.QUAT])) + bias
        begun = start_cascade(angles, state[body.RATE])
        if not self._attitude:
            return begun
        h = hidden.T
        return CascadeState(
            h[4:7] / gains.dt_s, h[7:10] / gains.dt_s, begun.last_rate, begun.last_yaw, begun.yaw_setpoint + h[10]
        )


def _step(state: Tensor, command: Tensor, c: body.Coefficients, decay: Tensor, dt_s: float) -> Tensor:
    """The state (17, N) after `dt_s`: half a drift, a kick, half a drift (Strang); second order.

    `decay` is `lag_decay` of half the step. The task's own first-order step lets forces lag by one step, which would
    pass for a dead time.
    """
    state = _drifted(state, command, decay, 0.5 * dt_s)
    linear, angular = body.accelerations(state, c)
    kicked = torch.cat([state[:3], state[3:6] + dt_s * linear, state[6:10], state[10:13] + dt_s * angular, state[13:]])
    return _drifted(kicked, command, decay, 0.5 * dt_s)


def _drifted(state: Tensor, command: Tensor, decay: Tensor, dt_s: float) -> Tensor:
    position, velocity, quat, rate, rotor = state.split(body.STATE_PARTS)
    gap = command - rotor
    rotor = rotor + gap * torch.where(gap > 0.0, decay[0], decay[1])
    return torch.cat([position + dt_s * velocity, velocity, body.turn_small(quat, dt_s * rate), rate, rotor])


def _advanced(state: Tensor, by_s: Tensor, acceleration: Tensor | None = None) -> Tensor:
    """Pose and velocity (of planes (17, N)) `by_s` (N,) later or, negative, earlier, to first order; rates stay."""
    position, velocity, quat, rate, rotor = state.split(body.STATE_PARTS)
    changed = velocity if acceleration is None else velocity + by_s * acceleration
    return torch.cat([position + by_s * velocity, changed, body.turn_small(quat, by_s * rate), rate, rotor])


def in_force(wanted: Tensor, at: float, delay: Tensor, *, width: float = 1.0 / SUBSTEPS) -> Tensor:
    """Mean command (J, N) over a stretch of `width` periods from `at` on, of held commands (H, J, N) `delay` late."""
    begin = at - delay
    newest = begin.floor() + 1.0  # the command that takes over within the stretch, if any does
    share = ((begin + width - newest) / width).clamp(0.0, 1.0)
    index = newest.long().clamp(1, wanted.shape[0] - 1)[None, None].expand(1, wanted.shape[1], -1)
    old, new = wanted.gather(0, index - 1)[0], wanted.gather(0, index)[0]
    return old + share * (new - old)
