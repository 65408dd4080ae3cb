"""Tables, the neutral form in which an importer hands over what a file holds, and the messages they become."""

import keyword
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.log.qos import LATCHED, Qos
from hardware.log.types import MessageType, new_message, standard_store, standard_type, store_of

PACKAGE = "imported_msgs"
"""Package of the message types that are made for tables."""
_TYPES = {"f2": "float32", "b1": "bool"} | {f"f{n}": f"float{8 * n}" for n in (4, 8)}
_TYPES |= {f"{k[0]}{n}": f"{k}{8 * n}" for k in ("int", "uint") for n in (1, 2, 4, 8)}


class Row(NamedTuple):
    """One message to be written."""

    t_ns: int
    topic: str
    cdr: bytes
    publish_ns: int | None = None
    """When it was sent; None: when it was received."""


@dataclass(frozen=True)
class Column:
    """One quantity of a table."""

    values: NDArray[Any]
    """(T,) or (T, n): numbers, truth values or text."""
    unit: str = ""
    source: str = ""
    """What the file calls it, where that is no field name."""


@dataclass(frozen=True)
class Table:
    """Rows that share their instants; becomes one topic.

    With `type`, columns are dotted fields of that standard message, whose header is stamped. Without, a message type
    is made whose fields are the columns, with their units as comments in its definition.
    """

    topic: str
    t_ns: NDArray[np.int64]
    columns: Mapping[str, Column]
    type: str = ""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Dotted field -> value in every message (only with `type`)."""
    latched: bool = False
    sent_ns: NDArray[np.int64] | None = None
    """When the rows were sent or stamped, where that is not when they were received."""

    def __post_init__(self) -> None:
        """Raises BadInput where columns are not as long as the instants, or cannot be stored."""
        if self.sent_ns is not None and self.sent_ns.shape != self.t_ns.shape:
            raise BadInput(f"{self.topic}: {self.sent_ns.shape} instants of sending, {self.t_ns.shape} of receiving")
        for name, column in self.columns.items():
            if column.values.shape[:1] != self.t_ns.shape or column.values.ndim > 2:
                raise BadInput(f"{self.topic}: {name} has shape {column.values.shape}, instants {self.t_ns.shape}")
            if not self.type:
                _ros_type(column.values)

    @property
    def qos(self) -> tuple[Qos, ...]:
        """What a publisher of this topic would offer."""
        return (LATCHED,) if self.latched else (Qos(),)

    @cached_property
    def message_type(self) -> MessageType:
        """The type of this topic's messages."""
        if self.type:
            return standard_type(self.type)
        camel = "".join(p.capitalize() for p in re.split(r"[^A-Za-z0-9]+", self.topic)) or "Table"
        name = f"{PACKAGE}/msg/{camel if camel[0].isalpha() else 'T' + camel}"
        lines = []
        for (column_name, column), field_name in zip(self.columns.items(), self._fields, strict=True):
            source = column.source or (column_name if column_name != field_name else "")
            about = " ".join(_printable(v) for v in (f"[{column.unit}]" if column.unit else "", source) if v)
            lines.append(f"{_ros_type(column.values)} {field_name}{' # ' + about if about else ''}\n")
        made = MessageType(name, "".join(lines))
        return MessageType(name, made.definition, hash=store_of(made).hash_rihs01(name))

    @property
    def _fields(self) -> list[str]:
        return field_names(self.columns)

    def rows(self) -> Iterator[Row]:
        """The messages, by instant; raises BadInput for a value that its field cannot hold, as a stamp after 2038."""
        order = np.argsort(self.t_ns, kind="stable")
        sent_ns = self._stamps
        encode = self._into_standard() if self.type else self._into_made()
        for i in order.tolist():
            try:
                cdr = encode(i)
            except (struct.error, ValueError, TypeError, OverflowError) as e:
                raise BadInput(f"{self.topic}: row {i} at {int(self.t_ns[i])} ns cannot be stored ({e})") from e
            yield Row(int(self.t_ns[i]), self.topic, cdr, int(sent_ns[i]))

    @property
    def _stamps(self) -> NDArray[np.int64]:
        return self.t_ns if self.sent_ns is None else self.sent_ns

    def _into_made(self) -> Any:
        name, store = self.message_type.name, store_of(self.message_type)
        cls: Any = store.types[name]
        columns = [_plain(c.values) for c in self.columns.values()]
        return lambda i: bytes(store.serialize_cdr(cls(*(c[i] for c in columns)), name, little_endian=True))

    def _into_standard(self) -> Any:
        store, message = standard_store(), new_message(self.type)
        for path, value in self.constants.items():
            _set(message, path, value)
        columns = [(*_place(message, path), _plain(c.values)) for path, c in self.columns.items()]
        stamp = message.header.stamp if hasattr(message, "header") else None
        sent_ns = self._stamps

        def encode(i: int) -> bytes:
            if stamp is not None:
                stamp.sec, stamp.nanosec = divmod(int(sent_ns[i]), 1_000_000_000)
            for owner, name, values in columns:
                setattr(owner, name, values[i])
            return bytes(store.serialize_cdr(message, self.type, little_endian=True))

        return encode


def field_names(names: Mapping[str, Any] | list[str]) -> list[str]:
    """Names as ROS fields spell them: lower case, digits and underscores, none twice."""
    taken: dict[str, None] = {}
    for name in names:
        base = re.sub(r"_+", "_", re.sub(r"[^a-z0-9]+", "_", name.lower())).strip("_")
        base = base if base[:1].isalpha() else f"c_{base}".rstrip("_")
        base += "_" if keyword.iskeyword(base) else ""
        base = base.rstrip("_") + "_value" if base.endswith("_") else base
        unique, k = base, 2
        while unique in taken:
            unique, k = f"{base}_{k}", k + 1
        taken[unique] = None
    return list(taken)


def nanoseconds(seconds: Any, what: str) -> NDArray[np.int64]:
    """Instants in ns from seconds (floats); raises BadInput where one is missing, negative or beyond 2^63 ns."""
    values = np.asarray(seconds, dtype=np.float64)
    bad = ~((values >= 0.0) & (values < 9.2e9))
    if bad.any():
        raise BadInput(f"{what}: instant {values[bad][0]} s at row {int(np.argmax(bad))} is not a time from 0 on")
    whole = np.floor(values)
    return whole.astype(np.int64) * 1_000_000_000 + np.round((values - whole) * 1e9).astype(np.int64)


def _ros_type(values: NDArray[Any]) -> str:
    if values.dtype.kind in "USO":
        base = "string"
    else:
        base = _TYPES.get(f"{values.dtype.kind}{values.dtype.itemsize}", "")
    if not base:
        raise BadInput(f"values of type {values.dtype} cannot be stored; expected numbers or text")
    return base if values.ndim == 1 else f"{base}[{values.shape[1]}]"


def _plain(values: NDArray[Any]) -> Any:
    """Values as rosbags takes them: Python's own in a column, arrays of native byte order in a matrix."""
    if values.dtype.kind in "USO":
        return [str(v) for v in values] if values.ndim == 1 else [[str(v) for v in row] for row in values]
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    return values.tolist() if values.ndim == 1 else values.astype(values.dtype.newbyteorder("="))


def _place(message: Any, path: str) -> tuple[Any, str]:
    owner, _, name = path.rpartition(".")
    return (attrgetter(owner)(message) if owner else message), name


def _set(message: Any, path: str, value: Any) -> None:
    owner, name = _place(message, path)
    setattr(owner, name, value)


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())
