"""The one guard between any law and any robot: finite, clamped, slew-limited commands.

Policies train behind `limit_command` (batched torch) and robots are only handed out wrapped in
`GuardedRobot` (numpy), so a policy meets the same limits in both places.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware.arrays import namespace
from hardware.clock import Clock
from hardware.errors import BadInput, RoboError
from hardware.robot import Command, RobotIO, RobotState
from hardware.spec import LimitArrays, RobotSpec

MAX_PERIODS = 3.0
"""A pause longer than this many command periods grants no larger a jump than this many periods do."""

STEP_S = (1e-30, 1e9)
"""Time steps are brought into this span: no time at an endless rate, or endless time at rate zero, would be NaN."""


def limit_command(command: Any, last: Any, limits: LimitArrays, dt_s: float) -> Any:
    """The command a robot may be given now, (..., J), from the wanted one and the last one given, (..., J).

    Components that are not finite hold their last value; then values are clamped to the limits, and to
    `rate * dt_s` around the last value. Where `last` itself lies outside (a measured state at the start of a
    ramp, or changed limits), staying within the limits takes precedence over the slew rate. A `last` that is not
    finite counts as the value nearest zero; a step that is negative or not a number counts as zero, so a clock
    that goes back holds the command. Pure, idempotent and differentiable; numpy, torch or any array-API namespace.
    """
    xp = namespace(command)
    low, high, rate = limits
    last = xp.where(xp.isfinite(last), last, xp.zeros_like(last))
    last = xp.minimum(xp.maximum(last, low), high)
    wanted = xp.where(xp.isfinite(command), command, last)
    step = rate * (min(dt_s, STEP_S[1]) if dt_s > STEP_S[0] else STEP_S[0])  # the comparison is false for NaN, too
    wanted = xp.minimum(xp.maximum(wanted, last - step), last + step)
    return xp.minimum(xp.maximum(wanted, low), high)


class GuardedRobot:
    """A RobotIO that lets only limited commands through, and counts how often it had to change one.

    Commands that arrive faster than the mode's rate are granted no more change than the time that passed allows:
    over any span of T seconds a component moves at most `rate * (T + MAX_PERIODS / rate_hz)`.
    """

    def __init__(self, robot: RobotIO, clock: Clock) -> None:
        self._robot, self._clock = robot, clock
        self.spec: RobotSpec = robot.spec
        self.interventions = 0
        self.sent: Command | None = None
        """The command last handed to the robot, for the observation's history and for the log."""
        self._window = _Window("", 0, np.zeros(0), 0.0)
        self._limits = {m.name: m.limits.on(np.zeros(1)) for m in self.spec.modes.values()}

    def open(self) -> None:
        """Connects; see RobotIO.open."""
        self._robot.open()

    def read(self) -> RobotState:
        """The newest state; see RobotIO.read."""
        return self._robot.read()

    def ramp_from(self, mode: str, values: NDArray[np.float64]) -> None:
        """Makes the next command start from a measured value of `mode` instead of the last one sent.

        Call it after arm() and after commands of other modes: both make a mode start from its safe command.
        """
        measured = self._vector(mode, values)
        if not np.all(np.isfinite(measured)):
            raise BadInput(f"mode {mode} cannot start from {measured.tolist()}: not finite")
        self._window = self._fresh_window(mode, measured)

    def write(self, command: Command) -> None:
        """Sends the nearest command the limits allow; raises BadInput for an unknown mode or a wrong length."""
        self.sent = self.limit(command)
        self._robot.write(self.sent)

    def limit(self, command: Command) -> Command:
        """The command as the guard will send it; advances the slew window and the count of interventions."""
        mode = self.spec.mode(command.mode)
        values, limits = self._vector(mode.name, command.values), self._limits[mode.name]
        now = self._clock.now_ns()
        if mode.rate_hz > 0:
            window = self._window if self._window.mode == mode.name else self._fresh_window(mode.name, mode.safe)
            period_s, elapsed_s = 1.0 / mode.rate_hz, max(now - window.t_ns, 0) / 1e9
            credit_s = min(window.credit_s + elapsed_s, MAX_PERIODS * period_s)
            dt_s = min(max(elapsed_s, period_s), credit_s)
            allowed = limit_command(values, window.last, limits, dt_s)
            # A clock that goes back earns nothing until it has caught up with itself.
            self._window = _Window(mode.name, max(now, window.t_ns), allowed, credit_s - dt_s)
        else:  # a one-shot command has no predecessor to be slewed from; what is not finite becomes the safe value
            anywhere = limits._replace(rate=np.full_like(values, np.inf))
            allowed = limit_command(values, np.asarray(mode.safe), anywhere, 0.0)
            self._window = _Window("", now, allowed, 0.0)
        self.interventions += not np.array_equal(allowed, values)
        return Command(mode.name, allowed)

    def arm(self) -> None:
        """Arms the robot; the slew window starts anew from the mode's safe command."""
        self._window = _Window("", 0, np.zeros(0), 0.0)
        self._robot.arm()

    def set_parameter(self, name: str, value: float, kind: str) -> None:
        """Writes one of the robot's own parameters, waiting for its answer; raises RoboError where it has none."""
        setter = getattr(self._robot, "set_parameter", None)
        if setter is None:
            raise RoboError(f"robot {self.spec.name} has no parameters to be set")
        setter(name, value, kind)

    def stop(self) -> None:
        """The robot's safe state; see RobotIO.stop."""
        self._window = _Window("", 0, np.zeros(0), 0.0)
        self._robot.stop()

    def close(self) -> None:
        """Releases the link; see RobotIO.close."""
        self._robot.close()

    def _fresh_window(self, mode: str, values: Any) -> "_Window":
        rate_hz = self.spec.mode(mode).rate_hz
        credit_s = MAX_PERIODS / rate_hz if rate_hz > 0 else 0.0
        return _Window(mode, self._clock.now_ns(), np.asarray(values, dtype=np.float64), credit_s)

    def _vector(self, mode: str, values: Any) -> NDArray[np.float64]:
        size = len(self.spec.mode(mode).components)
        vector = np.asarray(values, dtype=np.float64)
        if vector.shape != (size,):
            raise BadInput(f"command of mode {mode} has shape {vector.shape}; expected ({size},)")
        return vector


class _Window(NamedTuple):
    """Where the slew limit starts from: the last command of the current mode, its instant, and unspent time."""

    mode: str
    """Empty: the next command of any mode starts from that mode's safe command."""
    t_ns: int
    last: NDArray[np.float64]
    credit_s: float
