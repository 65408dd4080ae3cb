"""The control loop of every deployment, direct or over ROS 2: one thread, absolute deadlines on a clock.

Each tick reads the newest state, lets the supervisor judge it, advances the flight, lets the phase's law decide, sends
that behind the guard, and hands what happened to a sink (log writer or publishers). A policy that decides more rarely
than the robot sends states is asked every so many ticks; the robot is watched in all of them.

A tick has two halves, `look` and `act`: between them, the policy decides, for one robot here or for several at once
(`controllers.swarm`).
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controllers.fallback import Fallback, fallback_law
from controllers.flight import ENDABLE, Flight, FlightPlan, Phase
from controllers.goals import Goal
from controllers.latency import Durations
from controllers.pace import Pace
from controllers.policy import NOTHING, Decision, Law, Signals
from controllers.reaction import Reaction
from controllers.realtime import no_garbage_collection
from controllers.sinks import Level, Sink, SurvivingSink
from controllers.standing import standing
from controllers.summary import Summary
from controllers.supervisor import Health, Supervisor, ticks_per_decision
from hardware.clock import Clock
from hardware.errors import LinkLost, RoboError
from hardware.guard import GuardedRobot
from hardware.messages import Tick
from hardware.robot import Command, RobotState

SETTLE_S = 5.0
"""Time after the handover from which the distance to the goal counts."""


class Asked(NamedTuple):
    """What a decision is to be made of."""

    now_ns: int
    state: RobotState
    goal: Goal
    begin_ns: int
    """Of the performance counter, for the latency."""


class Loop:
    """Runs one policy on one robot, once. `goal`, `finish` and `estop` may be called from any thread."""

    def __init__(
        self,
        robot: GuardedRobot,
        policy: Law,
        supervisor: Supervisor,
        plan: FlightPlan,
        clock: Clock,
        sink: Sink,
        heartbeat_age_s: Callable[[], float | None] = lambda: None,
        surroundings: Callable[[RobotState], Signals] = lambda _: NOTHING,
    ) -> None:
        """`surroundings` gives the signals that are perceived beside the robot's own, where the policy needs any."""
        self.robot, self.policy, self.supervisor, self.clock = robot, policy, supervisor, clock
        self.sink = SurvivingSink(sink, self.finish)
        self.error: Exception | None = None
        """What failed inside the loop, where the fault is `internal_error`."""
        self.flight = Flight(robot.spec, plan)
        self.summary = Summary(distance_settled_m=[])
        self.policy_latency, self.command_latency = Durations(), Durations()
        self.decision_ns = round(1e9 / policy.rate_hz)
        """Between two decisions of the policy."""
        self.period_ns = self.decision_ns // ticks_per_decision(robot.spec, policy.rate_hz)
        """Between two ticks."""
        self.state: RobotState | None = None
        """The newest state; None while the link is gone."""
        self.airborne = False
        """The robot is off the ground."""
        self.asked: Asked | None = None
        """Between the halves of a tick: what the policy is asked, if it is its turn."""
        self.pace = Pace(clock, self.period_ns, lambda: self.called)
        self.fallback: Fallback = fallback_law(robot.spec, policy.mode)
        self._reaction = Reaction(robot, self.flight, self.fallback, policy.mode, self._write)
        self._heartbeat_age_s, self._surroundings = heartbeat_age_s, surroundings
        self._goal: Goal = {}
        self._goal_lock = threading.Lock()
        self._tour: tuple[Goal, ...] = ()
        self._tour_each_s = 0.0
        self._hold: Goal = {}
        self._goal_since_s = 0.0
        self._estop_reason: str | None = None
        self._health = Health(None)
        self._due_ns = 0
        self._standing_in = self._finish = self._was_armed = False
        self._seen: tuple[int, frozenset[str]] = (-1, frozenset())
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
        self._finish = True
        self.flight.finish()

    def estop(self, reason: str) -> None:
        """Asks for the emergency stop; acted on in the next tick."""
        self._estop_reason = reason

    def start(self) -> None:
        """Activates the supervisor and begins the flight; raises RoboError where that is refused."""
        now = self.clock.now_ns()
        state = self.robot.read()
        missing = self.policy.needs - state.signals.keys()
        if missing:
            raise RoboError(f"the policy needs {', '.join(sorted(missing))}, which the robot has not sent yet")
        if self._estop_reason is not None:
            self.supervisor.estop(now, self._estop_reason)
        self.supervisor.activate()
        self.policy.start()
        self.flight.begin(now, state)
        self._arm(now, state)
        self.pace.fall_in_step(lambda: self.robot.read().t_ns)

    def run(self, between: Callable[[], None] = lambda: None) -> Summary:
        """From start to rest, with a call `between` ticks; raises RoboError where the start is refused.

        The garbage collector is off meanwhile where its pauses are longer than a period.
        """
        self.start()
        with nullcontext() if self.pace.slow else no_garbage_collection():
            while self.step():
                between()
        return self.summary

    def step(self) -> bool:
        """Waits for the next deadline and does one tick; False once the robot is at rest."""
        goes_on = self.look(self.pace.wait())
        self.act(lambda a: self.policy.decide(a.state.signals, a.goal, self._surroundings(a.state)))
        self.tell()
        return goes_on

    def look(self, missed: int) -> bool:
        """First half of a tick, `missed` deadlines after the last one: everything but the decision."""
        self.asked = None
        return self._guarded(lambda: self._tick(missed))

    def act(self, decide: Callable[[Asked], Decision]) -> bool:
        """Second half of a tick, if the policy is asked; the run goes on either way."""
        asked = self.asked
        return asked is None or self._guarded(lambda: self._carry_out(asked, decide(asked)))

    def tell(self) -> None:
        """Tells the sink of a new state, last: what is recorded must not delay what is commanded."""
        fresh, self._fresh = self._fresh, None
        if fresh is not None:
            self.sink.state(fresh, self.clock.now_ns())

    def _guarded(self, work: Callable[[], bool]) -> bool:
        """Does a part of a tick; what fails in it is a fault of the robot's, like others."""
        try:
            return work()
        except Exception as e:
            if self.error is not None:  # even bringing it to rest has failed
                self.robot.stop()
                self.supervisor.settle()
                raise
            self.error = e
            self.supervisor.raise_fault(self.clock.now_ns(), "internal_error", f"{type(e).__name__}: {e}")
            return True

    @property
    def called(self) -> bool:
        """Somebody has asked for an end that is not yet on its way."""
        return self._estop_reason is not None or (self._finish and self.flight.phase in ENDABLE)

    def _tick(self, missed: int) -> bool:
        now = self.clock.now_ns()
        self.summary.ticks += 1
        self.summary.overruns += missed
        state = self._read(now)
        if self._estop_reason is not None:
            self.supervisor.estop(now, self._estop_reason)
            self._estop_reason = None
        self.state, self.airborne = state, state is not None and self.flight.airborne(state)
        self._health = self._health._replace(
            state=state, airborne=self.airborne, missed=missed, heartbeat_age_s=self._heartbeat_age_s()
        )
        self.supervisor.check(now, self._health)
        self._health = Health(state)
        if self.flight.failed:
            self.supervisor.raise_fault(now, "refused", self.flight.failed)
        if self.supervisor.faults:
            self.policy.stop()
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
        if (state.t_ns, state.status) != self._seen:
            self._seen, self._fresh = (state.t_ns, state.status), state
        return state

    def _fly(self, now: int, state: RobotState | None) -> bool:
        stale = state is None or (now - state.t_ns) / 1e9 > self.supervisor.observation_age_s
        if state is None or (stale and not (self._finish and self.pace.slow)):
            self.summary.stale_ticks += 1
            self._stand_in(now, state)
            return True  # the last set point stands until the state is fresh again or the supervisor has had enough
        if self._disarmed(state):
            self.supervisor.raise_fault(now, "refused", "it is no longer armed: somebody else has stopped it")
            return True
        if self._standing_in:
            self._take_up(now, state)
        if self.flight.advance(now, state):
            self._begin_phase(now, state)
        match self.flight.phase:
            case Phase.HANDOVER | Phase.POLICY:
                if self._decision_due(now):
                    self._follow_tour(now)
                    self.asked = Asked(now, state, self._goal, time.perf_counter_ns())
            case Phase.TAKE_BACK:
                self._fall_back(now, state)
            case Phase.LAND:
                self._reaction.land(now, state)
            case Phase.DONE:
                self.robot.stop()
                self.supervisor.deactivate()
                self._rest(now)
                return False
        return True

    def _disarmed(self, state: RobotState) -> bool:
        """Whether a robot that nobody could see fall was armed, and is not any more."""
        was, self._was_armed = self._was_armed, "armed" in state.status
        acts = self.flight.phase in (Phase.HANDOVER, Phase.POLICY)
        return was and not self._was_armed and acts and not self.flight.flies

    def _decision_due(self, now: int) -> bool:
        """On a grid of its own where decisions are rarer than ticks; half a tick early is in time."""
        if self.decision_ns == self.period_ns:
            return True
        if now < self._due_ns - self.period_ns // 2:
            return False
        on_grid = self._due_ns + self.decision_ns
        self._due_ns = on_grid if on_grid > now else now + self.decision_ns
        return True

    def _stand_in(self, now: int, state: RobotState | None) -> None:
        """The classical law, where the robot's state is too old even for the policy's last command to stand."""
        acts = self.flight.phase in (Phase.HANDOVER, Phase.POLICY)
        if not acts or state is None or (now - state.t_ns) / 1e9 <= self.supervisor.bounds.fallback_s:
            return
        if not self._standing_in:
            self._standing_in = True
            self._tell(now, "warn", "the state is too old: the fallback acts", {"law": "fallback"})
        self.summary.fallback_ticks += 1
        self._fall_back(now, state)

    def _take_up(self, now: int, state: RobotState) -> None:
        """Back to the policy, from where the machine stands."""
        self._standing_in, self._due_ns = False, now
        self._tell(now, "ok", "the state is fresh again: the policy acts", {"law": "policy"})
        self._ramp(state)

    def _ramp(self, state: RobotState) -> None:
        mode = self.policy.mode
        values = standing(self.robot.spec, mode, state.signals)
        if values is None:
            values = self.fallback.command(state.signals, self._hold)
        self.robot.ramp_from(mode, values)

    def _fall_back(self, now: int, state: RobotState) -> None:
        values = self.fallback.command(state.signals, self._hold)
        self._send(now, state, values, self.fallback.mode)

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
                self.goal({k: state.signals[k] for k in self.policy.goals})
            self.policy.start(state.signals)
            self._due_ns = now
            self._ramp(state)
        elif phase is Phase.TAKE_BACK:
            self.policy.stop()
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

    def _carry_out(self, asked: Asked, decision: Decision) -> bool:
        now, state = asked.now_ns, asked.state
        self.policy_latency.add((time.perf_counter_ns() - asked.begin_ns) / 1e9)
        share = self.flight.policy_share(now)
        wish = decision.command
        finite = bool(np.isfinite(wish).all())
        if share < 1.0 and finite and self.fallback.mode == self.policy.mode:
            wish = share * wish + (1.0 - share) * self.fallback.command(state.signals, self._hold)
        before = self.robot.interventions
        sent = self._send(now, state, wish)
        self.command_latency.add((self.clock.now_ns() - state.t_ns) / 1e9)
        self.policy.sent(sent)
        intervened = self.robot.interventions > before
        self.summary.guard_interventions += intervened
        self._health = Health(state, intervened=intervened, command_finite=finite)
        number = self.summary.policy_ticks
        self.summary.policy_ticks += 1
        self.sink.tick(Tick(number, state.t_ns, asked.goal, *decision[:2], sent, decision.perceived), now)
        self._note_distance(now, state)
        return True

    def _send(
        self, now: int, state: RobotState, values: NDArray[np.float64], mode: str | None = None
    ) -> NDArray[np.float64]:
        sent = self._write(Command(mode or self.policy.mode, values), now)
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
