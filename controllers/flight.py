"""The phases of a run: who arms, takes off, hands over to the policy, takes back, lands and disarms.

A state machine on passed-in time and state, like the supervisor. Robots without `takeoff` and `land` commands go from
arming straight to the handover, and from the take-back to the end.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from hardware.robot import RobotState
from hardware.spec import RobotSpec

ON_THE_GROUND_M = 0.1
"""Height above the start below which a robot that hardly moves counts as landed."""
AT_REST_M_S = 0.25
"""Speed below which a robot hardly moves."""


class Phase(StrEnum):
    """What is going on; the law of each phase in brackets."""

    IDLE = "idle"
    ARM = "arm"
    TAKEOFF = "takeoff"
    """[the robot's own]"""
    HANDOVER = "handover"
    """[classical law, blended into the policy]"""
    POLICY = "policy"
    TAKE_BACK = "take_back"
    """[classical law holds the position]"""
    LAND = "land"
    """[the robot's own]"""
    DONE = "done"


ENDABLE = frozenset({Phase.ARM, Phase.TAKEOFF, Phase.HANDOVER, Phase.POLICY})
"""Phases that a wish to finish ends at once."""


@dataclass(frozen=True)
class FlightPlan:
    """Durations and heights of the phases."""

    flies: bool = True
    """Take off and land, where the robot can; without, the policy starts where the robot is."""
    takeoff_height_m: float = 0.5
    """Height of the takeoff."""
    takeoff_s: float = 2.0
    """Duration of the takeoff."""
    handover_s: float = 1.0
    """How long the classical law's command is blended into the policy's."""
    duration_s: float = 10.0
    """How long the policy acts, handover included; 0: until it is told to stop."""
    take_back_s: float = 1.0
    """How long the classical law holds the position before landing."""
    land_s: float = 2.0
    """Shortest duration of the landing."""
    land_speed_m_s: float = 0.5
    """Mean speed of a landing from higher up."""


class Flight:
    """One run through the phases; `phase` may be read at any time."""

    def __init__(self, robot: RobotSpec, plan: FlightPlan) -> None:
        self.plan = plan
        self.phase = Phase.IDLE
        self.since_ns = 0
        self.ground_m = 0.0
        self.failed = ""
        """Why the run cannot go on; empty while it can."""
        self.flies = plan.flies and {"takeoff", "land"} <= robot.modes.keys()
        """Takes off and lands; otherwise the policy starts where the robot is."""
        self._finish = False
        self._policy_ns = 0

    def begin(self, now_ns: int, state: RobotState) -> None:
        """Starts with arming."""
        self.ground_m = height(state)
        self._enter(Phase.ARM, now_ns)

    def finish(self) -> None:
        """Asks for an orderly end: take back, land, disarm."""
        self._finish = True

    def airborne(self, state: RobotState) -> bool:
        """Whether the robot is off the ground: higher than it started, or moving."""
        velocity = state.signals.get("velocity_world")
        moves = velocity is not None and float(np.linalg.norm(velocity)) > AT_REST_M_S
        return self.flies and (moves or height(state) - self.ground_m > ON_THE_GROUND_M)

    def landing(self, state: RobotState | None) -> tuple[float, float]:
        """Height, m, and duration, s, of a landing from here."""
        up = 0.0 if state is None else max(height(state) - self.ground_m, 0.0)
        return self.ground_m, max(self.plan.land_s, up / self.plan.land_speed_m_s)

    def elapsed_s(self, now_ns: int) -> float:
        """Time in the present phase."""
        return (now_ns - self.since_ns) / 1e9

    def policy_share(self, now_ns: int) -> float:
        """Weight of the policy in the command: 0 at the start of the handover, rising smoothly to 1 at its end."""
        if self.phase is not Phase.HANDOVER or self.plan.handover_s <= 0:
            return 1.0
        x = min(self.elapsed_s(now_ns) / self.plan.handover_s, 1.0)
        return x * x * (3.0 - 2.0 * x)

    def policy_s(self, now_ns: int) -> float:
        """Time since the handover began; 0 before."""
        return (now_ns - self._policy_ns) / 1e9 if self._policy_ns else 0.0

    def advance(self, now_ns: int, state: RobotState) -> bool:
        """Moves on where the present phase is over; returns whether a phase has just begun."""
        following = self._next(now_ns, state)
        if following is None:
            return False
        self._enter(following, now_ns)
        return True

    def _next(self, now_ns: int, state: RobotState) -> Phase | None:
        elapsed, plan = self.elapsed_s(now_ns), self.plan
        match self.phase:
            case Phase.ARM:
                return self._after_arming(state)
            case Phase.TAKEOFF:
                return self._after_takeoff(elapsed, state)
            case Phase.HANDOVER if elapsed >= plan.handover_s or self._finish:
                return Phase.TAKE_BACK if self._finish else Phase.POLICY
            case Phase.POLICY if self._finish or (plan.duration_s > 0 and self.policy_s(now_ns) >= plan.duration_s):
                return Phase.TAKE_BACK
            case Phase.TAKE_BACK if elapsed >= plan.take_back_s:
                return Phase.LAND if self.flies else Phase.DONE
            case Phase.LAND if self._has_landed(elapsed, state):
                return Phase.DONE
        return None

    def _after_arming(self, state: RobotState) -> Phase:
        if self._finish:
            return Phase.DONE if not self.airborne(state) else Phase.LAND
        return Phase.TAKEOFF if self.flies and not self.airborne(state) else Phase.HANDOVER

    def _after_takeoff(self, elapsed_s: float, state: RobotState) -> Phase | None:
        risen = height(state) - self.ground_m
        if self._finish:
            return Phase.LAND
        if elapsed_s >= self.plan.takeoff_s and risen > 0.7 * self.plan.takeoff_height_m:
            return Phase.HANDOVER
        if elapsed_s > self.plan.takeoff_s + 2.0:
            self.failed = f"takeoff: rose {risen:.2f} m of {self.plan.takeoff_height_m:g} m in {elapsed_s:.1f} s"
        return None

    def _has_landed(self, elapsed_s: float, state: RobotState) -> bool:
        _, duration_s = self.landing(state)
        if elapsed_s > self.plan.land_s + 15.0:
            self.failed = f"landing: still {height(state) - self.ground_m:.2f} m up after {elapsed_s:.0f} s"
        return elapsed_s >= self.plan.land_s and not self.airborne(state) and duration_s <= self.plan.land_s

    def _enter(self, phase: Phase, now_ns: int) -> None:
        self.phase, self.since_ns = phase, now_ns
        if phase is Phase.HANDOVER:
            self._policy_ns = now_ns


def height(state: RobotState) -> float:
    """Height in the world, m; 0 for a robot that does not measure its position."""
    position = state.signals.get("position_world")
    return 0.0 if position is None else float(np.asarray(position)[2])
