"""Register tables: which register holds which signal or command component of which device, read from TOML.

`registers.toml` is the emulated PLC's; `profiles/*.toml` are those of real devices, from their makers' manuals.
"""

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput, NotFoundError
from hardware.robots.greenhouse_plc.wire import (
    CHECK_VALUE,
    WORDS,
    Kind,
    ModbusRefusal,
    Order,
    Space,
    decode,
    encode,
    from_manual,
)
from hardware.spec import RobotSpec

GAP = 8
"""Registers between two wanted ones that are read along rather than asked for twice."""
MOST = 120
"""Registers of one request; the protocol allows 125."""
EMULATED = "emulated"


@dataclass(frozen=True)
class Register:
    """`count` equal values in consecutive registers."""

    space: Space
    address: int
    kind: Kind = "u16"
    order: Order = "big"
    count: int = 1
    scale: float = 1.0
    """Value = raw * scale + offset."""
    offset: float = 0.0
    bad: float | None = None
    """Raw number that marks a broken sensor."""
    low: float = -math.inf
    high: float = math.inf
    dead_band: float = 0.0
    """Smallest change of the value that is worth writing."""

    @property
    def size(self) -> int:
        """How many registers it takes."""
        return WORDS[self.kind] * self.count

    def values(self, registers: Sequence[int]) -> list[float]:
        """Values in its registers; NaN where the sensor is broken."""
        n = WORDS[self.kind]
        return [self._value(registers[i : i + n]) for i in range(0, len(registers), n)]

    def registers(self, value: float) -> list[int]:
        """Registers of a value, clamped to the table's bounds; raises BadInput where the type cannot hold it."""
        held = min(max(value, self.low), self.high) if math.isfinite(value) else value
        return encode((held - self.offset) / self.scale, self.kind, self.order)

    def _value(self, registers: Sequence[int]) -> float:
        raw = decode(registers, self.kind, self.order)
        bad = self.bad
        if bad is not None and raw == (bad - 0x10000 if self.kind == "i16" and bad >= 0x8000 else bad):
            return math.nan
        return raw * self.scale + self.offset


@dataclass(frozen=True)
class Control:
    """Registers that make commanding safe; each is None for a device without it."""

    mode: Register | None = None
    modes: Mapping[str, int] = field(default_factory=dict)
    """Number in the mode register of `local` and of the robot's command modes."""
    heartbeat: Register | None = None
    sequence: Register | None = None
    accepted: Register | None = None
    enable: Register | None = None
    acknowledge: Register | None = None
    status: Register | None = None
    uptime: Register | None = None
    ages: Register | None = None
    block: tuple[int, int] | None = None
    """First and last holding register that are written in one request."""


@dataclass(frozen=True)
class Table:
    """Everything the driver has to know of a device."""

    name: str
    unit: int
    read: Mapping[str, tuple[Register, ...]]
    """Signal -> the registers that hold its components."""
    write: Mapping[str, Mapping[str, Register]]
    """Command mode -> component -> register."""
    control: Control
    heartbeat_s: float
    read_s: float
    silence_s: float
    """Silence after which no state is handed out any more."""
    command_periods: float = 1.7
    """For how many periods of its mode a command stays in force; after that the heartbeat ends."""
    check: Register | None = None
    check_value: float = CHECK_VALUE

    @property
    def polled(self) -> list[Register]:
        """Everything that is read regularly."""
        parts = [r for registers in self.read.values() for r in registers]
        c = self.control
        watched = [r for r in (c.status, c.uptime, c.ages, c.mode, c.accepted, c.enable) if r is not None]
        return [*parts, *watched]


def load_table(name: str = EMULATED) -> Table:
    """A table by name, or from a TOML file where the name ends so; raises NotFoundError listing the profiles."""
    if name.endswith(".toml"):
        path = Path(name)
    elif name == EMULATED:
        path = _folder() / "registers.toml"
    else:
        path = _folder() / "profiles" / f"{name}.toml"
        if name not in profile_names():
            raise NotFoundError("register table", name, profile_names())
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise BadInput(f"{path}: not a register table: {e}") from e
    return parse_table(raw, source=str(path))


def profile_names() -> list[str]:
    """Tables that ship with the driver."""
    return [EMULATED, *sorted(p.stem for p in (_folder() / "profiles").glob("*.toml"))]


def parse_table(raw: Mapping[str, Any], *, source: str) -> Table:
    """A table from parsed TOML; raises BadInput naming the file and the entry that does not fit."""
    try:
        order: Order = raw.get("word_order", "big")
        _one_of("word_order", order, ("big", "little"))
        _known("table", raw, ("name", "unit", "word_order", "timing", "check", "control", "read", "write"))
        timing, check = raw["timing"], raw.get("check")
        _known("timing", timing, ("heartbeat_s", "read_s", "silence_s", "command_periods"))
        read = {
            signal: tuple(_register(f"read.{signal}", part, order) for part in parts)
            for signal, parts in raw.get("read", {}).items()
        }
        write = {
            mode: {name: _register(f"write.{mode}.{name}", part, order) for name, part in parts.items()}
            for mode, parts in raw.get("write", {}).items()
        }
        marker = None
        if check is not None:
            where = {k: v for k, v in check.items() if k != "value"}
            marker = _register("check", {**where, "type": "f32"}, order)
        return Table(
            name=str(raw["name"]),
            unit=int(raw.get("unit", 1)),
            read=read,
            write=write,
            control=_control(raw.get("control", {}), order),
            heartbeat_s=float(timing.get("heartbeat_s", 10.0)),
            read_s=float(timing["read_s"]),
            silence_s=float(timing["silence_s"]),
            command_periods=float(timing.get("command_periods", 1.7)),
            check=marker,
            check_value=float((check or {}).get("value", CHECK_VALUE)),
        )
    except KeyError as e:
        raise BadInput(f"{source}: not a register table: entry {e} is missing") from e
    except (TypeError, ValueError, AttributeError) as e:
        raise BadInput(f"{source}: not a register table: {e}") from e
    except BadInput as e:
        raise BadInput(f"{source}: {e}") from e


def check_against(table: Table, spec: RobotSpec) -> None:
    """Raises BadInput where the table names signals or components that the robot has not, or too few parts of one."""
    for signal, registers in table.read.items():
        if signal not in spec.signals:
            raise BadInput(f"table {table.name}: no signal '{signal}'; signals: {', '.join(spec.signals)}")
        size = math.prod(spec.signals[signal].shape)
        if sum(r.count for r in registers) != size:
            raise BadInput(f"table {table.name}: {signal} has {sum(r.count for r in registers)} parts; expected {size}")
    for mode, parts in table.write.items():
        unknown = set(parts) - set(spec.mode(mode).components)
        if unknown:
            raise BadInput(f"table {table.name}: mode {mode} has no component {', '.join(sorted(unknown))}")
        if table.control.mode is not None and mode not in table.control.modes:
            raise BadInput(f"table {table.name}: control.mode has no number for mode '{mode}'")


def blocks(registers: Iterable[Register]) -> list[tuple[Space, int, int]]:
    """Requests (space, address, count) that cover all registers, neighbours together."""
    found: list[tuple[Space, int, int]] = []
    for r in sorted(set(registers), key=lambda r: (r.space, r.address)):
        if found:
            space, start, count = found[-1]
            end = r.address + r.size
            if space == r.space and r.address - (start + count) <= GAP and end - start <= MOST:
                found[-1] = (space, start, max(count, end - start))
                continue
        found.append((r.space, r.address, r.size))
    return found


class Image:
    """Registers as they were read, for decoding."""

    def __init__(self) -> None:
        self._words: dict[tuple[str, int], int] = {}

    def put(self, space: str, address: int, words: Sequence[int]) -> None:
        """Keeps words that were read."""
        self._words.update({(space, address + i): int(w) for i, w in enumerate(words)})

    def words(self, r: Register) -> list[int]:
        """Raw registers of an entry."""
        return [self._words[r.space, r.address + i] for i in range(r.size)]

    def values(self, registers: Sequence[Register]) -> NDArray[np.float64]:
        """Values of entries, one after the other."""
        return np.array([v for r in registers for v in r.values(self.words(r))])

    def number(self, r: Register) -> int:
        """One whole number."""
        return round(r.values(self.words(r))[0])


def explain(error: ModbusRefusal, table: Table) -> str:
    """A device's refusal as one line that says what to look at."""
    hints = {
        1: "the device does not know this function: wrong register map?",
        2: "the device has no such register: wrong register map, or an address counted from 1 instead of 0?",
        3: "the device takes no such value: check the bounds in the table",
        11: f"nobody answers as unit {table.unit}: set unit",
    }
    hint = hints.get(error.code, "")
    return f"{error} in table '{table.name}'{'; ' + hint if hint else ''}"


def _control(raw: Mapping[str, Any], order: Order) -> Control:
    known = ("heartbeat", "mode", "sequence", "enable", "acknowledge", "block", "status", "uptime", "ages")
    _known("control", raw, known)
    parts: dict[str, Any] = {}
    for name in ("heartbeat", "enable", "acknowledge", "status", "uptime", "ages"):
        if name in raw:
            parts[name] = _register(f"control.{name}", raw[name], order)
    if "mode" in raw:
        where = {k: v for k, v in raw["mode"].items() if k in ("holding", "manual")}
        parts["mode"] = _register("control.mode", where, order)
        parts["modes"] = {k: int(v) for k, v in raw["mode"].items() if k not in where}
        if "local" not in parts["modes"]:
            raise ValueError("control.mode needs the number of mode 'local'")
    if "sequence" in raw:
        where = {k: v for k, v in raw["sequence"].items() if k != "accepted"}
        parts["sequence"] = _register("control.sequence", where, order)
        parts["accepted"] = _register("control.sequence", {"holding": raw["sequence"]["accepted"]}, order)
    if "block" in raw:
        first, last = raw["block"]
        parts["block"] = (int(first), int(last))
    return Control(**parts)


_SPACES: tuple[Space, ...] = ("coil", "discrete", "input", "holding")
_KEYS = ("type", "word_order", "count", "scale", "offset", "bad", "min", "max", "dead_band")


def _register(what: str, raw: Mapping[str, Any], order: Order) -> Register:
    _known(what, raw, (*_SPACES, "manual", *_KEYS))
    places = [k for k in (*_SPACES, "manual") if k in raw]
    if len(places) != 1:
        raise ValueError(f"{what}: give one of {', '.join(_SPACES)} or manual; given: {', '.join(places) or 'none'}")
    number = raw[places[0]]
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError(f"{what}: address {number!r} is not a whole number from 0")
    space, address = from_manual(number) if places[0] == "manual" else (places[0], number)
    kind: Kind = raw.get("type", "u16")
    _one_of(f"{what}: type", kind, tuple(WORDS))
    _one_of(f"{what}: word_order", raw.get("word_order", order), ("big", "little"))
    scale = float(raw.get("scale", 1.0))
    if scale == 0.0 or not math.isfinite(scale):
        raise ValueError(f"{what}: scale {scale}; expected a finite number other than 0")
    register = Register(
        space=space,  # type: ignore[arg-type]
        address=address,
        kind=kind,
        order=raw.get("word_order", order),
        count=int(raw.get("count", 1)),
        scale=scale,
        offset=float(raw.get("offset", 0.0)),
        bad=raw.get("bad"),
        low=float(raw.get("min", -math.inf)),
        high=float(raw.get("max", math.inf)),
        dead_band=float(raw.get("dead_band", 0.0)),
    )
    if register.count < 1 or address + register.size > 65536:
        raise ValueError(f"{what}: {register.count} values from address {address} do not fit into 65536 registers")
    if not register.low <= register.high:
        raise ValueError(f"{what}: min {register.low:g} is above max {register.high:g}")
    return register


def _known(what: str, raw: Mapping[str, Any], known: Sequence[str]) -> None:
    if unknown := sorted(set(raw) - set(known)):
        raise ValueError(f"{what} has unknown entries {', '.join(unknown)}; known: {', '.join(known)}")


def _one_of(what: str, given: Any, known: Sequence[str]) -> None:
    if given not in known:
        raise ValueError(f"{what} '{given}'; expected one of {', '.join(known)}")


def _folder() -> Path:
    return Path(str(resources.files("hardware.robots.greenhouse_plc")))
