"""Crazyflie microSD logs (uSD deck, versions 1 and 2): binary events on the firmware's own clock.

Layout: byte 0xBC, u16 version, u16 number of event types; per type u16 id, zero-terminated name, u16 number of
variables, each a zero-terminated `group.name(letter of struct)`; then events: u16 id, time since start (version 1: u32
ms, version 2: u64 us), the values packed; at the end a CRC-32 of everything before it. Little-endian.
"""

import struct
import zlib
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.log.imports import Imported, Options
from hardware.log.table import Column, Table

FORMAT = "crazyflie"
ABOUT = "Crazyflie microSD log"
GRAVITY = 9.80665
"""m/s^2 per g (standard gravity, ISO 80000-3)."""
_LETTERS = "bBhHiIqQfd"
_UNITS = {
    "stateEstimate.x": "m", "stateEstimate.y": "m", "stateEstimate.z": "m",
    "stateEstimate.vx": "m/s", "stateEstimate.vy": "m/s", "stateEstimate.vz": "m/s",
    "stateEstimate.roll": "deg", "stateEstimate.pitch": "deg", "stateEstimate.yaw": "deg",
    "stabilizer.roll": "deg", "stabilizer.pitch": "deg", "stabilizer.yaw": "deg",
    "pm.vbat": "V", "baro.asl": "m", "baro.pressure": "mbar", "baro.temp": "degC",
    "mag.x": "gauss", "mag.y": "gauss", "mag.z": "gauss",
}  # fmt: skip
"""Units of other variables, as the firmware's log documentation gives them; they are kept."""


class _Event(NamedTuple):
    name: str
    variables: list[tuple[str, str]]
    """Name and struct letter."""


def recognises(path: Path, head: bytes) -> bool:
    """By the magic byte and a version that is known."""
    return len(head) > 5 and head[0] == 0xBC and struct.unpack_from("<H", head, 1)[0] in (1, 2)


def load(path: Path, options: Options) -> Imported:
    """Accelerometer and gyroscope become `/crazyflie/imu` in SI units; other variables one topic per group."""
    data = path.read_bytes()
    try:
        version, events, at = _read_header(data)
    except (struct.error, ValueError, UnicodeDecodeError, IndexError) as e:
        raise BadInput(f"{path}: not a whole {ABOUT}: its header ends early or is damaged") from e
    if zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise BadInput(f"{path}: not a whole {ABOUT}: its CRC is wrong, so it was cut off or damaged")
    rows = _read_events(path, data, at, version, events)
    tables, conversions = [], [f"clock: time since the Crazyflie started, {'ms' if version == 1 else 'us'}"]
    for id_, event in events.items():
        t_ns, columns = rows[id_]
        prefix = "/crazyflie" if event.name == "fixedFrequency" else f"/crazyflie/{event.name}"
        tables += _tables(prefix, t_ns, columns, conversions)
    return Imported(tables, list(dict.fromkeys(conversions)), facts={"version": str(version)})


def _read_header(data: bytes) -> tuple[int, dict[int, _Event], int]:
    version, count = struct.unpack_from("<HH", data, 1)
    if data[0] != 0xBC or version not in (1, 2):
        raise ValueError("magic or version")
    at, events = 5, {}
    for _ in range(count):
        id_ = struct.unpack_from("<H", data, at)[0]
        name, at = _text(data, at + 2)
        size = struct.unpack_from("<H", data, at)[0]
        at, variables = at + 2, []
        for _ in range(size):
            text, at = _text(data, at)
            if len(text) < 4 or text[-3] != "(" or text[-1] != ")" or text[-2] not in _LETTERS:
                raise ValueError("variable")
            variables.append((text[:-3], text[-2]))
        if id_ in events or len({v for v, _ in variables}) != len(variables):
            raise ValueError("repeated name")
        events[id_] = _Event(name, variables)
    return version, events, at


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode("ascii"), end + 1


def _read_events(
    path: Path, data: bytes, at: int, version: int, events: dict[int, _Event]
) -> dict[int, tuple[NDArray[np.int64], dict[str, NDArray]]]:
    """Event id -> instants (ns) and columns."""
    time_type, to_ns = ("<u4", 1_000_000) if version == 1 else ("<u8", 1_000)
    dtypes = {
        i: np.dtype([("id", "<u2"), ("t", time_type), *((name, f"<{letter}") for name, letter in e.variables)])
        for i, e in events.items()
    }
    offsets, end = defaultdict(list), len(data) - 4
    while at < end:
        id_ = int.from_bytes(data[at : at + 2], "little")
        if id_ not in dtypes or at + dtypes[id_].itemsize > end:
            raise BadInput(f"{path}: not a whole {ABOUT}: no event of a known type at byte {at}")
        offsets[id_].append(at)
        at += dtypes[id_].itemsize
    found = {}
    for id_, dtype in dtypes.items():
        places = np.array(offsets[id_], dtype=np.int64)[:, None] + np.arange(dtype.itemsize)
        table = np.frombuffer(data, dtype=np.uint8)[places].reshape(-1).view(dtype)
        if len(table) and int(table["t"].max()) >= 2**63 // to_ns:
            raise BadInput(f"{path}: not a whole {ABOUT}: an instant lies beyond the year 2262")
        found[id_] = (table["t"].astype(np.int64) * to_ns, {n: table[n] for n, _ in events[id_].variables})
    return found


def _tables(prefix: str, t_ns: NDArray[np.int64], columns: dict[str, NDArray], conversions: list[str]) -> list[Table]:
    imu: dict[str, Column] = {}
    groups: dict[str, dict[str, Column]] = defaultdict(dict)
    for name, values in columns.items():
        group, _, variable = name.rpartition(".")
        if group == "acc" and variable in "xyz":
            imu[f"linear_acceleration.{variable}"] = Column(values.astype(np.float64) * GRAVITY, "m/s^2")
            conversions.append(f"acc.*: g to m/s^2 (x {GRAVITY})")
        elif group == "gyro" and variable in "xyz":
            imu[f"angular_velocity.{variable}"] = Column(np.deg2rad(values.astype(np.float64)), "rad/s")
            conversions.append("gyro.*: deg/s to rad/s (x pi/180)")
        else:
            groups[group or "log"][variable] = Column(values, _UNITS.get(name, ""), name)
    tables = []
    if imu:
        orientation = {"orientation_covariance": np.array([-1.0, *[0.0] * 8])}  # unknown, as sensor_msgs/Imu defines
        constants = {"header.frame_id": "body", **orientation}
        tables.append(Table(f"{prefix}/imu", t_ns, imu, "sensor_msgs/msg/Imu", constants))
    return tables + [Table(f"{prefix}/{group}", t_ns, values) for group, values in groups.items()]
