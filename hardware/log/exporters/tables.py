"""A recording as tables for other programs: CSV (one file per topic) or npz, in SI units, streamed."""

import csv
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from hardware.errors import BadInput
from hardware.log.fields import Series
from hardware.log.reader import Log, LogTopic
from hardware.messages import command_from_message, command_topics
from hardware.spec import CommandMode, load_spec, robot_names


@dataclass(frozen=True)
class Column:
    """One column of a table: numbers or text taken out of a message."""

    name: str
    unit: str
    width: int | None
    """None: one value; n: that many values, missing ones left empty."""
    take: Callable[[Any], Any]

    @property
    def titles(self) -> list[str]:
        """Headings of this column in a CSV file."""
        unit = f" [{self.unit}]" if self.unit else ""
        return [f"{self.name}{i}{unit}" for i in ([""] if self.width is None else [f".{k}" for k in range(self.width)])]


def export_csv(log: Log, out: Path, topics: Iterable[str] | None = None) -> dict[Path, int]:
    """Writes `<out>/<topic>.csv` for each topic that can be decoded; returns file -> rows.

    Columns `t_ns` (log's time base) and `t_s` (since the log's start), then the fields. Commands of known robots are
    written as the components of their mode, in SI units. Raises BadInput where a file exists.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = {}
    for topic in _chosen(log, topics):
        path = out / f"{_file_name(topic.name)}.csv"
        if path.exists():
            raise BadInput(f"{path} exists; give a new directory")
        columns = columns_of(log, topic)
        with _whole(path) as aside, aside.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["t_ns", "t_s [s]", *(t for c in columns for t in c.titles)])
            rows = 0
            for m in log.messages([topic.name]):
                cells = [cell for c in columns for cell in _cells(c, c.take(m.message))]
                writer.writerow([m.t_ns, repr((m.t_ns - log.start_ns) / 1e9), *cells])
                rows += 1
        written[path] = rows
    return written


def export_npz(log: Log, out: Path, topics: Iterable[str] | None = None) -> dict[str, int]:
    """Writes an `.npz` with `TOPIC/t_ns` and `TOPIC/COLUMN` arrays (no pickles) and a JSON text `units`.

    Returns topic -> rows. Sequences of changing length are padded with NaN (floats) or 0. One topic is in memory at
    a time. Raises BadInput where the file exists.
    """
    if out.exists():
        raise BadInput(f"{out} exists; give a new file")
    units: dict[str, str] = {}
    rows: dict[str, int] = {}
    out.parent.mkdir(parents=True, exist_ok=True)
    with _whole(out) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
        for topic in _chosen(log, topics):
            columns, key = columns_of(log, topic), topic.name.strip("/")
            table = _table(log, topic, columns)
            rows[topic.name] = len(table[0].t_ns) if table else topic.count
            if table:
                _store(archive, f"{key}/t_ns", table[0].t_ns)
            for column, series in zip(columns, table, strict=True):
                units[f"{key}/{column.name}"] = column.unit
                _store(archive, f"{key}/{column.name}", series.values)
        _store(archive, "units", np.array(json.dumps(units)))
    return rows


def columns_of(log: Log, topic: LogTopic) -> list[Column]:
    """The columns of a topic: components of a robot's command, labelled parts of an array, or fields."""
    mode = _mode_of(topic)
    if mode is not None:
        take = lambda i: lambda m: float(command_from_message(mode, m).values[i])  # noqa: E731
        return [Column(n, u, None, take(i)) for i, (n, u) in enumerate(zip(mode.components, mode.units, strict=True))]
    parts = _labelled_parts(log, topic)
    if parts:
        return parts
    lengths = _longest(log, topic)
    columns = []
    for leaf in topic.leaves().values():
        width = lengths.get(leaf.path, 0) if leaf.size == 0 else leaf.size
        columns.append(Column(leaf.path, leaf.unit, width, attrgetter(leaf.path)))
    return columns


def is_command(topic: LogTopic) -> bool:
    """Whether a topic carries commands of a known robot."""
    return _mode_of(topic) is not None


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A place to write a file: it gets its name once it is whole, and goes where writing fails."""
    aside = path.with_name(f".{path.name}.part")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _mode_of(topic: LogTopic) -> CommandMode | None:
    """The command mode whose messages this topic carries, of any known robot; also below `/replay`."""
    for spec in map(load_spec, robot_names()):
        for name, mode in command_topics(spec).items():
            if mode.topic is not None and topic.name.endswith(f"/{name}") and topic.type.name == mode.topic.type:
                return mode
    return None


def _labelled_parts(log: Log, topic: LogTopic) -> list[Column]:
    """Columns by the labels of the first message's layout, where they cover its data one after another."""
    if topic.type.name != "std_msgs/msg/Float64MultiArray" or not topic.count:
        return []
    first = next(log.messages([topic.name])).message
    sizes = [d.size for d in first.layout.dim]
    if not sizes or sum(sizes) != len(first.data):
        return []
    ends = np.cumsum(sizes)
    take = lambda a, b: lambda m: m.data[a:b]  # noqa: E731
    columns = [Column("sequence", "", None, lambda m: m.layout.data_offset)]
    for dim, end in zip(first.layout.dim, ends, strict=True):
        columns.append(Column(dim.label.replace(":", "."), "", dim.size, take(end - dim.size, end)))
    return columns


def _longest(log: Log, topic: LogTopic) -> dict[str, int]:
    """Field path -> greatest length, of the sequences of a topic; takes a pass of its own where there are any."""
    sequences = {leaf.path: attrgetter(leaf.path) for leaf in topic.leaves().values() if leaf.size == 0}
    longest = dict.fromkeys(sequences, 0)
    if sequences:
        for m in log.messages([topic.name]):
            for path, take in sequences.items():
                longest[path] = max(longest[path], len(take(m.message)))
    return longest


def _table(log: Log, topic: LogTopic, columns: Sequence[Column]) -> list[Series]:
    """All columns of one topic as arrays, padded to their width."""
    t_ns = np.empty(topic.count, dtype=np.int64)
    values: list[list[Any]] = [[] for _ in columns]
    for row, m in enumerate(log.messages([topic.name])):
        t_ns[row] = m.t_ns
        for column, taken in zip(columns, values, strict=True):
            taken.append(column.take(m.message))
    return [Series(t_ns, _padded(c, v), c.unit) for c, v in zip(columns, values, strict=True)]


def _padded(column: Column, values: list[Any]) -> np.ndarray:
    if column.width is None:
        return np.array(values)
    sample = np.asarray(values[0]) if values else np.zeros(0)
    if sample.dtype.kind in "US" or any(isinstance(v, list) for v in values):
        return np.array([[*v, *([""] * (column.width - len(v)))] for v in values], dtype=np.str_)
    fill = np.nan if sample.dtype.kind == "f" else 0
    table = np.full((len(values), column.width), fill, dtype=sample.dtype)
    for row, v in zip(table, values, strict=True):
        row[: len(v)] = v
    return table


def _store(archive: zipfile.ZipFile, name: str, values: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
        np.lib.format.write_array(stream, np.ascontiguousarray(values).reshape(values.shape), allow_pickle=False)


def _cells(column: Column, value: Any) -> list[Any]:
    if column.width is None:
        return [_cell(value)]
    return [*map(_cell, value), *([""] * (column.width - len(value)))]


def _cell(value: Any) -> Any:
    """A value as CSV text: floats with all their digits."""
    return repr(float(value)) if isinstance(value, (float, np.floating)) else value


def _chosen(log: Log, topics: Iterable[str] | None) -> list[LogTopic]:
    names = [t.name for t in log.topics.values() if not t.problem] if topics is None else list(topics)
    return [log.topic(n) for n in names]


def _file_name(topic: str) -> str:
    return topic.strip("/").replace("/", "__") or "root"
