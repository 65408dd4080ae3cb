"""Faults of the emulated PLC: how they are named on the command line, when they strike, and when they are over."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hardware.errors import BadInput, NotFoundError
from hardware.robots.greenhouse_plc.plc import Plc
from hardware.robots.greenhouse_plc.sensors import SENSORS

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


class Link(Protocol):
    """The network side of an emulated PLC, as far as faults reach it."""

    silent: bool
    """Connections stay open, but nothing is answered."""
    off: bool
    """Nobody listens: no power."""


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault: its default value and duration (s; inf for ever), and what the value is."""

    value: float
    low: float
    high: float
    duration_s: float
    meaning: str


FOREVER = float("inf")
FAULTS: dict[str, FaultKind] = {
    **{
        f"stuck_{actuator}": FaultKind(0.0, 0.0, 0.0, 3600.0, "actuator does not move")
        for actuator in ("vent", "heat", "co2")
    },
    **{f"freeze_{s}": FaultKind(0.0, 0.0, 0.0, 3600.0, "sensor repeats its last value") for s in SENSORS},
    **{f"drop_{s}": FaultKind(0.0, 0.0, 0.0, 3600.0, "sensor reads 0x8000") for s in SENSORS},
    "drift_temperature": FaultKind(0.5, -50.0, 50.0, FOREVER, "change of the reading, degC per day"),
    "drift_humidity": FaultKind(0.02, -5.0, 5.0, FOREVER, "change of the reading, share per day"),
    "drift_co2": FaultKind(50.0, -5000.0, 5000.0, FOREVER, "change of the reading, ppm per day"),
    "spike_temperature": FaultKind(-20.0, -100.0, 100.0, 0.0, "error of one sample, degC"),
    "spike_humidity": FaultKind(-0.5, -1.0, 1.0, 0.0, "error of one sample, share"),
    "spike_co2": FaultKind(1500.0, -5000.0, 5000.0, 0.0, "error of one sample, ppm"),
    "delay": FaultKind(180.0, 0.0, 3600.0, FOREVER, "samples arrive so late, s"),
    "storm": FaultKind(18.0, 0.0, 60.0, 3600.0, "what the wind meter reads, m/s"),
    "key_off": FaultKind(0.0, 0.0, 0.0, 3600.0, "the operator's remote-enable key is off"),
    "dead_connection": FaultKind(0.0, 0.0, 0.0, 1800.0, "connections stay open, nothing is answered"),
    "restart": FaultKind(0.0, 0.0, 0.0, 120.0, "power is gone; the program starts anew when it is back"),
}


@dataclass(frozen=True)
class Fault:
    """One fault from one instant of plant time to another."""

    name: str
    at_s: float
    value: float
    until_s: float


def parse_fault(text: str, rng: np.random.Generator) -> Fault:
    """A fault from `name[:at[:duration[:value]]]`; times in seconds or with a suffix m, h, d; `at` may be a range.

    Raises NotFoundError for an unknown name and BadInput for a number that is none or out of range.
    """
    name, *rest = text.split(":")
    if name not in FAULTS:
        raise NotFoundError("fault of robot greenhouse_plc", name, FAULTS)
    kind = FAULTS[name]
    try:
        if len(rest) > 3:
            raise ValueError("too many parts")
        low, _, high = (rest[0] if rest and rest[0] else "0").partition("..")
        at_s = _seconds(low) if not high else float(rng.uniform(_seconds(low), _seconds(high)))
        duration_s = _seconds(rest[1]) if len(rest) > 1 and rest[1] else kind.duration_s
        value = float(rest[2]) if len(rest) > 2 else kind.value
    except ValueError:
        raise BadInput(f"fault '{text}' is not name[:at[:duration[:value]]], for instance {name}:2h:30m") from None
    if not kind.low <= value <= kind.high:
        raise BadInput(f"fault '{text}': expected {kind.meaning} within {kind.low:g}..{kind.high:g}")
    return Fault(name, at_s, value, at_s + duration_s)


class FaultSchedule:
    """Faults yet to strike or to end, for every compartment of an emulator."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._waiting = sorted(faults, key=lambda f: f.at_s)
        self._acting: list[Fault] = []

    def turn(self, now_s: float, plcs: Iterable[tuple[Plc, Link]]) -> None:
        """Begins what is due and ends what is over."""
        houses = list(plcs)
        while self._waiting and self._waiting[0].at_s <= now_s:
            fault = self._waiting.pop(0)
            for plc, link in houses:
                _begin(fault, plc, link)
            self._acting.append(fault)
        for fault in [f for f in self._acting if f.until_s <= now_s]:
            for plc, link in houses:
                _end(fault, plc, link)
            self._acting.remove(fault)


def _begin(fault: Fault, plc: Plc, link: Link) -> None:
    kind, _, part = fault.name.partition("_")
    s = plc.samples
    match kind:
        case "stuck":
            plc.stuck.add(part)
        case "freeze":
            s.frozen.add(part)
        case "drop":
            s.broken.add(part)
        case "drift":
            s.drift[part] = (plc.now_s, fault.value)
        case "spike":
            s.spike[part] = fault.value
        case "delay":
            s.delay_s = fault.value
        case "storm":
            s.wind = fault.value
        case "key":
            plc.enabled = False
        case "dead":
            link.silent = True
        case "restart":
            link.off = True


def _end(fault: Fault, plc: Plc, link: Link) -> None:
    kind, _, part = fault.name.partition("_")
    s = plc.samples
    match kind:
        case "stuck":
            plc.stuck.discard(part)
        case "freeze":
            s.frozen.discard(part)
        case "drop":
            s.broken.discard(part)
        case "drift":
            s.drift.pop(part, None)
        case "delay":
            s.delay_s = 0.0
        case "storm":
            s.wind = None
        case "key":
            plc.enabled = True
        case "dead":
            link.silent = False
        case "restart":
            plc.restart()
            link.off = False


def _seconds(text: str) -> float:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return float(found[1]) * _SECONDS[found[2]]
