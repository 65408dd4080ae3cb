"""Registers <-> values: number formats, word order, scaling, bad-sensor marks, status bits, addresses of manuals.

Pure functions on lists of 16-bit registers, addresses from 0; no sockets, no clock.
"""

import math
import struct
from collections.abc import Sequence
from enum import IntFlag
from typing import Literal

from hardware.errors import BadInput, RoboError

Kind = Literal["u16", "i16", "u32", "f32"]
Order = Literal["big", "little"]
"""Which word of a two-register value comes first: the high one (big) or the low one. Bytes are always big-endian."""
Space = Literal["coil", "discrete", "input", "holding"]

BAD_SENSOR = 0x8000
"""What a register holds where its sensor is broken."""
CHECK_VALUE = 1234.5
"""The constant that tells a wrong word order."""

WORDS: dict[str, int] = {"u16": 1, "i16": 1, "u32": 2, "f32": 2}
"""Registers of one value."""
_FORMAT = {"u16": ">H", "i16": ">h", "u32": ">I", "f32": ">f"}
_RANGE = {"u16": (0, 0xFFFF), "i16": (-0x8000, 0x7FFF), "u32": (0, 0xFFFFFFFF)}

EXCEPTIONS = {
    1: "illegal function",
    2: "illegal address",
    3: "illegal value",
    4: "device failure",
    6: "device busy",
    10: "gateway has no path",
    11: "gateway target does not respond",
}


class ModbusRefusal(RoboError):  # noqa: N818 - the protocol's word is exception response
    """A device's exception response."""

    def __init__(self, code: int, what: str = "") -> None:
        self.code, self.what = code, what
        super().__init__(f"{what or 'request'}: {EXCEPTIONS.get(code, 'unknown')} (exception {code})")


class Status(IntFlag):
    """Bits of the status register; discrete inputs 0-6 mirror them."""

    WATCHDOG = 1
    LOCAL = 2
    SENSOR_FAULT = 4
    FROST = 8
    OVERHEAT = 16
    CO2_HIGH = 32
    CLIPPED = 64


STATUS_WORDS = {
    Status.WATCHDOG: "watchdog_tripped",
    Status.LOCAL: "local",
    Status.SENSOR_FAULT: "sensor_fault",
    Status.FROST: "frost",
    Status.OVERHEAT: "overheat",
    Status.CO2_HIGH: "co2_high",
    Status.CLIPPED: "clipped",
}
"""Word of `RobotState.status` for every bit."""


def decode(registers: Sequence[int], kind: Kind, order: Order = "big") -> float:
    """The number in the registers; raises BadInput for a wrong count of registers."""
    if len(registers) != WORDS[kind]:
        raise BadInput(f"{len(registers)} registers; a value of type {kind} has {WORDS[kind]}")
    words = registers if order == "big" else registers[::-1]
    return float(struct.unpack(_FORMAT[kind], b"".join(struct.pack(">H", w) for w in words))[0])


def encode(number: float, kind: Kind, order: Order = "big") -> list[int]:
    """Registers of a number, rounded for integer types; raises BadInput where it does not fit or is not finite."""
    if not math.isfinite(number):
        raise BadInput(f"{number} cannot be written: not finite")
    if kind == "f32":
        try:
            raw = struct.pack(">f", number)
        except OverflowError:
            raise BadInput(f"{number:g} does not fit into type f32") from None
    else:
        low, high = _RANGE[kind]
        whole = round(number)
        if not low <= whole <= high:
            raise BadInput(f"{number:g} does not fit into type {kind}: {low}..{high}")
        raw = struct.pack(_FORMAT[kind], whole)
    words = [word for (word,) in struct.iter_unpack(">H", raw)]
    return words if order == "big" else words[::-1]


def from_manual(number: int) -> tuple[Space, int]:
    """Register space and address from 0 of a manual's number: 30011 is input register 10, 40021 holding register 20.

    Five or six digits: 0xxxx coils, 1xxxx discrete inputs, 3xxxx input registers, 4xxxx holding registers. Raises
    BadInput for any other number.
    """
    spaces: dict[int, Space] = {0: "coil", 1: "discrete", 3: "input", 4: "holding"}
    base = 100_000 if number >= 100_000 else 10_000
    digit, index = divmod(number, base)
    if digit not in spaces or not 1 <= index <= 65536:
        raise BadInput(f"manual register {number}; expected 00001.., 10001.., 30001.. or 40001.., or six digits")
    return spaces[digit], index - 1


def status_words(bits: int) -> frozenset[str]:
    """Words for the status bits that are set."""
    return frozenset(word for bit, word in STATUS_WORDS.items() if bits & bit)


def check_word_order(registers: Sequence[int], order: Order, expected: float, where: str) -> None:
    """Raises BadInput where the device's constant shows that its words come the other way round, or not at all."""
    if math.isclose(decode(registers, "f32", order), expected, rel_tol=1e-6):
        return
    other: Order = "little" if order == "big" else "big"
    if math.isclose(decode(registers, "f32", other), expected, rel_tol=1e-6):
        raise BadInput(f"{where} holds {expected:g} in word order '{other}', not '{order}': set word_order = '{other}'")
    shown = " ".join(f"{r:#06x}" for r in registers)
    raise BadInput(f"{where} holds {shown}, not {expected:g}: wrong register map or unit id")
