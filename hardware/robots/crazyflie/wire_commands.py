"""CRTP packets that move the drone: set points and high-level commands.

Messages hold SI units in REP-103 axes (x forward, y left, z up; positive pitch lowers the nose). On the wire angles are
degrees, and the firmware counts pitch with the opposite sign (positive raises the nose): the flip happens here and
nowhere else. Layouts: crtp_commander_rpyt.c, crtp_commander_generic.c, crtp_commander_high_level.c.
"""

import math
import struct
from dataclasses import dataclass

from hardware.robots.crazyflie.quatcompress import Quat, compress_quat, decompress_quat
from hardware.robots.crazyflie.wire import Frame, Port, WireError, unpack

Vec3 = tuple[float, float, float]


@dataclass(frozen=True)
class Attitude:
    """Port 3: roll, pitch (rad), yaw rate (rad/s), thrust as a fraction of full command (65535)."""

    roll: float
    pitch: float
    yaw_rate: float
    thrust: float


@dataclass(frozen=True)
class Stop:
    """Port 7, type 0: motors off."""


@dataclass(frozen=True)
class FullState:
    """Port 7, type 6: position, velocity, acceleration in the world, attitude, body rates; 1 mm and 1 mrad/s steps."""

    position: Vec3
    velocity: Vec3
    acceleration: Vec3
    quat_wxyz: Quat
    angular_velocity: Vec3


@dataclass(frozen=True)
class Position:
    """Port 7, type 7: position in the world (m) and yaw (rad)."""

    x: float
    y: float
    z: float
    yaw: float


@dataclass(frozen=True)
class VelocityWorld:
    """Port 7, type 8: velocity in the world (m/s) and yaw rate (rad/s)."""

    vx: float
    vy: float
    vz: float
    yaw_rate: float


@dataclass(frozen=True)
class ZDistance:
    """Port 7, type 9: roll, pitch (rad), yaw rate (rad/s), height (m)."""

    roll: float
    pitch: float
    yaw_rate: float
    z: float


@dataclass(frozen=True)
class Hover:
    """Port 7, type 10: velocity in the heading frame (m/s), yaw rate (rad/s), height (m)."""

    vx: float
    vy: float
    yaw_rate: float
    z: float


@dataclass(frozen=True)
class Manual:
    """Port 7, type 11: as Attitude; with `rates`, roll and pitch are rates (rad/s)."""

    roll: float
    pitch: float
    yaw_rate: float
    thrust: float
    rates: bool


@dataclass(frozen=True)
class NotifyStop:
    """Port 7, channel 1: streaming has ended; the high-level commander may take over."""

    remain_valid_ms: int = 0


@dataclass(frozen=True)
class RotorThrust:
    """Port 13, channel 2 (application): force per rotor, 0..1 of the greatest; stands in for an on-board policy."""

    thrust: Quat


@dataclass(frozen=True)
class GroupMask:
    """Port 8, 0: the groups this drone belongs to."""

    group: int


@dataclass(frozen=True)
class Takeoff:
    """Port 8, 7: vertical climb to a height (m, world) within a duration (s); `yaw` None keeps the heading."""

    height: float
    duration: float
    yaw: float | None = None
    group: int = 0


@dataclass(frozen=True)
class Land:
    """Port 8, 8: vertical descent to a height (m, world) within a duration (s); then motors off."""

    height: float
    duration: float
    yaw: float | None = None
    group: int = 0


@dataclass(frozen=True)
class GoTo:
    """Port 8, 4 and 12: fly to a position (m) and yaw (rad) within a duration (s)."""

    position: Vec3
    yaw: float
    duration: float
    relative: bool = False
    linear: bool = False
    group: int = 0


@dataclass(frozen=True)
class HighLevelStop:
    """Port 8, 3: end the trajectory; motors off."""

    group: int = 0


Setpoint = Attitude | Stop | FullState | Position | VelocityWorld | ZDistance | Hover | Manual | RotorThrust
HighLevel = GroupMask | Takeoff | Land | GoTo | HighLevelStop

_FULL = 65535.0
_APP_ROTORS = 1


def encode_setpoint(m: Setpoint | NotifyStop) -> Frame:
    """The packet of a streaming set point; raises WireError for values that do not fit the wire."""
    d = math.degrees
    match m:
        case Attitude(roll, pitch, yaw_rate, thrust):
            data = struct.pack("<fffH", d(roll), -d(pitch), d(yaw_rate), _fraction(thrust))
            return Frame(Port.COMMANDER, 0, data)
        case RotorThrust(thrust):
            return Frame(Port.PLATFORM, 2, struct.pack("<B4f", _APP_ROTORS, *thrust))
        case NotifyStop(remain):
            return Frame(Port.GENERIC, 1, struct.pack("<BI", 0, remain))
        case Stop():
            data = b"\0"
        case FullState(p, v, a, quat, w):
            mm = [thousandths(1000 * value, "full state") for value in (*p, *v, *a)]
            rates = [thousandths(1000 * value, "full state") for value in w]
            data = struct.pack("<B9hI3h", 6, *mm, compress_quat(quat), *rates)
        case Position(x, y, z, yaw):
            data = struct.pack("<B4f", 7, x, y, z, d(yaw))
        case VelocityWorld(vx, vy, vz, yaw_rate):
            data = struct.pack("<B4f", 8, vx, vy, vz, d(yaw_rate))
        case ZDistance(roll, pitch, yaw_rate, z):
            data = struct.pack("<B4f", 9, d(roll), -d(pitch), d(yaw_rate), z)
        case Hover(vx, vy, yaw_rate, z):
            data = struct.pack("<B4f", 10, vx, vy, d(yaw_rate), z)
        case Manual(roll, pitch, yaw_rate, thrust, rates):
            data = struct.pack("<BfffHB", 11, d(roll), -d(pitch), d(yaw_rate), _fraction(thrust), rates)
    return Frame(Port.GENERIC, 0, data)


def decode_setpoint(frame: Frame) -> Setpoint | NotifyStop:
    """The set point in a packet of ports 3, 7 or 13/2; raises WireError for unknown types, lengths, and NaN."""
    if (frame.port, frame.channel) == (Port.COMMANDER, 0):
        roll, pitch, yaw_rate, thrust = finite_floats("<fffH", frame.data, "attitude set point")
        r = math.radians
        return Attitude(r(roll), -r(pitch), r(yaw_rate), thrust / _FULL)
    if (frame.port, frame.channel) == (Port.PLATFORM, 2):
        kind, *thrust = finite_floats("<B4f", frame.data, "application packet")
        if kind != _APP_ROTORS:
            raise WireError(f"application packet of type {kind}; expected {_APP_ROTORS} (rotor thrust)")
        return RotorThrust((thrust[0], thrust[1], thrust[2], thrust[3]))
    if (frame.port, frame.channel) == (Port.GENERIC, 1):
        kind, remain = unpack("<BI", frame.data, "meta command")
        if kind != 0:
            raise WireError(f"meta command {kind} unknown; expected 0 (set points have stopped)")
        return NotifyStop(remain)
    if (frame.port, frame.channel) == (Port.GENERIC, 0):
        return _decode_generic(frame.data)
    raise WireError(f"no set points on port {frame.port}, channel {frame.channel}")


def _decode_generic(data: bytes) -> Setpoint:
    r = math.radians
    kind = data[0] if data else None
    if kind == 0:
        unpack("<B", data, "stop set point")
        return Stop()
    if kind == 6:
        _, *v = unpack("<B9hI3h", data, "full-state set point")
        mm = [n / 1000 for n in v[:9]]
        w = v[10] / 1000, v[11] / 1000, v[12] / 1000
        return FullState((mm[0], mm[1], mm[2]), (mm[3], mm[4], mm[5]), (mm[6], mm[7], mm[8]), decompress_quat(v[9]), w)
    if kind == 11:
        _, roll, pitch, yaw_rate, thrust, rates = finite_floats("<BfffHB", data, "manual set point")
        return Manual(r(roll), -r(pitch), r(yaw_rate), thrust / _FULL, bool(rates))
    if kind not in (7, 8, 9, 10):
        raise WireError(f"generic set point of type {kind} unknown; known: 0, 6, 7, 8, 9, 10, 11")
    _, a, b, c, e = finite_floats("<B4f", data, f"generic set point {kind}")
    if kind == 7:
        return Position(a, b, c, r(e))
    if kind == 8:
        return VelocityWorld(a, b, c, r(e))
    if kind == 9:
        return ZDistance(r(a), -r(b), r(c), e)
    return Hover(a, b, r(c), e)


def encode_high_level(m: HighLevel) -> Frame:
    """The packet of a high-level command (port 8)."""
    match m:
        case GroupMask(group):
            data = struct.pack("<BB", 0, group)
        case Takeoff(height, duration, yaw, group):
            data = struct.pack("<BBff?f", 7, group, height, yaw or 0.0, yaw is None, duration)
        case Land(height, duration, yaw, group):
            data = struct.pack("<BBff?f", 8, group, height, yaw or 0.0, yaw is None, duration)
        case GoTo((x, y, z), yaw, duration, relative, linear, group):
            data = struct.pack("<BBBB5f", 12, group, relative, linear, x, y, z, yaw, duration)
        case HighLevelStop(group):
            data = struct.pack("<BB", 3, group)
    return Frame(Port.HIGH_LEVEL, 0, data)


def decode_high_level(data: bytes) -> HighLevel:
    """The high-level command in a packet; raises WireError for unknown commands, lengths, and NaN."""
    kind = data[0] if data else None
    if kind == 0:
        return GroupMask(unpack("<BB", data, "group mask")[1])
    if kind == 3:
        return HighLevelStop(unpack("<BB", data, "high-level stop")[1])
    if kind in (7, 8):
        _, group, height, yaw, keep, duration = finite_floats("<BBff?f", data, "take-off or landing")
        return (Takeoff if kind == 7 else Land)(height, duration, None if keep else yaw, int(group))
    if kind == 4:
        _, group, relative, x, y, z, yaw, duration = finite_floats("<BBB5f", data, "go-to")
        return GoTo((x, y, z), yaw, duration, bool(relative), False, int(group))
    if kind == 12:
        _, group, relative, linear, x, y, z, yaw, duration = finite_floats("<BBBB5f", data, "go-to")
        return GoTo((x, y, z), yaw, duration, bool(relative), bool(linear), int(group))
    raise WireError(f"high-level command {kind} unknown; known: 0, 3, 4, 7, 8, 12")


def finite_floats(layout: str, data: bytes, what: str) -> tuple:
    """`unpack`, which also refuses what is not finite."""
    values = unpack(layout, data, what)
    if not all(math.isfinite(v) for v in values):
        raise WireError(f"{what} holds a value that is not finite")
    return values


def _fraction(thrust: float) -> int:
    if not 0.0 <= thrust <= 1.0:
        raise WireError(f"thrust {thrust}; expected 0..1")
    return round(thrust * _FULL)


def thousandths(value: float, what: str) -> int:
    """A number of thousandths as 16 bits; raises WireError where it does not fit."""
    if not -32768.5 < value < 32767.5:
        raise WireError(f"{what}: {value / 1000:.3f} does not fit 16 bits of thousandths")
    return round(value)
