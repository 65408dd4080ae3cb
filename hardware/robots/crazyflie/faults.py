"""Faults of the emulated Crazyflie: how they are named on the command line, and when they strike.

A fault is a value in the drone's parameter group `fault`, so that whoever can write a parameter can also cause one;
this module turns `name[:at_s[:value]]` into such writes at their instants.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hardware.errors import BadInput, NotFoundError


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault: its parameter, its value where none is given, and the values it takes."""

    parameter: str
    value: float
    low: float
    high: float
    meaning: str


FAULTS: dict[str, FaultKind] = {
    "packet_loss": FaultKind("fault.loss", 0.3, 0.0, 1.0, "share of packets lost, each way"),
    "delay": FaultKind("fault.delay", 0.05, 0.0, 5.0, "extra delay of every packet, each way, s"),
    "link_drop": FaultKind("fault.drop", -1.0, -1.0, 1e6, "link silent for this long, s; -1 for ever"),
    "motor_loss": FaultKind("fault.motor", 1.0, 1.0, 4.0, "motor 1..4 gives no force"),
    "battery_low": FaultKind("fault.vbat", 3.1, 1.0, 4.2, "battery voltage held at most at this, V"),
    "gyro_nan": FaultKind("fault.gyro", 1.0, 0.0, 1.0, "gyro reads NaN"),
    "mocap_loss": FaultKind("fault.mocap", -1.0, -1.0, 1e6, "motion capture blind for this long, s; -1 for ever"),
    "sensor_freeze": FaultKind("fault.freeze", 1.0, 0.0, 1.0, "estimate and gyro stand still"),
}


@dataclass(frozen=True)
class Fault:
    """One fault at one instant of the emulated time."""

    name: str
    at_s: float
    value: float

    @property
    def parameter(self) -> str:
        """The parameter it writes."""
        return FAULTS[self.name].parameter


def parse_fault(text: str, rng: np.random.Generator) -> Fault:
    """A fault from `name[:at_s[:value]]`; `at_s` may be a range `2..8`, from which an instant is drawn.

    Raises NotFoundError for an unknown name and BadInput for a number that is none or out of range.
    """
    name, *rest = text.split(":")
    if name not in FAULTS:
        raise NotFoundError("fault of robot crazyflie", name, FAULTS)
    kind = FAULTS[name]
    try:
        if len(rest) > 2:
            raise ValueError("too many parts")
        low, _, high = (rest[0] if rest and rest[0] else "0").partition("..")
        at_s = float(low) if not high else float(rng.uniform(float(low), float(high)))
        value = float(rest[1]) if len(rest) == 2 else kind.value
    except ValueError:
        raise BadInput(f"fault '{text}' is not of the form name[:at_s[:value]], for instance {name}:2.5") from None
    if not kind.low <= value <= kind.high or not 0.0 <= at_s < float("inf"):
        raise BadInput(f"fault '{text}': expected at_s >= 0 and {kind.meaning} within {kind.low:g}..{kind.high:g}")
    return Fault(name, at_s, value)


class FaultSchedule:
    """Faults yet to come, for every drone of an emulator."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._waiting = sorted(faults, key=lambda f: f.at_s)

    def due(self, t_s: float) -> list[Fault]:
        """The faults that strike by now; each is returned once."""
        n = sum(f.at_s <= t_s for f in self._waiting)
        now, self._waiting = self._waiting[:n], self._waiting[n:]
        return now
