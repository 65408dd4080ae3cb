"""HDF5 files (robomimic, LeRobot v1, MATLAB 7.3, h5py), through h5py (extra `[export]`)."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.log.imports import Imported, Options
from hardware.log.named_arrays import tables_of

FORMAT = "hdf5"
ABOUT = "HDF5 file"
MAX_BYTES = 8 << 30
"""Of all data sets together, unpacked."""
MAX_RATIO = 100
"""Data sets of more than `BOMB_BYTES` that are packed better than this are taken for bombs."""
BOMB_BYTES = 1 << 28
MAX_SETS = 100_000


def recognises(path: Path, head: bytes) -> bool:
    """By the magic bytes."""
    return head.startswith(b"\x89HDF\r\n\x1a\n")


def load(path: Path, options: Options) -> Imported:
    """Groups become topics, data sets fields; the attribute `unit` or `units` of a data set is its unit."""
    import h5py

    arrays: dict[str, NDArray[Any]] = {}
    units: dict[str, str] = {}
    notes: list[str] = []
    try:
        with h5py.File(path, "r") as file:
            _walk(path, file, "", arrays, units, notes)
    except BadInput:
        raise
    except Exception as e:  # h5py passes on whatever damaged bytes provoke in its library
        raise BadInput(f"{path}: not a whole {ABOUT} ({type(e).__name__})") from e
    found = tables_of(path, arrays, units, options)
    return Imported(found.tables, [*notes, *found.conversions], facts=found.facts)


def _walk(
    path: Path, group: Any, prefix: str, arrays: dict[str, NDArray[Any]], units: dict[str, str], notes: list[str]
) -> None:
    """Reads what lies in the file itself; nothing is followed into other files or around in circles."""
    import h5py

    for name in group:
        full = f"{prefix}{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink) or full.count("/") > 20:
            notes.append(f"{full}: a link; left out")
            continue
        item = group[name]
        if isinstance(item, h5py.Group):
            _walk(path, item, f"{full}/", arrays, units, notes)
        elif isinstance(item, h5py.Dataset):
            array = _array(path, full, item, sum(a.nbytes for a in arrays.values()))
            if array is None:
                notes.append(f"{full}: {item.dtype} of shape {item.shape}; left out")
            else:
                arrays[full] = array
                unit = item.attrs.get("unit", item.attrs.get("units", ""))
                units[full] = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else str(unit)
        if len(arrays) > MAX_SETS:
            raise BadInput(f"{path}: more than {MAX_SETS} data sets")


def _array(path: Path, name: str, item: Any, before: int) -> NDArray[Any] | None:
    """A data set of numbers or text; None for another kind."""
    import h5py

    if item.external or item.is_virtual:
        raise BadInput(f"{path}: {name} lies in another file, which is not opened")
    if item.shape is None or item.dtype.kind not in "biufSO" or item.ndim == 0:
        return None
    stored = item.id.get_storage_size()
    if before + item.nbytes > MAX_BYTES or item.nbytes > max(MAX_RATIO * stored, BOMB_BYTES):
        raise BadInput(f"{path}: {name} claims {item.nbytes} bytes out of {stored}; it is not unpacked")
    if item.dtype.kind == "O":
        if h5py.check_string_dtype(item.dtype) is None or item.ndim != 1:
            return None
        return np.array([str(v) for v in item.asstr()[()]])
    values = item[()]
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
