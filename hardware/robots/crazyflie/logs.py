"""The emulated drone's log variables and log blocks, by the firmware's names, types and units (degrees, g, counts)."""

import errno
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hardware.robots.crazyflie.autopilot import TICK_MS, Autopilot
from hardware.robots.crazyflie.battery import level_percent
from hardware.robots.crazyflie.firmware import COUNTS
from hardware.robots.crazyflie.quatcompress import compress_quat
from hardware.robots.crazyflie.supervisor import State
from hardware.robots.crazyflie.wire import LOG_TYPES, LogCommand, LogControl, TocItem, VariableType, pack_value

MAX_BLOCKS, MAX_VARIABLES, MAX_BYTES = 16, 128, 26
"""The firmware's bounds: blocks, variables over all blocks, bytes of values in one block."""

Getter = Callable[[Autopilot, int], float]


def _vector(
    group: str, names: str, plane: str, scale: float = 1.0, kind: str = "float"
) -> dict[str, tuple[str, Getter]]:
    def getter(k: int) -> Getter:
        return lambda a, i: float(getattr(a.estimate, plane)[k, i]) * scale

    return {f"{group}.{name}": (kind, getter(k)) for k, name in enumerate(names.split())}


def _attitude(group: str) -> dict[str, tuple[str, Getter]]:
    # The firmware's pitch has the opposite sign of REP-103's.
    return {
        f"{group}.roll": ("float", lambda a, i: math.degrees(a.estimate.angles[0, i])),
        f"{group}.pitch": ("float", lambda a, i: -math.degrees(a.estimate.angles[1, i])),
        f"{group}.yaw": ("float", lambda a, i: math.degrees(a.estimate.angles[2, i])),
    }


def _quat(k: int) -> Getter:
    return lambda a, i: float(a.estimate.quat[k, i])


def _motor(k: int) -> Getter:
    return lambda a, i: float(a.motors[k, i]) * COUNTS


def _target(k: int) -> Getter:
    return lambda a, i: a.pilots[i].target.position[k]


def _compressed(a: Autopilot, i: int) -> float:
    w, x, y, z = a.estimate.quat[:, i].tolist()
    return compress_quat((w, x, y, z)) if math.isfinite(w + x + y + z) else 0


def _variance(a: Autopilot, i: int) -> float:
    return float(a.estimator.variance[i])


VARIABLES: dict[str, tuple[str, Getter]] = {
    **_vector("stateEstimate", "x y z", "position"),
    **_vector("stateEstimate", "vx vy vz", "velocity"),
    **{f"stateEstimate.{name}": ("float", _quat(k)) for k, name in enumerate(("qw", "qx", "qy", "qz"))},
    **_attitude("stateEstimate"),
    **_vector("stateEstimateZ", "x y z", "position", 1000.0, "int16"),
    **_vector("stateEstimateZ", "vx vy vz", "velocity", 1000.0, "int16"),
    "stateEstimateZ.quat": ("uint32", _compressed),
    **_vector("stateEstimateZ", "rateRoll ratePitch rateYaw", "gyro", 1000.0, "int16"),
    **_attitude("stabilizer"),
    "stabilizer.thrust": ("float", lambda a, i: a.pilots[i].setpoint[3] * COUNTS),
    **_vector("gyro", "x y z", "gyro", math.degrees(1.0)),
    **_vector("acc", "x y z", "acceleration_g"),
    **{f"motor.m{k + 1}": ("uint16", _motor(k)) for k in range(4)},
    **{f"ctrltarget.{name}": ("float", _target(k)) for k, name in enumerate("xyz")},
    "ctrltarget.roll": ("float", lambda a, i: math.degrees(a.pilots[i].setpoint[0])),
    "ctrltarget.pitch": ("float", lambda a, i: -math.degrees(a.pilots[i].setpoint[1])),
    "pm.vbat": ("float", lambda a, i: float(a.battery_v[i])),
    "pm.vbatMV": ("uint16", lambda a, i: 1000.0 * float(a.battery_v[i])),
    "pm.state": ("int8", lambda a, i: a.battery_state(i)),
    "pm.batteryLevel": ("uint8", lambda a, i: level_percent(float(a.battery_v[i]))),
    "kalman.varPX": ("float", _variance),
    "kalman.varPY": ("float", _variance),
    "kalman.varPZ": ("float", _variance),
    "supervisor.info": ("uint16", lambda a, i: int(a.info(i))),
    "sys.canfly": ("uint8", lambda a, i: a.pilots[i].supervisor.motors_allowed),
    "sys.isFlying": ("uint8", lambda a, i: a.pilots[i].supervisor.flying),
    "sys.isTumbled": ("uint8", lambda a, i: a.pilots[i].supervisor.tumbled),
    "sys.armed": ("uint8", lambda a, i: a.pilots[i].supervisor.armed),
    "sys.locked": ("uint8", lambda a, i: a.pilots[i].supervisor.state is State.LOCKED),
    "policy.active": ("uint8", lambda a, i: a.onboard is not None and bool(a.onboard.active[i])),
    "policy.broken": ("uint16", lambda a, i: 0 if a.onboard is None else int(a.onboard.broken[i])),
    "policy.peers": ("uint8", lambda a, i: a.peers.known(i)),
    "policy.peerAge": ("uint16", lambda a, i: a.peers.oldest_ms(i, a.now_ms)),
    "radio.rssi": ("uint8", lambda a, i: 40),
}
"""group.name -> type and the way to its present value; the order gives the ids."""

_GETTERS = tuple(VARIABLES.values())
_TYPES = {t.code: t for t in LOG_TYPES.values()}


def toc() -> tuple[TocItem, ...]:
    """The log's table of contents."""
    return tuple(
        TocItem(i, LOG_TYPES[kind].code, *name.split(".")) for i, (name, (kind, _)) in enumerate(VARIABLES.items())
    )


@dataclass
class Block:
    """One log block: what is sent, as which type, and how often."""

    variables: list[tuple[VariableType, Getter]] = field(default_factory=list)
    period_ms: int = 0
    """0 while stopped."""

    @property
    def size(self) -> int:
        """Bytes of values."""
        return sum(t.size for t, _ in self.variables)


class LogBlocks:
    """One drone's log blocks."""

    def __init__(self) -> None:
        self._blocks: dict[int, Block] = {}

    def control(self, request: LogControl) -> int:
        """Carries out a request; returns the firmware's error code, 0 for success."""
        command, ident = request.command, request.block
        if command == LogCommand.RESET:
            self._blocks.clear()
            return 0
        block = self._blocks.get(ident)
        if command == LogCommand.CREATE:
            if block is not None:
                return errno.EEXIST
            if len(self._blocks) >= MAX_BLOCKS:
                return errno.ENOMEM
            block = Block()
            error = self._extend(block, request)
            if not error:
                self._blocks[ident] = block
            return error
        if block is None:
            return errno.ENOENT
        if command == LogCommand.APPEND:
            return self._extend(block, request)
        if command == LogCommand.DELETE:
            del self._blocks[ident]
        elif command == LogCommand.STOP:
            block.period_ms = 0
        else:
            if request.period_ms <= 0:
                return errno.EINVAL
            block.period_ms = request.period_ms
        return 0

    def due(self, autopilot: Autopilot, index: int) -> Iterator[tuple[int, bytes]]:
        """(block, packed values) of the blocks to be sent now.

        All blocks count from the drone's start, so that blocks of one period carry values of the same instant.
        """
        now_ms = autopilot.now_ms
        for ident, block in self._blocks.items():
            if block.period_ms and now_ms // block.period_ms != (now_ms - TICK_MS) // block.period_ms:
                yield ident, b"".join(pack_value(t, get(autopilot, index)) for t, get in block.variables)

    def _extend(self, block: Block, request: LogControl) -> int:
        new = []
        for code, ident in request.variables:
            if code not in _TYPES or ident >= len(_GETTERS):
                return errno.ENOENT
            new.append((_TYPES[code], _GETTERS[ident][1]))
        if block.size + sum(t.size for t, _ in new) > MAX_BYTES:
            return errno.E2BIG
        if sum(len(b.variables) for b in self._blocks.values()) + len(new) > MAX_VARIABLES:
            return errno.ENOMEM
        block.variables += new
        return 0
