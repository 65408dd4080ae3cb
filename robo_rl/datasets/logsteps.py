"""The control steps of a recording: what was seen, wanted and sent, put together by the one interpreter."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.artifact import Card
from controllers.channels import CARD, GOAL, goal_values
from controllers.goals import Goal
from controllers.interface import Interface
from controllers.policy import Signals, goal_signals, signals_needed, signals_perceived
from hardware.errors import BadInput
from hardware.log.reader import Log
from hardware.messages import TICK_TOPIC, absolute
from hardware.replay import namespace_of, recorded_commands, recorded_states, recorded_ticks
from hardware.robot import RobotState

Array = NDArray[np.float64]
GAP = 2.5
"""Control periods between two steps from which on they do not follow one another."""
SAME = 0.75
"""Control periods within which two commands count as one."""


@dataclass(frozen=True)
class LogStep:
    """One control step."""

    received_ns: int
    """Log time of the tick, or of the command."""
    state: RobotState
    goal: Goal
    sent: Array
    """(J,) what left the guard, in the mode's units."""
    sequence: int | None
    """Number of the policy's tick; None where no policy decided."""
    perceived: Signals = field(default_factory=dict)
    """What was perceived of the surroundings."""


@dataclass
class LogSteps:
    """The steps of one log in the order of time, and the states between and after them."""

    steps: list[LogStep]
    follows: NDArray[np.bool_]
    """Whether a step is the next one after its predecessor, without a gap."""
    states: list[RobotState]
    """All recorded states, in the order of their instants."""
    flown: bool
    """A policy decided in this log."""
    dropped: dict[str, int] = field(default_factory=dict)

    def log_ns(self) -> NDArray[np.int64]:
        """(T,) log times."""
        return np.array([s.received_ns for s in self.steps], dtype=np.int64)

    def state_ns(self) -> NDArray[np.int64]:
        """(T,) instants of the states that were seen."""
        return np.array([s.state.t_ns for s in self.steps], dtype=np.int64)


def recorded_card(log: Log, namespace: str | None = None) -> Card | None:
    """The card of the policy that flew; None where none was recorded."""
    name = CARD[0] if namespace is None else absolute(namespace, CARD[0])
    topics = [t for t in log.topics if t == name or (namespace is None and t.endswith("/" + name))]
    cards = [m.message.data for m in log.messages(topics)] if topics else []
    if len({*topics}) > 1:
        raise BadInput(f"{log.path}: cards of several policies ({', '.join(topics)}); name the robot's namespace")
    if not cards:
        return None
    plain = json.loads(cards[-1])
    plain.pop("policy_sha256", None)
    return Card.from_json(json.dumps(plain), str(log.path))


def recorded_steps(
    log: Log,
    interface: Interface,
    rate_hz: float,
    *,
    namespace: str | None = None,
    taken_over: Sequence[tuple[int, int]] = (),
) -> LogSteps:
    """The policy's ticks; within `taken_over` (log times from, to) and in logs without ticks the commands sent.

    Where a policy goes on ticking while somebody else steers, the tick's step takes the other one's command.

    Raises BadInput for a log without steps in the interface's mode, or whose robot lacks a signal.
    """
    spec, mode = interface.robot, interface.mode
    space = namespace_of(log, spec, namespace)
    period_ns = 1e9 / rate_hz
    states = _states(log, interface, space)
    flown = absolute(space, TICK_TOPIC) in log.topics
    steps, dropped = _ticks(log, interface, space, states) if flown else ([], {})
    commands = [c for c in recorded_commands(log, spec, space) if c.value.mode == mode.name]
    ticks_ns = np.array([s.received_ns for s in steps], dtype=np.int64)
    goals = _Goals(log, interface, space, steps)
    last_ns = -(2**62)
    for c in commands:
        taken = any(t0 <= c.received_ns < t1 for t0, t1 in taken_over)
        tick = _near(ticks_ns, c.received_ns, 0.5 * period_ns)
        if tick is not None:
            if taken and not np.allclose(c.value.values, steps[tick].sent, rtol=1e-5, atol=1e-6):
                steps[tick] = replace(steps[tick], sent=c.value.values)  # somebody steered while the policy went on
            continue
        if c.received_ns - last_ns < SAME * period_ns or (flown and not taken):
            continue
        state, goal = states.at(c.received_ns), goals.at(c.received_ns)
        if state is None or goal is None:
            reason = "no state before it" if state is None else "no goal known"
            dropped[reason] = dropped.get(reason, 0) + 1
            continue
        if signals_perceived(interface):  # only a policy's ticks tell them
            dropped["surroundings not recorded"] = dropped.get("surroundings not recorded", 0) + 1
            continue
        last_ns = c.received_ns
        steps.append(LogStep(c.received_ns, state, goal, c.value.values, None))
    if not steps:
        raise BadInput(f"{log.path}: no control steps of mode {mode.name} of {spec.name} were recorded")
    steps.sort(key=lambda s: s.received_ns)
    return LogSteps(steps, _following(steps, period_ns), states.all, flown, dropped)


def _near(instants: NDArray[np.int64], t_ns: int, within_ns: float) -> int | None:
    """Index of the nearest of the ordered instants, where it lies so close."""
    i = int(np.searchsorted(instants, t_ns))
    around = range(max(i - 1, 0), min(i + 1, len(instants)))
    nearest = min(around, key=lambda k: abs(int(instants[k]) - t_ns), default=None)
    return nearest if nearest is not None and abs(int(instants[nearest]) - t_ns) < within_ns else None


def _following(steps: Sequence[LogStep], period_ns: float) -> NDArray[np.bool_]:
    """Ticks follow by their numbers (their reception jitters), others by time."""
    follows = np.zeros(len(steps), dtype=np.bool_)
    for i, (a, b) in enumerate(itertools.pairwise(steps)):
        if a.sequence is not None and b.sequence is not None:
            follows[i + 1] = b.sequence == a.sequence + 1
        else:
            follows[i + 1] = b.received_ns - a.received_ns < GAP * period_ns
    return follows


class _States:
    """States by instant."""

    def __init__(self, states: Sequence[RobotState]) -> None:
        by_instant = {s.t_ns: s for s in states}
        self.all = [by_instant[t] for t in sorted(by_instant)]
        self._by_instant = by_instant
        self._instants = np.array([s.t_ns for s in self.all], dtype=np.int64)

    def exactly(self, t_ns: int) -> RobotState | None:
        return self._by_instant.get(t_ns)

    def at(self, t_ns: int) -> RobotState | None:
        """The newest one at an instant."""
        i = int(np.searchsorted(self._instants, t_ns, side="right")) - 1
        return self.all[i] if i >= 0 else None


def _states(log: Log, interface: Interface, space: str) -> _States:
    needed = signals_needed(interface)
    states = [s.value for s in recorded_states(log, interface.robot, space) if needed <= s.value.signals.keys()]
    if not states:
        held = {name for s in recorded_states(log, interface.robot, space) for name in s.value.signals}
        raise BadInput(
            f"{log.path}: the observation needs {', '.join(sorted(needed - held)) or 'states'}; "
            f"the log holds {', '.join(sorted(held)) or 'none'}"
        )
    return _States(states)


def _ticks(log: Log, interface: Interface, space: str, states: _States) -> tuple[list[LogStep], dict[str, int]]:
    size, wanted, seen = interface.action_size, goal_signals(interface), signals_perceived(interface)
    steps: list[LogStep] = []
    dropped: dict[str, int] = {}
    for row in recorded_ticks(log, interface.robot, space):
        tick = row.value
        if tick.sent.shape != (size,):
            raise BadInput(
                f"{log.path}: its policy commanded {tick.sent.size} values; mode {interface.mode.name} takes {size}"
            )
        state = states.exactly(tick.state_t_ns)
        reason = "state not recorded" if state is None else "no goal known" if set(wanted) - tick.goal.keys() else ""
        reason = reason or ("surroundings not recorded" if set(seen) - tick.perceived.keys() else "")
        if state is None or reason:
            dropped[reason] = dropped.get(reason, 0) + 1
            continue
        steps.append(LogStep(row.received_ns, state, tick.goal, tick.sent, tick.sequence, tick.perceived))
    return steps, dropped


class _Goals:
    """The goal at an instant: the newest one of ticks and of the goal topic."""

    def __init__(self, log: Log, interface: Interface, space: str, steps: Sequence[LogStep]) -> None:
        self._wanted = goal_signals(interface)
        topic = absolute(space, GOAL[0])
        given: list[tuple[int, Goal]] = [(s.received_ns, s.goal) for s in steps]
        if topic in log.topics and self._wanted:
            given += [(m.log_ns, goal_values(m.message, self._wanted)) for m in log.messages([topic])]
        given.sort(key=lambda g: g[0])
        self._times = np.array([t for t, _ in given], dtype=np.int64)
        self._goals = [g for _, g in given]

    def at(self, t_ns: int) -> Goal | None:
        if not self._wanted:
            return {}
        i = int(np.searchsorted(self._times, t_ns, side="right")) - 1
        return self._goals[i] if i >= 0 else None


@dataclass
class Seen:
    """What the interpreter makes of steps, one row each."""

    obs: NDArray[np.float32]
    next_obs: NDArray[np.float32]
    """Zero where nothing was recorded after the step."""
    has_next: NDArray[np.bool_]
    action: NDArray[np.float32]
    """(T, A) as sent; may lie outside -1..1."""
    before: list[RobotState]
    after: list[RobotState]
    """State that the next observation shows; the step's own where there is none."""


def interpret(log: LogSteps, interface: Interface, begins: NDArray[np.bool_], rate_hz: float) -> Seen:
    """Observations before and after every step; the memory starts anew where a step `begins` a part.

    A fresh memory knows the command last sent, except at a policy's very first tick; histories fill with themselves.
    """
    scale = np.array([f.scale for f in interface.action])
    offset = np.array([f.offset for f in interface.action])
    size, steps = interface.group_sizes["policy"], log.steps
    later = _later_states(log, 1e9 / rate_hz, told=bool(signals_perceived(interface)))
    obs, after = np.zeros((len(steps), size), np.float32), np.zeros((len(steps), size), np.float32)
    ends: list[RobotState] = []
    memory = interface.start((), np.zeros(1))
    for i, step in enumerate(steps):
        if begins[i] or not log.follows[i]:
            memory = interface.start((), np.zeros(1))
            if step.sequence != 0:  # where nothing before it was recorded, the last command is taken to be its own
                memory = interface.remember(memory, steps[i - 1].sent if log.follows[i] else step.sent)
        groups, memory = interface.observe({**step.state.signals, **step.perceived}, step.goal, memory)
        obs[i] = groups["policy"]
        memory = interface.remember(memory, step.sent)
        state = later[i]
        ends.append(step.state if state is None else state)
        goes_on = i + 1 < len(steps) and log.follows[i + 1]
        if state is not None and not (goes_on and not begins[i + 1]):
            following = steps[i + 1] if goes_on else step
            seen = {**state.signals, **following.perceived}
            after[i] = interface.observe(seen, following.goal, memory)[0]["policy"]
    same = np.append(log.follows[1:] & ~begins[1:], False)  # the next row shows just what follows this one
    after[same] = obs[np.flatnonzero(same) + 1]
    has_next = np.array([s is not None for s in later])
    action = np.array([(s.sent - offset) / scale for s in steps], dtype=np.float32)
    return Seen(obs, after, has_next, action, [s.state for s in steps], ends)


def _later_states(log: LogSteps, period_ns: float, *, told: bool) -> list[RobotState | None]:
    """The state after each step: that of the next step, or the first recorded half to one and a half periods later.

    Where surroundings count as well, they are `told` by steps only, so that a last step has no state after it.
    """
    instants = np.array([s.t_ns for s in log.states], dtype=np.int64)
    found: list[RobotState | None] = []
    for i, step in enumerate(log.steps):
        if i + 1 < len(log.steps) and log.follows[i + 1]:
            found.append(log.steps[i + 1].state)
            continue
        if told:
            found.append(None)
            continue
        j = int(np.searchsorted(instants, step.state.t_ns + 0.5 * period_ns))
        near = j < len(instants) and instants[j] <= step.state.t_ns + 1.5 * period_ns
        found.append(log.states[j] if near else None)
    return found


def signals_of(states: Sequence[RobotState], names: Sequence[str]) -> Mapping[str, Any]:
    """Signal name -> (T, k) of the signals that every state holds."""
    shared = [n for n in names if all(n in s.signals for s in states)]
    return {n: np.array([np.atleast_1d(s.signals[n]) for s in states]) for n in shared}
