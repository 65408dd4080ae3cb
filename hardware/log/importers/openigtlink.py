"""OpenIGTLink captures: the bytes that a server sent, message after message, as `nc` or a tee stores them.

Header of 58 bytes, big-endian (openigtlink.org, protocol v2): version, type, device, time stamp (s and 2^-32 s), size
of the body and its CRC-64. Bodies are decoded by pyigtl.
"""

import struct
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pyigtl.messages import CRC64, MessageBase

from hardware.errors import BadInput
from hardware.log.imports import Imported, Options
from hardware.log.named_arrays import picture_table
from hardware.log.poses import pose_table
from hardware.log.table import Column, Table, field_names

FORMAT = "openigtlink"
ABOUT = "OpenIGTLink capture"
_HEADER = struct.Struct(">H12s20sIIQQ")
_READ = ("TRANSFORM", "STRING", "IMAGE")


class _Message(NamedTuple):
    t_ns: int
    content: Any


def recognises(path: Path, head: bytes) -> bool:
    """By a first header that makes sense."""
    if len(head) < _HEADER.size:
        return False
    version, kind, device, _, _, size, _ = _HEADER.unpack_from(head)
    name = kind.rstrip(b"\0 ")
    plain = name.replace(b"_", b"").isalnum() and name.upper() == name and device.rstrip(b"\0").isascii()
    return 1 <= version <= 3 and plain and size < 1 << 40


def load(path: Path, options: Options) -> Imported:
    """Transforms become poses in m, pictures and texts their messages: one topic per device, `/igtl/<device>`."""
    found: dict[tuple[str, str], list[_Message]] = defaultdict(list)
    left_out: dict[str, int] = defaultdict(int)
    data, at = memoryview(path.read_bytes()), 0
    while at < len(data):
        at = _read(path, data, at, found, left_out)
    conversions = ["transforms: mm to m (x 0.001)", "clock: time stamps of the sender"]
    conversions += [f"{count} messages of type {kind} are left out" for kind, count in sorted(left_out.items())]
    tables = []
    names = field_names([device for _, device in found])
    for ((kind, device), messages), name in zip(found.items(), names, strict=True):
        tables.append(_table(path, kind, device, f"/igtl/{name}", messages))
    return Imported(tables, conversions)


def _read(
    path: Path,
    data: memoryview,
    at: int,
    found: dict[tuple[str, str], list[_Message]],
    left_out: dict[str, int],
) -> int:
    """Reads the message at a byte; returns where the next one begins."""
    if len(data) - at < _HEADER.size:
        raise BadInput(f"{path}: not a whole {ABOUT}: it ends inside the header at byte {at}")
    version, kind_bytes, device_bytes, seconds, fraction, size, crc = _HEADER.unpack_from(data, at)
    body = data[at + _HEADER.size : at + _HEADER.size + size]
    if len(body) != size:
        raise BadInput(f"{path}: not a whole {ABOUT}: {size} bytes claimed at byte {at}, {len(body)} are there")
    if not 1 <= version <= 3 or CRC64(bytes(body)) != crc:
        raise BadInput(f"{path}: not a whole {ABOUT}: the message at byte {at} is damaged (version or CRC)")
    try:
        kind, device = (b.rstrip(b"\0 ").decode("ascii") for b in (kind_bytes, device_bytes))
        if kind not in _READ:
            left_out[kind] += 1
        else:
            content = MessageBase.create_message(kind)
            fields = {"header_version": version, "message_type": kind, "device_name": device, "timestamp": 0.0}
            content.unpack(fields, bytes(body))  # pyright: ignore[reportOptionalMemberAccess]
            t_ns = seconds * 1_000_000_000 + (fraction * 1_000_000_000 + (1 << 31) >> 32)
            found[kind, device].append(_Message(t_ns, content))
    except Exception as e:  # pyigtl raises whatever a body provokes that does not fit its type
        raise BadInput(f"{path}: not a whole {ABOUT}: the message at byte {at} does not fit its type") from e
    return at + _HEADER.size + size


def _table(path: Path, kind: str, device: str, topic: str, messages: list[_Message]) -> Table:
    t_ns = np.array([m.t_ns for m in messages], dtype=np.int64)
    if kind == "TRANSFORM":
        child, _, parent = device.partition("To")
        matrices = np.stack([m.content.matrix for m in messages]).astype(np.float64)
        if not np.isfinite(matrices).all():
            raise BadInput(f"{path}: transforms of {device} are not finite")
        return pose_table(topic, parent or "world", child, t_ns, matrices)
    if kind == "STRING":
        return Table(
            topic, t_ns, {"data": Column(np.array([m.content.string for m in messages]))}, "std_msgs/msg/String"
        )
    shapes = {m.content.image.shape for m in messages}
    shape, dtype = messages[0].content.image.shape, messages[0].content.image.dtype
    if len(shapes) != 1 or dtype != np.uint8 or shape[0] != 1:
        raise BadInput(f"{path}: images of {device} are {dtype} {sorted(shapes)}; expected uint8 pictures of one size")
    pictures = np.stack([m.content.image[0] for m in messages])
    if pictures.ndim == 4 and pictures.shape[3] != 3:
        raise BadInput(f"{path}: images of {device} have {pictures.shape[3]} channels; expected 1 or 3")
    return picture_table(topic, t_ns, pictures, device)
