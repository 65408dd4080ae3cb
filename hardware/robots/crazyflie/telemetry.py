"""From log blocks to robot states: which variables are asked for, and how samples become one consistent state.

Two blocks are needed (26 bytes each). The drone samples blocks of one period together; a state is made only of two
samples of one instant, told by the drone's millisecond clock, which is mapped onto the caller's.
"""

import math
import struct
from typing import NamedTuple

import numpy as np

from hardware.robot import RobotState
from hardware.robots.crazyflie.wire import LOG_TYPES, Info, WireError

PERIOD_MS = 10
"""100 Hz, the fastest that the classic log request can ask for."""
MOTION, BODY = 1, 2
"""Block ids."""

BLOCKS: dict[int, tuple[tuple[str, str], ...]] = {
    MOTION: (
        *((f"stateEstimate.{name}", "float") for name in ("x", "y", "z", "vx", "vy", "vz")),
        ("supervisor.info", "uint16"),
    ),
    BODY: (
        *((f"stateEstimate.{name}", "float") for name in ("qw", "qx", "qy", "qz")),
        # Half precision: steps of 0.06 % of the value.
        *((f"gyro.{name}", "fp16") for name in ("x", "y", "z")),
        ("pm.vbat", "fp16"),
        ("pm.state", "int8"),
    ),
}
"""Block -> (variable, type it is fetched as)."""
_LAYOUTS = {b: "<" + "".join(LOG_TYPES[kind].layout[1] for _, kind in block) for b, block in BLOCKS.items()}

WORDS = {
    Info.CAN_BE_ARMED: "can_be_armed",
    Info.ARMED: "armed",
    Info.CAN_FLY: "can_fly",
    Info.FLYING: "flying",
    Info.TUMBLED: "tumbled",
    Info.LOCKED: "locked",
    Info.CRASHED: "crashed",
    Info.HIGH_LEVEL_ACTIVE: "high_level",
    Info.HIGH_LEVEL_FINISHED: "high_level_finished",
}
"""Information bit -> status word."""
LOW_POWER = 3
"""pm.state."""


class DroneClock:
    """The drone's 24-bit millisecond clock on the caller's time line.

    The smallest delay seen is taken for the true offset; it may grow by `drift` so that a slower drone clock is
    followed. A jump (restart of the drone, a held-up process, another time scale) is adopted when it exceeds `jump_s`.
    """

    def __init__(self, *, drift: float = 1e-3, jump_s: float = 0.25) -> None:
        self._drift, self._jump_ns = drift, int(jump_s * 1e9)
        self._ms: int | None = None
        self._offset_ns = self._heard_ns = 0

    def map_ns(self, low24_ms: int, heard_ns: int) -> int:
        """The caller's instant of a sample with that stamp, heard at `heard_ns`."""
        if self._ms is None:
            self._ms, self._offset_ns = low24_ms, heard_ns - low24_ms * 1_000_000
        step = (low24_ms - self._ms + 0x800000) % 0x1000000 - 0x800000
        self._ms += step
        drone_ns = self._ms * 1_000_000
        offset = heard_ns - drone_ns
        allowed = self._offset_ns + int(max(heard_ns - self._heard_ns, 0) * self._drift) if self._heard_ns else offset
        self._offset_ns = offset if abs(offset - allowed) > self._jump_ns else min(offset, allowed)
        self._heard_ns = heard_ns
        return drone_ns + self._offset_ns


class _Sample(NamedTuple):
    low24_ms: int
    heard_ns: int
    values: tuple


class Telemetry:
    """Collects samples; `state` is the newest complete one."""

    def __init__(self) -> None:
        self.state: RobotState | None = None
        self.info = Info(0)
        self._clock = DroneClock()
        self._newest: dict[int, _Sample] = {}

    def take(self, block: int, low24_ms: int, values: bytes, heard_ns: int) -> None:
        """Adds a sample; raises WireError for an unknown block or a wrong length."""
        if block not in _LAYOUTS or struct.calcsize(_LAYOUTS[block]) != len(values):
            raise WireError(f"log sample of block {block} with {len(values)} bytes was not asked for")
        self._newest[block] = _Sample(low24_ms, heard_ns, struct.unpack(_LAYOUTS[block], values))
        if block == MOTION:
            self.info = Info(self._newest[block].values[6])
        motion, body = self._newest.get(MOTION), self._newest.get(BODY)
        if motion is None or body is None:
            return
        # Firmware timers of two blocks may differ by a millisecond or two, never by half a period.
        apart = (motion.low24_ms - body.low24_ms + 0x800000) % 0x1000000 - 0x800000
        if abs(apart) <= PERIOD_MS // 2 - 1:
            self.state = self._assemble(motion, body)

    def _assemble(self, motion: _Sample, body: _Sample) -> RobotState:
        x, y, z, vx, vy, vz, info = motion.values
        *quat, wx, wy, wz, vbat, power = body.values
        signals = {
            "position_world": np.array([x, y, z]),
            "velocity_world": np.array([vx, vy, vz]),
            "quat_wxyz": np.array(quat),
            "angular_velocity_body": np.array([math.radians(wx), math.radians(wy), math.radians(wz)]),
            "battery_voltage": np.array(vbat),
        }
        words = {word for bit, word in WORDS.items() if bit in Info(info)}
        if power == LOW_POWER:
            words.add("battery_low")
        t_ns = self._clock.map_ns(motion.low24_ms, min(motion.heard_ns, body.heard_ns))
        return RobotState(t_ns, signals, frozenset(words))
