"""Writing a recording: raw CDR into MCAP chunks, flushed on time so that a kill loses little."""

import errno
import io
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mcap.writer import CompressionType, Writer

from hardware.errors import BadInput, RoboError
from hardware.log.metadata import FILE_NAME, FileEntry, Metadata, TopicEntry, describe
from hardware.log.qos import Qos, qos_to_yaml
from hardware.log.reserve import Reserve, ReservedFile
from hardware.log.types import MessageType, encode, standard_type

CHUNK_BYTES = 1024 * 1024
FLUSH_S = 0.5
"""Longest time that a message waits in memory: what a killed process can lose."""
LIBRARY = "robo_rl"


@dataclass
class _Topic:
    """A topic while it is being written."""

    type: MessageType
    qos: tuple[Qos, ...]
    encoding: str
    count: int = 0


@dataclass
class _Span:
    """First and last log time of what has been written."""

    first_ns: int = 0
    last_ns: int = 0
    count: int = 0

    def add(self, t_ns: int) -> None:
        self.first_ns = t_ns if self.count == 0 else min(self.first_ns, t_ns)
        self.last_ns = t_ns if self.count == 0 else max(self.last_ns, t_ns)
        self.count += 1


class _File:
    """One MCAP file of a recording while it is being written."""

    def __init__(self, path: Path, reserve: Reserve, version: int) -> None:
        self.path, self.span, self._version = path, _Span(), version
        self.counts: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._schemas: dict[MessageType, int] = {}
        self._stream = io.BufferedWriter(ReservedFile(path, reserve))
        # Every chunk carries a CRC; the library's own compression level (zstd 3) is kept.
        self._mcap = Writer(self._stream, chunk_size=CHUNK_BYTES, compression=CompressionType.ZSTD)
        self._mcap.start(profile="ros2", library=LIBRARY)
        self._stream.flush()

    @property
    def size(self) -> int:
        """Bytes so far; what is in the open chunk comes on top."""
        return self._stream.tell()

    def announce(self, name: str, topic: _Topic) -> None:
        """Registers a topic's channel, and its type where it is new."""
        kind = topic.type
        if kind.name and kind not in self._schemas:
            self._schemas[kind] = self._mcap.register_schema(kind.name, kind.encoding, kind.definition.encode())
        # rosbag2 takes both from here when it plays, and its readers want them equal to metadata.yaml.
        extra = {"offered_qos_profiles": qos_to_yaml(topic.qos, self._version), "topic_type_hash": kind.hash}
        schema = self._schemas.get(kind, 0)
        self._channels[name] = self._mcap.register_channel(name, topic.encoding, schema, extra)

    def write(self, name: str, topic: _Topic, cdr: bytes, t_ns: int, publish_ns: int, sequence: int) -> None:
        """Adds a message."""
        if name not in self._channels:
            self.announce(name, topic)
        self._mcap.add_message(self._channels[name], t_ns, cdr, publish_ns, sequence)
        self.counts[name] = self.counts.get(name, 0) + 1
        self.span.add(t_ns)

    def attach(self, name: str, media_type: str, data: bytes, t_ns: int) -> None:
        """Stores a file."""
        self._mcap.add_attachment(create_time=t_ns, log_time=t_ns, name=name, media_type=media_type, data=data)

    def flush(self) -> None:
        """Completes the open chunk."""
        self._mcap.flush()

    def sync(self) -> None:
        """Forces what was flushed to the disk."""
        os.fsync(self._stream.fileno())

    def finish(self, metadata: Metadata) -> None:
        """Completes the file so that it can be played alone; `metadata` describes it."""
        self._mcap.flush()
        self._mcap.add_metadata("rosbag2", {"serialized_metadata": metadata.serialized(self._version)})
        self._mcap.finish()
        self._stream.flush()

    def close(self) -> None:
        """Lets go of the file."""
        with suppress(OSError):
            self._stream.close()

    def entry(self) -> FileEntry:
        """What metadata.yaml says about it."""
        span = self.span
        return FileEntry(self.path.name, span.first_ns, span.last_ns - span.first_ns, span.count)


class LogWriter:
    """A recording being written: `<directory>/<name>_0.mcap`, `_1`, …, and `metadata.yaml` at the end.

    Any thread may write. Memory stays bounded by one chunk. Chunks reach the operating system at the latest after
    `flush_s`; with `fsync_s`, the disk too. With `max_bytes`, a new file is begun once one is that large. Topics may
    be added at any time. Closes as a context manager, also after an exception, so that the recording is complete. A
    failure to write is raised by the next call; where the disk is full, the recording is completed all the same.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        name: str | None = None,
        flush_s: float = FLUSH_S,
        fsync_s: float | None = None,
        max_bytes: int | None = None,
        custom: Mapping[str, str] | None = None,
        version: int = 9,
    ) -> None:
        """`version` of rosbag2's metadata: 9, or 5 for ROS 2 Humble, which keeps neither type hashes nor `custom`.

        Raises BadInput where the directory already holds a recording: nothing is ever overwritten."""
        self.directory = Path(directory)
        if (self.directory / FILE_NAME).exists() or any(self.directory.glob("*.mcap")):
            raise BadInput(f"{self.directory} already holds a recording; give a new directory")
        if not flush_s > 0 or (fsync_s is not None and not fsync_s > 0):
            raise BadInput(f"flush_s {flush_s} and fsync_s {fsync_s} must be positive")
        if max_bytes is not None and max_bytes < 1:
            raise BadInput(f"max_bytes {max_bytes} must be positive")
        self.directory.mkdir(parents=True, exist_ok=True)
        self._name = name or self.directory.resolve().name
        self._custom, self._version = dict(custom or {}), version
        self._fsync_s, self._max_bytes = fsync_s, max_bytes
        self._lock = threading.Lock()
        self._topics: dict[str, _Topic] = {}
        self._span = _Span()
        self._failure: BaseException | None = None
        self._closed = False
        self._reserve = Reserve(self.directory)
        self._finished: list[_File] = []
        self._unsynced: list[_File] = []
        """Finished files that are not yet forced to the disk."""
        self._file = _File(self.directory / f"{self._name}_0.mcap", self._reserve, version)
        self._flush_s = flush_s
        self._due_s = time.monotonic() + flush_s
        self._stop = threading.Event()
        self._flusher = threading.Thread(target=self._flush_on_time, name="log-flush", daemon=True)
        self._flusher.start()

    @property
    def path(self) -> Path:
        """The file that is being written."""
        return self._file.path

    @property
    def messages(self) -> int:
        """How many messages have been written."""
        return self._span.count

    @property
    def counts(self) -> dict[str, int]:
        """Topic -> messages written."""
        with self._lock:
            return {name: t.count for name, t in self._topics.items()}

    def add_topic(
        self, topic: str, message_type: str | MessageType, qos: Sequence[Qos] = (Qos(),), encoding: str = "cdr"
    ) -> None:
        """Announces a topic; a standard type may be given by its name. Repeating it with the same type is allowed."""
        if isinstance(message_type, str):
            message_type = standard_type(message_type)
        if not topic:
            raise BadInput("a topic needs a name")
        with self._lock:
            self._check_usable()
            known = self._topics.get(topic)
            if known is None:
                self._topics[topic] = _Topic(message_type, tuple(qos), encoding)
                self._file.announce(topic, self._topics[topic])
            elif (known.type.name, known.encoding) != (message_type.name, encoding):
                raise BadInput(f"topic {topic} is already recorded as {known.type.name}, not {message_type.name}")

    def write(self, topic: str, cdr: bytes, t_ns: int, publish_ns: int | None = None, sequence: int = 0) -> None:
        """Records CDR bytes as they are, received at `t_ns` and sent at `publish_ns` (default: the same).

        Raises BadInput for a topic that was not added or an impossible instant, RoboError where writing fails.
        """
        publish_ns = t_ns if publish_ns is None else publish_ns
        if not (0 <= t_ns < 2**63 and 0 <= publish_ns < 2**63):
            raise BadInput(f"topic {topic}: instants {t_ns} and {publish_ns} ns do not fit a recording (0 to 2^63)")
        with self._lock:
            self._check_usable()
            entry = self._topics.get(topic)
            if entry is None:
                known = ", ".join(self._topics) or "none"
                raise BadInput(f"topic '{topic}' has not been added to the log; topics: {known}")
            try:
                self._file.write(topic, entry, cdr, int(t_ns), int(publish_ns), sequence)
                if time.monotonic() > self._due_s + 0.1 * self._flush_s:  # the flushing thread is starved
                    self._flush()
                if self._max_bytes is not None and self._file.size >= self._max_bytes:
                    self._begin_next()
            except OSError as e:
                raise self._fail(e) from e
            entry.count += 1
            self._span.add(int(t_ns))
            self._note_full_disk()

    def write_message(self, topic: str, message: Any, t_ns: int, publish_ns: int | None = None) -> None:
        """Encodes and records a message of a standard type (rosbags classes); adds the topic where it is new."""
        if topic not in self._topics:
            self.add_topic(topic, message.__msgtype__)
        elif self._topics[topic].type.name != message.__msgtype__:
            raise BadInput(f"topic {topic} is recorded as {self._topics[topic].type.name}, not {message.__msgtype__}")
        self.write(topic, encode(message), t_ns, publish_ns)

    def attach(self, name: str, media_type: str, data: bytes, t_ns: int) -> None:
        """Stores a file inside the recording."""
        with self._lock:
            self._check_usable()
            try:
                self._file.attach(name, media_type, data, t_ns)
            except OSError as e:
                raise self._fail(e) from e

    def flush(self, *, sync: bool = False) -> None:
        """Hands everything written so far to the operating system; with `sync`, to the disk."""
        with self._lock:
            self._check_usable()
            try:
                self._flush()
                if sync:
                    self._file.sync()
            except OSError as e:
                raise self._fail(e) from e
            self._note_full_disk()

    def close(self) -> Metadata:
        """Completes the recording; returns its metadata. Idempotent; raises RoboError where the end is not written."""
        self._stop.set()
        self._flusher.join()
        with self._lock:
            metadata = self._describe([*self._finished, self._file], self._topics)
            if self._closed:
                return metadata
            self._closed = True
            try:
                if self._failure is not None and not self._reserve.used:
                    raise self._fail(self._failure)
                self._reserve.release()
                self._file.finish(self._describe([self._file], self._file.counts))
                for file in (*self._unsynced, self._file):
                    file.sync()
                metadata.write(self.directory, self._version)
            except OSError as e:
                raise self._fail(e) from e
            finally:
                self._reserve.release()
                for file in (*self._unsynced, self._file):
                    file.close()
        return metadata

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin_next(self) -> None:
        """Completes the file and begins another."""
        file = self._file
        file.finish(self._describe([file], file.counts))
        self._finished.append(file)
        self._unsynced.append(file)
        following = len(self._finished)
        self._file = _File(self.directory / f"{self._name}_{following}.mcap", self._reserve, self._version)
        self._due_s = time.monotonic() + self._flush_s

    def _describe(self, files: Sequence[_File], topics: Iterable[str]) -> Metadata:
        """Metadata of a recording of some files."""
        entries = [
            TopicEntry(n, t.type.name, sum(f.counts.get(n, 0) for f in files), t.qos, t.type.hash, t.encoding)
            for n, t in self._topics.items()
            if n in topics
        ]
        return describe(entries, [f.entry() for f in files], self._custom)

    def _flush(self) -> None:
        self._file.flush()
        self._due_s = time.monotonic() + self._flush_s

    def _flush_on_time(self) -> None:
        """The body of the flushing thread: flushes when it is due, whether messages arrive or not."""
        synced_s = time.monotonic()
        while not self._stop.wait(max(0.0, self._due_s - time.monotonic())):
            try:
                self.flush()
                while self._unsynced:  # outside the lock, as below
                    self._unsynced[0].sync()
                    self._unsynced.pop(0).close()
                if self._fsync_s is not None and time.monotonic() - synced_s >= self._fsync_s:
                    self._file.sync()  # outside the lock: a slow disk does not hold up the writers
                    synced_s = time.monotonic()
            except OSError as e:
                self._failure = e
                return
            except RoboError:  # kept as the failure; the next call of the user raises it
                return

    def _check_usable(self) -> None:
        if self._closed:
            raise BadInput(f"{self.path} is closed")
        if self._failure is not None:
            raise self._fail(self._failure)

    def _note_full_disk(self) -> None:
        """What was written went into the space set aside; the next call says so."""
        if self._reserve.used:
            self._failure = OSError(errno.ENOSPC, "the disk is full")

    def _fail(self, cause: BaseException) -> RoboError:
        self._failure = cause
        if self._reserve.used:
            return RoboError(f"{self.path}: the disk is full; recording ends here, what was written is complete")
        return RoboError(f"{self.path}: the log cannot be written ({cause}); rescue it with robo-rl log recover")
