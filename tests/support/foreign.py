"""Small recordings of foreign formats, written here byte by byte or by the formats' own libraries."""

import io
import pickle
import sqlite3
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "data"


def sample(name: str) -> Path:
    """A sample recording; skips the test where the folder is absent."""
    path = SAMPLES / name
    if not path.exists():
        pytest.skip(f"sample recordings are not in {SAMPLES}")
    return path


def crazyflie_log(rows: list[tuple[int, float, int]], version: int = 2) -> bytes:
    """A microSD log with `acc.x` (g) and `motor.m1`, and an event `land` without variables after each row."""
    head = struct.pack("<BHH", 0xBC, version, 2)
    head += struct.pack("<H", 0xFFFF) + b"fixedFrequency\0" + struct.pack("<H", 2) + b"acc.x(f)\0motor.m1(H)\0"
    head += struct.pack("<H", 7) + b"land\0" + struct.pack("<H", 1) + b"pm.vbat(f)\0"
    time = "<H" + ("I" if version == 1 else "Q")
    for t, acc, motor in rows:
        head += struct.pack(time, 0xFFFF, t) + struct.pack("<fH", acc, motor)
        head += struct.pack(time, 7, t + 1) + struct.pack("<f", 3.5)
    return head + struct.pack("<I", zlib.crc32(head))


class Storage:
    """Stands for a torch storage while pickling."""

    def __init__(self, kind: str, key: str, count: int) -> None:
        self.identity = ("storage", Global("torch", kind), key, "cpu", count)


class Global:
    """A name that the pickle refers to, importable or not."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    """A call that the pickle asks for."""

    def __init__(self, function: Global, arguments: tuple) -> None:
        self.function, self.arguments = function, arguments


def pickled(value: Any) -> bytes:
    """A pickle in torch's style (protocol 2), with any globals and calls in it."""
    match value:
        case Call():
            return pickled(value.function) + pickled(value.arguments) + b"R"
        case Global():
            return f"c{value.module}\n{value.name}\n".encode()
        case Storage():
            return pickled(value.identity) + b"Q"
        case dict():
            return b"}(" + b"".join(pickled(k) + pickled(v) for k, v in value.items()) + b"u"
        case tuple():
            return b"(" + b"".join(map(pickled, value)) + b"t"
        case _:
            return pickle.dumps(value, 2)[2:-1]


def tensor(kind: str, key: str, count: int, shape: tuple, stride: tuple, offset: int = 0) -> Call:
    """What torch writes for one tensor."""
    hooks = Call(Global("collections", "OrderedDict"), ())
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, (Storage(kind, key, count), offset, shape, stride, False, hooks))


def torch_archive(value: Any, blocks: dict[str, bytes], *, compress: bool = False) -> bytes:
    """A zip archive as `torch.save` lays it out."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + pickled(value) + b".")
        archive.writestr("a/byteorder", "little")
        for key, raw in blocks.items():
            archive.writestr(f"a/data/{key}", raw)
    return out.getvalue()


def small_archive() -> bytes:
    """Three instants and joints, as the Go2 file has them."""
    time = np.array([0.0, 0.1, 0.2], dtype="<f4")
    joints = np.arange(6, dtype="<f4")
    value = {
        "time": tensor("FloatStorage", "0", 3, (3,), (1,)),
        "dof_pos": tensor("FloatStorage", "1", 6, (3, 2), (2, 1)),
    }
    return torch_archive(value, {"0": time.tobytes(), "1": joints.tobytes()})


def plus_sequence(*, pixels: bool = True, packed: bool = False, status: str = "OK") -> bytes:
    """Two frames of 4 x 3 pixels with one transform: rotated by 90 degrees about z, moved by 10 and 20 mm along x."""
    frame = "Seq_Frame{i:04d}_"
    lines = [
        *("ObjectType = Image", "NDims = 3", f"CompressedData = {packed}", f"DimSize = {'4 3' if pixels else '0 0'} 2"),
        "ElementType = MET_UCHAR",
    ]
    for i in range(2):
        at = frame.format(i=i)
        lines += [
            f"{at}FrameNumber = {7 + i}",
            f"{at}ProbeToTrackerTransform = 0 -1 0 {10 * (i + 1)} 1 0 0 0 0 0 1 0 0 0 0 1",
            f"{at}ProbeToTrackerTransformStatus = {status if i else 'OK'}",
            f"{at}Timestamp = {100 + i}.5",
            f"{at}UnfilteredTimestamp = {100 + i}.25",
        ]
    data = bytes(range(24)) if pixels else b""
    return ("\n".join([*lines, "ElementDataFile = LOCAL\n"])).encode() + (zlib.compress(data) if packed else data)


def ulog(values: list[tuple[int, float, bool]]) -> bytes:
    """A PX4 log with one topic `battery` (format, subscription and data, as docs.px4.io describes the file)."""

    def message(kind: str, body: bytes) -> bytes:
        return struct.pack("<HB", len(body), ord(kind)) + body

    raw = b"ULog\x01\x12\x35\x01" + struct.pack("<Q", 1_000_000)
    raw += message("F", b"battery:uint64_t timestamp;float voltage_v;bool armed;uint8_t[2] cells;")
    raw += message("A", struct.pack("<BH", 0, 3) + b"battery")
    for t_us, voltage, armed in values:
        raw += message("D", struct.pack("<HQf?2B", 3, t_us, voltage, armed, 1, 2))
    return raw


def sqlite_bag(path: Path, texts: list[str]) -> None:
    """One topic of strings as rosbag2's sqlite3 plugin stores them."""
    database = sqlite3.connect(path)
    database.executescript(
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,"
        " serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL);"
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL,"
        " data BLOB NOT NULL);"
    )
    database.execute("INSERT INTO topics VALUES (1, '/chatter', 'std_msgs/msg/String', 'cdr', '')")
    for i, text in enumerate(texts):
        body = text.encode() + b"\0"
        cdr = b"\0\1\0\0" + struct.pack("<I", len(body)) + body
        database.execute("INSERT INTO messages VALUES (?, 1, ?, ?)", (i, 10**18 + i, cdr))
    database.commit()
    database.close()
