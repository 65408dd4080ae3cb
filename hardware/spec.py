"""What a robot is, read from its `spec.toml`: signals, command modes, limits, rates and safe states."""

import hashlib
import json
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from hardware.arrays import constant
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
        low = [max(p[0], -e) for p, e in zip(self.position, self.effort, strict=True)]
        high = [min(p[1], e) for p, e in zip(self.position, self.effort, strict=True)]
        return LimitArrays(constant(low, like), constant(high, like), constant(list(self.rate), like))


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
    return read_spec(path)


def read_spec(path: Path) -> RobotSpec:
    """A RobotSpec from a TOML file; raises BadInput naming the file and what is wrong with it."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise BadInput(f"{path}: not a robot spec: {e}") from e
    return parse_spec(raw, source=str(path))


def parse_spec(raw: Mapping[str, Any], *, source: str) -> RobotSpec:
    """A RobotSpec from parsed TOML; raises BadInput naming the file and the offending entry."""
    try:
        _known_keys("spec", raw, ("name", "summary", "rate_hz", "address", "parameters", *_TABLES))
        signals, modes, safe = (
            {name: _entry(table, name, raw[table][name], make) for name in raw[table]}
            for table, make in _TABLES.items()
        )
        spec = RobotSpec(
            name=str(raw["name"]),
            summary=str(raw["summary"]),
            rate_hz=_number(raw["rate_hz"], positive=True),
            signals=signals,
            modes=modes,
            safe_states=safe,
            address=str(raw["address"]),
            parameters=raw.get("parameters", {}),
        )
        _check_safe_states(spec)
    except KeyError as e:
        raise BadInput(f"{source}: not a robot spec: entry {e} is missing") from e
    except (TypeError, ValueError, AttributeError) as e:
        raise BadInput(f"{source}: not a robot spec: {e}") from e
    return spec


def _entry(table: str, name: str, raw: Any, make: Callable[[str, Mapping[str, Any]], Any]) -> Any:
    """One entry of a table; names the entry in what it raises."""
    try:
        return make(name, raw)
    except KeyError as e:
        raise ValueError(f"{table}.{name}: entry {e} is missing") from e
    except (TypeError, ValueError, AttributeError) as e:
        raise ValueError(f"{table}.{name}: {e}") from e


def _signal(name: str, s: Mapping[str, Any]) -> Signal:
    _known_keys("signal", s, ("shape", "unit", "frame", "note", *_TOPIC_KEYS))
    shape = tuple(s.get("shape", ()))
    if not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"shape {list(shape)} is not a list of positive whole numbers")
    return Signal(name, shape, str(s["unit"]), s.get("frame", ""), _topic(s, math.prod(shape)), s.get("note", ""))


def _mode(name: str, m: Mapping[str, Any]) -> CommandMode:
    _known_keys("mode", m, ("components", "rate_hz", "note", *_TOPIC_KEYS))
    parts = m["components"]
    for c in parts:
        _known_keys("component", c, ("name", "unit", "low", "high", "rate", "effort", "safe"))
    names, units = tuple(str(c["name"]) for c in parts), tuple(str(c["unit"]) for c in parts)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"components {list(names)}: at least one, each with a name of its own")
    limits = Limits(
        position=tuple((_number(c["low"]), _number(c["high"])) for c in parts),
        rate=tuple(_number(c.get("rate", math.inf), positive=True, endless=True) for c in parts),
        effort=tuple(_number(c.get("effort", math.inf), positive=True, endless=True) for c in parts),
    )
    safe = tuple(_number(c.get("safe", 0.0)) for c in parts)
    for c, value, (low, high), effort in zip(names, safe, limits.position, limits.effort, strict=True):
        if not max(low, -effort) <= value <= min(high, effort):
            raise ValueError(f"component {c}: safe value {value} outside {low}..{high} and effort {effort}")
    rate_hz = _number(m["rate_hz"], positive=True) if "rate_hz" in m else 0.0
    return CommandMode(name, names, units, limits, rate_hz, safe, _topic(m, len(parts)), m.get("note", ""))


def _safe_state(name: str, s: Mapping[str, Any]) -> SafeState:
    _known_keys("safe state", s, ("mode", "values"))
    return SafeState(str(s["mode"]), tuple(_number(v) for v in s.get("values", ())))


def _check_safe_states(spec: RobotSpec) -> None:
    if "default" not in spec.safe_states:
        raise ValueError("safe_states needs an entry 'default'")
    for fault, state in spec.safe_states.items():
        if state.mode == "stop":
            continue
        mode = spec.modes.get(state.mode)
        if mode is None or len(state.values) != len(mode.components):
            raise ValueError(f"safe state of '{fault}' is not 'stop' and not a full command of a known mode")
        for name, value, (low, high) in zip(mode.components, state.values, mode.limits.position, strict=True):
            if not low <= value <= high:
                raise ValueError(f"safe state of '{fault}': {name} {value} outside {low}..{high}")


def _number(value: Any, *, positive: bool = False, endless: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is not a number")
    if math.isnan(value) or (math.isinf(value) and not endless) or (positive and value <= 0):
        raise ValueError(f"{value} is not a {'positive' if positive else 'finite'} number")
    return float(value)


def _known_keys(what: str, raw: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := sorted(set(raw.keys()) - set(known)):
        raise ValueError(f"{what} has unknown entries {', '.join(unknown)}; known: {', '.join(known)}")


def _topic(raw: Mapping[str, Any], size: int) -> Topic | None:
    if "topic" not in raw:
        return None
    if not isinstance(raw["fields"], list):
        raise TypeError(f"topic {raw['topic']}: fields must be a list of names")
    fields = tuple(str(f) for f in raw["fields"])
    scale = tuple(_number(v) for v in raw.get("field_scale", [1.0] * len(fields)))
    if len(scale) != len(fields) or len(fields) not in (1, size):
        raise ValueError(f"topic {raw['topic']}: {len(fields)} fields and {len(scale)} scales for {size} components")
    return Topic(raw["topic"], raw["type"], fields, scale)


_TOPIC_KEYS = ("topic", "type", "fields", "field_scale")
_TABLES: dict[str, Callable[[str, Mapping[str, Any]], Any]] = {
    "signals": _signal,
    "modes": _mode,
    "safe_states": _safe_state,
}
