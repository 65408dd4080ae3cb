"""A loop's story as a recording, on the same channels that `record_node` would have heard over ROS 2."""

from pathlib import Path
from typing import Any, Self

from controllers.artifact import PolicyArtifact
from controllers.channels import (
    CARD,
    DIAGNOSTICS,
    GOAL,
    any_command_message,
    card_message,
    command_topic,
    diagnostics_message,
    goal_message,
)
from controllers.sinks import Level
from hardware.log.qos import LATCHED
from hardware.log.writer import LogWriter
from hardware.messages import (
    STATUS_TOPIC,
    TICK_TOPIC,
    RosbagsMessages,
    Tick,
    absolute,
    pack_tick,
    primary_topic,
    state_messages,
    status_message,
)
from hardware.robot import Command, RobotState
from hardware.spec import RobotSpec

LATCHED_TOPICS = frozenset({CARD[0], GOAL[0], STATUS_TOPIC})


class LogSink:
    """Writes what a loop tells; closes the recording as a context manager. Raises BadInput for a directory in use."""

    def __init__(
        self,
        directory: Path,
        robot: RobotSpec,
        name: str,
        artifact: PolicyArtifact,
        now_ns: int,
        *,
        ticks: bool = True,
    ) -> None:
        """Without `ticks`, for a policy on board that does not tell what it sees, only the goals are kept of them."""
        self.path = directory
        self._robot, self._name, self._ticks = robot, name, ticks
        self._make = RosbagsMessages()
        self._writer = LogWriter(directory, custom={"policy_sha256": artifact.sha256, "robot": robot.name})
        self._goal: dict[str, list[float]] = {}
        self._status: frozenset[str] | None = None
        self._state_ns = -1
        self._put(CARD[0], card_message(artifact, self._make), now_ns)

    @property
    def messages(self) -> int:
        """How many messages have been written."""
        return self._writer.messages

    def state(self, state: RobotState, now_ns: int) -> None:
        """Writes every topic of which a new state holds a signal, and the status words when they change."""
        if state.status != self._status:
            self._status = state.status
            self._put(STATUS_TOPIC, status_message(state, self._make), now_ns)
        if state.t_ns == self._state_ns:
            return
        self._state_ns = state.t_ns
        messages = state_messages(self._robot, state, self._make, self._name)
        first = primary_topic(self._robot)
        for topic in sorted(messages, key=lambda t: t == first):  # the primary one last: it completes the state
            self._put(topic, messages[topic], now_ns)

    def tick(self, tick: Tick, now_ns: int) -> None:
        """Writes the tick, and the goal when it has changed."""
        goal = {k: v.tolist() for k, v in tick.goal.items()}
        if goal != self._goal:
            self._goal = goal
            self._put(GOAL[0], goal_message(tick.goal, now_ns, self._make), now_ns)
        if self._ticks:
            self._put(TICK_TOPIC, pack_tick(tick, self._make), now_ns)

    def sent(self, command: Command, now_ns: int) -> None:
        """Writes the command on its mode's topic."""
        topic, _ = command_topic(self._robot.mode(command.mode))
        self._put(topic, any_command_message(self._robot, command, self._make), now_ns)

    def event(self, level: Level, text: str, values: dict[str, str], now_ns: int) -> None:
        """Writes a diagnostic status."""
        name = f"{self._name}: policy"
        message = diagnostics_message(name, self._robot.name, level, text, values, now_ns, self._make)
        self._put(DIAGNOSTICS[0], message, now_ns)

    def close(self) -> None:
        """Completes the recording."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, topic: str, message: Any, now_ns: int) -> None:
        name = absolute(self._name, topic)
        if topic in LATCHED_TOPICS:
            self._writer.add_topic(name, message.__msgtype__, (LATCHED,))
        self._writer.write_message(name, message, now_ns)
