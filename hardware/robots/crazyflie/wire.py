"""CRTP, the Crazyflie's packet protocol: frames, tables of contents, log blocks, types, supervisor.

Pure bytes <-> values, little-endian, no state and no I/O; used by the driver and by the emulator alike. Set points and
other commands that move the drone are in `wire_commands`. Layouts: Bitcraze firmware (crtp.h, log.c, param_logic.c,
crtp_supervisor.c) and cflib 0.1.34. Everything that is not exactly a known shape raises `WireError`.
"""

import enum
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hardware.errors import RoboError

MAX_DATA = 30
"""Bytes of payload in one packet (crtp.h: CRTP_MAX_DATA_SIZE)."""
NULL_PACKET = b"\xff"
"""The probe a client sends to learn whether anybody answers (cflib's scan)."""
PROTOCOL_VERSION = 12
"""The first version with the supervisor port."""
SOURCE_TEXT = b"Bitcraze Crazyflie\0"


class WireError(RoboError):
    """A packet that is not what its port and channel say."""


class Port(enum.IntEnum):
    """CRTP ports."""

    CONSOLE = 0
    PARAM = 2
    COMMANDER = 3
    MEMORY = 4
    LOG = 5
    LOCALIZATION = 6
    GENERIC = 7
    HIGH_LEVEL = 8
    SUPERVISOR = 9
    PLATFORM = 13
    LINK = 15


class Frame(NamedTuple):
    """One packet: port 0..15, channel 0..3, at most 30 bytes."""

    port: int
    channel: int
    data: bytes


def encode(frame: Frame) -> bytes:
    """The datagram of a frame: header byte `port << 4 | 3 << 2 | channel`, then the data."""
    if not (0 <= frame.port <= 15 and 0 <= frame.channel <= 3):
        raise WireError(f"port {frame.port}, channel {frame.channel}; expected port 0..15 and channel 0..3")
    if len(frame.data) > MAX_DATA:
        raise WireError(f"{len(frame.data)} bytes of data; expected at most {MAX_DATA}")
    return bytes([frame.port << 4 | 3 << 2 | frame.channel]) + frame.data


def decode(datagram: bytes) -> Frame:
    """The frame in a datagram. The two link bits of the header are reserved and are ignored, as the firmware does."""
    if not 1 <= len(datagram) <= 1 + MAX_DATA:
        raise WireError(f"datagram of {len(datagram)} bytes; expected 1..{1 + MAX_DATA}")
    return Frame(datagram[0] >> 4, datagram[0] & 3, bytes(datagram[1:]))


def unpack(layout: str, data: bytes, what: str) -> tuple:
    """`struct.unpack` of exactly these bytes, with a WireError that names the packet."""
    size = struct.calcsize(layout)
    if len(data) != size:
        raise WireError(f"{what} holds {len(data)} bytes; expected {size}")
    return struct.unpack(layout, data)


# --- types of variables -------------------------------------------------------------------------------------------


class VariableType(NamedTuple):
    """How a variable is stored: its code in the table of contents, its struct layout, its size in bytes."""

    code: int
    layout: str
    size: int


def _types(codes: dict[str, tuple[int, str]]) -> dict[str, VariableType]:
    return {name: VariableType(code, "<" + c, struct.calcsize("<" + c)) for name, (code, c) in codes.items()}


LOG_TYPES = _types(
    {
        "uint8": (1, "B"),
        "uint16": (2, "H"),
        "uint32": (3, "I"),
        "int8": (4, "b"),
        "int16": (5, "h"),
        "int32": (6, "i"),
        "float": (7, "f"),
        "fp16": (8, "e"),
    }
)
PARAM_TYPES = _types(
    {
        "int8": (0x00, "b"),
        "int16": (0x01, "h"),
        "int32": (0x02, "i"),
        "float": (0x06, "f"),
        "uint8": (0x08, "B"),
        "uint16": (0x09, "H"),
        "uint32": (0x0A, "I"),
    }
)
READ_ONLY = 0x40
"""Flag on a parameter's type code."""


def type_name(types: dict[str, VariableType], code: int) -> str:
    """The name of a type code; raises WireError."""
    for name, t in types.items():
        if t.code == code:
            return name
    raise WireError(f"type code 0x{code:02x} unknown; codes: {', '.join(f'0x{t.code:02x}' for t in types.values())}")


def pack_value(t: VariableType, value: float) -> bytes:
    """A value as its type stores it: integers are rounded and held at the type's bounds, as a C cast would not."""
    if t.layout[1] in "fe":
        try:
            return struct.pack(t.layout, value)
        except OverflowError:
            return struct.pack(t.layout, float("inf") if value > 0 else float("-inf"))
    bits = 8 * t.size
    low, high = (0, 2**bits - 1) if t.layout[1].isupper() else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return struct.pack(t.layout, 0 if value != value else round(min(max(value, low), high)))


# --- tables of contents (log: port 5, parameters: port 2, channel 0) ------------------------------------------------

TOC_ITEM, TOC_INFO = 2, 3


class TocItem(NamedTuple):
    """One variable of a table of contents."""

    ident: int
    type_code: int
    group: str
    name: str


def pack_toc_item(item: TocItem) -> bytes:
    """Reply to `[2, id]`: `2, id, type, "group\\0name\\0"`; raises WireError for names that do not fit a packet."""
    text = item.group.encode("ascii") + b"\0" + item.name.encode("ascii") + b"\0"
    data = struct.pack("<BHB", TOC_ITEM, item.ident, item.type_code) + text
    if len(data) > MAX_DATA:
        raise WireError(f"variable {item.group}.{item.name}: {len(data)} bytes; a packet holds {MAX_DATA}")
    return data


def unpack_toc_item(data: bytes) -> TocItem:
    """A table entry; raises WireError where the two names are not both there and terminated."""
    if len(data) < 6 or data[0] != TOC_ITEM:
        raise WireError(f"table entry of {len(data)} bytes is none")
    parts = data[4:].split(b"\0")
    if len(parts) != 3 or parts[2] or not parts[0] or not parts[1] or not data[4:].isascii():
        raise WireError(f"table entry with names {data[4:]!r}; expected group\\0name\\0")
    return TocItem(struct.unpack_from("<H", data, 1)[0], data[3], parts[0].decode("ascii"), parts[1].decode("ascii"))


def pack_toc_info(count: int, crc: int, limits: bytes = b"") -> bytes:
    """Reply to `[3]`: `3, count, crc`; the log's also says how many blocks and variables it takes (`limits`)."""
    return struct.pack("<BHI", TOC_INFO, count, crc) + limits


def unpack_toc_info(data: bytes) -> tuple[int, int]:
    """(count, crc) of a table."""
    if len(data) not in (7, 9) or data[0] != TOC_INFO:
        raise WireError(f"table information of {len(data)} bytes; expected 7 or 9, beginning with {TOC_INFO}")
    return struct.unpack_from("<HI", data, 1)


def toc_crc(items: Iterable[TocItem]) -> int:
    """A check sum that changes with any entry: clients keep tables by it."""
    crc = 0
    for item in items:
        crc = zlib.crc32(pack_toc_item(item), crc)
    return crc


# --- log blocks (port 5) --------------------------------------------------------------------------------------------


class LogCommand(enum.IntEnum):
    """First byte on the log port's control channel."""

    DELETE = 2
    START = 3
    STOP = 4
    RESET = 5
    CREATE = 6
    APPEND = 7
    START_MS = 8


class LogControl(NamedTuple):
    """A decoded request on the log port's control channel."""

    command: LogCommand
    block: int
    variables: tuple[tuple[int, int], ...]
    """(fetch type code, variable id) for CREATE and APPEND."""
    period_ms: int


def pack_log_variables(command: LogCommand, block: int, variables: Sequence[tuple[int, int]]) -> bytes:
    """`[6 or 7, block, (type, id)...]`; at most nine variables fit one packet."""
    data = bytes([command, block]) + b"".join(struct.pack("<BH", t, i) for t, i in variables)
    if len(data) > MAX_DATA:
        raise WireError(f"{len(variables)} log variables in one packet; at most 9 fit")
    return data


def unpack_log_control(data: bytes) -> LogControl:
    """A request on the log's control channel; raises WireError for anything else."""
    if not data or data[0] not in LogCommand.__members__.values():
        raise WireError(f"log command {data[0] if data else 'missing'} unknown")
    command = LogCommand(data[0])
    if command == LogCommand.RESET:
        return LogControl(command, 0, (), 0)
    if command in (LogCommand.CREATE, LogCommand.APPEND):
        if len(data) < 2 or (len(data) - 2) % 3:
            raise WireError(f"log block request holds {len(data)} bytes; expected 2 + 3 per variable")
        # The upper half of the type byte says how the variable is stored, which the drone knows itself.
        parts = tuple((t & 0x0F, i) for t, i in struct.iter_unpack("<BH", data[2:]))
        return LogControl(command, data[1], parts, 0)
    if command == LogCommand.START:
        _, block, tens = unpack("<BBB", data, "start of a log block")
        return LogControl(command, block, (), 10 * tens)
    if command == LogCommand.START_MS:
        _, block, period = unpack("<BBH", data, "start of a log block in ms")
        return LogControl(command, block, (), period)
    _, block = unpack("<BB", data, f"log command {command.name}")
    return LogControl(command, block, (), 0)


def pack_log_data(block: int, t_ms: int, values: bytes) -> bytes:
    """A sample: block, the low 24 bits of the drone's millisecond clock, packed values (at most 26 bytes)."""
    if len(values) > MAX_DATA - 4:
        raise WireError(f"log block {block} holds {len(values)} bytes; expected at most {MAX_DATA - 4}")
    return bytes([block]) + (t_ms & 0xFFFFFF).to_bytes(3, "little") + values


def unpack_log_data(data: bytes) -> tuple[int, int, bytes]:
    """(block, 24-bit milliseconds, packed values) of a sample."""
    if len(data) < 4:
        raise WireError(f"log sample of {len(data)} bytes; expected at least 4")
    return data[0], int.from_bytes(data[1:4], "little"), data[4:]


# --- supervisor (port 9) --------------------------------------------------------------------------------------------


class Info(enum.IntFlag):
    """The supervisor's information bits (supervisor.c)."""

    CAN_BE_ARMED = 0x0001
    ARMED = 0x0002
    AUTO_ARMED = 0x0004
    CAN_FLY = 0x0008
    FLYING = 0x0010
    TUMBLED = 0x0020
    LOCKED = 0x0040
    CRASHED = 0x0080
    HIGH_LEVEL_ACTIVE = 0x0100
    HIGH_LEVEL_FINISHED = 0x0200
    HIGH_LEVEL_DISABLED = 0x0400


GET_BITFIELD = 0x0C
RESPONSE = 0x80


class SupervisorCommand(enum.IntEnum):
    """First byte on the supervisor's command channel."""

    ARM = 1
    RECOVER = 2
    EMERGENCY_STOP = 3
    EMERGENCY_STOP_WATCHDOG = 4


def unpack_supervisor_command(data: bytes) -> tuple[SupervisorCommand, bool]:
    """(command, argument) of a request; only ARM has an argument."""
    if not data or data[0] not in SupervisorCommand.__members__.values():
        raise WireError(f"supervisor command {data[0] if data else 'missing'} unknown")
    command = SupervisorCommand(data[0])
    expected = 2 if command == SupervisorCommand.ARM else 1
    if len(data) != expected:
        raise WireError(f"supervisor command {command.name} holds {len(data)} bytes; expected {expected}")
    return command, bool(data[1]) if expected == 2 else False


@dataclass(frozen=True)
class SupervisorReply:
    """What the supervisor answered: to ARM (accepted, armed now), to RECOVER (accepted, no longer crashed)."""

    command: SupervisorCommand
    accepted: bool
    state: bool


def unpack_supervisor_reply(data: bytes) -> SupervisorReply:
    """The answer to ARM or RECOVER."""
    head, accepted, state = unpack("<BBB", data, "supervisor's answer")
    if head - RESPONSE not in (SupervisorCommand.ARM, SupervisorCommand.RECOVER):
        raise WireError(f"supervisor's answer to command {head}; expected ARM or RECOVER")
    return SupervisorReply(SupervisorCommand(head - RESPONSE), bool(accepted), bool(state))


def unpack_bitfield(data: bytes) -> Info:
    """The supervisor's information bits."""
    head, bits = unpack("<BH", data, "supervisor's bit field")
    if head != RESPONSE | GET_BITFIELD:
        raise WireError(f"supervisor's bit field begins with {head}; expected {RESPONSE | GET_BITFIELD}")
    return Info(bits)
