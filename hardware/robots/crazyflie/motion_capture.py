"""The emulated motion-capture computer: it sees all drones at a rate, with noise and gaps, and tells everybody.

Drones hear it as they hear the real one: packed positions (CRTP port 6, channel 2) through their links. Everybody else
may subscribe to the same frames as JSON (`mocap.py`, where the format is).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.robots.crazyflie.peers import drone_id
from hardware.robots.crazyflie.wire import encode
from hardware.robots.crazyflie.wire_localization import POSITIONS_PER_PACKET, ExternalPosition, encode_packed_positions


@dataclass(frozen=True)
class Capture:
    """What the cameras are like."""

    rate_hz: float = 100.0
    """Frames per second of emulated time, at most 500."""
    dropout: float = 0.0
    """Share of frames in which a drone is not recognised, drawn per drone and frame."""
    noise_m: float = 0.001
    """Standard deviation of each coordinate."""

    def check(self) -> "Capture":
        """Raises BadInput for a rate, share or noise that cannot be; returns itself."""
        if not 0.0 < self.rate_hz <= 500.0:
            raise BadInput(f"motion capture at {self.rate_hz} Hz; expected above 0 and at most 500")
        if not 0.0 <= self.dropout <= 1.0:
            raise BadInput(f"motion capture drops out in {self.dropout} of the frames; expected 0..1")
        if not 0.0 <= self.noise_m < 1.0:
            raise BadInput(f"motion capture noise of {self.noise_m} m; expected at least 0 and below 1")
        return self


@dataclass(frozen=True)
class Frame:
    """One frame: what was seen, by drone id."""

    t_ms: int
    positions: dict[int, tuple[float, float, float]]
    """m, world; a drone that was not recognised is absent."""

    def packets(self) -> Iterator[bytes]:
        """The datagrams that tell the drones, four positions in each."""
        items = [ExternalPosition(position, drone) for drone, position in self.positions.items()]
        for i in range(0, len(items), POSITIONS_PER_PACKET):
            yield encode(encode_packed_positions(items[i : i + POSITIONS_PER_PACKET]))


class MotionCapture:
    """The cameras over R drones; random numbers come from `rng`."""

    def __init__(self, num_robots: int, capture: Capture, rng: np.random.Generator) -> None:
        self._capture, self._rng = capture.check(), rng
        self._ids = [drone_id(i) for i in range(num_robots)]
        self._frames = 0

    def due(self, now_ms: int) -> bool:
        """Whether it is time for a frame."""
        return now_ms * self._capture.rate_hz >= 1000.0 * self._frames

    def look(self, now_ms: int, positions: NDArray[np.float64], hidden: NDArray[np.bool_]) -> Frame:
        """The frame of now: true `positions` (R, 3), drones `hidden` (R,) from all cameras."""
        self._frames = int(now_ms * self._capture.rate_hz / 1000.0) + 1
        seen = positions + self._capture.noise_m * self._rng.standard_normal(positions.shape)
        lost = (self._rng.random(len(self._ids)) < self._capture.dropout) | hidden
        there = np.isfinite(seen).all(axis=1) & (np.abs(seen) < 32.0).all(axis=1) & ~lost
        found = zip(self._ids, seen.tolist(), there.tolist(), strict=True)
        return Frame(now_ms, {ident: (x, y, z) for ident, (x, y, z), ok in found if ok})
