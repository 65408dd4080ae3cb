"""The classical law that takes a robot over from a policy and holds it where it is."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from controllers import geometric
from controllers.geometric import TrackingGains
from hardware.spec import RobotSpec

Signals = Mapping[str, NDArray[np.float64]]


class Fallback(Protocol):
    """A law with memory, in one command mode."""

    mode: str
    """The mode of its commands: the policy's, where it can be blended into the policy's command."""

    def start(self, state: Signals) -> None:
        """Begins at a measured state."""
        ...

    def command(self, state: Signals, goal: Signals) -> NDArray[np.float64]:
        """The command (J,) towards a goal."""
        ...

    def sent(self, state: Signals, values: NDArray[np.float64], dt_s: float) -> None:
        """What really left the guard in a period that began in this state, whoever asked for it."""
        ...


class GeometricHold:
    """Geometric tracking with its disturbance observer, for quadrotors; see `controllers.geometric`."""

    def __init__(self, robot: RobotSpec, mode: str) -> None:
        self.mode = mode
        self._law = {"attitude_thrust": geometric.attitude_thrust, "rotor_thrust": geometric.rotor_thrust}[mode]
        self._mean_thrust = np.mean if mode == "rotor_thrust" else lambda v: v[3]
        self._airframe, self._gains = geometric.airframe_of(robot), TrackingGains()
        self._estimate: geometric.Estimate | None = None

    def start(self, state: Signals) -> None:
        """Keeps an estimate that it already has: the disturbance is the craft's, not the flight phase's."""
        if self._estimate is None:
            self._estimate = geometric.start(state)

    def command(self, state: Signals, goal: Signals) -> NDArray[np.float64]:
        """Set point towards the goal's position; see `geometric.attitude_thrust` and `geometric.rotor_thrust`."""
        estimate = self._estimate or geometric.start(state)
        return self._law(state, goal, estimate, airframe=self._airframe, gains=self._gains)

    def sent(self, state: Signals, values: NDArray[np.float64], dt_s: float) -> None:
        """Lets the observer learn from the policy's flight too."""
        if self._estimate is not None:
            thrust = np.asarray(self._mean_thrust(values))
            self._estimate = geometric.observe(
                state, self._estimate, thrust, airframe=self._airframe, gains=self._gains, dt_s=dt_s
            )


class PositionHold:
    """Set points of the robot's own position controller, components x, y, z and yaw."""

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def start(self, state: Signals) -> None:
        """Nothing to remember."""

    def command(self, state: Signals, goal: Signals) -> NDArray[np.float64]:
        """The goal's position, or the present one, in the present heading."""
        w, x, y, z = state["quat_wxyz"]
        yaw = np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
        return np.append(goal.get("position_world", state["position_world"]), yaw)

    def sent(self, state: Signals, values: NDArray[np.float64], dt_s: float) -> None:
        """Nothing to learn."""


class SafeHold:
    """The mode's safe command: for robots without a classical law, or with controllers of their own that follow it."""

    def __init__(self, robot: RobotSpec, mode: str) -> None:
        self.mode = mode
        self._values = np.array(robot.mode(mode).safe)

    def start(self, state: Signals) -> None:
        """Nothing to remember."""

    def command(self, state: Signals, goal: Signals) -> NDArray[np.float64]:
        """The safe command, whatever the goal."""
        return self._values.copy()

    def sent(self, state: Signals, values: NDArray[np.float64], dt_s: float) -> None:
        """Nothing to learn."""


def fallback_law(robot: RobotSpec, mode: str) -> Fallback:
    """The best classical law there is for a robot in a command mode.

    Where the spec's parameters name a `fallback` mode, the robot's own controllers take over, at its safe set points.
    """
    if robot.mode(mode).components == ("x", "y", "z", "yaw"):
        return PositionHold(mode)
    is_quadrotor = (Path(str(resources.files("hardware.robots"))) / robot.name / "airframe.toml").is_file()
    if is_quadrotor and mode in ("attitude_thrust", "rotor_thrust"):
        return GeometricHold(robot, mode)
    return SafeHold(robot, robot.parameters.get("fallback", mode))
