"""Between a robot and whoever commands it from outside: what is let through, and what happens when they fall silent.

Used by `robot_node`; knows nothing of ROS. One lock guards everything, since commands, states and signals come from
several threads.
"""

import threading
from collections.abc import Callable

import numpy as np

from controllers.fallback import fallback_law
from controllers.flight import Flight, FlightPlan
from controllers.reaction import Reaction
from controllers.standing import standing
from controllers.supervisor import Supervisor
from hardware.clock import Clock
from hardware.errors import LinkLost, RoboError
from hardware.guard import GuardedRobot
from hardware.robot import Command, RobotState
from hardware.spec import RobotSpec

STREAM_PERIODS = 1.5
"""Set points of slow robots may be so many of their own periods apart before their stream counts as ended."""


class Gate:
    """One robot's gate; shut until `open`, and commands pass only while the robot is armed and nothing is wrong."""

    def __init__(
        self,
        spec: RobotSpec,
        plan: FlightPlan,
        clock: Clock,
        *,
        timeout_s: float,
        report: Callable[[str], None],
        label: Callable[[], str],
    ) -> None:
        """`timeout_s`: silence of the peer at which the robot goes to its safe state; `report` is told of faults.

        `label` names the state of whoever holds the gate, for refusals.
        """
        self.spec, self.lock = spec, threading.RLock()
        self.supervisor = Supervisor(spec, spec.rate_hz)
        self.supervisor.configure()
        self.robot: GuardedRobot | None = None
        self.state: RobotState | None = None
        self.is_open = False
        self.estop_on = False
        self.ignored = 0
        """Commands that were not let through."""
        self._plan, self._clock, self._timeout_s = plan, clock, timeout_s
        self._report, self._label = report, label
        self._peer_ns: int | None = None
        self._stream: tuple[str, int] | None = None

    @property
    def at_rest(self) -> bool:
        """Whether nothing moves, or is about to, by what came through here."""
        s = self.supervisor
        return s.mode == "inactive" or (s.mode == "fault" and s.settled)

    def read(self) -> RobotState | None:
        """The newest state; None, and a fault, where the link is gone."""
        with self.lock:
            try:
                return self.robot.read() if self.robot else None
            except LinkLost as e:
                self.fault("link_lost", str(e))
                return None

    def pass_on(self, command: Command) -> None:
        """Sends a command; raises RoboError with the reason where it is not let through."""
        with self.lock:
            robot, state = self.robot, self.state
            if robot is None or state is None or not self.is_open or self.supervisor.mode != "active":
                self.ignored += 1
                raise RoboError(f"ignored: {self._why_not()}")
            if self.spec.mode(command.mode).rate_hz > 0:
                if self._stream is None or self._stream[0] != command.mode:
                    robot.ramp_from(command.mode, self._now_at(command.mode, state))
                self._stream = (command.mode, self._clock.now_ns())
            else:
                self._stream = None
            robot.write(command)

    def arm(self) -> None:
        """Arms the robot; raises RoboError where that is refused."""
        with self.lock:
            robot, state = self.robot, self.state
            if self.estop_on:
                raise RoboError("e-stop is on")
            if robot is None or state is None or not self.is_open:
                raise RoboError(f"cannot arm: {self._why_not()}")
            self.disarmed()  # it may have disarmed itself after a landing
            self.supervisor.reset()
            robot.arm()
            self.supervisor.activate()
            self._stream, self._peer_ns = None, None
            self._flight = Flight(self.spec, self._plan)
            self._flight.begin(self._clock.now_ns(), state)
            streamed = next(m.name for m in self.spec.modes.values() if m.rate_hz > 0)
            law = fallback_law(self.spec, streamed)
            self._reaction = Reaction(robot, self._flight, law, streamed, lambda c, _: robot.write(c))

    def disarmed(self) -> None:
        """The robot is no longer armed."""
        self._stream = None
        if self.supervisor.mode == "active":
            self.supervisor.deactivate()

    def stop(self) -> None:
        """The robot's own stop."""
        with self.lock:
            if self.robot is not None:
                self.robot.stop()
                self.disarmed()
                self.supervisor.settle()  # where a fault was bringing it down, nothing is left to do

    def estop(self, reason: str) -> None:
        """Emergency stop, latched."""
        with self.lock:
            self.supervisor.estop(self._clock.now_ns(), reason)
            if self.robot is not None:
                self.robot.stop()

    def one_shot(self, mode: str) -> str:
        """The robot's own take-off or landing; raises RoboError where it is refused, or where it has none."""
        state = self.state
        if state is None or self.supervisor.mode != "active":
            raise RoboError(f"cannot {mode}: {self._why_not()}")
        self.spec.mode(mode)
        ground, land_s = self._flight.landing(state)
        height = ground + self._plan.takeoff_height_m
        values = [height, self._plan.takeoff_s] if mode == "takeoff" else [ground, land_s]
        self.pass_on(Command(mode, np.array(values)))
        return f"{mode} to {values[0]:.2f} m in {values[1]:.1f} s"

    def heard(self) -> None:
        """A heartbeat of the peer."""
        self._peer_ns = self._clock.now_ns()

    def watch(self, state: RobotState | None) -> bool:
        """Looks for a silent peer and goes on with the reaction to a fault; True when that has come to rest now."""
        now = self._clock.now_ns()
        with self.lock:
            if self.supervisor.mode == "active":
                self._watch_peer(now)
            unsettled = self.supervisor.mode == "fault" and not self.supervisor.settled
            if unsettled and self._reaction.step(now, state, self.supervisor):
                self.supervisor.settle()
                return True
        return False

    def broken(self, why: str, *, on_the_way_down: bool = False) -> None:
        """In flight an error is a fault like others; where landing itself has failed, the motors are stopped."""
        with self.lock:
            if self.supervisor.mode == "active":
                self.fault("internal_error", why)
            elif on_the_way_down and not self.supervisor.settled and self.robot is not None:
                self.robot.stop()
                self.supervisor.settle()

    def shut(self) -> None:
        """Nothing is let through any more; an armed robot goes to its safe state."""
        with self.lock:
            self.is_open = False
            self.fault("shutdown", "")

    def fault(self, name: str, detail: str) -> None:
        """Latches a fault of an armed robot."""
        if self.supervisor.mode != "active":
            return
        self.supervisor.raise_fault(self._clock.now_ns(), name, detail)
        if self.supervisor.fault is not None:
            self._report(self.supervisor.fault.reason)

    def _now_at(self, mode: str, state: RobotState) -> np.ndarray:
        """Where a stream of set points starts: as measured, or as the classical law would hold the robot."""
        measured = standing(self.spec, mode, state.signals)
        if measured is not None:
            return measured
        law = fallback_law(self.spec, mode)
        here = {k: v for k, v in state.signals.items() if k in ("position_world", "quat_wxyz")}
        return law.command(state.signals, here) if law.mode == mode else np.array(self.spec.mode(mode).safe)

    def _why_not(self) -> str:
        if self.robot is None or not self.is_open:
            return f"the node is {self._label()}"
        fault = self.supervisor.fault
        return fault.reason if fault else "the robot is not armed; call service arm"

    def _watch_peer(self, now: int) -> None:
        waits: list[tuple[str, int | None, float]] = [("heartbeat", self._peer_ns, self._timeout_s)]
        if self._stream is not None:
            mode, seen = self._stream
            waits.append(("set point", seen, max(self._timeout_s, STREAM_PERIODS / self.spec.mode(mode).rate_hz)))
        for what, seen_ns, most_s in waits:
            if seen_ns is not None and (now - seen_ns) / 1e9 > most_s:
                self.fault("heartbeat_lost", f"last {what} {(now - seen_ns) / 1e9:.2f} s ago")
