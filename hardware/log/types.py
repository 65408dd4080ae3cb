"""Message types without ROS: definitions, hashes and CDR coding, from the standard types of ROS 2 Kilted."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from hardware.errors import BadInput

MAX_TAIL_BYTES = 8
"""rclpy's serialize_message leaves up to so many stray bytes behind a message that ends in empty sequences."""


MAX_ARRAY = 1 << 24
"""Longest array of fixed length in a type that a log defines."""
_NAME = re.compile(r"[A-Za-z]\w*(/[A-Za-z]\w*)+", re.ASCII)


@dataclass(frozen=True)
class MessageType:
    """One message type as a log stores it."""

    name: str
    """For instance `nav_msgs/msg/Odometry`."""
    definition: str
    """Text of the definition with everything it refers to."""
    encoding: str = "ros2msg"
    """How the definition is written: `ros2msg` or `ros2idl`."""
    hash: str = ""
    """`RIHS01_...`, empty where unknown."""


@cache
def standard_store() -> Typestore:
    """The types of ROS 2 Kilted that rosbags knows."""
    return get_typestore(Stores.ROS2_KILTED)


@cache
def standard_type(name: str) -> MessageType:
    """A standard type by name; raises BadInput where it is not one."""
    store = standard_store()
    try:
        definition, _ = store.generate_msgdef(name, ros_version=2)
        return MessageType(name, definition, "ros2msg", store.hash_rihs01(name))
    except (TypesysError, KeyError) as e:
        raise BadInput(f"message type '{name}' is not a standard type of ROS 2 Kilted; give its definition") from e


def store_of(message_type: MessageType) -> Typestore:
    """A store that holds this type exactly as the log defines it; raises BadInput where it cannot be parsed."""
    if not _NAME.fullmatch(message_type.name):
        raise BadInput(f"{message_type.name[:80]!r} is no name of a message type")
    if message_type.encoding not in ("ros2msg", "ros2idl"):
        raise BadInput(f"{message_type.name}: definitions written as '{message_type.encoding}' are not understood")
    store = get_typestore(Stores.EMPTY)
    try:
        if message_type.encoding == "ros2idl":
            store.register(get_types_from_idl(message_type.definition))
        else:
            store.register(get_types_from_msg(message_type.definition, message_type.name))
        store.get_msgdef(message_type.name)
    except (TypesysError, KeyError, ValueError, TypeError, SyntaxError, RecursionError) as e:
        raise BadInput(f"{message_type.name}: its definition cannot be parsed ({type(e).__name__})") from e
    for _, fields in store.fielddefs.values():
        for field, (kind, detail) in fields:
            length: Any = detail[1] if kind == Nodetype.ARRAY else 0
            if length > MAX_ARRAY:
                raise BadInput(f"{message_type.name}: field {field} is an array of {length}; at most {MAX_ARRAY}")
    return store


def decoder(store: Typestore, name: str) -> Callable[[bytes], Any]:
    """What turns CDR bytes into messages of one type; it raises BadInput where they do not fit the type.

    A tail of at most `MAX_TAIL_BYTES` is ignored; a longer one means that the bytes are of another type.
    """
    definition = store.get_msgdef(name)
    cls, readers = definition.cls, (definition.deserialize_cdr_be, definition.deserialize_cdr_le)

    def read(cdr: bytes) -> Any:
        if len(cdr) < 4 or cdr[0] != 0 or cdr[1] > 1:
            raise BadInput(f"{name}: not plain CDR (encapsulation {bytes(cdr[:2]).hex() or 'missing'})")
        try:
            message, used = readers[cdr[1]](memoryview(cdr)[4:], 0, cls, store)
        except Exception as e:  # generated code raises whatever the bytes provoke: struct, index, unicode, value errors
            raise BadInput(f"{name}: {len(cdr)} bytes do not decode ({type(e).__name__}: {e})") from e
        if not 0 <= len(cdr) - 4 - used <= MAX_TAIL_BYTES:
            raise BadInput(f"{name}: message is {used + 4} bytes long, {len(cdr)} were recorded")
        return message

    return read


def encode(message: Any) -> bytes:
    """CDR bytes of a message of the standard store; raises BadInput where a field does not fit its type."""
    name = message.__msgtype__
    try:
        return bytes(standard_store().serialize_cdr(message, name, little_endian=True))
    except Exception as e:  # generated code raises whatever the values provoke
        raise BadInput(f"{name}: cannot be encoded ({type(e).__name__}: {e})") from e


def new_message(name: str) -> Any:
    """An empty message of a standard type: zeros, empty strings, empty sequences, no rotation."""
    standard_type(name)
    return _blank(standard_store(), name)


def _blank(store: Typestore, name: str) -> Any:
    values = [_blank_field(store, description) for _, description in store.fielddefs[name][1]]
    message: Any = store.types[name](*values)
    if name == "geometry_msgs/msg/Quaternion":
        message.w = 1.0  # the definition's default, which rosbags leaves out
    return message


def _blank_field(store: Typestore, description: Any) -> Any:
    kind, detail = description
    if kind == Nodetype.NAME:
        return _blank(store, detail)
    if kind == Nodetype.BASE:
        return {"string": "", "bool": False, "float32": 0.0, "float64": 0.0}.get(detail[0], 0)
    (inner, inner_detail), count = detail
    count = count if kind == Nodetype.ARRAY else 0
    if inner == Nodetype.NAME or inner_detail[0] == "string":
        return [_blank_field(store, (inner, inner_detail)) for _ in range(count)]
    dtype = {"byte": "uint8", "octet": "uint8", "char": "uint8"}.get(inner_detail[0], inner_detail[0])
    return np.zeros(count, dtype=dtype)
