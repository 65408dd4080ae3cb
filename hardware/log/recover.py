"""Rescuing a recording that was cut off: every whole chunk is copied into a new recording, which is then re-read."""

import hashlib
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mcap.exceptions import EndOfFile, RecordLengthLimitExceeded
from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.stream_reader import CRCValidationError, StreamReader, breakup_chunk

from hardware.errors import BadInput, RoboError
from hardware.log.mcapfile import MAGIC
from hardware.log.metadata import FILE_NAME
from hardware.log.qos import Qos, parse_qos
from hardware.log.reader import Log, LogWarning, log_files
from hardware.log.types import MessageType
from hardware.log.writer import LogWriter


class Recovery(NamedTuple):
    """What was rescued."""

    output: Path
    """The new recording."""
    messages: int
    counts: dict[str, int]
    """Topic -> messages."""
    stopped: tuple[str, ...]
    """Per file that was not whole: where reading stopped, and why."""
    lost_bytes: int
    """Bytes behind the places where reading stopped."""


class _Whole(NamedTuple):
    """A part of a file that could be read."""

    records: list[McapRecord]
    end: int
    """Offset behind it."""


def recover(source: Path | str, output: Path | str | None = None) -> Recovery:
    """Copies what is whole in `source` (a directory or an .mcap) into a new directory, and verifies the copy.

    `source` is only read. `output` defaults to `<source>-recovered`. Raises BadInput where there is nothing to read or
    the output exists, RoboError where the copy does not hold what was copied.
    """
    source = Path(source)
    files = _files(source)
    for file in files:
        with file.open("rb") as stream:
            if not MAGIC.startswith(stream.read(len(MAGIC))):
                raise BadInput(f"{file} is not an MCAP file")
    output = Path(output) if output is not None else source.with_name(source.stem + "-recovered")
    if output.exists():
        raise BadInput(f"{output} exists; give a new directory with --out")
    stopped: list[str] = []
    lost = copied = 0
    with LogWriter(output, custom={"recovered_from": source.name}) as writer:
        for file in files:
            end, reason, total = _copy(file, writer)
            copied = (copied + total) % 2**256
            if reason:
                size = file.stat().st_size
                stopped.append(f"{file.name} stops at byte {end} of {size} ({reason})")
                lost += size - end
        counts = writer.counts
    if not writer.messages:
        _remove(writer)
        raise BadInput(f"{source}: nothing to rescue, it holds no whole chunk of messages; {'; '.join(stopped)}")
    _verify(output, counts, copied)
    return Recovery(output, sum(counts.values()), counts, tuple(stopped), lost)


def _files(source: Path) -> list[Path]:
    """The files of a recording; where metadata.yaml itself is damaged, those that lie there."""
    try:
        return log_files(source)
    except BadInput:
        files = sorted(source.glob("*.mcap")) if source.is_dir() else []
        if not files:
            raise
        return files


def _remove(writer: LogWriter) -> None:
    """Takes back an empty recording that was just made."""
    writer.path.unlink()
    (writer.directory / FILE_NAME).unlink()
    writer.directory.rmdir()


def _copy(file: Path, writer: LogWriter) -> tuple[int, str, int]:
    """Copies a file's whole parts; returns the offset behind them, why it stopped ('' at the end), a multiset hash."""
    schemas: dict[int, Schema] = {}
    topics: dict[int, str] = {}
    end, total = 0, 0
    parts = _whole_parts(file)
    while True:
        try:
            part = next(parts)
        except StopIteration:
            return end, "", total
        except Exception as e:  # noqa: BLE001 - damaged bytes provoke any error; each means that the good part is over
            return end, _reason(e), total
        for r in part.records:
            if isinstance(r, Schema):
                schemas[r.id] = r
            elif isinstance(r, Channel) and r.id not in topics:
                topics[r.id] = r.topic
                _add_topic(writer, r, schemas.get(r.schema_id))
            elif isinstance(r, Message):
                if r.channel_id not in topics:
                    return end, f"message of channel {r.channel_id}, which is not defined", total
                writer.write(topics[r.channel_id], r.data, r.log_time, r.publish_time, r.sequence)
                total = (total + _fingerprint(topics[r.channel_id], r.log_time, r.publish_time, r.data)) % 2**256
        end = part.end


def _reason(error: Exception) -> str:
    if isinstance(error, (EndOfFile, RecordLengthLimitExceeded, struct.error)):
        return "it ends in the middle of a record"
    if isinstance(error, CRCValidationError):
        return "a checksum is wrong"
    return f"damaged: {type(error).__name__}"


def _whole_parts(file: Path) -> Iterator[_Whole]:
    """Chunks and other records of the data section that are complete and whose CRC is right."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        reader = StreamReader(stream, emit_chunks=True, validate_crcs=True, record_size_limit=size)
        for record in reader.records:
            records = breakup_chunk(record, validate_crc=True) if isinstance(record, Chunk) else [record]
            yield _Whole(records, stream.tell())


def _add_topic(writer: LogWriter, channel: Channel, schema: Schema | None) -> None:
    kind = MessageType("", "", "", "")
    if schema is not None:
        digest = channel.metadata.get("topic_type_hash", "")
        kind = MessageType(schema.name, schema.data.decode("utf-8", "replace"), schema.encoding, digest)
    try:
        qos = parse_qos(channel.metadata.get("offered_qos_profiles"))
    except BadInput:
        qos = (Qos(),)
    writer.add_topic(channel.topic, kind, qos, channel.message_encoding)


def _verify(output: Path, counts: dict[str, int], copied: int) -> None:
    """Reads the copy back; raises RoboError where it differs from what was written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LogWarning)  # undecodable topics are copied like any other
        log = Log(output, time_base="log")
    total = 0
    for m in log.messages(raw=True):
        total = (total + _fingerprint(m.topic, m.log_ns, m.publish_ns, m.cdr)) % 2**256
    if {t.name: t.count for t in log.topics.values()} != counts or total != copied:
        raise RoboError(f"{output}: the rescued recording does not read back as it was written; do not trust it")


def _fingerprint(topic: str, log_ns: int, publish_ns: int, cdr: bytes) -> int:
    """A number per message; their sum does not depend on the order, which the reader changes to that of log time."""
    digest = hashlib.sha256(f"{topic}\0{log_ns}\0{publish_ns}\0".encode())
    digest.update(cdr)
    return int.from_bytes(digest.digest(), "big")
