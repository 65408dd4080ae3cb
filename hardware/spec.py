"""What a robot is, read from its `spec.toml`: signals, command modes, limits, rates and safe states."""

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

from hardware.errors import BadInput, NotFoundError


class LimitArrays(NamedTuple):
    """`Limits` as arrays of shape (J,) in one namespace, ready for `limit_command`."""

    low: Any
    high: Any
    rate: Any


@dataclass(frozen=True)
class Limits:
    """Bounds of one command vector of J components, in the components' own units."""

    position: tuple[tuple[float, float], ...]
    """Lowest and highest value of each component."""
    rate: tuple[float, ...]
    """Largest change per second of each component; `inf` where the machine itself may be trusted."""
    effort: tuple[float, ...]
    """Largest absolute value of a component that is a force or torque; `inf` elsewhere."""

    def on(self, like: Any) -> LimitArrays:
        """The limits as arrays of `like`'s namespace, dtype and device."""
        xp = array_namespace(like)
        low = [max(p[0], -e) for p, e in zip(self.position, self.effort, strict=True)]
        high = [min(p[1], e) for p, e in zip(self.position, self.effort, strict=True)]
        make = lambda v: xp.asarray(v, dtype=like.dtype, device=device(like))  # noqa: E731
        return LimitArrays(make(low), make(high), make(list(self.rate)))


@dataclass(frozen=True)
class Topic:
    """Where a value lives on ROS 2 and in a log: topic, message type, and one dotted field per component."""

    name: str
    type: str
    fields: tuple[str, ...]
    scale: tuple[float, ...]
    """Message value = scale x SI value, per component (for instance 57.29578 for degrees)."""


@dataclass(frozen=True)
class Signal:
    """One measured quantity of the robot."""

    name: str
    shape: tuple[int, ...]
    unit: str
    frame: str
    topic: Topic | None = None
    note: str = ""


@dataclass(frozen=True)
class CommandMode:
    """One way to command the robot: J named components with limits, a rate, and what to send when in doubt."""

    name: str
    components: tuple[str, ...]
    units: tuple[str, ...]
    limits: Limits
    rate_hz: float
    """Rate at which commands must arrive; 0 for a one-shot command such as `takeoff`."""
    safe: tuple[float, ...]
    topic: Topic | None = None
    note: str = ""


@dataclass(frozen=True)
class SafeState:
    """What to do about a fault: write `values` in command mode `mode`, or call `stop()` where mode is 'stop'."""

    mode: str
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class RobotSpec:
    """A robot's contract with the rest of the stack."""

    name: str
    summary: str
    rate_hz: float
    """Rate of the state stream."""
    signals: Mapping[str, Signal]
    modes: Mapping[str, CommandMode]
    safe_states: Mapping[str, SafeState]
    """Fault name -> safe state; `default` covers every fault that is not named."""
    address: str
    """Where the robot is looked for when the user gives no address."""
    parameters: Mapping[str, Any]
    """Physical and firmware numbers of this machine, with units and sources in the TOML's comments."""

    def mode(self, name: str) -> CommandMode:
        """The command mode of that name; raises NotFoundError listing the modes there are."""
        if name not in self.modes:
            raise NotFoundError(f"command mode of robot {self.name}", name, self.modes)
        return self.modes[name]

    def safe_state(self, fault: str) -> SafeState:
        """What this robot does about a fault."""
        return self.safe_states.get(fault, self.safe_states["default"])

    def digest(self) -> str:
        """SHA-256 over everything a policy relies on: signals, units, modes, limits, rates; not notes or topics."""
        contract = {
            "name": self.name,
            "rate_hz": self.rate_hz,
            "signals": {s.name: [s.shape, s.unit, s.frame] for s in self.signals.values()},
            "modes": {
                m.name: [m.components, m.units, m.limits.position, m.limits.rate, m.limits.effort, m.rate_hz, m.safe]
                for m in self.modes.values()
            },
            "safe_states": {k: [v.mode, v.values] for k, v in self.safe_states.items()},
        }
        return hashlib.sha256(json.dumps(contract, sort_keys=True).encode()).hexdigest()


def robot_names() -> list[str]:
    """Names of all robots: the folders of `hardware/robots` that hold a `spec.toml`."""
    root = Path(str(resources.files("hardware.robots")))
    return sorted(p.parent.name for p in root.glob("*/spec.toml"))


@cache
def load_spec(name: str) -> RobotSpec:
    """The spec of a robot by name; raises NotFoundError with the known names."""
    if name not in robot_names():
        raise NotFoundError("robot", name, robot_names())
    path = Path(str(resources.files("hardware.robots"))) / name / "spec.toml"
    return parse_spec(tomllib.loads(path.read_text()), source=str(path))


def parse_spec(raw: Mapping[str, Any], *, source: str) -> RobotSpec:
    """A RobotSpec from parsed TOML; raises BadInput naming the file and the offending entry."""
    try:
        modes = {name: _mode(name, m) for name, m in raw["modes"].items()}
        signals = {name: _signal(name, s) for name, s in raw["signals"].items()}
        safe = {f: SafeState(s["mode"], tuple(s.get("values", ()))) for f, s in raw["safe_states"].items()}
        spec = RobotSpec(
            name=raw["name"],
            summary=raw["summary"],
            rate_hz=float(raw["rate_hz"]),
            signals=signals,
            modes=modes,
            safe_states=safe,
            address=raw["address"],
            parameters=raw.get("parameters", {}),
        )
    except (KeyError, TypeError, ValueError) as e:
        raise BadInput(f"{source}: not a robot spec: {type(e).__name__} {e}") from e
    for fault, state in spec.safe_states.items():
        if state.mode != "stop" and (state.mode not in modes or len(state.values) != len(modes[state.mode].components)):
            raise BadInput(f"{source}: safe state of '{fault}' is not 'stop' and not a full command of a known mode")
    if "default" not in safe:
        raise BadInput(f"{source}: safe_states needs an entry 'default'")
    return spec


def _signal(name: str, s: Mapping[str, Any]) -> Signal:
    shape = tuple(s.get("shape", ()))
    return Signal(name, shape, s["unit"], s.get("frame", ""), _topic(s, math.prod(shape)), s.get("note", ""))


def _mode(name: str, m: Mapping[str, Any]) -> CommandMode:
    parts = m["components"]
    limits = Limits(
        position=tuple((float(c["low"]), float(c["high"])) for c in parts),
        rate=tuple(float(c.get("rate", math.inf)) for c in parts),
        effort=tuple(float(c.get("effort", math.inf)) for c in parts),
    )
    names, units = tuple(c["name"] for c in parts), tuple(c["unit"] for c in parts)
    safe = tuple(float(c.get("safe", 0.0)) for c in parts)
    rate_hz = float(m.get("rate_hz", 0.0))
    return CommandMode(name, names, units, limits, rate_hz, safe, _topic(m, len(parts)), m.get("note", ""))


def _topic(raw: Mapping[str, Any], size: int) -> Topic | None:
    if "topic" not in raw:
        return None
    fields = tuple(raw["fields"])
    scale = tuple(float(v) for v in raw.get("field_scale", [1.0] * len(fields)))
    if len(scale) != len(fields) or len(fields) not in (1, size):
        raise ValueError(f"topic {raw['topic']}: {len(fields)} fields and {len(scale)} scales for {size} components")
    return Topic(raw["topic"], raw["type"], fields, scale)
