"""Launch files as validated trees of actions: every tag, key and type is checked before anything runs.

As strict as ROS 2 launch 3.7.1 (launch_yaml): unknown keys are errors, strings are not converted from numbers or
booleans, booleans and floats are not converted from strings.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hardware.errors import BadInput
from robo_rl.launch_engine.substitutions import Template, parse_template, split_command


class Kind(Enum):
    """What the value of a key must be."""

    TEXT = "a string, with substitutions"
    PLAIN = "a string"
    COMMAND = "one string, split on white space"
    BOOL = "true or false without quotes"
    FLOAT = "a number with a decimal point and without quotes, such as 2.0"
    PAIRS = "a list of {name: ..., value: ...}"
    CHOICES = "a list of {value: ...}"
    ACTIONS = "a list of actions"


class Key(NamedTuple):
    """One key of a tag."""

    kind: Kind
    required: bool = False


_CONDITION = {"if": Key(Kind.TEXT), "unless": Key(Kind.TEXT)}
TAGS: Mapping[str, Mapping[str, Key]] = {
    "arg": {
        "name": Key(Kind.PLAIN, required=True),
        "default": Key(Kind.TEXT),
        "description": Key(Kind.PLAIN),
        "choice": Key(Kind.CHOICES),
    },
    "let": {"name": Key(Kind.TEXT, required=True), "value": Key(Kind.TEXT, required=True)},
    "set_env": {"name": Key(Kind.TEXT, required=True), "value": Key(Kind.TEXT, required=True)},
    "unset_env": {"name": Key(Kind.TEXT, required=True)},
    "executable": {
        "cmd": Key(Kind.COMMAND, required=True),
        "name": Key(Kind.TEXT),
        "cwd": Key(Kind.TEXT),
        "output": Key(Kind.TEXT),
        "env": Key(Kind.PAIRS),
        "respawn": Key(Kind.TEXT),
        "respawn_delay": Key(Kind.FLOAT),
        "on_exit": Key(Kind.PLAIN),
        "sigterm_timeout": Key(Kind.FLOAT),
        "sigkill_timeout": Key(Kind.FLOAT),
    },
    "group": {"scoped": Key(Kind.BOOL), "children": Key(Kind.ACTIONS, required=True)},
    "include": {"file": Key(Kind.TEXT, required=True), "arg": Key(Kind.PAIRS)},
    "log": {"message": Key(Kind.TEXT, required=True)},
    "timer": {"period": Key(Kind.FLOAT, required=True), "children": Key(Kind.ACTIONS, required=True)},
    "shutdown": {"reason": Key(Kind.TEXT)},
}
"""Tag -> key -> what its value must be; every tag also takes `if` and `unless`."""

ROS_ONLY_TAGS = (
    *("node", "node_container", "composable_node", "load_composable_node", "lifecycle_node", "lifecycle_transition"),
    *("push_ros_namespace", "push-ros-namespace", "set_parameter", "set_parameters_from_file", "set_remap"),
    *("set_use_sim_time", "ros_timer", "reset", "append_env", "for", "for_each"),
)
"""Tags of genuine launch that need ROS 2 or are not portable from Humble to Kilted."""

ROS_ONLY_KEYS: Mapping[str, tuple[str, ...]] = {
    "executable": ("shell", "launch-prefix", "emulate_tty", "respawn_max_retries", "cached_output", "output_format"),
    "group": ("forwarding", "keep"),
    "include": ("let",),
    "log": ("level",),
    "timer": ("cancel_on_shutdown",),
    "arg": (),
}
"""Keys that genuine launch knows and this engine refuses."""


@dataclass(frozen=True)
class Action:
    """One validated action of a launch file."""

    tag: str
    where: str
    """File and position, for messages: `deploy.launch.yaml: launch[3].executable`."""
    values: Mapping[str, Any]
    """Key -> parsed value: Template, str, bool, float, pairs of Templates, tuple of choices or tuple of Actions."""


@dataclass(frozen=True)
class Description:
    """One launch file."""

    file: Path
    actions: tuple[Action, ...]


def load(file: Path) -> Description:
    """Reads and validates a launch file; raises BadInput with one line that names the file and the key."""
    try:
        root = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise BadInput(f"launch file {file}: {e.strerror or e}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise BadInput(f"{file.name}: not YAML: {' '.join(str(e).split())}") from e
    if not isinstance(root, dict) or list(root) != ["launch"]:
        raise BadInput(f"{file.name}: expected the one key 'launch' at the top, got {_shown(root)}")
    return Description(file.resolve(), _actions(root["launch"], f"{file.name}: launch"))


def all_actions(actions: tuple[Action, ...]) -> Iterator[Action]:
    """Every action of a tree, depth first, whatever its condition."""
    for action in actions:
        yield action
        yield from all_actions(action.values.get("children", ()))


def _actions(raw: Any, where: str) -> tuple[Action, ...]:
    if not isinstance(raw, list):
        raise BadInput(f"{where}: expected a list of actions, got {_shown(raw)}")
    found = []
    for i, item in enumerate(raw):
        if not isinstance(item, dict) or len(item) != 1:
            raise BadInput(f"{where}[{i}]: expected one 'tag: ...', got {_shown(item)}")
        ((tag, body),) = item.items()
        found.append(_action(tag, body, f"{where}[{i}].{tag}"))
    return tuple(found)


def _action(tag: Any, body: Any, where: str) -> Action:
    if tag in ROS_ONLY_TAGS:
        raise BadInput(f"{where}: tag '{tag}' needs ROS 2 launch (--engine ros)")
    if tag not in TAGS:
        raise BadInput(f"{where}: tag '{tag}' not known; tags: {', '.join(TAGS)}")
    keys = {**TAGS[tag], **_CONDITION}
    if isinstance(body, list) and "children" in keys:
        body = {"children": body}
    if body is None and tag == "shutdown":
        body = {}
    if not isinstance(body, dict):
        raise BadInput(f"{where}: expected keys ({', '.join(keys)}), got {_shown(body)}")
    for key in body:
        if key in ROS_ONLY_KEYS.get(tag, ()):
            raise BadInput(f"{where}: key '{key}' is not in the embedded subset; ROS 2 launch has it (--engine ros)")
        if key not in keys:
            raise BadInput(f"{where}: key '{key}' not known; keys: {', '.join(keys)}")
    for key, rule in keys.items():
        if rule.required and key not in body:
            raise BadInput(f"{where}: key '{key}' is missing")
    if "if" in body and "unless" in body:
        raise BadInput(f"{where}: 'if' and 'unless' exclude each other")
    values = {key: _value(keys[key].kind, raw, f"{where}.{key}") for key, raw in body.items()}
    _check_meaning(tag, values, where)
    return Action(tag, where, values)


def _value(kind: Kind, raw: Any, where: str) -> Any:
    if kind is Kind.ACTIONS:
        return _actions(raw, where)
    if kind in (Kind.PAIRS, Kind.CHOICES):
        names = ("name", "value") if kind is Kind.PAIRS else ("value",)
        rows = _rows(raw, names, kind, where)
        return tuple(tuple(_template(row[n], f"{where}[{i}].{n}") for n in names) for i, row in enumerate(rows))
    wanted: Any = {Kind.BOOL: bool, Kind.FLOAT: float}.get(kind, str)
    if not isinstance(raw, wanted):
        hint = "; put it in quotes" if wanted is str and isinstance(raw, (bool, int, float)) else ""
        raise BadInput(f"{where}: expected {kind.value}, got {_shown(raw)}{hint}")
    if kind is Kind.TEXT:
        return _template(raw, where)
    if kind is Kind.COMMAND:
        return _named(split_command, raw, where)
    return raw


def _rows(raw: Any, names: tuple[str, ...], kind: Kind, where: str) -> list[dict[str, Any]]:
    if not isinstance(raw, list):
        raise BadInput(f"{where}: expected {kind.value}, got {_shown(raw)}")
    for i, row in enumerate(raw):
        if not isinstance(row, dict) or set(row) != set(names):
            raise BadInput(f"{where}[{i}]: expected the keys {' and '.join(names)}, got {_shown(row)}")
    return raw


def _template(raw: Any, where: str) -> Template:
    if not isinstance(raw, str):
        hint = "; put it in quotes" if isinstance(raw, (bool, int, float)) else ""
        raise BadInput(f"{where}: expected a string, got {_shown(raw)}{hint}")
    return _named(parse_template, raw, where)


def _named(parse: Any, raw: str, where: str) -> Any:
    try:
        return parse(raw)
    except BadInput as e:
        raise BadInput(f"{where}: {e}") from None


def _check_meaning(tag: str, values: Mapping[str, Any], where: str) -> None:
    """What types alone do not say."""
    if tag == "executable" and not values["cmd"]:
        raise BadInput(f"{where}.cmd: is empty")
    if tag == "executable" and values.get("on_exit", "shutdown") != "shutdown":
        raise BadInput(f"{where}.on_exit: expected shutdown, got '{values['on_exit']}'")
    for key in ("respawn_delay", "sigterm_timeout", "sigkill_timeout", "period"):
        if not values.get(key, 0.0) >= 0.0:
            raise BadInput(f"{where}.{key}: expected a duration in seconds, got {values[key]}")
    if tag == "arg" and "choice" in values:
        choices = plain_choices(values)
        default = values.get("default")
        if not choices:
            raise BadInput(f"{where}.choice: is empty")
        if default is not None and all(isinstance(p, str) for p in default) and "".join(default) not in choices:
            raise BadInput(f"{where}.default: '{''.join(default)}' is not one of {', '.join(choices)}")


def plain_choices(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The values an argument may take, () where any will do; literal text only, as in genuine launch."""
    return tuple("".join(p for p in row[0] if isinstance(p, str)) for row in values.get("choice", ()))


def _shown(raw: Any) -> str:
    text = yaml.safe_dump(raw, default_flow_style=True, width=1000).split("\n")[0] if raw is not None else "nothing"
    return f"{text[:60]}{'...' if len(text) > 60 else ''} ({type(raw).__name__})" if raw is not None else text
