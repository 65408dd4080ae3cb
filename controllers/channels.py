"""The topics of a deployment besides the robot's own: goals, policy card, e-stop, diagnostics, one-shot commands.

Names and types are the same on ROS 2 and in a log. A `MessageFactory` makes the messages, so this module needs no ROS.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controllers.artifact import PolicyArtifact
from controllers.goals import Goal
from hardware.errors import BadInput
from hardware.messages import MessageFactory, command_from_message, command_message, set_stamp_ns
from hardware.robot import Command
from hardware.spec import CommandMode, RobotSpec

GOAL = ("goal", "geometry_msgs/msg/PoseStamped")
CARD = ("policy/card", "std_msgs/msg/String")
ESTOP = ("estop", "std_msgs/msg/Bool")
STOP = ("command/stop", "std_msgs/msg/Empty")
HEARTBEAT = ("heartbeat", "std_msgs/msg/Header")
DIAGNOSTICS = ("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")
ONE_SHOT_TYPE = "std_msgs/msg/Float64MultiArray"

_LEVELS = {"ok": 0, "warn": 1, "error": 2}


def command_topic(mode: CommandMode) -> tuple[str, str]:
    """Topic and message type of a command mode: its own, or `command/<mode>` with one value per component."""
    if mode.topic is not None:
        return mode.topic.name, mode.topic.type
    return f"command/{mode.name}", ONE_SHOT_TYPE


def any_command_message(spec: RobotSpec, command: Command, make: MessageFactory) -> Any:
    """The message of a command of any mode, for `command_topic`."""
    mode = spec.mode(command.mode)
    if mode.topic is not None:
        return command_message(spec, command, make)[1]
    message = make.new(ONE_SHOT_TYPE)
    dims = []
    for name in mode.components:
        dim = make.new("std_msgs/msg/MultiArrayDimension")
        dim.label, dim.size, dim.stride = name, 1, 1
        dims.append(dim)
    message.layout.dim = dims
    message.data = make.floats(np.asarray(command.values, dtype=np.float64))
    return message


def goal_message(goal: Goal, t_ns: int, make: MessageFactory) -> Any:
    """A PoseStamped of a goal; signals other than position and attitude have no place in it."""
    message = make.new(GOAL[1])
    message.header.frame_id = "world"
    set_stamp_ns(message, t_ns)
    pose = message.pose
    if "position_world" in goal:
        pose.position.x, pose.position.y, pose.position.z = (float(v) for v in goal["position_world"])
    if "quat_wxyz" in goal:
        o = pose.orientation
        o.w, o.x, o.y, o.z = (float(v) for v in goal["quat_wxyz"])
    return message


def goal_values(message: Any, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """The values of a PoseStamped for those goal signals that a policy wants; not checked yet."""
    p, o = message.pose.position, message.pose.orientation
    known = {"position_world": (p.x, p.y, p.z), "quat_wxyz": (o.w, o.x, o.y, o.z)}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise BadInput(f"goals for {', '.join(unknown)} cannot be given as a pose")
    return {name: np.array(known[name], dtype=np.float64) for name in wanted}


def card_message(artifact: PolicyArtifact, make: MessageFactory) -> Any:
    """The policy's card with the hash of its file, as JSON."""
    message = make.new(CARD[1])
    card = json.loads(artifact.card.to_json())
    message.data = json.dumps(card | {"policy_sha256": artifact.sha256}, sort_keys=True)
    return message


def diagnostics_message(
    name: str, hardware_id: str, level: str, text: str, values: Mapping[str, Any], t_ns: int, make: MessageFactory
) -> Any:
    """A DiagnosticArray with one status; `level` is ok, warn or error."""
    message = make.new(DIAGNOSTICS[1])
    set_stamp_ns(message, t_ns)
    status = make.new("diagnostic_msgs/msg/DiagnosticStatus")
    octet = _LEVELS[level]
    status.level = bytes([octet]) if isinstance(status.level, bytes) else octet  # rclpy wants a byte, rosbags a number
    status.name, status.message, status.hardware_id = name, text, hardware_id
    pairs = []
    for key, value in values.items():
        pair = make.new("diagnostic_msgs/msg/KeyValue")
        pair.key, pair.value = key, str(value)
        pairs.append(pair)
    status.values = pairs
    message.status = [status]
    return message


def any_command_values(mode: CommandMode, message: Any) -> np.ndarray:
    """The values (J,), SI, in a message of `command_topic`; raises BadInput for a wrong number of them."""
    if mode.topic is not None:
        return command_from_message(mode, message).values
    values = np.asarray(message.data, dtype=np.float64)
    if values.shape != (len(mode.components),):
        raise BadInput(f"{values.size} values; mode {mode.name} takes {', '.join(mode.components)}")
    return values
