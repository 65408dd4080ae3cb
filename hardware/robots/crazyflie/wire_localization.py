"""CRTP packets that tell a drone where it is, and where the others are (port 6): external positions and poses.

A motion-capture computer sends each packet to all drones at once; packed items carry the id of the drone they are
about, the last byte of its radio address. Layouts and the order of reading: crtp_localization_service.c. Vectors are
metres in the world, quaternions scalar-first.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hardware.robots.crazyflie.quatcompress import Quat, compress_quat, decompress_quat, unit_quat
from hardware.robots.crazyflie.wire import Frame, Port, WireError, unpack
from hardware.robots.crazyflie.wire_commands import Vec3, finite_floats, thousandths

POSITIONS_PER_PACKET, POSES_PER_PACKET = 4, 2
_POSITION, _POSE = struct.Struct("<B3h"), struct.Struct("<B3hI")


@dataclass(frozen=True)
class ExternalPosition:
    """Channel 0: where a motion capture system sees the drone; channel 2: one per drone id, in whole millimetres."""

    position: Vec3
    drone: int | None = None


@dataclass(frozen=True)
class ExternalPose:
    """Channel 1, types 8 and 9: external position and attitude; type 9 carries one per drone id."""

    position: Vec3
    quat_wxyz: Quat
    drone: int | None = None


@dataclass(frozen=True)
class EmergencyStop:
    """Channel 1, type 3: lock the motors now."""


@dataclass(frozen=True)
class EmergencyStopWatchdog:
    """Channel 1, type 4: lock the motors unless this is repeated within a second."""


Localization = ExternalPosition | ExternalPose | EmergencyStop | EmergencyStopWatchdog


def encode_localization(m: Localization) -> Frame:
    """The packet of an external position, an external pose, or an emergency stop."""
    match m:
        case ExternalPosition(position, None):
            return Frame(Port.LOCALIZATION, 0, struct.pack("<fff", *position))
        case ExternalPosition():
            return encode_packed_positions([m])
        case ExternalPose(position, (w, x, y, z), None):
            data = struct.pack("<B7f", 8, *position, x, y, z, w)
        case ExternalPose():
            return encode_packed_poses([m])
        case EmergencyStop():
            data = b"\x03"
        case EmergencyStopWatchdog():
            data = b"\x04"
    return Frame(Port.LOCALIZATION, 1, data)


def encode_packed_positions(positions: Sequence[ExternalPosition]) -> Frame:
    """Channel 2: positions of up to four drones in one packet."""
    _count(positions, POSITIONS_PER_PACKET, "positions")
    data = b"".join(_POSITION.pack(_id(p.drone), *_millimetres(p.position)) for p in positions)
    return Frame(Port.LOCALIZATION, 2, data)


def encode_packed_poses(poses: Sequence[ExternalPose]) -> Frame:
    """Channel 1, type 9: poses of up to two drones in one packet, with compressed quaternions."""
    _count(poses, POSES_PER_PACKET, "poses")
    items = [_POSE.pack(_id(p.drone), *_millimetres(p.position), compress_quat(p.quat_wxyz)) for p in poses]
    return Frame(Port.LOCALIZATION, 1, b"\x09" + b"".join(items))


def decode_localization(frame: Frame) -> tuple[Localization, ...]:
    """What a localization packet says; raises WireError for unknown types, lengths, and NaN."""
    kind = frame.data[0] if frame.data else None
    if frame.channel == 0:
        x, y, z = finite_floats("<fff", frame.data, "external position")
        return (ExternalPosition((x, y, z)),)
    if frame.channel == 2:
        _whole(frame.data, _POSITION, POSITIONS_PER_PACKET, "packed positions")
        items = _POSITION.iter_unpack(frame.data)
        return tuple(ExternalPosition((x / 1000, y / 1000, z / 1000), drone) for drone, x, y, z in items)
    if frame.channel == 1 and kind in (3, 4):
        unpack("<B", frame.data, "emergency stop")
        return (EmergencyStop() if kind == 3 else EmergencyStopWatchdog(),)
    if frame.channel == 1 and kind == 8:
        _, x, y, z, qx, qy, qz, qw = finite_floats("<B7f", frame.data, "external pose")
        return (ExternalPose((x, y, z), unit_quat((qw, qx, qy, qz))),)
    if frame.channel == 1 and kind == 9:
        _whole(frame.data[1:], _POSE, POSES_PER_PACKET, "packed poses")
        return tuple(
            ExternalPose((x / 1000, y / 1000, z / 1000), decompress_quat(quat), drone)
            for drone, x, y, z, quat in _POSE.iter_unpack(frame.data[1:])
        )
    raise WireError(f"localization packet {kind} on channel {frame.channel} unknown")


def _millimetres(position: Vec3) -> list[int]:
    return [thousandths(1000 * value, "packed position") for value in position]


def _id(drone: int | None) -> int:
    if drone is None or not 0 <= drone <= 255:
        raise WireError(f"packed item for drone {drone}; expected an id of 0..255")
    return drone


def _count(items: Sequence[object], most: int, what: str) -> None:
    if not 1 <= len(items) <= most:
        raise WireError(f"{len(items)} {what} in one packet; expected 1 to {most}")


def _whole(data: bytes, item: struct.Struct, most: int, what: str) -> None:
    if len(data) % item.size or not 1 <= len(data) // item.size <= most:
        raise WireError(f"{what} of {len(data)} bytes; expected 1 to {most} times {item.size}")
