"""The one guard between any law and any robot: finite, clamped, slew-limited commands.

Policies train behind `limit_command` (batched torch) and robots are only handed out wrapped in
`GuardedRobot` (numpy), so a policy meets the same limits in both places.
"""

from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from hardware.clock import Clock
from hardware.errors import BadInput
from hardware.robot import Command, RobotIO, RobotState
from hardware.spec import LimitArrays, RobotSpec

MAX_PERIODS = 3.0
"""A pause longer than this many command periods grants no larger a jump than this many periods do."""


def limit_command(command: Any, last: Any, limits: LimitArrays, dt_s: float) -> Any:
    """The command a robot may be given now, (..., J), from the wanted one and the last one given, (..., J).

    Components that are not finite hold their last value; then values are clamped to the limits, and to
    `rate * dt_s` around the last value. Where `last` itself lies outside (a measured state at the start of a
    ramp, or changed limits), staying within the limits takes precedence over the slew rate. A `last` that is not
    finite counts as the value nearest zero. Pure and differentiable; numpy, torch or any array-API namespace.
    """
    xp = array_namespace(command)
    low, high, rate = limits
    last = xp.where(xp.isfinite(last), last, xp.zeros_like(last))
    last = xp.minimum(xp.maximum(last, low), high)
    wanted = xp.where(xp.isfinite(command), command, last)
    # inf * 0 is NaN, and a clock that jumps back must not widen the window: both give a step of zero or inf.
    step = xp.where(xp.isinf(rate), rate, rate * max(dt_s, 0.0))
    wanted = xp.minimum(xp.maximum(wanted, last - step), last + step)
    return xp.minimum(xp.maximum(wanted, low), high)


class GuardedRobot:
    """A RobotIO that lets only limited commands through, and counts how often it had to change one."""

    def __init__(self, robot: RobotIO, clock: Clock) -> None:
        self._robot, self._clock = robot, clock
        self.spec: RobotSpec = robot.spec
        self.interventions = 0
        self.sent: Command | None = None
        """The command that last left the guard, for the observation's history and for the log."""
        self._last: dict[str, tuple[int, NDArray[np.float64]]] = {}
        self._limits = {m.name: m.limits.on(np.zeros(1)) for m in self.spec.modes.values()}

    def open(self) -> None:
        """Connects; see RobotIO.open."""
        self._robot.open()

    def read(self) -> RobotState:
        """The newest state; see RobotIO.read."""
        return self._robot.read()

    def ramp_from(self, mode: str, values: NDArray[np.float64]) -> None:
        """Makes the next command of `mode` start from a measured value instead of the last one sent."""
        self._last[mode] = (self._clock.now_ns(), np.asarray(values, dtype=np.float64))

    def write(self, command: Command) -> None:
        """Sends the nearest command the limits allow; raises BadInput for an unknown mode or a wrong length."""
        self.sent = self.limit(command)
        self._robot.write(self.sent)

    def limit(self, command: Command) -> Command:
        """The command as the guard will send it; advances the slew window and the count of interventions."""
        mode = self.spec.mode(command.mode)
        values = np.asarray(command.values, dtype=np.float64)
        if values.shape != (len(mode.components),):
            raise BadInput(f"command of mode {mode.name} has shape {values.shape}; expected ({len(mode.components)},)")
        now = self._clock.now_ns()
        last_ns, last = self._last.get(mode.name, (now, np.asarray(mode.safe)))
        dt_s = (now - last_ns) / 1e9
        if mode.rate_hz > 0:
            dt_s = min(max(dt_s, 1.0 / mode.rate_hz), MAX_PERIODS / mode.rate_hz)
            allowed = limit_command(values, last, self._limits[mode.name], dt_s)
        else:  # a one-shot command has no predecessor to be slewed from
            allowed = limit_command(values, values, self._limits[mode.name], 0.0)
        self.interventions += not np.array_equal(allowed, values)
        self._last = {mode.name: (now, allowed)}
        return Command(mode.name, allowed)

    def arm(self) -> None:
        """Arms the robot; the slew window starts anew from the mode's safe command."""
        self._last.clear()
        self._robot.arm()

    def stop(self) -> None:
        """The robot's safe state; see RobotIO.stop."""
        self._last.clear()
        self._robot.stop()

    def close(self) -> None:
        """Releases the link; see RobotIO.close."""
        self._robot.close()
