"""A policy that runs on the drone: the firmware's out-of-tree controller, called in the stabilizer loop.

Whoever starts the emulation hands it in, for instance as compiled C. As in the controller that `robo-rl export`
writes for the real firmware, it flies position set points (streamed, or of the high-level commander); everything else
(attitude, velocities, levelling out after a lost link) is flown by the firmware's own cascade. Its forces pass the same
supervisor, battery and motors as everybody's.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hardware.robots.crazyflie.estimator import Estimate
from hardware.robots.crazyflie.peers import Peers

OUT_OF_TREE = 6
"""`stabilizer.controller`: ControllerTypeOot, behind auto 0, PID 1, Mellinger 2, INDI 3, Brescianini 4 and Lee 5. (In
firmware older than the Lee controller, of 2024, it is 5.) A firmware built with such a controller starts with it."""

Array = NDArray[np.float64]


class Senses(NamedTuple):
    """What R drones know in one tick; SI units, components first, drones last."""

    estimate: Estimate
    goal: Array
    """(3, R) m, world: where each is to be."""
    battery_v: Array
    """(R,)"""
    peers: Peers
    now_ms: int


class OnboardPolicy(Protocol):
    """The same policy for R drones, each with a memory of its own."""

    def restart(self, index: int) -> None:
        """Drone `index` forgets everything: it takes over, or has been restarted."""
        ...

    def step(self, active: NDArray[np.bool_], senses: Senses) -> Array:
        """Rotor forces (4, R), 0..1 of full force, of the drones that are `active` (R,); called every 2 ms.

        Forces that are not finite mean that a drone has none: its motors stop.
        """
        ...


class OnboardFlight:
    """Which of R drones the policy flies, and where to."""

    def __init__(self, policy: OnboardPolicy, num_robots: int) -> None:
        self._policy = policy
        self.active = np.zeros(num_robots, dtype=bool)
        self.broken = np.zeros(num_robots, dtype=np.int64)
        """Ticks in which a drone's forces were not finite."""
        self._goal = np.zeros((3, num_robots))

    def take(self, index: int, goal: tuple[float, float, float]) -> None:
        """Drone `index` flies to a goal (m, world) from now on."""
        if not self.active[index]:
            self._policy.restart(index)
        self.active[index] = True
        self._goal[:, index] = goal

    def leave(self, index: int) -> None:
        """Somebody else flies drone `index`."""
        self.active[index] = False

    def forces(self, estimate: Estimate, battery_v: Array, peers: Peers, now_ms: int) -> Array:
        """Rotor forces (4, R) in 0..1 of the active drones; all zero where one of them is not finite."""
        forces = self._policy.step(self.active, Senses(estimate, self._goal, battery_v, peers, now_ms))
        broken = self.active & ~np.isfinite(forces).all(axis=0)
        self.broken += broken
        return np.where(broken, 0.0, np.clip(forces, 0.0, 1.0))
