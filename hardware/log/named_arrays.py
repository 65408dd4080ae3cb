"""Tables from named arrays: which of them is the time, which belong together, which are joints or pictures."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.log.imports import Imported, Options
from hardware.log.table import Column, Table, field_names, nanoseconds

TIME_NAMES = ("t_ns", "time", "t", "timestamp", "timestamps", "stamp", "times")
"""Names that mean the time, also with a unit behind them: `time_s`, `t_ms`, `timestamp_us`, `time_ns`."""
_SCALE_NS = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}
_JOINTS = {
    "dof_pos": ("joint_states", "position", "rad"),
    "dof_vel": ("joint_states", "velocity", "rad/s"),
    "dof_torque": ("joint_states", "effort", "N m"),
    "des_dof_pos": ("joint_command", "position", "rad"),
    "des_dof_vel": ("joint_command", "velocity", "rad/s"),
    "des_dof_torque": ("joint_command", "effort", "N m"),
}
"""The words of legged_gym and its successors for joints."""


def tables_of(path: Path, arrays: Mapping[str, NDArray[Any]], units: Mapping[str, str], options: Options) -> Imported:
    """One topic per folder of names (`topic/name`), or one named after the file.

    Raises BadInput where a group has no time and no rate was given, or lengths do not fit.
    """
    groups: dict[str, dict[str, NDArray[Any]]] = defaultdict(dict)
    for name, values in arrays.items():
        group, _, short = name.rpartition("/")
        groups[group][short] = values
    notes: list[str] = []
    shared = _pop_time(groups.get("", {}), units, "", options, notes)
    tables: list[Table] = []
    for group, members in groups.items():
        t_ns = shared if group == "" else _pop_time(members, units, group, options, notes)
        t_ns = _instants(path, group, members, shared if t_ns is None else t_ns, options, notes)
        topic = "/" + "/".join(field_names([part])[0] for part in (group or path.name.split(".")[0]).split("/") if part)
        tables += _tables(topic, group, t_ns, members, units, notes)
    if not tables:
        raise BadInput(f"{path}: holds no arrays with rows over time")
    return Imported(tables, notes)


def time_unit(name: str, values: NDArray[Any]) -> str:
    """The unit of a time column: by its name's end, else by magnitude (whole numbers since 1970 or since a start)."""
    for unit in ("ns", "us", "ms", "s"):
        if name.lower().endswith(f"_{unit}") or name.lower().endswith(f"[{unit}]"):
            return unit
    if values.dtype.kind in "iu" and len(values):
        largest = abs(int(values.max()))
        return next((u for u, limit in (("ns", 10**17), ("us", 10**14), ("ms", 10**11)) if largest > limit), "s")
    return "s"


def scaled_to_ns(values: NDArray[Any], unit: str, what: str) -> NDArray[np.int64]:
    """Instants in ns from numbers in `unit`; whole numbers stay exact."""
    if values.dtype.kind in "iu":
        factor = int(_SCALE_NS[unit])
        if len(values) and (int(values.min()) < 0 or int(values.max()) >= 2**63 // factor):
            raise BadInput(f"{what}: instants lie outside 0 to 2^63 ns")
        return values.astype(np.int64) * factor
    return nanoseconds(values.astype(np.float64) * (_SCALE_NS[unit] / 1e9), what)


def is_time_name(name: str) -> bool:
    """Whether a column of this name holds the time."""
    base = name.lower()
    for unit in _SCALE_NS:
        base = base.removesuffix(f"_{unit}")
    return base in (*TIME_NAMES, "t") or name.lower() in TIME_NAMES


def _pop_time(
    members: dict[str, NDArray[Any]], units: Mapping[str, str], group: str, options: Options, notes: list[str]
) -> NDArray[np.int64] | None:
    """Takes the time out of a group's arrays; None where there is none."""
    name = options.time if options.time in members else next((n for n in members if is_time_name(n)), "")
    if not name or members[name].ndim != 1 or members[name].dtype.kind not in "iuf":
        return None
    values = members.pop(name)
    full = f"{group}/{name}".lstrip("/")
    declared = units.get(full, "")
    unit = declared if declared in _SCALE_NS else time_unit(name, values)
    notes.append(f"time: {full} in {unit}")
    return scaled_to_ns(values, unit, full)


def _instants(
    path: Path,
    group: str,
    members: Mapping[str, NDArray[Any]],
    t_ns: NDArray[np.int64] | None,
    options: Options,
    notes: list[str],
) -> NDArray[np.int64]:
    if t_ns is not None:
        return t_ns
    longest = max((len(v) for v in members.values() if v.ndim), default=0)
    if not longest:
        return np.zeros(0, dtype=np.int64)
    if options.rate_hz is None:
        names = ", ".join(sorted(members))
        raise BadInput(f"{path}: {group or 'it'} holds no time among {names:.200}; give --time NAME or --rate HZ")
    notes.append(f"time: {group or 'rows'} counted at {options.rate_hz:g} Hz")
    return nanoseconds(np.arange(longest) / options.rate_hz, str(path))


def _tables(
    topic: str,
    group: str,
    t_ns: NDArray[np.int64],
    members: Mapping[str, NDArray[Any]],
    units: Mapping[str, str],
    notes: list[str],
) -> list[Table]:
    fields: dict[str, Column] = {}
    joints: dict[str, dict[str, Column]] = defaultdict(dict)
    tables: list[Table] = []
    for name, values in members.items():
        full = f"{group}/{name}".lstrip("/")
        unit = units.get(full, "")
        if values.ndim == 0 or len(values) != len(t_ns) or values.dtype.kind not in "biufUSO":
            notes.append(f"{full}: {values.dtype} of shape {values.shape} has no row per instant; left out")
        elif name in _JOINTS and values.ndim == 2 and values.dtype.kind == "f":
            kind, quantity, rad = _JOINTS[name]
            joints[kind][quantity] = Column(values.astype(np.float64), rad)
            notes.append(f"{full}: joints {quantity}, taken to be in {rad}")
        elif values.dtype == np.uint8 and (values.ndim == 3 or (values.ndim == 4 and values.shape[3] == 3)):
            tables.append(picture_table(f"{topic}/{field_names([name])[0]}", t_ns, values))
        else:
            flat = values if values.ndim <= 2 else values.reshape(len(values), -1)
            fields[name] = Column(flat, unit)
    for kind, quantities in joints.items():
        count = next(iter(quantities.values())).values.shape[1]
        if any(q.values.shape[1] != count for q in quantities.values()):
            raise BadInput(f"{topic}: joints of {kind} have different numbers of columns")
        names = [f"joint_{i}" for i in range(count)]
        notes.append(f"/{kind}: the file names no joints; they are numbered joint_0 to joint_{count - 1}")
        place = f"/{group}/{kind}".replace("//", "/")
        tables.append(Table(place, t_ns, quantities, "sensor_msgs/msg/JointState", {"name": names}))
    return ([Table(topic, t_ns, fields)] if fields else []) + tables


def picture_table(topic: str, t_ns: NDArray[np.int64], pictures: NDArray[np.uint8], frame: str = "") -> Table:
    """Pictures (T, H, W) or (T, H, W, 3) as sensor_msgs/Image."""
    count, height, width, *rest = pictures.shape
    step = width * (3 if rest else 1)
    constants = {
        "header.frame_id": frame,
        "height": height,
        "width": width,
        "step": step,
        "encoding": "rgb8" if rest else "mono8",
    }
    data = Column(pictures.reshape(count, -1))
    return Table(topic, t_ns, {"data": data}, "sensor_msgs/msg/Image", constants)
