"""The values inside messages: which fields a type has, in which unit, and how to collect them into arrays."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Nodetype
from rosbags.typesys.store import Typestore

from hardware.log.units import unit_of

_DTYPES = {"byte": "uint8", "octet": "uint8", "char": "uint8", "bool": "bool"}


class Series(NamedTuple):
    """One channel of a log."""

    t_ns: NDArray[np.int64]
    """(T,) instants on the log's time base."""
    values: NDArray[Any]
    """(T,) or (T, n); of dtype object for text and for sequences whose length changes."""
    unit: str


@dataclass(frozen=True)
class Leaf:
    """One field that holds numbers or text, somewhere inside a message type."""

    path: str
    """Dotted, for instance `pose.pose.position.x`."""
    dtype: str
    """numpy dtype of one element; `object` for text."""
    unit: str
    size: int | None
    """None: one value; 0: a sequence of any length; n: an array of n."""


def leaves(
    store: Typestore, message_type: str, prefix: str = "", unit: str = "", units: Mapping[str, str] | None = None
) -> Iterator[Leaf]:
    """All fields of a type that hold numbers or text; sequences of messages are left out (decode the message).

    `units`: those that the definition itself gives for the type's own fields; they win.
    """
    fields: Any = store.fielddefs[message_type][1]  # nested tuples; see rosbags.interfaces.typing.FieldDesc
    for name, (kind, detail) in fields:
        if name == "structure_needs_at_least_one_member":
            continue
        path, here = prefix + name, (units or {}).get(name) or unit_of(message_type, name, unit)
        if kind == Nodetype.NAME:
            yield from leaves(store, detail, path + ".", here)
        elif kind == Nodetype.BASE:
            yield Leaf(path, _dtype(detail[0]), here, None)
        else:
            (inner, inner_detail), count = detail
            if inner == Nodetype.BASE:
                yield Leaf(path, _dtype(inner_detail[0]), here, count if kind == Nodetype.ARRAY else 0)


class Collector:
    """Gathers one field over `count` messages into an array."""

    def __init__(self, leaf: Leaf, count: int) -> None:
        self.leaf = leaf
        self._take = attrgetter(leaf.path)
        self._fixed = leaf.size != 0
        shape = (count,) if leaf.size is None else (count, leaf.size or 0)
        self._array: NDArray[Any] = np.empty(shape if self._fixed else (count,), leaf.dtype if self._fixed else object)

    def put(self, row: int, message: Any) -> None:
        """Takes the field out of a message."""
        self._array[row] = self._take(message)

    def result(self, rows: int) -> NDArray[Any]:
        """The first `rows` values; sequences that all have the same length become a (T, n) array."""
        values = self._array[:rows]
        if self._fixed or rows == 0 or self.leaf.dtype == "object":
            return values
        if len({len(v) for v in values}) == 1:
            return np.stack([np.asarray(v, dtype=self.leaf.dtype) for v in values])
        return values


def _dtype(base: str) -> str:
    return "object" if base in ("string", "wstring") else _DTYPES.get(base, base)
