"""PX4 flight logs (ULog), through pyulog (extra `[export]`)."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from hardware.errors import BadInput
from hardware.log.imports import Imported, Options
from hardware.log.table import Column, Table

FORMAT = "ulog"
ABOUT = "PX4 flight log"
MAGIC = b"ULog\x01\x12\x35"
_UNITS = {
    "_m_s2": "m/s^2", "_m_s_s": "m/s^2", "_rad_s": "rad/s", "gyro_rad": "rad/s", "_rad": "rad", "_ga": "gauss",
    "_meter": "m", "_m_s": "m/s", "_m": "m", "_celcius": "degC", "timestamp_sample": "us",
    "_deg": "deg", "_pa": "Pa", "_v": "V", "_a": "A",
    "rollspeed": "rad/s", "pitchspeed": "rad/s", "yawspeed": "rad/s",
}  # fmt: skip
"""PX4 puts units at the end of its field names."""
_INDEXED = re.compile(r"(.+)\[(\d+)\]")


def recognises(path: Path, head: bytes) -> bool:
    """By the magic bytes."""
    return head.startswith(MAGIC)


def load(path: Path, options: Options) -> Imported:
    """Each message type becomes `/px4/<name>` (further instances `_1`, …), on the autopilot's own clock."""
    from pyulog import ULog

    with path.open("rb") as stream:
        if not recognises(path, stream.read(len(MAGIC))):
            raise BadInput(f"{path}: not a {ABOUT}")
        stream.seek(0)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it reports damage there
                log = ULog(stream)
        except Exception as e:  # damaged bytes provoke any error inside the library
            raise BadInput(f"{path}: not a whole {ABOUT} ({type(e).__name__})") from e
    if log.file_corruption:
        raise BadInput(f"{path}: not a whole {ABOUT}: it is damaged")
    conversions = ["clock: time since the autopilot started, us", "units: from the ends of PX4's field names"]
    tables = [
        _table(path, d, log.start_timestamp, conversions) for d in log.data_list if len(d.data.get("timestamp", ()))
    ]
    tables += _texts(path, log)
    facts = {k: str(v) for k, v in log.msg_info_dict.items() if isinstance(v, (str, int, float))}
    return Imported(tables, conversions, facts=facts)


def _table(path: Path, data: Any, start_us: int, conversions: list[str]) -> Table:
    """One subscription; `name[0]`, `name[1]`, … become one field.

    A stamp older than the file is the age of what was sent: such a message is received when the file starts.
    """
    stamped = data.data["timestamp"] > 0  # some versions of PX4 forgot to stamp some messages
    if not stamped.all():
        conversions.append(f"{data.name}: {int((~stamped).sum())} messages without an instant are left out")
    sent_us = data.data["timestamp"][stamped]
    old = int((sent_us < start_us).sum())
    if old:
        what = f"{old} messages stamped before the file starts are received at its start; sent when they say"
        conversions.append(f"{data.name}: {what}")
    parts: dict[str, list[np.ndarray]] = {}
    for name, values in data.data.items():
        if name != "timestamp":
            match = _INDEXED.fullmatch(name)
            parts.setdefault(match[1] if match else name, []).append(values[stamped])
    bools = {f.field_name for f in data.field_data if f.type_str == "bool"}
    columns = {}
    for name, arrays in parts.items():
        values = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)
        columns[name] = Column(values.astype(bool) if name in bools else values, _unit(name))
    topic = f"/px4/{data.name}" + (f"_{data.multi_id}" if data.multi_id else "")
    received_ns = _ns(path, np.maximum(sent_us, np.uint64(start_us)))
    return Table(topic, received_ns, columns, sent_ns=_ns(path, sent_us))


def _texts(path: Path, log: Any) -> list[Table]:
    """Messages to the pilot, dropouts of the recording, and the parameters at the start."""
    tables = []
    start = np.array([log.start_timestamp], dtype=np.uint64)
    if log.initial_parameters:
        text = json.dumps(log.initial_parameters, sort_keys=True)
        data = {"data": Column(np.array([text]))}
        tables.append(Table("/px4/parameters", _ns(path, start), data, "std_msgs/msg/String", latched=True))
    if log.logged_messages:
        t_ns = _ns(path, np.array([m.timestamp for m in log.logged_messages], dtype=np.uint64))
        columns = {
            "level": Column(np.array([m.log_level_str() for m in log.logged_messages])),
            "text": Column(np.array([m.message for m in log.logged_messages])),
        }
        tables.append(Table("/px4/logged_message", t_ns, columns))
    if log.dropouts:
        t_ns = _ns(path, np.array([d.timestamp for d in log.dropouts], dtype=np.uint64))
        lost = Column(np.array([d.duration for d in log.dropouts], dtype=np.uint32), "ms")
        tables.append(Table("/px4/dropout", t_ns, {"duration": lost}))
    return tables


def _ns(path: Path, timestamp_us: np.ndarray) -> np.ndarray:
    if len(timestamp_us) and int(timestamp_us.max()) >= 2**63 // 1000:
        raise BadInput(f"{path}: an instant lies beyond the year 2262; the file is damaged")
    return timestamp_us.astype(np.int64) * 1000


def _unit(name: str) -> str:
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")
