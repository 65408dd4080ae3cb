"""The supervisor: whether a law may move the robot, what has gone wrong, and what the robot does about it.

A state machine on passed-in time, without clocks, threads or I/O: `unconfigured -> inactive -> active`, and `fault`
from which only an explicit reset leads back. The e-stop latch survives everything but that reset.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple

import numpy as np

from controllers.goals import Fence, fence_of
from hardware.errors import RoboError
from hardware.robot import RobotState
from hardware.spec import RobotSpec, SafeState

FAULTS: Mapping[str, str] = {
    "estop": "emergency stop",
    "link_lost": "the link to the robot is gone",
    "not_finite_state": "the robot's state is not finite",
    "frozen_state": "the robot's state stands still",
    "tumbled": "the robot is tilted too far",
    "stale_state": "no fresh state",
    "geofence": "outside the fence",
    "battery_low": "battery low",
    "not_finite_command": "the policy's command is not finite",
    "guard_interventions": "the guard had to change too many commands",
    "overruns": "the control loop missed too many deadlines",
    "heartbeat_lost": "the peer's heartbeat is gone",
    "refused": "the robot refused",
    "shutdown": "the node is being stopped",
    "internal_error": "the control loop failed",
}
"""Every fault there is, and what it means."""

POLICY_FAULTS = frozenset({"not_finite_command", "guard_interventions"})
"""Faults of the law alone: state and link are good, so the classical law takes over and lands."""

LARGEST_BOUND = 1e6
"""Of what may be set."""

Mode = Literal["unconfigured", "inactive", "active", "fault"]


class Refused(RoboError):  # noqa: N818
    """A transition that the supervisor does not allow now."""


@dataclass(frozen=True)
class Bounds:
    """What counts as a fault."""

    observation_periods: float = 5.0
    """Age of a state, in its stream's periods, above which no law acts on it: the last command stands."""
    stale_s: float = 0.2
    """Age of a state, s, at which the robot goes to its safe state."""
    fallback_s: float = 1000.0
    """Age of a state, s, at which the classical law takes over until the state is fresh again, for slow robots."""
    frozen_s: float = 0.25
    """How long every measured motion may stay the same, to the last bit, in flight."""
    window_s: float = 1.0
    """Span over which overruns and interventions are counted."""
    overruns: float = 0.3
    """Share of deadlines missed in the window."""
    interventions: float = 0.5
    """Share of the policy's commands that the guard changed in the window."""
    tilt_rad: float = 1.4
    """Angle between the body's and the world's z axis."""
    fence_margin_m: float = 0.5
    """How far beyond the goals' fence the robot may be."""
    battery_low_s: float = 0.1
    """How long the voltage must be low."""
    heartbeat_s: float = 0.4
    """Age of the peer's heartbeat; not watched where no peer is expected."""


def bounds_for(robot: RobotSpec, wished: Bounds | None = None) -> Bounds:
    """The robot's own bounds (`parameters.bounds` of its spec) with what a user has set instead.

    What equals the general default counts as not set.
    """
    wished, general = wished or Bounds(), Bounds()
    names = [f.name for f in fields(Bounds)]
    own = {k: float(v) for k, v in robot.parameters.get("bounds", {}).items()}
    changed = {n: getattr(wished, n) for n in names if getattr(wished, n) != getattr(general, n)}
    return replace(general, **{**own, **changed})


def ticks_per_decision(robot: RobotSpec, rate_hz: float) -> int:
    """How often the loop looks at the robot per decision of a policy: at every state, where decisions are rarer."""
    return max(round(robot.rate_hz / rate_hz), 1)


class Health(NamedTuple):
    """What the loop saw in one tick."""

    state: RobotState | None
    """None where the link is gone."""
    airborne: bool = False
    """The robot is off the ground, so that its state cannot stand still."""
    missed: int = 0
    """Deadlines missed since the last tick."""
    intervened: bool = False
    """The guard changed the policy's command in the last tick."""
    command_finite: bool = True
    heartbeat_age_s: float | None = None


@dataclass(frozen=True)
class Fault:
    """A latched fault."""

    name: str
    reason: str
    t_ns: int


class Supervisor:
    """One robot's supervisor. Methods raise Refused with one line where a transition is not allowed."""

    def __init__(self, robot: RobotSpec, rate_hz: float, bounds: Bounds | None = None) -> None:
        self.robot, self.bounds = robot, bounds_for(robot, bounds)
        self.mode: Mode = "unconfigured"
        self.faults: list[Fault] = []
        """Latched faults, first one first; empty unless something went wrong since the last reset."""
        self.estop_latched = False
        self.settled = True
        """False from the moment of a fault until the robot is known to be in its safe state."""
        self.observation_age_s = self.bounds.observation_periods / robot.rate_hz
        self._rate_hz = rate_hz * ticks_per_decision(robot, rate_hz)
        self._fence: Fence | None = fence_of(robot, self.bounds.fence_margin_m)
        self._battery_low_v = float(robot.parameters.get("battery_low_v", 0.0))
        self._window: deque[tuple[int, int, bool]] = deque()
        self._battery_low_since: int | None = None
        self._motion: tuple[bytes, int] = (b"", 0)
        self._fresh_ns: int | None = None

    @property
    def fault(self) -> Fault | None:
        """The first latched fault."""
        return self.faults[0] if self.faults else None

    @property
    def reaction(self) -> SafeState | None:
        """What the robot does about its faults: `stop` as soon as one of them demands it, else the first one's."""
        states = [self.robot.safe_state(f.name) for f in self.faults]
        return next((s for s in states if s.mode == "stop"), states[0] if states else None)

    @property
    def law_may_recover(self) -> bool:
        """Whether every fault is the policy's own, so that the classical law may hold and land."""
        return bool(self.faults) and all(f.name in POLICY_FAULTS for f in self.faults)

    def configure(self) -> None:
        """A policy and a robot are there: unconfigured -> inactive."""
        self._expect("configure", "unconfigured")
        self.mode = "inactive"

    def cleanup(self) -> None:
        """Forgets policy and robot: inactive -> unconfigured. A latch stays."""
        self._expect("clean up", "inactive")
        self.mode = "unconfigured"

    def activate(self) -> None:
        """Lets the law act: inactive -> active; refused while anything is latched."""
        self._expect("activate", "inactive")
        if self.estop_latched:
            raise Refused("cannot activate: e-stop latched; call estop/reset first")
        self._window.clear()
        self._fresh_ns = None
        self._battery_low_since = None
        self.mode = "active"

    def deactivate(self) -> None:
        """The robot is at rest: active -> inactive. A fault stays a fault."""
        self._expect("deactivate", "active")
        self.mode = "inactive"

    def estop(self, now_ns: int, reason: str) -> None:
        """Latches the emergency stop, from any state."""
        self.estop_latched = True
        if self.mode in ("active", "fault"):
            self.raise_fault(now_ns, "estop", reason)

    def raise_fault(self, now_ns: int, name: str, detail: str = "") -> None:
        """Latches a fault: active -> fault. A fault seen twice is latched once; an inactive robot has none."""
        if self.mode not in ("active", "fault") or any(f.name == name for f in self.faults):
            return
        self.faults.append(Fault(name, f"{FAULTS[name]}{': ' + detail if detail else ''}", now_ns))
        if self.mode == "active":
            self.mode, self.settled = "fault", False

    def settle(self) -> None:
        """The robot is in its safe state: from now on a reset is allowed."""
        self.settled = True

    def reset(self) -> None:
        """Releases the latch and the faults; refused while the robot may still be moving."""
        if self.mode == "active":
            raise Refused("cannot reset: active; deactivate first")
        if not self.settled:
            raise Refused("cannot reset: the robot is not yet in its safe state")
        self.estop_latched = False
        if self.mode == "fault":
            self.mode = "inactive"
        self.faults.clear()

    def check(self, now_ns: int, health: Health) -> Fault | None:
        """Latches what this tick shows to be wrong; returns the first latched fault. Does nothing unless moving."""
        if self.mode not in ("active", "fault"):
            return self.fault
        for name, detail in self._findings(now_ns, health):
            self.raise_fault(now_ns, name, detail)
        return self.fault

    def _findings(self, now_ns: int, health: Health) -> list[tuple[str, str]]:
        found = self._of_state(now_ns, health.state)
        if health.state is not None:
            found += self._of_motion(now_ns, health.state, health.airborne)
        if not health.command_finite:
            found.append(("not_finite_command", ""))
        age = health.heartbeat_age_s
        if age is not None and age > self.bounds.heartbeat_s:
            found.append(("heartbeat_lost", f"{age:.2f} s old; allowed {self.bounds.heartbeat_s:g} s"))
        return found + self._of_window(now_ns, health)

    def _of_state(self, now_ns: int, state: RobotState | None) -> list[tuple[str, str]]:
        if state is None:
            return [("link_lost", "")]
        found: list[tuple[str, str]] = []
        age_s = (now_ns - state.t_ns) / 1e9
        if self._fresh_ns is None or age_s <= self.observation_age_s:
            self._fresh_ns = now_ns
        idle_s = (now_ns - self._fresh_ns) / 1e9
        if not -self.bounds.stale_s <= age_s <= self.bounds.stale_s:
            found.append(("stale_state", f"{age_s:.2f} s old; allowed {self.bounds.stale_s:g} s"))
        elif idle_s > self.bounds.stale_s:
            found.append(("stale_state", f"none younger than {self.observation_age_s:g} s for {idle_s:.2f} s"))
        broken = [name for name, value in state.signals.items() if not np.isfinite(value).all()]
        if broken:
            return [*found, ("not_finite_state", ", ".join(broken))]
        quat = state.signals.get("quat_wxyz")
        if quat is not None:
            up = 1.0 - 2.0 * (quat[1] ** 2 + quat[2] ** 2)
            if up < np.cos(self.bounds.tilt_rad):
                found.append(("tumbled", f"tilt {np.degrees(np.arccos(max(up, -1.0))):.0f} degrees"))
        if "tumbled" in state.status:
            found.append(("tumbled", "reported by the robot"))
        position = state.signals.get("position_world")
        if position is not None and self._fence is not None and not self._fence.holds(position):
            found.append(("geofence", "at " + ",".join(f"{p:.2f}" for p in position)))
        return found + self._of_battery(now_ns, state)

    def _of_motion(self, now_ns: int, state: RobotState, airborne: bool) -> list[tuple[str, str]]:
        """A sensor that is stuck goes on sending, with fresh stamps; noise alone would change the last bits."""
        motion = b"".join(v.tobytes() for name, v in state.signals.items() if v.ndim and name != "battery_voltage")
        if motion != self._motion[0] or not airborne:
            self._motion = (motion, state.t_ns)
            return []
        still_s = (state.t_ns - self._motion[1]) / 1e9
        return [("frozen_state", f"{still_s:.2f} s")] if still_s > self.bounds.frozen_s else []

    def _of_battery(self, now_ns: int, state: RobotState) -> list[tuple[str, str]]:
        voltage = state.signals.get("battery_voltage")
        low = "battery_low" in state.status or (voltage is not None and float(voltage) < self._battery_low_v)
        if not low:
            self._battery_low_since = None
            return []
        if self._battery_low_since is None:
            self._battery_low_since = now_ns
        if now_ns - self._battery_low_since < self.bounds.battery_low_s * 1e9:
            return []
        return [("battery_low", "" if voltage is None else f"{float(voltage):.2f} V")]

    def _of_window(self, now_ns: int, health: Health) -> list[tuple[str, str]]:
        window, span_ns = self._window, round(self.bounds.window_s * 1e9)
        window.append((now_ns, health.missed, health.intervened))
        while window and window[0][0] <= now_ns - span_ns:
            window.popleft()
        expected = self.bounds.window_s * self._rate_hz
        missed = sum(w[1] for w in window)
        changed = sum(w[2] for w in window)
        found = []
        if missed > self.bounds.overruns * expected:
            found.append(("overruns", f"{missed} deadlines in {self.bounds.window_s:g} s"))
        if changed > self.bounds.interventions * expected:
            found.append(("guard_interventions", f"{changed} commands in {self.bounds.window_s:g} s"))
        return found

    def _expect(self, wish: str, mode: Mode) -> None:
        if self.mode != mode:
            why = f": {self.fault.reason}" if self.mode == "fault" and self.fault else ""
            raise Refused(f"cannot {wish}: {self.mode}{why}; allowed only while {mode}")
