"""Dictionaries of tensors as `torch.save` writes them (.pt, .pth), read without torch and without unpickling.

The pickle inside is a program. It is not run: its few harmless instructions are interpreted here, and names of Python
objects stay names. Anything but a dictionary of tensors is refused.
"""

import pickletools
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.log.imports import Imported, Options
from hardware.log.named_arrays import tables_of

FORMAT = "torch"
ABOUT = "torch archive"
MAX_PICKLE_BYTES = 1 << 20
MAX_ENTRIES = 10_000
_STORAGES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "LongStorage": "i8", "IntStorage": "i4",
    "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
_DAMAGED = (zipfile.BadZipFile, OSError, ValueError, KeyError, IndexError, TypeError, EOFError, RuntimeError)
"""What zipfile, pickletools and numpy raise for bytes that are not what they should be."""
_REBUILD = ("torch._utils", "_rebuild_tensor_v2")
_ORDERED = ("collections", "OrderedDict")
_ALLOWED = {_REBUILD, _ORDERED, *(("torch", s) for s in _STORAGES)}


class _Storage(NamedTuple):
    """A block of numbers in the archive."""

    dtype: str
    key: str
    count: int


class _Tensor(NamedTuple):
    """A view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class RefusedError(Exception):
    """Why the pickle is not a dictionary of tensors."""


def recognises(path: Path, head: bytes) -> bool:
    """A zip archive with a `data.pkl` in its one folder."""
    if not head.startswith(b"PK\3\4"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(n.count("/") == 1 and n.endswith("/data.pkl") for n in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return b"data.pkl" in head


def load(path: Path, options: Options) -> Imported:
    """Tensors of one length become fields; `dof_pos` and its like become joint states."""
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _arrays(archive)
    except RefusedError as e:
        raise BadInput(f"{path}: not a {ABOUT} of plain tensors: {e}") from e
    except _DAMAGED as e:
        raise BadInput(f"{path}: not a whole {ABOUT} ({type(e).__name__})") from e
    return tables_of(path, arrays, {}, options)


def _arrays(archive: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    members = {i.filename: i for i in archive.infolist()}
    if len(members) > MAX_ENTRIES:
        raise RefusedError(f"{len(members)} members, at most {MAX_ENTRIES} are read")
    if any(i.compress_type != zipfile.ZIP_STORED for i in members.values()):
        raise RefusedError("members are compressed, which torch never does")
    root = next(n for n in [*members, "/data.pkl"] if n.endswith("/data.pkl")).removesuffix("data.pkl")
    if f"{root}data.pkl" not in members:
        raise RefusedError("it holds no data.pkl")
    if members[f"{root}data.pkl"].file_size > MAX_PICKLE_BYTES:
        raise RefusedError(f"its data.pkl is larger than {MAX_PICKLE_BYTES} bytes")
    order = ">" if f"{root}byteorder" in members and archive.read(f"{root}byteorder").strip() == b"big" else "<"
    found = read_pickle(archive.read(f"{root}data.pkl"))
    if not isinstance(found, dict):
        raise RefusedError(f"it holds a {type(found).__name__.strip('_').lower()}, expected a dictionary of tensors")
    arrays = {}
    for name, tensor in found.items():
        if isinstance(tensor, _Tensor):
            info = members.get(f"{root}data/{tensor.storage.key}")
            if info is None:
                raise RefusedError(f"{name}: its numbers are missing")
            arrays[name] = _array(name, tensor, order, archive.read(info))
    if not arrays:
        raise RefusedError("it holds no tensor")
    return arrays


def _array(name: str, t: _Tensor, order: str, raw: bytes) -> NDArray[Any]:
    dtype = np.dtype(order + t.storage.dtype)
    if len(raw) != t.storage.count * dtype.itemsize:
        raise RefusedError(f"{name}: {len(raw)} bytes for {t.storage.count} numbers of {dtype.itemsize} bytes")
    if len(t.shape) != len(t.stride) or min((t.offset, *t.shape, *t.stride), default=0) < 0:
        raise RefusedError(f"{name}: shape {t.shape}, stride {t.stride} and offset {t.offset} do not go together")
    size = 1
    for n in t.shape:
        size *= n
    last = t.offset + sum((n - 1) * s for n, s in zip(t.shape, t.stride, strict=True))
    if size > t.storage.count or (size and last >= t.storage.count):
        raise RefusedError(f"{name}: shape {t.shape} reaches beyond its {t.storage.count} numbers")
    flat = np.frombuffer(raw, dtype=dtype)[t.offset :]
    strides = tuple(s * dtype.itemsize for s in t.stride)
    return np.lib.stride_tricks.as_strided(flat, t.shape if size else (0,), strides if size else None).copy()


def read_pickle(data: bytes) -> Any:
    """The value of a pickle made of dictionaries, tuples, text, numbers and tensors; raises RefusedError for any other.

    Nothing is imported or called: `torch._utils._rebuild_tensor_v2(...)` becomes a `_Tensor` here, and every other
    name is refused where it appears.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        at = marks.pop()
        items = stack[at:]
        del stack[at:]
        return items

    for opcode, argument, _ in pickletools.genops(data):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                marks.append(len(stack))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(opcode.name[-1])
                stack[-n:] = [tuple(stack[-n:])]
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]  # pyright: ignore[reportArgumentType]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                if argument not in memo:
                    raise RefusedError("it refers to something that is not there")
                stack.append(memo[argument])  # pyright: ignore[reportArgumentType]
            case "GLOBAL":
                stack.append(_name(*str(argument).split(" ", 1)))
            case "STACK_GLOBAL":
                stack[-2:] = [_name(*stack[-2:])]
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                stack[-2:] = [_call(*stack[-2:])]
            case "SETITEM" | "SETITEMS":
                items = since_mark() if opcode.name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                _fill(stack[-1], items)
            case "STOP":
                return stack[-1]
            case other:
                raise RefusedError(f"its pickle contains the instruction {other}")
    raise RefusedError("its pickle has no end")


def _name(module: Any, name: Any = "") -> tuple[str, str]:
    if (module, name) not in _ALLOWED:
        raise RefusedError(f"its pickle names {module!s:.60}.{name!s:.60}, which is not part of a tensor")
    return (module, name)


def _storage(identity: Any) -> _Storage:
    match identity:
        case ("storage", ("torch", str(kind)), str(key), str(), int(count)) if kind in _STORAGES and count >= 0:
            return _Storage(_STORAGES[kind], key, count)
    raise RefusedError("its pickle refers to something that is no storage")


def _call(name: Any, arguments: Any) -> Any:
    match name, arguments:
        case [n, ()] if n == _ORDERED:
            return {}
        case [n, (_Storage() as storage, int(offset), tuple(shape), tuple(stride), *_)] if n == _REBUILD:
            if all(isinstance(v, int) for v in (*shape, *stride)):
                return _Tensor(storage, offset, shape, stride)
    raise RefusedError("its pickle calls something that does not make a tensor")


def _fill(target: Any, items: list[Any]) -> None:
    if type(target) is not dict or len(items) % 2 or not all(isinstance(k, str) for k in items[::2]):
        raise RefusedError("it holds something else than a dictionary with names")
    target.update(zip(items[::2], items[1::2], strict=True))
