"""Random access to the chunks of a recording: which messages of a topic lie where, without reading the others."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import NamedTuple

import numpy as np
from mcap.data_stream import ReadDataStream
from mcap.records import Chunk
from mcap.stream_reader import get_chunk_data_stream
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.log.mcapfile import BrokenFile, read_index
from hardware.log.reader import Log

_RECORD_BYTES, _MESSAGE_BYTES = 9, 22  # opcode and length; channel, sequence, log time, publish time
_MESSAGE_INDEX = b"\x07"
_ENTRY = np.dtype([("t_ns", "<u8"), ("offset", "<u8")])
KEPT_CHUNKS = 12
"""Unpacked chunks kept for the next request."""


class Place(NamedTuple):
    """One chunk that holds messages of a topic."""

    file: int
    number: int
    start_ns: int


class Chunks:
    """The chunks of all files of a log; any thread may read."""

    def __init__(self, log: Log) -> None:
        """Raises BadInput for files without chunks or without message indexes."""
        self._files = log.files
        self._indexes = [read_index(f).summary.chunk_indexes for f in log.files]
        for file, index in zip(log.files, self._indexes, strict=True):
            if (not index or not all(c.message_index_offsets for c in index)) and log.count:
                raise BadInput(f"{file} has no message index; make a copy that has: robo-rl log recover {log.path}")
        self._streams = [os.open(f, os.O_RDONLY) for f in log.files]
        self._kept: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Lets go of the files."""
        for fd in self._streams:
            with suppress(OSError):
                os.close(fd)

    def places(self, channel_ids: list[set[int]]) -> list[Place]:
        """Chunks that hold messages of channels, given per file, in the order of time."""
        found = [
            Place(f, i, c.message_start_time)
            for f, index in enumerate(self._indexes)
            for i, c in enumerate(index)
            if not channel_ids[f].isdisjoint(c.message_index_offsets)
        ]
        return sorted(found, key=lambda p: (p.start_ns, p.file, p.number))

    def entries(self, place: Place, channel_ids: Iterable[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Log times (T,) of the messages of some channels in a chunk, and where each begins in the unpacked chunk.

        Raises BrokenFile for an index that points outside of its chunk.
        """
        chunk = self._indexes[place.file][place.number]
        parts = []
        for channel in channel_ids:
            at = chunk.message_index_offsets.get(channel)
            if at is None:
                continue
            head = os.pread(self._streams[place.file], _RECORD_BYTES + 6, at)
            size = int.from_bytes(head[11:15], "little")
            raw = os.pread(self._streams[place.file], size, at + len(head))
            if len(raw) < size or size % _ENTRY.itemsize or head[:1] != _MESSAGE_INDEX:
                raise BrokenFile(self._files[place.file], f"the message index at byte {at}")
            parts.append(np.frombuffer(raw, _ENTRY))
        if not parts:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        found = np.concatenate(parts)
        found = found[np.lexsort((found["offset"], found["t_ns"]))]
        if (found["offset"] + _RECORD_BYTES + _MESSAGE_BYTES > chunk.uncompressed_size).any():
            raise BrokenFile(
                self._files[place.file], f"a message index of the chunk at byte {chunk.chunk_start_offset}"
            )
        return found["t_ns"].astype(np.int64), found["offset"].astype(np.int64)

    def unpacked(self, place: Place, *, keep: bool = True) -> NDArray[np.uint8]:
        """The bytes of a chunk; raises BrokenFile where it is damaged."""
        key = (place.file, place.number)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        chunk = self._indexes[place.file][place.number]
        raw = os.pread(self._streams[place.file], chunk.chunk_length, chunk.chunk_start_offset)
        try:
            stream, size = get_chunk_data_stream(
                Chunk.read(ReadDataStream(BytesIO(raw[_RECORD_BYTES:]))), validate_crc=True
            )
            data = np.frombuffer(stream.read(size), np.uint8)
        except Exception as e:  # damaged bytes provoke errors of the library and of both decompressors
            raise BrokenFile(self._files[place.file], f"the chunk at byte {chunk.chunk_start_offset}") from e
        if keep:
            with self._lock:
                self._kept[key] = data
                while len(self._kept) > KEPT_CHUNKS:
                    self._kept.popitem(last=False)
        return data


def message_at(data: NDArray[np.uint8], offset: int) -> bytes:
    """The CDR bytes of the message whose record begins at an offset of an unpacked chunk."""
    length = int.from_bytes(data[offset + 1 : offset + _RECORD_BYTES].tobytes(), "little")
    return data[offset + _RECORD_BYTES + _MESSAGE_BYTES : offset + _RECORD_BYTES + length].tobytes()


def rows_of(data: NDArray[np.uint8], offsets: NDArray[np.int64], size: int) -> NDArray[np.uint8] | None:
    """The CDR bytes (T, size) of messages that all have one size; None where one has another."""
    lengths = data[offsets[:, None] + np.arange(1, _RECORD_BYTES)].view("<u8")[:, 0]
    if (lengths != size + _MESSAGE_BYTES).any():
        return None
    starts = offsets + _RECORD_BYTES + _MESSAGE_BYTES
    steps = np.diff(starts)
    if len(steps) and steps[0] > 0 and (steps == steps[0]).all() and starts[-1] + size <= len(data):
        # Messages at one distance from each other: a view instead of a gathering.
        shape, strides = (len(starts), size), (int(steps[0]), 1)
        return np.lib.stride_tricks.as_strided(data[int(starts[0]) :], shape, strides, writeable=False)
    return data[starts[:, None] + np.arange(size)]


def spread(count: int) -> Iterator[int]:
    """0 to count - 1 in an order of which every beginning is spread evenly (van der Corput)."""
    bits = max(1, (count - 1).bit_length())
    for i in range(1 << bits):
        n = int(f"{i:0{bits}b}"[::-1], 2)
        if n < count:
            yield n
