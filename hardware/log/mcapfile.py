"""One MCAP file, read by its index: which channels it holds, and their messages in the order of log time."""

import hashlib
import heapq
import re
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap.records import Chunk, ChunkIndex, Message, Statistics
from mcap.stream_reader import CRCValidationError, StreamReader, get_chunk_data_stream
from mcap.summary import Summary

from hardware.errors import BadInput
from hardware.log.metadata import FILE_NAME

MAGIC = b"\x89MCAP0\r\n"
MAX_CHUNK_BYTES = 1 << 30
"""No chunk that claims to hold more is unpacked."""
_FOOTER = struct.Struct("<BQQQI")  # opcode, length, summary_start, summary_offset_start, summary_crc
_RECORD = struct.Struct("<BQ")  # opcode, length
_MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log_time, publish_time
_DATA_END_BYTES = _RECORD.size + 4


class BrokenFile(BadInput):
    """A truncated or damaged file; the message names the command that rescues the rest."""

    def __init__(self, path: Path, why: str) -> None:
        # A file of a recording is rescued with the others of its directory.
        whole = path.parent if (path.parent / FILE_NAME).exists() or _of_directory(path) else path
        super().__init__(
            f"{path} is truncated or damaged: {why}; rescue what is there with: robo-rl log recover {whole}"
        )


def _of_directory(path: Path) -> bool:
    return re.fullmatch(re.escape(path.parent.name) + r"_\d+", path.stem) is not None


class RawMessage(NamedTuple):
    """One message as it lies in the file."""

    channel_id: int
    sequence: int
    log_ns: int
    publish_ns: int
    cdr: bytes


class Index(NamedTuple):
    """What the end of the file says about the rest."""

    summary: Summary
    statistics: Statistics
    data_end: int
    """Offset in bytes at which the data section ends."""


def read_index(path: Path) -> Index:
    """The index of a complete file; raises BadInput for a foreign one, BrokenFile for a truncated or damaged one."""
    with path.open("rb") as stream:
        summary_start = _check_ends(path, stream)
        try:
            stream.seek(0)
            summary = make_reader(stream).get_summary()
        except Exception as e:  # a damaged index provokes many kinds of errors inside the library
            raise BrokenFile(path, f"its index cannot be read ({type(e).__name__})") from e
    if summary is None or summary.statistics is None:
        raise BrokenFile(path, "it holds no index")
    unknown = set(summary.statistics.channel_message_counts) - set(summary.channels)
    if unknown:
        raise BrokenFile(path, f"its statistics count channels {sorted(unknown)} that it does not define")
    return Index(summary, summary.statistics, summary_start - _DATA_END_BYTES)


def messages(
    path: Path, index: Index, channels: Collection[int], start_ns: int | None = None, end_ns: int | None = None
) -> Iterator[RawMessage]:
    """Messages of some channels with `start_ns <= log time < end_ns`, in the order of log time.

    Memory holds one chunk and what overlaps it. Raises BadInput where a chunk is damaged.
    """
    wanted = frozenset(channels)
    chunks = [c for c in index.summary.chunk_indexes if _concerns(c, wanted, start_ns, end_ns)]
    if not index.summary.chunk_indexes:
        yield from _unchunked(path, wanted, start_ns, end_ns)
        return
    chunks.sort(key=lambda c: (c.message_start_time, c.chunk_start_offset))
    pending: list[tuple[int, int, int, RawMessage]] = []
    with path.open("rb") as stream:
        for i, chunk in enumerate(chunks):
            new = _messages_of(path, stream, chunk, wanted, start_ns, end_ns)
            following = chunks[i + 1].message_start_time if i + 1 < len(chunks) else None
            pending.extend((m.log_ns, chunk.chunk_start_offset, k, m) for k, m in enumerate(new))
            heapq.heapify(pending)
            while pending and (following is None or pending[0][0] < following):
                yield heapq.heappop(pending)[3]


def hash_data_section(path: Path, index: Index, digest: "hashlib._Hash") -> None:
    """Feeds the data section, header included, into a hash: moved files agree, changed files do not."""
    with path.open("rb") as stream:
        rest = index.data_end
        while rest > 0:
            block = stream.read(min(rest, 1 << 20))
            if not block:
                raise BrokenFile(path, "it ends before its data section does")
            digest.update(block)
            rest -= len(block)


def _check_ends(path: Path, stream: IO[bytes]) -> int:
    """Checks both magics and the summary's CRC; returns the offset at which the summary starts."""
    size = stream.seek(0, 2)
    stream.seek(0)
    if stream.read(len(MAGIC)) != MAGIC:
        raise BadInput(f"{path} is not an MCAP file")
    tail = _FOOTER.size + len(MAGIC)
    if size < len(MAGIC) + tail:
        raise BrokenFile(path, "it ends without a footer")
    stream.seek(size - tail)
    footer = stream.read(_FOOTER.size)
    opcode, length, summary_start, _, crc = _FOOTER.unpack(footer)
    if stream.read() != MAGIC or opcode != Opcode.FOOTER or length != _FOOTER.size - _RECORD.size:
        raise BrokenFile(path, "it ends without a footer")
    if not len(MAGIC) < summary_start <= size - tail:
        raise BrokenFile(path, "it holds no index")
    if crc:
        stream.seek(summary_start)
        if zlib.crc32(footer[:-4], zlib.crc32(stream.read(size - tail - summary_start))) != crc:
            raise BrokenFile(path, "its index is damaged (CRC)")
    return summary_start


def _concerns(c: ChunkIndex, wanted: frozenset[int], start_ns: int | None, end_ns: int | None) -> bool:
    if (start_ns is not None and c.message_end_time < start_ns) or (
        end_ns is not None and c.message_start_time >= end_ns
    ):
        return False
    return not c.message_index_offsets or not wanted.isdisjoint(c.message_index_offsets)


def _messages_of(
    path: Path, stream: IO[bytes], chunk: ChunkIndex, wanted: frozenset[int], start_ns: int | None, end_ns: int | None
) -> Iterator[RawMessage]:
    try:
        stream.seek(chunk.chunk_start_offset + _RECORD.size)
        packed = Chunk.read(ReadDataStream(stream))
        if packed.uncompressed_size > MAX_CHUNK_BYTES:
            raise ValueError("size")
        unpacked, size = get_chunk_data_stream(packed, validate_crc=True)
        data = unpacked.read(size)
    except Exception as e:  # damaged bytes provoke errors of the library and of both decompressors
        what = "CRC" if isinstance(e, CRCValidationError) else type(e).__name__
        raise BrokenFile(path, f"the chunk at byte {chunk.chunk_start_offset} cannot be read ({what})") from e
    at = 0
    while at + _RECORD.size <= size:
        opcode, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        if opcode == Opcode.MESSAGE:
            channel, sequence, log_ns, publish_ns = _MESSAGE.unpack_from(data, at)
            if channel in wanted and (start_ns is None or log_ns >= start_ns) and (end_ns is None or log_ns < end_ns):
                yield RawMessage(channel, sequence, log_ns, publish_ns, data[at + _MESSAGE.size : at + length])
        at += length


def _unchunked(path: Path, wanted: frozenset[int], start_ns: int | None, end_ns: int | None) -> Iterator[RawMessage]:
    """Messages of a file without chunks, in file order: there is no index to sort by in bounded memory."""
    with path.open("rb") as stream:
        try:
            for r in StreamReader(stream).records:
                if not isinstance(r, Message) or r.channel_id not in wanted:
                    continue
                if (start_ns is None or r.log_time >= start_ns) and (end_ns is None or r.log_time < end_ns):
                    yield RawMessage(r.channel_id, r.sequence, r.log_time, r.publish_time, r.data)
        except (McapError, struct.error) as e:
            raise BrokenFile(path, f"a record cannot be read ({type(e).__name__})") from e
