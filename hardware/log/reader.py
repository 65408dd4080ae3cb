"""Reading a recording: lazily, per channel, in bounded memory, and never in silence when something is missing."""

import hashlib
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from rosbags.typesys.store import Typestore

from hardware.errors import BadInput, NotFoundError
from hardware.log.fields import Collector, Leaf, Series, leaves
from hardware.log.mcapfile import Index, RawMessage, hash_data_section, messages, read_index
from hardware.log.metadata import FILE_NAME, Metadata, read_metadata
from hardware.log.qos import Qos, parse_qos
from hardware.log.types import MessageType, decoder, store_of
from hardware.log.units import units_in

TimeBase = Literal["log", "publish", "header"]
_STAMP = {0: struct.Struct(">iI"), 1: struct.Struct("<iI")}
_HEADER = "std_msgs/msg/Header"


class LogWarning(UserWarning):
    """Something in a log that is skipped."""


class LogMessage(NamedTuple):
    """One message of a log."""

    topic: str
    t_ns: int
    """Instant on the log's time base."""
    log_ns: int
    publish_ns: int
    cdr: bytes
    message: Any
    """Decoded, or None where only raw bytes were asked for."""


@dataclass
class LogTopic:
    """One topic of a log."""

    name: str
    type: MessageType
    count: int
    qos: tuple[Qos, ...]
    encoding: str = "cdr"
    channel_ids: list[set[int]] = field(default_factory=list)
    """Per file of the log."""
    problem: str = ""
    """Why its messages cannot be decoded; empty where they can."""
    store: Typestore | None = None
    decode: Callable[[bytes], Any] | None = None
    """What turns its bytes into messages."""
    stamped: bool = False
    """Its messages begin with a std_msgs/Header."""

    def leaves(self) -> dict[str, Leaf]:
        """Field path -> the field, in the order of the definition; empty where the type cannot be decoded."""
        if self.store is None:
            return {}
        units = units_in(self.type.definition)
        return {leaf.path: leaf for leaf in leaves(self.store, self.type.name, units=units)}


class Log:
    """A recording, from its directory or from a lone `.mcap`; it is never changed.

    `log.channels` maps `TOPIC.FIELD` to a Series (t_ns, values, unit); `log.series` reads several fields of a topic
    in one pass; `log.messages` iterates. Each access reads the file anew, so memory is bounded by one chunk and by
    what is returned. Opening checks the counts of `metadata.yaml` against the files' statistics, and each pass
    checks what it read against both.
    """

    def __init__(self, path: Path | str, time_base: TimeBase = "header") -> None:
        """`time_base`: instants are when messages were received (log), sent (publish) or stamped (header; received
        where a type has no header). Raises BadInput for what is not a complete recording.
        """
        if time_base not in ("log", "publish", "header"):
            raise BadInput(f"time base '{time_base}' unknown; known: log, publish, header")
        self.path, self.time_base = Path(path), time_base
        self.metadata, self.files = _locate(self.path)
        self._indexes: list[Index] = [read_index(f) for f in self.files]
        self.topics: dict[str, LogTopic] = _topics(self._indexes)
        self._check_counts()
        for t in self.topics.values():
            _prepare(t)
            if t.problem:
                warnings.warn(f"{self.path}: topic {t.name} is skipped: {t.problem}", LogWarning, stacklevel=2)

    @property
    def count(self) -> int:
        """Number of messages."""
        return sum(t.count for t in self.topics.values())

    @property
    def start_ns(self) -> int:
        """Log time of the first message; 0 in an empty log."""
        return min((i.statistics.message_start_time for i in self._indexes if i.statistics.message_count), default=0)

    @property
    def end_ns(self) -> int:
        """Log time of the last message; 0 in an empty log."""
        return max((i.statistics.message_end_time for i in self._indexes if i.statistics.message_count), default=0)

    @property
    def duration_s(self) -> float:
        """From the first to the last message."""
        return (self.end_ns - self.start_ns) / 1e9

    @cached_property
    def content_hash(self) -> str:
        """`sha256:...` over the data sections of all files: equal for a moved log, different for a changed one."""
        digest = hashlib.sha256()
        for file, index in zip(self.files, self._indexes, strict=True):
            hash_data_section(file, index, digest)
        return f"sha256:{digest.hexdigest()}"

    @cached_property
    def channels(self) -> "Channels":
        """Channel name `TOPIC.FIELD` -> Series, decoded when asked for."""
        return Channels(self)

    def topic(self, name: str) -> LogTopic:
        """A topic by name; raises NotFoundError listing the topics there are."""
        if name not in self.topics:
            raise NotFoundError(f"topic of {self.path}", name, self.topics)
        return self.topics[name]

    def series(
        self, topic: str, fields: Iterable[str] | None = None, start_ns: int | None = None, end_ns: int | None = None
    ) -> dict[str, Series]:
        """Field path -> Series of one topic, in one pass; all fields where none are named.

        Raises NotFoundError for an unknown topic or field, BadInput for a topic that cannot be decoded.
        """
        entry = self.topic(topic)
        if entry.problem:
            raise BadInput(f"{self.path}: topic {topic} cannot be decoded: {entry.problem}")
        known = entry.leaves()
        names = list(known) if fields is None else list(fields)
        for name in names:
            if name not in known:
                raise NotFoundError(f"field of {topic} ({entry.type.name})", name, known)
        collectors = {name: Collector(known[name], entry.count) for name in names}
        t_ns = np.empty(entry.count, dtype=np.int64)
        rows = 0
        for m in self.messages([topic], start_ns, end_ns):
            t_ns[rows] = m.t_ns
            for c in collectors.values():
                c.put(rows, m.message)
            rows += 1
        return {name: Series(t_ns[:rows], c.result(rows), c.leaf.unit) for name, c in collectors.items()}

    def messages(
        self,
        topics: Iterable[str] | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
        *,
        raw: bool = False,
    ) -> Iterator[LogMessage]:
        """Messages with `start_ns <= log time < end_ns`, in the order of log time; decoded unless `raw`.

        Without `topics`, all that can be decoded (with `raw`: all). Raises BadInput where a message does not decode
        or where a whole pass yields another number of messages than the statistics say.
        """
        names = [t.name for t in self.topics.values() if raw or not t.problem] if topics is None else list(topics)
        entries = [self.topic(n) for n in names]
        for e in entries:
            if e.problem and not raw:
                raise BadInput(f"{self.path}: topic {e.name} cannot be decoded: {e.problem}")
        found = 0
        for i, (file, index) in enumerate(zip(self.files, self._indexes, strict=True)):
            by_channel = {c: e for e in entries for c in e.channel_ids[i]}
            for m in messages(file, index, by_channel.keys(), start_ns, end_ns):
                found += 1
                yield self._message(by_channel[m.channel_id], m, raw)
        expected = sum(e.count for e in entries)
        if start_ns is None and end_ns is None and found != expected:
            raise BadInput(f"{self.path}: {found} messages of {', '.join(names)} were read, {expected} were recorded")

    def _message(self, topic: LogTopic, m: RawMessage, raw: bool) -> LogMessage:
        t_ns = m.log_ns
        if self.time_base == "publish":
            t_ns = m.publish_ns
        elif self.time_base == "header" and topic.stamped:
            stamp = header_stamp_ns(m.cdr)
            t_ns = m.log_ns if stamp is None else stamp
        if raw or topic.decode is None:
            return LogMessage(topic.name, t_ns, m.log_ns, m.publish_ns, m.cdr, None)
        try:
            message = topic.decode(m.cdr)
        except BadInput as e:
            raise BadInput(f"{self.path}: topic {topic.name}, message at {m.log_ns} ns: {e}") from e
        return LogMessage(topic.name, t_ns, m.log_ns, m.publish_ns, m.cdr, message)

    def _check_counts(self) -> None:
        """Compares metadata.yaml, the statistics per channel and their totals; raises BadInput where they differ."""
        for file, index in zip(self.files, self._indexes, strict=True):
            counted = sum(index.statistics.channel_message_counts.values())
            if counted != index.statistics.message_count:
                total = index.statistics.message_count
                raise BadInput(f"{file}: statistics say {total} messages, their channels add up to {counted}")
        if self.metadata is None:
            return
        said: dict[str, int] = {}
        for t in self.metadata.topics:
            said[t.name] = said.get(t.name, 0) + t.message_count
        for name in sorted(said.keys() | self.topics.keys()):
            held = self.topics[name].count if name in self.topics else 0
            if said.get(name, 0) != held:
                what = f"{FILE_NAME} says {said.get(name, 0)} messages of {name}, the files hold {held}"
                raise BadInput(f"{self.path}: {what}; one of them is not of this recording")
        if self.metadata.message_count != self.count:
            raise BadInput(
                f"{self.path}: {FILE_NAME} says {self.metadata.message_count} messages, the files hold {self.count}"
            )


class Channels(Mapping[str, Series]):
    """The channels of a log by name `TOPIC.FIELD`; looking one up reads it from the file."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._names = {f"{t.name}.{p}": (t.name, p) for t in log.topics.values() for p in t.leaves()}

    def __getitem__(self, name: str) -> Series:
        if name not in self._names:
            raise KeyError(f"channel '{name}' not in {self._log.path}; topics: {', '.join(self._log.topics)}")
        topic, path = self._names[name]
        return self._log.series(topic, [path])[path]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def header_stamp_ns(cdr: bytes) -> int | None:
    """The stamp of a message that begins with a std_msgs/Header; None where it is zero: nobody filled it in."""
    if len(cdr) < 12 or cdr[1] not in _STAMP:
        return None
    sec, nanosec = _STAMP[cdr[1]].unpack_from(cdr, 4)
    return sec * 1_000_000_000 + nanosec or None


def log_files(path: Path) -> list[Path]:
    """The MCAP files of a recording in playing order, whatever state they are in; raises BadInput where none is."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise BadInput(f"{path} does not exist; expected the directory of a recording or an .mcap file")
    if (path / FILE_NAME).exists():
        files = [path / f.path for f in read_metadata(path).files]
    else:
        files = sorted(path.glob("*.mcap"), key=lambda p: (len(p.name), p.name))
    for f in files:
        if not f.is_file():
            raise BadInput(f"{path}: {FILE_NAME} names {f.name}, which is not there")
    if not files:
        raise BadInput(f"{path} holds no .mcap file")
    return files


def _locate(path: Path) -> tuple[Metadata | None, list[Path]]:
    files = log_files(path)
    if path.is_file():
        return None, files
    if not (path / FILE_NAME).exists():
        warnings.warn(f"{path} has no {FILE_NAME}: it was not closed, or is not whole", LogWarning, stacklevel=3)
        return None, files
    return read_metadata(path), files


def _topics(indexes: list[Index]) -> dict[str, LogTopic]:
    """Topics of all files together; channels of one topic (several publishers) count as one."""
    topics: dict[str, LogTopic] = {}
    for i, index in enumerate(indexes):
        for channel in index.summary.channels.values():
            schema = index.summary.schemas.get(channel.schema_id)
            kind = MessageType("", "", "", "")
            if schema is not None:
                text, digest = schema.data.decode("utf-8", "replace"), channel.metadata.get("topic_type_hash", "")
                kind = MessageType(schema.name, text, schema.encoding, digest)
            offered = parse_qos(channel.metadata.get("offered_qos_profiles"))
            topic = topics.setdefault(
                channel.topic, LogTopic(channel.topic, kind, 0, offered, channel.message_encoding)
            )
            topic.channel_ids.extend(set() for _ in range(len(indexes) - len(topic.channel_ids)))
            topic.channel_ids[i].add(channel.id)
            topic.count += index.statistics.channel_message_counts.get(channel.id, 0)
            if channel.message_encoding != "cdr":
                topic.problem = f"its messages are encoded as '{channel.message_encoding}', not cdr"
            elif schema is None:
                topic.problem = "its message type is not recorded"
            elif topic.type.name != kind.name:
                topic.problem = f"it is recorded as both {topic.type.name} and {kind.name}"
    return topics


def _prepare(topic: LogTopic) -> None:
    """Parses the topic's type; a type that cannot be parsed becomes the topic's problem."""
    if topic.problem:
        return
    try:
        topic.store = store_of(topic.type)
    except BadInput as e:
        topic.problem = str(e)
        return
    name = topic.type.name
    topic.decode = decoder(topic.store, name)
    first = topic.store.fielddefs[name][1][0][1]
    topic.stamped = name == _HEADER or first[1] == _HEADER
