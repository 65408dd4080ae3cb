"""One protocol for real, emulated and replayed robots: the caller cannot tell which it holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hardware.spec import RobotSpec


@dataclass(frozen=True)
class RobotState:
    """The newest known state of one robot."""

    t_ns: int
    """Instant of the measurement on the caller's clock."""
    signals: Mapping[str, NDArray[np.float64]]
    """Signal name -> value in SI units, shaped as the spec says; a signal not yet received is absent."""
    status: frozenset[str] = field(default_factory=frozenset)
    """Words that hold now: 'armed', 'flying', 'tumbled', 'battery_low', 'locked', ..."""


@dataclass(frozen=True)
class Command:
    """One command vector in a named mode of the robot's spec."""

    mode: str
    values: NDArray[np.float64]
    """(J,) in the mode's units."""


class RobotIO(Protocol):
    """A connection to one robot."""

    spec: RobotSpec

    def open(self) -> None:
        """Connects and waits for the first state; raises Unreachable(address, waited_s)."""
        ...

    def read(self) -> RobotState:
        """The newest state; never blocks. Raises LinkLost once the link is gone."""
        ...

    def write(self, command: Command) -> None:
        """Sends a command; only after arm()."""
        ...

    def arm(self) -> None:
        """Makes the robot accept commands that move it; raises RoboError saying why it refuses."""
        ...

    def stop(self) -> None:
        """Puts the robot into its safe state from any state; idempotent; never raises."""
        ...

    def close(self) -> None:
        """Releases the link; stops first if armed. Idempotent."""
        ...
