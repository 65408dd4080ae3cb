"""Writing a recording: raw CDR into MCAP chunks, flushed on time so that a kill loses little."""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mcap.writer import CompressionType, Writer

from hardware.errors import BadInput, RoboError
from hardware.log.metadata import FILE_NAME, FileEntry, Metadata, TopicEntry, describe
from hardware.log.qos import Qos, qos_to_yaml
from hardware.log.types import MessageType, encode, standard_type

CHUNK_BYTES = 1024 * 1024
FLUSH_S = 0.5
"""Longest time that a message waits in memory: what a killed process can lose."""
LIBRARY = "robo_rl"


@dataclass
class _Topic:
    """A topic while it is being written."""

    channel_id: int
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


class LogWriter:
    """A recording being written: `<directory>/<name>_0.mcap`, and `metadata.yaml` at the end.

    Any thread may write. Memory stays bounded by one chunk. Chunks reach the operating system at the latest after
    `flush_s`; with `fsync_s`, the disk too. Topics may be added at any time. Closes as a context manager, also after
    an exception, so that the recording is complete. A failure to write (disk full) is raised by the next call.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        name: str | None = None,
        flush_s: float = FLUSH_S,
        fsync_s: float | None = None,
        custom: Mapping[str, str] | None = None,
    ) -> None:
        """Raises BadInput where the directory already holds a recording: nothing is ever overwritten."""
        self.directory = Path(directory)
        if (self.directory / FILE_NAME).exists() or any(self.directory.glob("*.mcap")):
            raise BadInput(f"{self.directory} already holds a recording; give a new directory")
        if not flush_s > 0 or (fsync_s is not None and not fsync_s > 0):
            raise BadInput(f"flush_s {flush_s} and fsync_s {fsync_s} must be positive")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path = self.directory / f"{name or self.directory.resolve().name}_0.mcap"
        self._custom = dict(custom or {})
        self._fsync_s = fsync_s
        self._lock = threading.Lock()
        self._topics: dict[str, _Topic] = {}
        self._schemas: dict[MessageType, int] = {}
        self._span = _Span()
        self._failure: BaseException | None = None
        self._closed = False
        self._stream = self.path.open("xb")
        # Every chunk carries a CRC; the library's own compression level (zstd 3) is kept.
        self._mcap = Writer(self._stream, chunk_size=CHUNK_BYTES, compression=CompressionType.ZSTD)
        self._mcap.start(profile="ros2", library=LIBRARY)
        self._stream.flush()
        self._flush_s = flush_s
        self._due_s = time.monotonic() + flush_s
        self._stop = threading.Event()
        self._flusher = threading.Thread(target=self._flush_on_time, name="log-flush", daemon=True)
        self._flusher.start()

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
                channel_id = self._register(topic, message_type, tuple(qos), encoding)
                self._topics[topic] = _Topic(channel_id, message_type, tuple(qos), encoding)
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
                self._mcap.add_message(entry.channel_id, int(t_ns), cdr, int(publish_ns), sequence)
                if time.monotonic() > self._due_s + 0.1 * self._flush_s:  # the flushing thread is starved
                    self._flush()
            except OSError as e:
                raise self._fail(e) from e
            entry.count += 1
            self._span.add(int(t_ns))

    def write_message(self, topic: str, message: Any, t_ns: int, publish_ns: int | None = None) -> None:
        """Encodes and records a message of a standard type (rosbags classes); adds the topic where it is new."""
        if topic not in self._topics:
            self.add_topic(topic, message.__msgtype__)
        elif self._topics[topic].type.name != message.__msgtype__:
            raise BadInput(f"topic {topic} is recorded as {self._topics[topic].type.name}, not {message.__msgtype__}")
        self.write(topic, encode(message), t_ns, publish_ns)

    def flush(self) -> None:
        """Hands everything written so far to the operating system."""
        with self._lock:
            self._check_usable()
            try:
                self._flush()
            except OSError as e:
                raise self._fail(e) from e

    def close(self) -> Metadata:
        """Completes the recording; returns its metadata. Idempotent; raises RoboError where the end is not written."""
        self._stop.set()
        self._flusher.join()
        with self._lock:
            metadata = self._describe()
            if self._closed:
                return metadata
            self._closed = True
            if self._failure is not None:
                self._abandon()
                raise self._fail(self._failure)
            try:
                self._mcap.flush()
                self._mcap.add_metadata("rosbag2", {"serialized_metadata": metadata.serialized()})
                self._mcap.finish()
                self._stream.flush()
                os.fsync(self._stream.fileno())
                self._stream.close()
                metadata.write(self.directory)
            except OSError as e:
                self._abandon()
                raise self._fail(e) from e
        return metadata

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _register(self, topic: str, message_type: MessageType, qos: tuple[Qos, ...], encoding: str) -> int:
        if message_type.name and message_type not in self._schemas:
            definition = message_type.definition.encode()
            self._schemas[message_type] = self._mcap.register_schema(
                message_type.name, message_type.encoding, definition
            )
        # rosbag2 takes both from here when it plays, and its readers want them equal to metadata.yaml.
        extra = {"offered_qos_profiles": qos_to_yaml(qos), "topic_type_hash": message_type.hash}
        return self._mcap.register_channel(topic, encoding, self._schemas.get(message_type, 0), extra)

    def _describe(self) -> Metadata:
        topics = [
            TopicEntry(name, t.type.name, t.count, t.qos, t.type.hash, t.encoding) for name, t in self._topics.items()
        ]
        span = self._span
        file = FileEntry(self.path.name, span.first_ns, span.last_ns - span.first_ns, span.count)
        return describe(topics, file, self._custom)

    def _flush(self) -> None:
        self._mcap.flush()
        self._due_s = time.monotonic() + self._flush_s

    def _flush_on_time(self) -> None:
        """The body of the flushing thread: flushes when it is due, whether messages arrive or not."""
        synced_s = time.monotonic()
        while not self._stop.wait(max(0.0, self._due_s - time.monotonic())):
            try:
                self.flush()
                if self._fsync_s is not None and time.monotonic() - synced_s >= self._fsync_s:
                    os.fsync(self._stream.fileno())  # outside the lock: a slow disk does not hold up the writers
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

    def _fail(self, cause: BaseException) -> RoboError:
        self._failure = cause
        return RoboError(f"{self.path}: the log cannot be written ({cause}); rescue it with robo-rl log recover")

    def _abandon(self) -> None:
        with suppress(OSError):
            self._stream.close()
