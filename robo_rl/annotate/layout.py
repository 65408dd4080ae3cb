"""Where the numbers lie inside messages of one topic, so that thousands are taken out at once.

Messages of a topic mostly have one length, with every string and sequence as long as in the first message. Then each
number sits at a fixed offset; messages of another shape are recognised by their length or their inner lengths.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Nodetype
from rosbags.typesys.store import Typestore

from hardware.log.units import unit_of

MAX_ELEMENTS = 64
"""Longer sequences (pictures, clouds) are not offered as signals."""
_SIZES = {"bool": 1, "byte": 1, "octet": 1, "char": 1}
_CODES = {"bool": "u1", "byte": "u1", "octet": "u1", "char": "u1"}


@dataclass(frozen=True)
class Column:
    """One number of every message."""

    path: str
    """Such as `pose.pose.position.x` or `position[2]`."""
    offset: int
    """Bytes from the start of the message."""
    dtype: str
    unit: str


@dataclass
class Layout:
    """The shape of the messages of one topic."""

    size: int
    """Bytes of a message."""
    columns: dict[str, Column] = field(default_factory=dict)
    lengths: list[tuple[int, bytes]] = field(default_factory=list)
    """Offset and bytes of every inner length."""
    names: list[str] = field(default_factory=list)
    """The first sequence of texts: names of joints."""

    def fits(self, rows: NDArray[np.uint8]) -> bool:
        """Whether all messages (T, size) have this shape."""
        for offset, expected in self.lengths:
            part = rows[:, offset : offset + 4]
            if not (part == np.frombuffer(expected, np.uint8)).all():
                return False
        return True

    def take(self, rows: NDArray[np.uint8], path: str) -> NDArray[np.float32]:
        """One number of each message (T,)."""
        c = self.columns[path]
        width = np.dtype(c.dtype).itemsize
        with np.errstate(over="ignore", invalid="ignore"):
            return rows[:, c.offset : c.offset + width].copy().view(c.dtype)[:, 0].astype(np.float32)


def layout_of(store: Typestore, message_type: str, cdr: bytes) -> Layout:
    """The shape of a message; raises ValueError where its bytes do not follow its type."""
    walk = _Walk(store, cdr)
    for path, unit, kind in walk.message(message_type, "", ""):
        walk.layout.columns[path] = Column(path, walk.at, walk.order + kind, unit)
    return walk.layout


def at_path(message: Any, path: str) -> float:
    """The number at a path of a decoded message; NaN where it has no such element."""
    value = message
    for part in path.replace("]", "").replace("[", ".").split("."):
        if part.isdigit():
            if int(part) >= len(value):
                return float("nan")
            value = value[int(part)]
        else:
            value = getattr(value, part)
    return float(value)


class _Walk:
    """Walks one message by its type, alignment included (CDR version 1)."""

    def __init__(self, store: Typestore, cdr: bytes) -> None:
        if len(cdr) < 4 or cdr[0] != 0 or cdr[1] > 1:
            raise ValueError("not plain CDR")
        self.store, self.cdr, self.pos, self.at = store, cdr, 4, 4
        self.order = "<" if cdr[1] else ">"
        self.layout = Layout(len(cdr))

    def message(self, name: str, prefix: str, unit: str) -> Iterator[tuple[str, str, str]]:
        """(path, unit, dtype) of each number, `self.at` being its offset meanwhile."""
        fields: Any = self.store.fielddefs[name][1]
        for field_name, (kind, detail) in fields:
            path, here = prefix + field_name, unit_of(name, field_name, unit)
            if kind == Nodetype.NAME:
                yield from self.message(detail, path + ".", here)
            elif kind == Nodetype.BASE:
                yield from self._base(detail[0], path, here, 1)
            else:
                (inner, inner_detail), count = detail
                number = count if kind == Nodetype.ARRAY else self._length()
                if inner == Nodetype.BASE:
                    yield from self._base(inner_detail[0], path, here, number, listed=True)
                else:
                    for i in range(number):
                        yield from self.message(inner_detail, f"{path}[{i}].", here)

    def _base(
        self, kind: str, path: str, unit: str, count: int, *, listed: bool = False
    ) -> Iterator[tuple[str, str, str]]:
        if kind == "wstring":
            raise ValueError("wide strings are not understood")
        if kind == "string":
            texts = [self._string() for _ in range(count)]
            if listed and not self.layout.names:
                self.layout.names = texts
            return
        code = _CODES.get(kind) or np.dtype(kind).str[1:]
        width = _SIZES.get(kind) or np.dtype(kind).itemsize
        if count:
            self._align(width)
        start, self.pos = self.pos, self.pos + count * width
        if self.pos > len(self.cdr):
            raise ValueError(f"{path} lies beyond the message")
        if count > MAX_ELEMENTS:
            return
        for i in range(count):
            self.at = start + i * width
            yield (f"{path}[{i}]" if listed else path), unit, code

    def _align(self, width: int) -> None:
        self.pos += -(self.pos - 4) % width

    def _length(self) -> int:
        self._align(4)
        raw = self.cdr[self.pos : self.pos + 4]
        if len(raw) < 4:
            raise ValueError("a length lies beyond the message")
        self.layout.lengths.append((self.pos, raw))
        self.pos += 4
        number = int.from_bytes(raw, "little" if self.order == "<" else "big")
        if number > len(self.cdr):
            raise ValueError(f"a length of {number} in a message of {len(self.cdr)} bytes")
        return number

    def _string(self) -> str:
        number = self._length()
        self.pos += number
        return self.cdr[self.pos - number : self.pos - 1].decode("utf-8", "replace")
