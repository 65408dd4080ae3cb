"""The little protobuf that a policy file needs: walk a message's top level, and append ONNX metadata."""

from collections.abc import Iterator

METADATA_PROPS = 14
"""Field number of `ModelProto.metadata_props` in onnx.proto."""


def protobuf_fields(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Top-level protobuf fields as (number, content, all bytes of the field); raises ValueError for other bytes."""
    at = 0
    while at < len(data):
        start = at
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == 2:
            size, at = _read_varint(data, at)
        elif kind == 0:
            begin = at
            _, at = _read_varint(data, at)
            size, at = at - begin, begin
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {start}")
        if at + size > len(data) or tag >> 3 == 0:
            raise ValueError(f"field at byte {start} goes beyond the end")
        yield tag >> 3, data[at : at + size], data[start : at + size]
        at += size


def metadata_entry(key: bytes, value: bytes) -> bytes:
    """One metadata_props entry: StringStringEntryProto with key = 1 and value = 2."""
    inner = b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(len(value)) + value
    return _varint(METADATA_PROPS << 3 | 2) + _varint(len(inner)) + inner


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError(f"ends inside a number at byte {at}")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError(f"number too long at byte {at}")
