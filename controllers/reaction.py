"""What a robot does when something is wrong or when it is time to land: its safe state, until it is reached."""

from collections.abc import Callable

import numpy as np

from controllers.fallback import Fallback, Signals
from controllers.flight import Flight, height
from controllers.supervisor import Supervisor
from hardware.guard import GuardedRobot
from hardware.robot import Command, RobotState

FIRST_REPEATS_S = (0.0, 0.1, 0.2)
"""A one-shot command is sent at these times after the decision, because a single packet may be lost..."""
REPEAT_S = 1.0
"""...and again at this interval for as long as the robot does not descend."""
DESCENT_M = 0.03
"""Height that a landing robot has lost within the interval."""
HOLD_S = 1.0
"""How long the classical law levels and brakes a craft after a fault of the policy alone."""
STOP_S = 0.5
"""How long a stop is repeated."""
REST_S = 0.3
"""How long a robot must be on the ground to count as landed."""
LANDING_MAX_S = 15.0
"""Longest wait for a landing; after that the motors are stopped."""
BLIND_LANDING_S = 3.0
"""Time beyond the landing's own duration after which a robot that says nothing new is taken to be down."""


class Reaction:
    """Brings one robot to rest; `step` once per tick after a fault, `land` once per tick of an orderly landing."""

    def __init__(
        self,
        robot: GuardedRobot,
        flight: Flight,
        fallback: Fallback,
        mode: str,
        write: Callable[[Command, int], object],
    ) -> None:
        self._robot, self._flight, self._fallback, self._mode, self._write = robot, flight, fallback, mode, write
        self._doing = ""
        self._since_ns = 0
        self._hold: Signals | None = None
        self._recover_ns: int | None = None
        self._sent = 0
        self._sent_ns = 0
        self._sent_height = np.inf
        self._ground_ns: int | None = None

    def step(self, now_ns: int, state: RobotState | None, supervisor: Supervisor) -> bool:
        """One tick towards the safe state of the supervisor's faults; True once it is reached."""
        safe = supervisor.reaction
        if safe is None or safe.mode == "stop":
            return self._stop(now_ns)
        fresh = state is not None and now_ns - state.t_ns <= supervisor.bounds.stale_s * 1e9
        if state is not None and fresh and self._recovers(now_ns, state, supervisor):
            return False
        if safe.mode == "land":
            return self._land_or_stop(now_ns, state if fresh else None, safe.values)
        return self._hold_safe_command(now_ns, safe.mode, safe.values)

    def land(self, now_ns: int, state: RobotState | None, shortest_s: float = 0.0) -> None:
        """Sends and repeats the robot's own landing command."""
        self._begin("land", now_ns)
        if self._due(now_ns, state):
            ground, duration_s = self._flight.landing(state)
            self._write(Command("land", np.array([ground, max(duration_s, shortest_s)])), now_ns)
            self._sent, self._sent_ns = self._sent + 1, now_ns
            self._sent_height = np.inf if state is None else height(state)

    def _recovers(self, now_ns: int, state: RobotState, supervisor: Supervisor) -> bool:
        """The classical law levels and brakes for a moment, where nothing but the policy is at fault."""
        if not supervisor.law_may_recover or not self._flight.airborne(state):
            return False
        if self._recover_ns is None:
            self._recover_ns = now_ns
            self._hold = dict(state.signals)
            self._fallback.start(state.signals)
        if self._hold is None or now_ns - self._recover_ns > HOLD_S * 1e9:
            return False
        self._write(Command(self._fallback.mode, self._fallback.command(state.signals, self._hold)), now_ns)
        return True

    def _land_or_stop(self, now_ns: int, state: RobotState | None, values: tuple[float, ...]) -> bool:
        grounded = state is not None and not self._flight.airborne(state)
        self._ground_ns = None if not grounded else self._ground_ns or now_ns
        if not (grounded and self._doing == ""):
            self.land(now_ns, state, shortest_s=values[1])
        elapsed_s = (now_ns - self._since_ns) / 1e9 if self._doing else 0.0
        down = self._ground_ns is not None and now_ns - self._ground_ns >= REST_S * 1e9
        blind = state is None and elapsed_s > values[1] + BLIND_LANDING_S
        if down or blind or elapsed_s > LANDING_MAX_S:
            self._robot.stop()
            return True
        return False

    def _hold_safe_command(self, now_ns: int, mode: str, values: tuple[float, ...]) -> bool:
        """A safe state that is a command of its own: repeated, then left standing."""
        self._begin(mode, now_ns)
        self._write(Command(mode, np.array(values)), now_ns)
        return now_ns - self._since_ns >= STOP_S * 1e9

    def _stop(self, now_ns: int) -> bool:
        self._begin("stop", now_ns)
        if self._sent == 0 or now_ns - self._sent_ns >= 0.1 * 1e9:
            self._robot.stop()
            self._sent, self._sent_ns = self._sent + 1, now_ns
        return now_ns - self._since_ns >= STOP_S * 1e9

    def _begin(self, what: str, now_ns: int) -> None:
        if self._doing != what:
            self._doing, self._since_ns = what, now_ns
            self._sent, self._sent_ns = 0, now_ns

    def _due(self, now_ns: int, state: RobotState | None) -> bool:
        if self._sent < len(FIRST_REPEATS_S):
            return now_ns - self._since_ns >= FIRST_REPEATS_S[self._sent] * 1e9
        sinks = state is None or height(state) < self._sent_height - DESCENT_M or not self._flight.airborne(state)
        return not sinks and now_ns - self._sent_ns >= REPEAT_S * 1e9
