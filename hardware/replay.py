"""A robot made of a recording: states, commands and policy steps of a log, and a RobotIO that serves them."""

import heapq
from collections.abc import Iterator
from dataclasses import replace
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from hardware.clock import Clock
from hardware.errors import BadInput, LinkLost, RoboError
from hardware.log.reader import Log, LogMessage
from hardware.messages import (
    STATUS_TOPIC,
    TICK_TOPIC,
    Tick,
    absolute,
    command_from_message,
    command_topics,
    primary_topic,
    state_topics,
    unpack_tick,
    update_state,
)
from hardware.robot import Command, RobotState
from hardware.spec import RobotSpec

T = TypeVar("T")
SILENCE_S, SILENCE_PERIODS = 0.5, 5.0
"""How long after its last state the replayed robot counts as gone, like a real one whose link has died: the longer."""
REORDER_NS = 200_000_000
"""Longest time by which a recorder may hear one topic later than another."""


class Recorded(NamedTuple, Generic[T]):
    """Something from a log, with the instant at which it was received."""

    received_ns: int
    value: T


def namespaces(log: Log, spec: RobotSpec) -> list[str]:
    """Namespaces under which the log holds states of such a robot."""
    name = primary_topic(spec)
    ending, kind = f"/{name}", state_topics(spec)[name]
    return [t.name.removesuffix(ending) for t in log.topics.values() if t.name.endswith(ending) and t.type.name == kind]


def namespace_of(log: Log, spec: RobotSpec, namespace: str | None = None) -> str:
    """The namespace of the robot to read; raises BadInput where the log holds none or several and none is named."""
    known = namespaces(log, spec)
    wanted = None if namespace is None else absolute(namespace, "").rstrip("/")
    if wanted is None and len(known) == 1:
        return known[0]
    if wanted in known:
        return wanted
    held = f"robots in namespaces {', '.join(known)}" if known else f"topics {', '.join(log.topics) or 'none'}"
    asked = "one robot" if wanted is None else f"a robot in namespace {wanted}"
    raise BadInput(f"{log.path}: expected {asked} with {primary_topic(spec)} of {spec.name}; the log holds {held}")


def recorded_states(log: Log, spec: RobotSpec, namespace: str | None = None) -> Iterator[Recorded[RobotState]]:
    """States in the order in which they were sent: the primary topic completes one, new status words change one."""
    space = namespace_of(log, spec, namespace)
    names = {absolute(space, t): t for t in (*state_topics(spec), STATUS_TOPIC)}
    present = [n for n in names if n in log.topics]
    state, primary = RobotState(0, {}), primary_topic(spec)
    started = False
    for m in _as_sent(log.messages(present)):
        topic = names[m.topic]
        state = update_state(spec, state, topic, m.message, m.t_ns)
        if topic == primary and log.time_base != "header":
            state = replace(state, t_ns=m.t_ns)
        started = started or topic == primary
        if started and topic in (primary, STATUS_TOPIC):
            yield Recorded(m.log_ns, state)


def _as_sent(messages: Iterator[LogMessage]) -> Iterator[LogMessage]:
    """Messages by the instants of their sending: a recorder hears several topics in an order of its own."""
    waiting: list[tuple[int, int, LogMessage]] = []
    for count, m in enumerate(messages):
        heapq.heappush(waiting, (m.publish_ns, count, m))
        while waiting[0][2].log_ns < m.log_ns - REORDER_NS:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


def recorded_commands(log: Log, spec: RobotSpec, namespace: str | None = None) -> Iterator[Recorded[Command]]:
    """Commands of every mode with a topic, in the order in which they were received."""
    space = namespace_of(log, spec, namespace)
    modes = {absolute(space, topic): mode for topic, mode in command_topics(spec).items()}
    for m in log.messages([n for n in modes if n in log.topics]):
        yield Recorded(m.log_ns, command_from_message(modes[m.topic], m.message))


def recorded_ticks(log: Log, spec: RobotSpec, namespace: str | None = None) -> Iterator[Recorded[Tick]]:
    """Control steps of the policy that flew; raises BadInput where none was recorded."""
    topic = absolute(namespace_of(log, spec, namespace), TICK_TOPIC)
    if topic not in log.topics:
        raise BadInput(f"{log.path}: no {topic} was recorded; topics: {', '.join(log.topics)}")
    for m in log.messages([topic]):
        yield Recorded(m.log_ns, unpack_tick(m.message))


class ReplayRobot:
    """A RobotIO whose states come from a log; what is written to it is kept and moves nothing.

    The log's time is shifted so that its first state arrives at `open()`, on any clock; on a ReplayedClock of the
    log's own instants nothing is shifted. After the last state it falls silent, as a lost link does.
    """

    def __init__(self, log: Log, spec: RobotSpec, clock: Clock, namespace: str | None = None) -> None:
        """Raises BadInput where the log holds no such robot, or several and none is named."""
        self.spec, self._clock, self._log = spec, clock, log
        self._namespace = namespace_of(log, spec, namespace)
        self.written: list[tuple[int, Command]] = []
        """What was sent to it, with the clock's instants."""
        self._states: Iterator[Recorded[RobotState]] = iter(())
        self._state: RobotState | None = None
        self._next: Recorded[RobotState] | None = None
        self._last_ns, self._shift_ns = 0, 0
        self._armed = False

    @property
    def ended(self) -> bool:
        """Whether the last recorded state has been served."""
        return self._state is not None and self._next is None

    def open(self) -> None:
        """Takes the log's first state, now; raises BadInput where there is none. Opening again starts over."""
        self._states = recorded_states(self._log, self.spec, self._namespace)
        first = next(self._states, None)
        if first is None:
            raise BadInput(f"{self._log.path}: no state of {self.spec.name} was recorded in {self._namespace}")
        self._shift_ns = self._clock.now_ns() - first.received_ns
        self._state, self._last_ns = first.value, first.received_ns
        self._next = next(self._states, None)
        self._armed = False

    def read(self) -> RobotState:
        """The newest state received by now; raises LinkLost once the log has been silent for `SILENCE_S`."""
        if self._state is None:
            raise LinkLost(f"the replay of {self._log.path} is not open")
        now = self._clock.now_ns() - self._shift_ns
        while self._next is not None and self._next.received_ns <= now:
            self._state, self._last_ns = self._next.value, self._next.received_ns
            self._next = next(self._states, None)
        if self._next is None and now - self._last_ns > max(SILENCE_S, SILENCE_PERIODS / self.spec.rate_hz) * 1e9:
            raise LinkLost(f"the log {self._log.path} ends here")
        words = self._state.status - {"armed"} | ({"armed"} if self._armed else set())
        return RobotState(self._state.t_ns + self._shift_ns, self._state.signals, frozenset(words))

    def write(self, command: Command) -> None:
        """Keeps a command; raises RoboError before arm(), BadInput for an unknown mode or a wrong length."""
        size = len(self.spec.mode(command.mode).components)
        if np.shape(command.values) != (size,):
            raise BadInput(f"command of mode {command.mode} has shape {np.shape(command.values)}; expected ({size},)")
        if self._state is None:
            raise LinkLost(f"the replay of {self._log.path} is not open")
        if not self._armed:
            raise RoboError(f"{self.spec.name} is not armed; call arm() first")
        self.written.append((self._clock.now_ns(), Command(command.mode, np.array(command.values, dtype=np.float64))))

    def arm(self) -> None:
        """Lets commands through; raises LinkLost before open()."""
        if self._state is None:
            raise LinkLost(f"the replay of {self._log.path} is not open")
        self._armed = True

    def stop(self) -> None:
        """Disarms; a recording has nothing else to stop."""
        self._armed = False

    def close(self) -> None:
        """Releases the log; the written commands stay."""
        self.stop()
        self._state, self._next, self._states = None, None, iter(())
