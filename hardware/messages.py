"""Robot states and commands as ROS 2 messages, by the topics and fields that the robot's `spec.toml` names.

The same code fills rosbags classes (logs, no ROS needed) and rclpy classes (nodes): both have the same attributes,
and a `MessageFactory` makes them. Messages carry SI units except where a topic's field scale says otherwise. Topic
names are relative to the robot's namespace.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.log.types import new_message
from hardware.robot import Command, RobotState
from hardware.spec import CommandMode, RobotSpec, Signal, Topic

STATUS_TOPIC, STATUS_TYPE = "status", "std_msgs/msg/String"
"""The words of RobotState.status, sorted and separated by blanks; latched, sent on change."""
TICK_TOPIC, TICK_TYPE = "policy/tick", "std_msgs/msg/Float64MultiArray"
"""What a policy saw, wished and sent, once per control step; see `pack_tick`."""


_UNMEASURED = {
    "sensor_msgs/msg/BatteryState": ("temperature", "current", "charge", "capacity", "design_capacity", "percentage"),
}
"""Fields that hold NaN where nothing measures them (the message's own definition)."""


class MessageFactory(Protocol):
    """Where message objects come from."""

    def new(self, message_type: str) -> Any:
        """An empty message of a type such as `nav_msgs/msg/Odometry`."""
        ...

    def floats(self, values: Sequence[float] | NDArray[np.float64]) -> Any:
        """A float64 sequence as a message's field wants it."""
        ...


class RosbagsMessages:
    """Message classes of rosbags: standard types, no ROS installation."""

    def new(self, message_type: str) -> Any:
        """See MessageFactory.new."""
        return new_message(message_type)

    def floats(self, values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """See MessageFactory.floats."""
        return np.array(values, dtype=np.float64)


def absolute(namespace: str, topic: str) -> str:
    """The full name of a relative topic in a namespace; absolute topics stay as they are."""
    return topic if topic.startswith("/") else f"/{namespace.strip('/')}/{topic}".replace("//", "/")


def state_topics(spec: RobotSpec) -> dict[str, str]:
    """Topic -> message type of everything the robot measures, without the status."""
    return {s.topic.name: s.topic.type for s in spec.signals.values() if s.topic}


def command_topics(spec: RobotSpec) -> dict[str, CommandMode]:
    """Topic -> command mode, for the modes that can be streamed as messages."""
    return {m.topic.name: m for m in spec.modes.values() if m.topic}


def primary_topic(spec: RobotSpec) -> str:
    """The topic that carries most signals: its stamp is the state's instant. Raises BadInput where there is none."""
    names = [s.topic.name for s in spec.signals.values() if s.topic]
    if not names:
        raise BadInput(f"robot {spec.name}: no signal has a topic")
    return max(dict.fromkeys(names), key=names.count)


def state_messages(spec: RobotSpec, state: RobotState, make: MessageFactory, body_frame: str = "") -> dict[str, Any]:
    """Topic -> message for every topic of which the state holds a signal; stamped with the state's instant."""
    body_frame = body_frame or spec.name
    messages: dict[str, Any] = {}
    for name, value in state.signals.items():
        signal = spec.signals[name]
        if signal.topic is None:
            continue
        message = messages.get(signal.topic.name)
        if message is None:
            message = messages[signal.topic.name] = make.new(signal.topic.type)
            set_stamp_ns(message, state.t_ns)
            for field in _UNMEASURED.get(signal.topic.type, ()):
                setattr(message, field, math.nan)
        _name_frames(message, signal, body_frame)
        _fill(message, signal.topic, np.asarray(value, dtype=np.float64).reshape(-1), make)
    return messages


def update_state(spec: RobotSpec, state: RobotState, topic: str, message: Any, received_ns: int) -> RobotState:
    """The state after one more message of the robot on a relative topic; other topics leave it as it is.

    Only the primary topic moves the state's instant (to its stamp; `received_ns` where it has none), so that
    old positions do not look fresh because a battery message came in.
    """
    if topic == STATUS_TOPIC:
        return replace(state, status=frozenset(message.data.split()))
    signals = {
        s.name: _extract(message, s.topic, s.shape)
        for s in spec.signals.values()
        if s.topic is not None and s.topic.name == topic
    }
    if not signals:
        return state
    t_ns = state.t_ns
    if topic == primary_topic(spec):
        stamp = stamp_ns(message)
        t_ns = received_ns if stamp is None else stamp
    return replace(state, t_ns=t_ns, signals={**state.signals, **signals})


def status_message(state: RobotState, make: MessageFactory) -> Any:
    """The status words as a message for `STATUS_TOPIC`."""
    message = make.new(STATUS_TYPE)
    message.data = " ".join(sorted(state.status))
    return message


def command_message(spec: RobotSpec, command: Command, make: MessageFactory) -> tuple[str, Any]:
    """Topic and message of a command; raises BadInput for a mode without a topic or a wrong number of values."""
    mode = spec.mode(command.mode)
    if mode.topic is None:
        streamed = ", ".join(m.name for m in command_topics(spec).values())
        raise BadInput(f"command mode {mode.name} of {spec.name} has no topic; modes with one: {streamed or 'none'}")
    values = np.asarray(command.values, dtype=np.float64)
    if values.shape != (len(mode.components),):
        raise BadInput(f"command of mode {mode.name} has shape {values.shape}; expected ({len(mode.components)},)")
    message = make.new(mode.topic.type)
    _fill(message, mode.topic, values, make)
    return mode.topic.name, message


def command_from_message(mode: CommandMode, message: Any) -> Command:
    """The command in a message of the mode's topic, in SI units; raises BadInput for a wrong number of values."""
    if mode.topic is None:
        raise BadInput(f"command mode {mode.name} has no topic")
    return Command(mode.name, _extract(message, mode.topic, (len(mode.components),)))


def stamp_ns(message: Any) -> int | None:
    """The header's stamp; None where the message has no header or nobody filled it in."""
    stamp = getattr(getattr(message, "header", None), "stamp", None)
    if stamp is None:
        return None
    return stamp.sec * 1_000_000_000 + stamp.nanosec or None


def set_stamp_ns(message: Any, t_ns: int) -> None:
    """Stamps a message; one without a header is left as it is."""
    if hasattr(message, "header"):
        message.header.stamp.sec = int(t_ns // 1_000_000_000)
        message.header.stamp.nanosec = int(t_ns % 1_000_000_000)


class Tick(NamedTuple):
    """One control step of a policy, as `policy/tick` records it."""

    sequence: int
    """Number of the step, from 0."""
    state_t_ns: int
    """Instant of the state that was seen."""
    goal: Mapping[str, NDArray[np.float64]]
    """Signal name -> (k,) goal."""
    observation: Mapping[str, NDArray[np.float64]]
    """Group -> (D,) input of the policy."""
    command: NDArray[np.float64]
    """(J,) what the policy wished, in the mode's units."""
    sent: NDArray[np.float64]
    """(J,) what left the guard."""
    perceived: Mapping[str, NDArray[np.float64]] = {}
    """Signal name -> (k,) what the policy perceived of its surroundings, where it perceives any."""


def pack_tick(tick: Tick, make: MessageFactory) -> Any:
    """A labelled Float64MultiArray: one `layout.dim` per part, in the order of the data.

    Labels: `state_stamp` (s, ns), `goal:SIGNAL`, `perceived:SIGNAL`, `observation:GROUP`, `command`, `sent`;
    `layout.data_offset` is the sequence number, as the topic contract says.
    """
    parts: dict[str, NDArray[np.float64]] = {
        "state_stamp": np.array(divmod(tick.state_t_ns, 1_000_000_000), dtype=np.float64)
    }
    parts |= {f"goal:{k}": np.asarray(v, dtype=np.float64).reshape(-1) for k, v in tick.goal.items()}
    parts |= {f"perceived:{k}": np.asarray(v, dtype=np.float64).reshape(-1) for k, v in tick.perceived.items()}
    parts |= {f"observation:{k}": np.asarray(v, dtype=np.float64).reshape(-1) for k, v in tick.observation.items()}
    parts |= {"command": np.asarray(tick.command, np.float64), "sent": np.asarray(tick.sent, np.float64)}
    message = make.new(TICK_TYPE)
    dims = []
    for label, values in parts.items():
        dim = make.new("std_msgs/msg/MultiArrayDimension")
        dim.label, dim.size, dim.stride = label, len(values), len(values)
        dims.append(dim)
    message.layout.dim = dims
    message.layout.data_offset = tick.sequence % 2**32
    message.data = make.floats(np.concatenate(list(parts.values())))
    return message


def unpack_tick(message: Any) -> Tick:
    """The step in a message of `pack_tick`; raises BadInput where its labels and data do not fit together."""
    data = np.asarray(message.data, dtype=np.float64)
    sizes = [d.size for d in message.layout.dim]
    if sum(sizes) != len(data):
        raise BadInput(f"{TICK_TOPIC}: labels announce {sum(sizes)} values, the message holds {len(data)}")
    ends = np.cumsum(sizes)
    parts = {d.label: data[e - d.size : e] for d, e in zip(message.layout.dim, ends, strict=True)}
    missing = {"state_stamp", "command", "sent"} - parts.keys()
    if missing or len(parts["state_stamp"]) != 2:
        raise BadInput(f"{TICK_TOPIC}: no {', '.join(sorted(missing)) or 'whole state_stamp'} in {', '.join(parts)}")
    seconds, nanoseconds = parts["state_stamp"]
    below = lambda kind: {k.partition(":")[2]: v for k, v in parts.items() if k.startswith(kind + ":")}  # noqa: E731
    return Tick(
        sequence=message.layout.data_offset,
        state_t_ns=int(seconds) * 1_000_000_000 + int(nanoseconds),
        goal=below("goal"),
        observation=below("observation"),
        command=parts["command"],
        sent=parts["sent"],
        perceived=below("perceived"),
    )


def _fill(message: Any, topic: Topic, values: NDArray[np.float64], make: MessageFactory) -> None:
    """Writes SI values (n,) into the topic's fields; a single field takes them all where there are several."""
    scaled = values * (np.asarray(topic.scale) if len(topic.scale) == len(values) else topic.scale[0])
    if len(topic.fields) == 1 and len(values) != 1:
        _set(message, topic.fields[0], make.floats(scaled))
        return
    for path, value in zip(topic.fields, scaled, strict=True):
        _set(message, path, float(value))


def _extract(message: Any, topic: Topic, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """SI values, in `shape`, of the topic's fields."""
    raw = [_get(message, path) for path in topic.fields]
    values = np.asarray(raw[0] if len(raw) == 1 and np.ndim(raw[0]) else raw, dtype=np.float64)
    size = int(np.prod(shape))
    if values.size != size:
        raise BadInput(f"topic {topic.name}: message holds {values.size} values, expected {size}")
    scale = np.asarray(topic.scale) if len(topic.scale) == size else topic.scale[0]
    return (values / scale).reshape(shape)


def _name_frames(message: Any, signal: Signal, body_frame: str) -> None:
    if hasattr(message, "child_frame_id"):
        message.child_frame_id = body_frame
    if hasattr(message, "header") and signal.frame:
        if "world" in signal.frame:
            message.header.frame_id = "world"
        elif not message.header.frame_id:
            message.header.frame_id = body_frame


def _get(message: Any, path: str) -> Any:
    for name in path.split("."):
        message = getattr(message, name)
    return message


def _set(message: Any, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        message = getattr(message, name)
    setattr(message, last, value)
