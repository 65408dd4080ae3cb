"""The control loop of every deployment, direct or over ROS 2: one thread, absolute deadlines on a clock.

Each tick reads the newest state, lets the supervisor judge it, advances the flight, lets the phase's law decide, sends
that behind the guard, and hands what happened to a sink (log writer or publishers).
"""

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controllers.fallback import Fallback, fallback_law
from controllers.flight import Flight, FlightPlan, Phase
from controllers.goals import Goal
from controllers.latency import Durations
from controllers.policy import Policy, goal_signals, signals_needed
from controllers.reaction import Reaction
from controllers.sinks import Level, Sink, SurvivingSink
from controllers.supervisor import Fault, Health, Supervisor
from hardware.clock import Clock
from hardware.errors import LinkLost, RoboError
from hardware.guard import GuardedRobot
from hardware.messages import Tick
from hardware.robot import Command, RobotState

POLL_NS = 500_000
BEHIND_NS = 1_000_000
"""How long after a state's arrival the loop ticks: somewhat late ones still count."""
SETTLE_S = 5.0
"""Time after the handover from which the distance to the goal counts."""


@dataclass
class Summary:
    """What a run came to."""

    ticks: int = 0
    """Ticks of the loop."""
    policy_ticks: int = 0
    """Ticks in which the policy decided."""
    stale_ticks: int = 0
    """Ticks in which the state was too old to act on."""
    overruns: int = 0
    """Deadlines missed."""
    guard_interventions: int = 0
    """Commands of the policy that the guard changed."""
    phase: str = Phase.IDLE
    fault: Fault | None = None
    distance_settled_m: list[float] | None = None
    """Distance to the goal, m, per policy tick from 5 s after the handover on or after a change of the goal."""


class Loop:
    """Runs one policy on one robot, once. `goal`, `finish` and `estop` may be called from any thread."""

    def __init__(
        self,
        robot: GuardedRobot,
        policy: Policy,
        supervisor: Supervisor,
        plan: FlightPlan,
        clock: Clock,
        sink: Sink,
        heartbeat_age_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.robot, self.policy, self.supervisor, self.clock = robot, policy, supervisor, clock
        self.sink = SurvivingSink(sink, self.finish)
        self.error: Exception | None = None
        """What failed inside the loop, where the fault is `internal_error`."""
        self.flight = Flight(robot.spec, plan)
        self.summary = Summary(distance_settled_m=[])
        self.policy_latency, self.command_latency = Durations(), Durations()
        self.period_ns = round(1e9 / policy.artifact.card.rate_hz)
        self.fallback: Fallback = fallback_law(robot.spec, policy.artifact.card.mode)
        self._reaction = Reaction(robot, self.flight, self.fallback, policy.artifact.card.mode, self._write)
        self._heartbeat_age_s = heartbeat_age_s
        self._needed = signals_needed(policy.interface)
        self._goal: Goal = {}
        self._goal_lock = threading.Lock()
        self._tour: tuple[Goal, ...] = ()
        self._tour_each_s = 0.0
        self._hold: Goal = {}
        self._goal_since_s = 0.0
        self._estop_reason: str | None = None
        self._health = Health(None)
        self._next_ns = 0
        self._seen_ns = -1
        self._fresh: RobotState | None = None
        self._told = 0

    def goal(self, goal: Goal) -> None:
        """Sets where the policy goes; the caller has checked it. Ends a tour."""
        with self._goal_lock:
            self._tour = ()
            self._set_goal(goal)

    def tour(self, goals: Sequence[Goal], each_s: float) -> None:
        """Sets several goals, one after the other; the last one stands."""
        with self._goal_lock:
            self._tour, self._tour_each_s = tuple(goals), each_s
            self._set_goal(goals[0])

    def finish(self) -> None:
        """Asks for an orderly end."""
        self.flight.finish()

    def estop(self, reason: str) -> None:
        """Asks for the emergency stop; acted on in the next tick."""
        self._estop_reason = reason

    def start(self) -> None:
        """Activates the supervisor and begins the flight; raises RoboError where that is refused."""
        now = self.clock.now_ns()
        state = self.robot.read()
        missing = self._needed - state.signals.keys()
        if missing:
            raise RoboError(f"the policy needs {', '.join(sorted(missing))}, which the robot has not sent yet")
        if self._estop_reason is not None:
            self.supervisor.estop(now, self._estop_reason)
        self.supervisor.activate()
        self.policy.start()
        self.flight.begin(now, state)
        self._arm(now, state)
        self._fall_in_step()

    def _fall_in_step(self) -> None:
        """Puts the deadlines just behind the arrival of states, so that each tick finds a fresh one.

        Clocks of robots and computers drift by some 1e-5: less than a millisecond in a flight of a minute.
        """
        until_ns = self.clock.now_ns() + 3 * self.period_ns
        with suppress(LinkLost):  # the first tick will find out, and act on it
            last_ns = self.robot.read().t_ns
            while self.robot.read().t_ns == last_ns and self.clock.now_ns() < until_ns:
                self.clock.sleep_until_ns(self.clock.now_ns() + POLL_NS)
        self._next_ns = self.clock.now_ns() + BEHIND_NS - self.period_ns

    def run(self, between: Callable[[], None] = lambda: None) -> Summary:
        """From start to rest, with a call `between` ticks; raises RoboError where the start is refused.

        The garbage collector is off meanwhile: its pauses are longer than a period.
        """
        self.start()
        with _no_garbage_collection():
            while self.step():
                between()
        return self.summary

    def step(self) -> bool:
        """Waits for the next deadline and does one tick; False once the robot is at rest."""
        self._next_ns += self.period_ns
        late_ns = self.clock.now_ns() - self._next_ns
        missed = 0
        if late_ns < 0:
            self.clock.sleep_until_ns(self._next_ns)
        elif late_ns > self.period_ns:
            missed = late_ns // self.period_ns
            self._next_ns += missed * self.period_ns
        try:
            goes_on = self._tick(missed)
            if self._fresh is not None:  # told last: what is recorded must not delay what is commanded
                self.sink.state(self._fresh, self.clock.now_ns())
                self._fresh = None
            return goes_on
        except Exception as e:
            if self.error is not None:  # even bringing it to rest has failed
                self.robot.stop()
                self.supervisor.settle()
                raise
            self.error = e
            self.supervisor.raise_fault(self.clock.now_ns(), "internal_error", f"{type(e).__name__}: {e}")
            return True

    def _tick(self, missed: int) -> bool:
        now = self.clock.now_ns()
        self.summary.ticks += 1
        self.summary.overruns += missed
        state = self._read(now)
        if self._estop_reason is not None:
            self.supervisor.estop(now, self._estop_reason)
            self._estop_reason = None
        airborne = state is not None and self.flight.airborne(state)
        self._health = self._health._replace(
            state=state, airborne=airborne, missed=missed, heartbeat_age_s=self._heartbeat_age_s()
        )
        self.supervisor.check(now, self._health)
        self._health = Health(state)
        if self.flight.failed:
            self.supervisor.raise_fault(now, "refused", self.flight.failed)
        if self.supervisor.faults:
            for fault in self.supervisor.faults[self._told :]:
                self._tell(now, "error", fault.reason, {"fault": fault.name})
            self._told = len(self.supervisor.faults)
            return self._react(now, state)
        return self._fly(now, state)

    def _read(self, now: int) -> RobotState | None:
        try:
            state = self.robot.read()
        except LinkLost:
            return None
        if state.t_ns != self._seen_ns:
            self._seen_ns, self._fresh = state.t_ns, state
        return state

    def _fly(self, now: int, state: RobotState | None) -> bool:
        if state is None or (now - state.t_ns) / 1e9 > self.supervisor.observation_age_s:
            self.summary.stale_ticks += 1
            return True  # the last set point stands until the state is fresh again or the supervisor has had enough
        if self.flight.advance(now, state):
            self._begin_phase(now, state)
        match self.flight.phase:
            case Phase.HANDOVER | Phase.POLICY:
                self._decide(now, state)
            case Phase.TAKE_BACK:
                values = self.fallback.command(state.signals, self._hold)
                self._send(now, state, values)
            case Phase.LAND:
                self._reaction.land(now, state)
            case Phase.DONE:
                self.robot.stop()
                self.supervisor.deactivate()
                self._rest(now)
                return False
        return True

    def _begin_phase(self, now: int, state: RobotState) -> None:
        phase = self.flight.phase
        self.summary.phase = phase
        self._tell(now, "ok", f"phase {phase}", {"phase": str(phase)})
        if phase is Phase.TAKEOFF:
            height_m = self.flight.ground_m + self.flight.plan.takeoff_height_m
            self._write(Command("takeoff", np.array([height_m, self.flight.plan.takeoff_s])), now)
        elif phase is Phase.HANDOVER:
            self.fallback.start(state.signals)
            self._hold = _here(state)
            if not self._goal:
                self.goal({k: state.signals[k] for k in goal_signals(self.policy.interface)})
            self.robot.ramp_from(self.policy.artifact.card.mode, self.fallback.command(state.signals, self._hold))
        elif phase is Phase.TAKE_BACK:
            self._hold = _here(state)

    def _set_goal(self, goal: Goal) -> None:
        self._goal = {**self._goal, **goal}
        self._goal_since_s = self.flight.policy_s(self.clock.now_ns())

    def _follow_tour(self, now: int) -> None:
        with self._goal_lock:
            due = self.flight.policy_s(now) - self._goal_since_s >= self._tour_each_s
            if due and len(self._tour) > 1:
                self._tour = self._tour[1:]
                self._set_goal(self._tour[0])

    def _decide(self, now: int, state: RobotState) -> None:
        self._follow_tour(now)
        begin = time.perf_counter_ns()
        decision = self.policy.decide(state.signals, self._goal)
        self.policy_latency.add((time.perf_counter_ns() - begin) / 1e9)
        share = self.flight.policy_share(now)
        wish = decision.command
        finite = bool(np.isfinite(wish).all())
        if share < 1.0 and finite:
            wish = share * wish + (1.0 - share) * self.fallback.command(state.signals, self._hold)
        before = self.robot.interventions
        sent = self._send(now, state, wish)
        self.command_latency.add((self.clock.now_ns() - state.t_ns) / 1e9)
        self.policy.sent(sent)
        intervened = self.robot.interventions > before
        self.summary.guard_interventions += intervened
        self._health = Health(state, intervened=intervened, command_finite=finite)
        tick = Tick(self.summary.policy_ticks, state.t_ns, self._goal, decision.observation, decision.command, sent)
        self.summary.policy_ticks += 1
        self.sink.tick(tick, now)
        self._note_distance(now, state)

    def _send(self, now: int, state: RobotState, values: NDArray[np.float64]) -> NDArray[np.float64]:
        sent = self._write(Command(self.policy.artifact.card.mode, values), now)
        self.fallback.sent(state.signals, sent, self.period_ns / 1e9)
        return sent

    def _write(self, command: Command, now: int) -> NDArray[np.float64]:
        try:
            self.robot.write(command)
        except LinkLost as e:
            self.supervisor.raise_fault(now, "link_lost", str(e))
        sent = self.robot.sent or command
        self.sink.sent(sent, now)
        return sent.values

    def _react(self, now: int, state: RobotState | None) -> bool:
        """The safe state, until the robot has reached it."""
        if not self._reaction.step(now, state, self.supervisor):
            return True
        self.supervisor.settle()
        self._rest(now)
        return False

    def _rest(self, now: int) -> None:
        self.summary.phase, self.summary.fault = self.flight.phase, self.supervisor.fault
        self._tell(now, "error" if self.supervisor.fault else "ok", "at rest", {"phase": str(self.flight.phase)})

    def _arm(self, now: int, state: RobotState) -> None:
        self._tell(now, "ok", f"phase {Phase.ARM}", {"phase": str(Phase.ARM)})
        try:
            self.robot.arm()
        except RoboError as e:
            self.supervisor.raise_fault(now, "refused", str(e))
            self.robot.stop()
            self.supervisor.settle()  # nothing has moved
            self._rest(now)
            raise

    def _tell(self, now: int, level: Level, text: str, values: dict[str, str]) -> None:
        self.sink.event(level, text, values, now)

    def _note_distance(self, now: int, state: RobotState) -> None:
        wanted = self._goal.get("position_world")
        settled = self.flight.policy_s(now) - self._goal_since_s >= SETTLE_S
        if wanted is not None and settled and self.summary.distance_settled_m is not None:
            self.summary.distance_settled_m.append(float(np.linalg.norm(state.signals["position_world"] - wanted)))


def _here(state: RobotState) -> Goal:
    return {k: v for k, v in state.signals.items() if k in ("position_world", "quat_wxyz")}


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
        gc.unfreeze()
