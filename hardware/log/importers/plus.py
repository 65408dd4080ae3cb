"""PLUS and 3D Slicer image sequences with tracking: MetaImage (`.igs.mha`, `.mha`) with `Seq_Frame…` fields.

A text header, then pixels. Transforms `AToBTransform` are 4 x 4, row by row, in mm, and map coordinates of A into B:
they are the pose of A in B.
"""

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.log.imports import Imported, Options
from hardware.log.named_arrays import picture_table
from hardware.log.poses import pose_table
from hardware.log.table import Column, Table, field_names, nanoseconds

FORMAT = "plus"
ABOUT = "PLUS image sequence"
MAX_HEADER_BYTES = 1 << 30
MAX_PIXELS = 1 << 32
_FRAME = re.compile(r"Seq_Frame(\d{1,9})_(\w+)")


def recognises(path: Path, head: bytes) -> bool:
    """By the first key of a MetaImage and a tracked frame, or the file's name."""
    return head.startswith(b"ObjectType = Image") and (b"Seq_Frame" in head or path.name.endswith(".mha"))


def load(path: Path, options: Options) -> Imported:
    """Each transform becomes a topic of poses in m, each frame a row of `/plus/frame`, pixels `/plus/image`."""
    raw = path.read_bytes()
    header, frames, data_at = _read_header(path, raw)
    count = len(frames)
    if not count:
        raise BadInput(f"{path}: not a {ABOUT}: it holds no frames")
    t_ns = nanoseconds(_numbers(path, frames, "Timestamp"), str(path))
    conversions = ["transforms: mm to m (x 0.001)", "clock: PLUS's own, filtered; both times are in /plus/frame"]
    tables = [_frame_table(path, frames, t_ns)]
    names = [k.removesuffix("Transform") for k in frames[0] if k.endswith("Transform")]
    tables += [_pose_table(path, name, frames, t_ns, conversions) for name in names]
    pixels = _pixels(path, header, raw, data_at, count)
    if pixels is not None:
        tables.append(picture_table("/plus/image", t_ns, pixels, "Image"))
    orientation = {k: header[k] for k in ("UltrasoundImageOrientation", "ElementSpacing", "DimSize") if k in header}
    return Imported(tables, conversions, facts=orientation)


def _read_header(path: Path, raw: bytes) -> tuple[dict[str, str], list[dict[str, str]], int]:
    """Fields of the file, fields of each frame, and where the pixels begin."""
    end = raw.find(b"ElementDataFile", 0, MAX_HEADER_BYTES)
    stop = raw.find(b"\n", end) if end >= 0 else -1
    if stop < 0:
        raise BadInput(f"{path}: not a whole {ABOUT}: its header does not end")
    header: dict[str, str] = {}
    frames: dict[int, dict[str, str]] = {}
    for line in raw[: stop + 1].decode("latin-1").splitlines():
        key, equals, value = line.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or not key:
            raise BadInput(f"{path}: not a {ABOUT}: line {line[:60]!r} is not KEY = VALUE")
        match = _FRAME.fullmatch(key)
        if match:
            frames.setdefault(int(match[1]), {})[match[2]] = value
        else:
            header[key] = value
    place = header.get("ElementDataFile", "")
    if place != "LOCAL":
        raise BadInput(f"{path}: its pixels lie in {place[:80]!r}; only LOCAL ones are read")
    if sorted(frames) != list(range(len(frames))):
        raise BadInput(f"{path}: not a whole {ABOUT}: frames are missing between 0 and {max(frames)}")
    ordered = [frames[i] for i in range(len(frames))]
    if any(f.keys() != ordered[0].keys() for f in ordered):
        raise BadInput(f"{path}: not a whole {ABOUT}: its frames do not all have the same fields")
    return header, ordered, stop + 1


def _numbers(path: Path, frames: list[dict[str, str]], key: str, size: int | None = None) -> NDArray[np.float64]:
    """One field of every frame, (T,) or (T, size)."""
    if key not in frames[0]:
        raise BadInput(f"{path}: not a {ABOUT}: its frames have no {key}")
    try:
        rows = [[float(v) for v in f[key].split()] for f in frames]
        values = np.array(rows, dtype=np.float64)
    except ValueError as e:
        raise BadInput(f"{path}: {key} is not {size or 1} numbers in every frame") from e
    if values.shape != (len(frames), size or 1) or not np.isfinite(values).all():
        raise BadInput(f"{path}: {key} is not {size or 1} finite numbers in every frame")
    return values if size else values[:, 0]


def _frame_table(path: Path, frames: list[dict[str, str]], t_ns: NDArray[np.int64]) -> Table:
    """Number, both times and the status of everything, for every frame."""
    columns: dict[str, Column] = {}
    for key in frames[0]:
        name = field_names([re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key)])[0]
        if key == "FrameNumber":
            columns[name] = Column(_numbers(path, frames, key).astype(np.int64), "", key)
        elif key.endswith("Timestamp"):
            columns[name] = Column(_numbers(path, frames, key), "s", key)
        elif key.endswith("Status"):
            columns[f"{name.removesuffix('_status')}_valid"] = Column(
                np.array([f[key] == "OK" for f in frames]), "", key
            )
    return Table("/plus/frame", t_ns, columns)


def _pose_table(
    path: Path, name: str, frames: list[dict[str, str]], t_ns: NDArray[np.int64], conversions: list[str]
) -> Table:
    """The valid poses of one transform."""
    matrix = _numbers(path, frames, f"{name}Transform", 16).reshape(-1, 4, 4)
    valid = np.array([f.get(f"{name}TransformStatus", "OK") == "OK" for f in frames])
    if not valid.all():
        conversions.append(f"{name}: {int((~valid).sum())} poses whose status is not OK are left out")
    matrix, t_ns = matrix[valid], t_ns[valid]
    child, _, parent = name.partition("To")
    topic = f"/plus/{field_names([f'{child}_to_{parent}'])[0]}"
    table = pose_table(topic, parent, child, t_ns, matrix)
    if not table.type:
        conversions.append(f"{name}: no rigid motion; kept as a matrix in mm")
    return table


def _pixels(path: Path, header: dict[str, str], raw: bytes, at: int, count: int) -> NDArray[Any] | None:
    """Grey or colour pictures (T, H, W[, 3]); None where the frames hold no pixels."""
    try:
        size = [int(v) for v in header.get("DimSize", "0").split()]
        channels = int(header.get("ElementNumberOfChannels", "1"))
    except ValueError as e:
        raise BadInput(f"{path}: DimSize or ElementNumberOfChannels are not whole numbers") from e
    if len(size) != 3 or 0 in size[:2]:
        return None
    width, height, depth = size
    if min(size) < 0 or depth != count or channels not in (1, 3) or header.get("ElementType") != "MET_UCHAR":
        raise BadInput(
            f"{path}: pixels must be MET_UCHAR, 1 or 3 channels, DimSize W H {count}; is {header['DimSize']}"
        )
    expected = width * height * channels * count
    data = raw[at:]
    if expected > MAX_PIXELS:
        raise BadInput(f"{path}: claims {expected} bytes of pixels, more than {MAX_PIXELS} are not read")
    if header.get("CompressedData", "False") == "True":
        unpacker = zlib.decompressobj()
        try:
            data = unpacker.decompress(data, expected + 1)
        except zlib.error as e:
            raise BadInput(f"{path}: its compressed pixels are damaged ({e})") from e
    if len(data) < expected or (len(data) > expected and header.get("CompressedData") == "True"):
        raise BadInput(f"{path}: {len(data)} bytes of pixels, DimSize says {expected}; it was cut off or damaged")
    shape = (count, height, width) if channels == 1 else (count, height, width, 3)
    return np.frombuffer(data[:expected], dtype=np.uint8).reshape(shape)
