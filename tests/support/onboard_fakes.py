"""Policies on board that tests can predict, without a compiler: they hold a drone up, stop, or break on request."""

import numpy as np
from numpy.typing import NDArray

from hardware.robots.crazyflie.onboard import Senses

HOVER = 0.029 * 9.81 / (4 * 0.12)


class Scripted:
    """Gives every drone the same force, until it is told to give something else; remembers what it was asked."""

    def __init__(self, num: int = 1, force: float = HOVER) -> None:
        self.forces = np.full((4, num), force)
        self.restarts: list[int] = []
        self.asked: list[tuple[list[bool], list[float]]] = []
        self.senses: Senses | None = None

    def restart(self, index: int) -> None:
        """Notes it."""
        self.restarts.append(index)

    def step(self, active: NDArray[np.bool_], senses: Senses) -> NDArray[np.float64]:
        """The forces set."""
        self.asked.append((active.tolist(), senses.goal[:, 0].tolist()))
        self.senses = senses
        return self.forces
