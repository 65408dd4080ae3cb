"""Goals from people and topics: checked before anything flies towards them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.spec import RobotSpec

Goal = Mapping[str, NDArray[np.float64]]
"""Signal name -> wanted value, SI."""


class Fence(NamedTuple):
    """Where a robot may be and be sent: lowest and highest position (3,) in the world, m."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def holds(self, position: NDArray[np.float64]) -> bool:
        """Whether a position (3,) is inside."""
        return bool(np.all((self.low <= position) & (position <= self.high)))


def fence_of(robot: RobotSpec, margin_m: float = 0.0) -> Fence | None:
    """The box of the robot's own `position` command, widened by a margin; None for a robot without one."""
    mode = robot.modes.get("position")
    if mode is None or mode.components[:3] != ("x", "y", "z"):
        return None
    low, high = np.array(mode.limits.position[:3]).T
    return Fence(low - margin_m, high + margin_m)


def checked_goal(signal: str, values: Sequence[float] | NDArray[Any], robot: RobotSpec, fence: Fence | None) -> Goal:
    """A goal for one signal; raises BadInput for a wrong length, a value not finite, or one beyond the fence."""
    shape = robot.signals[signal].shape if signal in robot.signals else None
    if shape is None:
        raise BadInput(f"goal for '{signal}': robot {robot.name} has signals {', '.join(robot.signals)}")
    goal = np.asarray(values, dtype=np.float64)
    shown = ",".join(f"{v:g}" for v in goal.ravel())
    if goal.shape != shape:
        raise BadInput(f"goal {shown} has {goal.size} values; {signal} needs {int(np.prod(shape))}")
    if not np.isfinite(goal).all():
        raise BadInput(f"goal {shown} refused: not finite")
    if signal == "position_world" and fence is not None and not fence.holds(goal):
        box = " ".join(f"{lo:g}..{hi:g}" for lo, hi in zip(*fence, strict=True))
        raise BadInput(f"goal {shown} refused: outside the fence {box} m")
    return {signal: goal}


def parse_goal(text: str, signal: str, robot: RobotSpec, fence: Fence | None) -> Goal:
    """A goal from a flag such as `1,0.5,1`; raises BadInput."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise BadInput(f"goal '{text}' is not a list of numbers such as 1,0.5,1") from None
    return checked_goal(signal, values, robot, fence)
