"""NumPy archives (.npz): arrays by name, pickles never."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.log.imports import Imported, Options
from hardware.log.named_arrays import tables_of

FORMAT = "npz"
ABOUT = "NumPy archive"
MAX_BYTES = 8 << 30
"""Of all arrays together, unpacked."""
MAX_RATIO = 100
"""Recordings of more than `BOMB_BYTES` that are packed better than this are taken for bombs."""
BOMB_BYTES = 1 << 28
MAX_ENTRIES = 10_000


def recognises(path: Path, head: bytes) -> bool:
    """A zip archive whose first member is an array."""
    return head.startswith(b"PK\3\4") and b".npy" in head


def load(path: Path, options: Options) -> Imported:
    """Names `TOPIC/ARRAY` are topics; an array `units` holds the units as JSON, as our own export writes it."""
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _arrays(path, archive)
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, RuntimeError, MemoryError) as e:
        raise BadInput(f"{path}: not a whole {ABOUT} ({type(e).__name__})") from e
    units = arrays.pop("units", None)
    return tables_of(path, arrays, _units(units), options)


def _arrays(path: Path, archive: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    members = archive.infolist()
    total = sum(i.file_size for i in members)
    packed = sum(i.compress_size for i in members)
    if len(members) > MAX_ENTRIES or total > MAX_BYTES or total > max(MAX_RATIO * packed, BOMB_BYTES):
        raise BadInput(f"{path}: claims {total} bytes in {len(members)} arrays out of {packed}; it is not unpacked")
    arrays = {}
    for info in members:
        if not info.filename.endswith(".npy"):
            raise BadInput(f"{path}: not a {ABOUT}: it holds {info.filename[:60]!r}")
        with archive.open(info) as stream:
            arrays[info.filename.removesuffix(".npy")] = _array(path, info, stream)
    return arrays


def _array(path: Path, info: zipfile.ZipInfo, stream: Any) -> NDArray[Any]:
    """One array, whose header must fit the member's size before anything is allocated."""
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    count = 1
    for n in shape:
        count *= n
    if dtype.hasobject:
        raise BadInput(f"{path}: {info.filename} holds pickled Python objects, which are never loaded")
    if min(shape, default=0) < 0 or count * dtype.itemsize > info.file_size:
        raise BadInput(f"{path}: {info.filename} claims shape {shape}, more than its {info.file_size} bytes")
    data = stream.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize or stream.read(1):
        raise BadInput(f"{path}: {info.filename} is not as long as its shape {shape} says")
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")


def _units(text: NDArray[Any] | None) -> dict[str, str]:
    if text is None or text.ndim or text.dtype.kind != "U":
        return {}
    try:
        found = json.loads(str(text))
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
