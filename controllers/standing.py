"""Where a machine stands in a command mode, for robots that measure it: a new law begins there instead of jumping."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hardware.spec import RobotSpec


def standing(robot: RobotSpec, mode: str, signals: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """The command (J,) of a mode that corresponds to the measured actuators; None where nothing measures them.

    `parameters.measured` of the robot's spec names the signal: shares of the components' highest values, in the order
    of the components.
    """
    signal = robot.parameters.get("measured", {}).get(mode)
    if signal is None or signal not in signals:
        return None
    low, high = np.array(robot.mode(mode).limits.position).T
    return np.clip(np.asarray(signals[signal], dtype=np.float64) * high, low, high)
