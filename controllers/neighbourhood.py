"""What several robots share, and what each perceives of it: positions of the others and a list of obstacles.

Positions come from the robots' own telemetry or from motion capture, some of them late or not at all. Between two
samples a robot is taken to move on straight ahead; one of which nothing was heard for too long is unknown.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controllers.interface import Interface
from controllers.policy import signals_perceived
from controllers.surroundings import PERCEIVED, Around, perceive
from hardware.errors import BadInput
from hardware.robot import RobotState
from hardware.robots.crazyflie.obstacles import NOTHING as NO_OBSTACLES
from hardware.robots.crazyflie.obstacles import Obstacles

Array = NDArray[np.float64]
OWN = ("position_world", "velocity_world", "quat_wxyz")
"""Signals of a robot's own that its surroundings are seen from."""
AGE_LIMIT_S = 0.5
"""Age of a position from which on its robot is unknown."""
LOW_PASS_S = 0.03
"""Time constant of velocities that are made of positions: motion capture at 100 Hz is good to a millimetre."""
DARK_S = 0.1
"""Mean duration of a dropout: markers are hidden for a few frames, not for one."""


@dataclass
class Dropouts:
    """Samples that get lost in bursts: `share` of the time, for `DARK_S` on average."""

    share: float
    num: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.share < 1.0:
            raise BadInput(f"dropouts of {self.share:g} of the time; expected 0 or more, and less than 1")
        self._rng = np.random.default_rng(self.seed)
        self._dark = self._rng.random(self.num) < self.share
        self._last_ns: int | None = None

    def dark(self, now_ns: int) -> NDArray[np.bool_]:
        """(N,) whether a robot's samples are lost now: a two-state process in continuous time."""
        dt_s = 0.0 if self._last_ns is None else max(now_ns - self._last_ns, 0) / 1e9
        self._last_ns = now_ns
        stays = math.exp(-dt_s / (DARK_S * (1.0 - self.share)))
        chance = np.where(self._dark, self.share + (1.0 - self.share) * stays, self.share * (1.0 - stays))
        self._dark = self._rng.random(self.num) < chance
        return self._dark


class SharedPositions:
    """The newest position of N robots, with velocities told by them or made of two positions."""

    def __init__(self, num: int, *, age_limit_s: float = AGE_LIMIT_S, low_pass_s: float = LOW_PASS_S) -> None:
        self._age_limit_ns, self._low_pass_s = round(age_limit_s * 1e9), low_pass_s
        self._t_ns = np.full(num, -(2**62), dtype=np.int64)
        self._position, self._velocity = np.zeros((num, 3)), np.zeros((num, 3))

    def put(self, index: int, t_ns: int, position: Array, velocity: Array | None = None) -> None:
        """Takes a sample (3,), m, world; one that is not newer than the last, or not finite, changes nothing."""
        before_ns = int(self._t_ns[index])
        if t_ns <= before_ns or not np.isfinite(position).all():
            return
        if velocity is None:
            dt_s = (t_ns - before_ns) / 1e9
            if t_ns - before_ns > self._age_limit_ns:  # nothing to compare with
                velocity = np.zeros(3)
            else:
                new = (position - self._position[index]) / dt_s
                velocity = self._velocity[index] + dt_s / (self._low_pass_s + dt_s) * (new - self._velocity[index])
        self._t_ns[index], self._position[index], self._velocity[index] = t_ns, position, velocity

    def at(self, t_ns: NDArray[np.int64]) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Positions (..., N, 3), moved on to the instants (...,), velocities, and (..., N) whether a robot is known."""
        age_ns = t_ns[..., None] - self._t_ns
        known = np.abs(age_ns) <= self._age_limit_ns
        ahead_s = np.where(known, age_ns, 0) / 1e9
        positions = self._position + ahead_s[..., None] * self._velocity
        return positions, np.broadcast_to(self._velocity, positions.shape), known


class Neighbourhood:
    """What each of N robots perceives, as far as a policy's observation is made of it."""

    def __init__(self, interface: Interface, shared: SharedPositions, obstacles: Obstacles = NO_OBSTACLES) -> None:
        self.shared, self.obstacles = shared, obstacles
        self.names = signals_perceived(interface)
        self._members = {"neighbour": 0, "obstacle": 0}
        for f in interface.observation:
            entity = PERCEIVED[f.source].entity if f.source in PERCEIVED else ""
            if entity:
                self._members[entity] = max(self._members[entity], f.members)

    def perceived(self, states: Mapping[int, RobotState]) -> dict[int, dict[str, Array]]:
        """Signals by robot, of those whose own states are given, at the instants of these states."""
        if not self.names or not states:
            return {i: {} for i in states}
        own = [s.signals for s in states.values()]
        position, velocity, quat = (np.stack([s[name] for s in own]) for name in OWN)
        found = perceive(
            position,
            velocity,
            quat,
            self._around(list(states), np.array([s.t_ns for s in states.values()], dtype=np.int64)),
            neighbours=self._members["neighbour"],
            obstacles=self._members["obstacle"],
        )
        return {i: {name: found[name][k] for name in self.names} for k, i in enumerate(states)}

    def _around(self, rows: Sequence[int], t_ns: NDArray[np.int64]) -> Around:
        """The others of each robot (R, N - 1, ...), and all obstacles (R, L, ...)."""
        positions, velocities, known = self.shared.at(t_ns)
        num, count = known.shape[1], len(rows)
        others = np.array([[j for j in range(num) if j != i] for i in rows], dtype=np.intp).reshape(count, num - 1)
        row = np.arange(count)[:, None]
        centres, radius = self.obstacles
        return Around(
            positions[row, others],
            velocities[row, others],
            known[row, others],
            np.broadcast_to(centres, (count, *centres.shape)),
            np.ones((count, len(radius)), dtype=np.bool_),
            np.broadcast_to(radius, (count, len(radius))),
        )
