"""Robot specs: the digest covers what a policy relies on, and a malformed file gives one clear line."""

import copy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hardware.errors import BadInput, NotFoundError
from hardware.spec import load_spec, parse_spec, read_spec, robot_names

Raw = dict[str, Any]
GOOD = """
name = "cart"
summary = "a cart on a rail"
rate_hz = 100.0
address = "udp://127.0.0.1:9"
[signals.position]
shape = [2]
unit = "m"
frame = "world"
topic = "odom"
type = "nav_msgs/msg/Odometry"
fields = ["pose.pose.position.x", "pose.pose.position.y"]
field_scale = [1.0, 2.0]
note = "a note"
[modes.servo]
rate_hz = 50.0
topic = "cmd"
type = "std_msgs/msg/Float64MultiArray"
fields = ["data"]
components = [
  { name = "position", unit = "m", low = -1.0, high = 1.0, rate = 2.0, safe = 0.1 },
  { name = "force", unit = "N", low = -9.0, high = 9.0, effort = 4.0 },
]
[safe_states]
default = { mode = "servo", values = [0.0, 0.0] }
estop = { mode = "stop" }
[parameters]
mass_kg = 2.0
"""


def raw() -> Raw:
    """The good spec as plain values, free to be changed."""
    return tomllib.loads(GOOD)


def put(path: str, value: Any) -> Callable[[Raw], None]:
    """A change: the entry at a dotted path becomes `value`."""

    def change(r: Raw) -> None:
        *way, last = [int(p) if p.isdigit() else p for p in path.split(".")]
        at: Any = r
        for key in way:
            at = at[key]
        at[last] = value

    change.__name__ = f"{path}={value}"
    return change


def drop(path: str) -> Callable[[Raw], None]:
    """A change: the entry at a dotted path is missing."""

    def change(r: Raw) -> None:
        *way, last = [int(p) if p.isdigit() else p for p in path.split(".")]
        at: Any = r
        for key in way:
            at = at[key]
        del at[last]

    change.__name__ = f"no {path}"
    return change


CONTRACT = [
    put("name", "cart2"),
    put("rate_hz", 200.0),
    put("signals.position.shape", [2, 1]),
    put("signals.position.unit", "mm"),
    put("signals.position.frame", "body"),
    put("signals.speed", {"unit": "m/s"}),
    put("modes.servo.rate_hz", 100.0),
    put("modes.servo.components.0.name", "place"),
    put("modes.servo.components.0.unit", "mm"),
    put("modes.servo.components.0.low", -2.0),
    put("modes.servo.components.0.high", 2.0),
    put("modes.servo.components.0.rate", 3.0),
    put("modes.servo.components.0.safe", 0.2),
    put("modes.servo.components.1.effort", 5.0),
    put("safe_states.estop", {"mode": "servo", "values": [0.0, 0.0]}),
    put("safe_states.default.values", [0.0, 1.0]),
]
REMARKS = [
    put("summary", "another cart"),
    put("address", "udp://10.0.0.1:9"),
    put("parameters.mass_kg", 3.0),
    put("signals.position.note", "another note"),
    put("signals.position.topic", "pose"),
    put("signals.position.field_scale", [1.0, 1.0]),
    put("modes.servo.topic", "command"),
    put("modes.servo.note", "a note"),
]


def _digest(change: Callable[[Raw], None] | None = None) -> str:
    r = raw()
    if change:
        change(r)
    return parse_spec(r, source="here").digest()


@pytest.mark.parametrize("change", CONTRACT, ids=lambda c: c.__name__)
def test_digest_changes_with_the_contract(change: Callable[[Raw], None]) -> None:
    assert _digest(change) != _digest()


@pytest.mark.parametrize("change", REMARKS, ids=lambda c: c.__name__)
def test_digest_is_blind_to_remarks_and_topics(change: Callable[[Raw], None]) -> None:
    assert _digest(change) == _digest()


def test_digest_does_not_depend_on_the_order_of_tables() -> None:
    r = copy.deepcopy(raw())
    r["safe_states"] = dict(reversed(r["safe_states"].items()))
    assert parse_spec(dict(reversed(r.items())), source="here").digest() == _digest()


MALFORMED = [
    (drop("name"), "entry 'name' is missing"),
    (drop("rate_hz"), "entry 'rate_hz' is missing"),
    (drop("address"), "entry 'address' is missing"),
    (drop("signals"), "entry 'signals' is missing"),
    (drop("modes"), "entry 'modes' is missing"),
    (drop("safe_states"), "entry 'safe_states' is missing"),
    (drop("signals.position.unit"), "signals.position: entry 'unit' is missing"),
    (drop("signals.position.type"), "signals.position: entry 'type' is missing"),
    (drop("modes.servo.components"), "modes.servo: entry 'components' is missing"),
    (drop("modes.servo.components.0.low"), "modes.servo: entry 'low' is missing"),
    (drop("modes.servo.components.0.unit"), "modes.servo: entry 'unit' is missing"),
    (drop("safe_states.default"), "safe_states needs an entry 'default'"),
    (drop("safe_states.estop.mode"), "safe_states.estop: entry 'mode' is missing"),
    (put("rate_hz", "fast"), "'fast' is not a number"),
    (put("rate_hz", True), "True is not a number"),
    (put("rate_hz", 0.0), "0.0 is not a positive number"),
    (put("modes.servo.rate_hz", -1.0), "modes.servo: -1.0 is not a positive number"),
    (put("modes.servo.components", []), "modes.servo: components []: at least one"),
    (put("modes.servo.components.1.name", "position"), "at least one, each with a name of its own"),
    (put("modes.servo.components.0.low", float("nan")), "modes.servo: nan is not a finite number"),
    (put("modes.servo.components.0.high", float("inf")), "modes.servo: inf is not a finite number"),
    (put("modes.servo.components.0.low", 2.0), "component position: safe value 0.1 outside 2.0..1.0"),
    (put("modes.servo.components.0.rate", 0.0), "modes.servo: 0.0 is not a positive number"),
    (put("modes.servo.components.0.rate", float("nan")), "modes.servo: nan is not a positive number"),
    (put("modes.servo.components.1.effort", -1.0), "modes.servo: -1.0 is not a positive number"),
    (put("modes.servo.components.1.safe", 5.0), "safe value 5.0 outside -9.0..9.0 and effort 4.0"),
    (put("modes.servo.components.0.rat", 2.0), "modes.servo: component has unknown entries rat; known: name, unit"),
    (put("modes.servo.limit", 2.0), "modes.servo: mode has unknown entries limit"),
    (put("signals.position.units", "m"), "signals.position: signal has unknown entries units"),
    (put("safe_states.estop.value", 1.0), "safe_states.estop: safe state has unknown entries value"),
    (put("robot", "cart"), "spec has unknown entries robot"),
    (put("signals.position.shape", [0]), "shape [0] is not a list of positive whole numbers"),
    (put("signals.position.shape", [1.5]), "shape [1.5] is not a list of positive whole numbers"),
    (put("signals.position.shape", 2), "signals.position: 'int' object is not iterable"),
    (put("signals.position.fields", "x"), "topic odom: fields must be a list of names"),
    (put("signals.position.fields", ["a", "b", "c"]), "3 fields and 2 scales for 2 components"),
    (put("signals.position.field_scale", [1.0]), "2 fields and 1 scales for 2 components"),
    (put("signals", 3), "not a robot spec"),
    (put("signals.position", 3), "signals.position: "),
    (put("modes.servo.components", [3]), "modes.servo: "),
    (put("safe_states.estop.mode", "warp"), "safe state of 'estop' is not 'stop' and not a full command of a known"),
    (put("safe_states.default.values", [0.0]), "safe state of 'default' is not 'stop' and not a full command"),
    (put("safe_states.default.values", [7.0, 0.0]), "safe state of 'default': position 7.0 outside -1.0..1.0"),
    (put("safe_states.default.values", [float("nan"), 0.0]), "safe_states.default: nan is not a finite number"),
]


@pytest.mark.parametrize(("change", "message"), MALFORMED, ids=lambda c: getattr(c, "__name__", None))
def test_malformed_spec_gives_one_clear_line(change: Callable[[Raw], None], message: str) -> None:
    r = raw()
    change(r)
    with pytest.raises(BadInput) as caught:
        parse_spec(r, source="cart/spec.toml")
    line = str(caught.value)
    assert line.startswith("cart/spec.toml: not a robot spec: ")
    assert message in line
    assert "\n" not in line


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"", None])
def test_unreadable_file_gives_one_clear_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "spec.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match="not a robot spec: ") as caught:
        read_spec(path)
    assert "\n" not in str(caught.value)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(NotFoundError, match=r"robot 'crazyfly' not found; known: .*crazyflie"):
        load_spec("crazyfly")
    with pytest.raises(NotFoundError, match="command mode of robot crazyflie 'warp' not found; known: attitude_thrust"):
        load_spec("crazyflie").mode("warp")


@pytest.mark.parametrize("name", robot_names())
def test_every_robot_is_named_like_its_folder_and_knows_what_to_do_about_any_fault(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name
    assert spec.safe_state("a fault nobody has thought of") == spec.safe_states["default"]
    assert len(spec.digest()) == 64
