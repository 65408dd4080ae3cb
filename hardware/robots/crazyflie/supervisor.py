"""The firmware's supervisor: who may arm, when the motors may run, and when they are locked.

States, conditions and timings follow Bitcraze's supervisor.c and supervisor_state_machine.c (release with protocol
version 12) as a table. Deviation: arming is always required (the firmware's CONFIG_MOTORS_REQUIRE_ARMING), because a
brushed 2.1 that arms itself would hide mistakes; `auto_arm=True` gives the other build.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass

from hardware.robots.crazyflie.wire import Info


class State(enum.Enum):
    """The supervisor's states; the value is the firmware's own name."""

    NOT_CHECKED = "Pre-flight checks not passed"
    CHECKED = "Pre-flight checks passed"
    READY = "Ready to fly"
    FLYING = "Flying"
    LANDED = "Landed"
    RESET = "Reset"
    LEVEL_OUT = "Warning, level out"
    FREE_FALL = "Exception, free fall"
    LOCKED = "Locked"
    CRASHED = "Crashed"


MOTORS_RUN = frozenset({State.READY, State.FLYING, State.LEVEL_OUT, State.LANDED})
"""States in which the motors may turn."""


@dataclass(frozen=True)
class Timings:
    """The firmware's time-outs in ms, and its tilt limits in g along the body's z axis."""

    level_out_ms: int = 500
    """Age of the set point after which the drone levels out: COMMANDER_WDT_TIMEOUT_STABILIZE."""
    shutdown_ms: int = 2000
    """Age of the set point after which the motors stop: COMMANDER_WDT_TIMEOUT_SHUTDOWN."""
    flying_ms: int = 2000
    """Time without thrust after which the drone counts as landed: IS_FLYING_HYSTERESIS_THRESHOLD."""
    preflight_ms: int = 30000
    """Time armed without flying after which it disarms: PREFLIGHT_TIMEOUT_MS."""
    landing_ms: int = 3000
    """Time landed after which it disarms: LANDING_TIMEOUT_MS."""
    emergency_ms: int = 1000
    """Repetition the emergency-stop watchdog demands once begun: DEFAULT_EMERGENCY_STOP_WATCHDOG_TIMEOUT."""
    tilt_g: float = 0.5
    tilt_ms: int = 1000
    upside_down_g: float = -0.2
    upside_down_ms: int = 100
    free_fall_g: float = 0.1


@dataclass(frozen=True)
class Conditions:
    """What the supervisor sees at one instant."""

    armed: bool
    flying: bool
    tumbled: bool
    warning: bool
    timeout: bool
    emergency: bool
    crashed: bool
    preflight_timeout: bool
    landing_timeout: bool


Rule = tuple[Callable[[Conditions], bool], State]

_ON_GROUND: Rule = (lambda c: c.emergency, State.FREE_FALL)
_IN_FLIGHT: Rule = (lambda c: c.timeout or c.emergency or not c.armed, State.FREE_FALL)

TRANSITIONS: dict[State, tuple[Rule, ...]] = {
    State.NOT_CHECKED: (_ON_GROUND, (lambda c: not c.tumbled, State.CHECKED)),
    State.CHECKED: (
        _ON_GROUND,
        (lambda c: c.tumbled, State.NOT_CHECKED),
        (lambda c: c.armed, State.READY),
    ),
    State.READY: (
        _ON_GROUND,
        (lambda c: c.tumbled or not c.armed, State.NOT_CHECKED),
        (lambda c: c.preflight_timeout, State.CHECKED),
        (lambda c: c.flying, State.FLYING),
    ),
    State.FLYING: (
        _IN_FLIGHT,
        (lambda c: c.tumbled, State.CRASHED),
        (lambda c: c.warning, State.LEVEL_OUT),
        (lambda c: not c.flying, State.LANDED),
    ),
    State.LANDED: (
        _ON_GROUND,
        (lambda c: not c.armed, State.RESET),
        (lambda c: c.landing_timeout, State.RESET),
        (lambda c: c.flying, State.FLYING),
    ),
    State.RESET: ((lambda c: True, State.NOT_CHECKED),),
    State.LEVEL_OUT: (
        _IN_FLIGHT,
        (lambda c: c.tumbled, State.CRASHED),
        (lambda c: not c.warning, State.FLYING),
    ),
    State.FREE_FALL: ((lambda c: True, State.LOCKED),),
    State.LOCKED: (),
    State.CRASHED: (
        (lambda c: c.emergency, State.LOCKED),
        (lambda c: not c.crashed and not c.tumbled, State.NOT_CHECKED),
    ),
}
"""State -> rules in order of precedence; the first that holds gives the next state."""


class Supervisor:
    """One drone's supervisor; times are milliseconds since the drone's start."""

    def __init__(self, *, auto_arm: bool = False, timings: Timings | None = None) -> None:
        self.timings = timings or Timings()
        self.auto_arm = auto_arm
        self.state = State.NOT_CHECKED
        self.armed = self.crashed = self.tumbled = False
        self.emergency = False
        """Latched by an emergency stop; only a restart clears it."""
        self._watchdog_ms: int | None = None
        self._tilted_since_ms: int | None = None
        self._thrust_ms: int | None = None
        self._entered_ms = 0

    @property
    def motors_allowed(self) -> bool:
        """Whether the motors may turn."""
        return self.state in MOTORS_RUN

    @property
    def flying(self) -> bool:
        """Whether the drone counts as flying."""
        return self.state in (State.FLYING, State.LEVEL_OUT)

    def request_arming(self, arm: bool) -> bool:
        """Arms or disarms; False where the drone may not be armed now."""
        if arm == self.armed:
            return True
        if arm and self.state is not State.CHECKED:
            return False
        self.armed = arm
        return True

    def request_recovery(self) -> bool:
        """Clears a crash once the drone is upright again; False where it is not."""
        if self.crashed and self.tumbled:
            return False
        self.crashed = False
        return True

    def feed_emergency_watchdog(self, now_ms: int) -> None:
        """Starts or feeds the emergency-stop watchdog."""
        self._watchdog_ms = now_ms

    def update(self, now_ms: int, *, acc_g: tuple[float, float, float], thrust: bool, setpoint_age_ms: int) -> None:
        """One step: body acceleration (g), whether any motor is commanded to turn, age of the set point."""
        t = self.timings
        self.tumbled = self._tumbled(now_ms, acc_g)
        if thrust:
            self._thrust_ms = now_ms
        if self._watchdog_ms is not None and now_ms - self._watchdog_ms >= t.emergency_ms:
            self.emergency = True
        here_ms = now_ms - self._entered_ms
        conditions = Conditions(
            armed=self.armed,
            flying=self._thrust_ms is not None and now_ms - self._thrust_ms < t.flying_ms,
            tumbled=self.tumbled,
            warning=setpoint_age_ms > t.level_out_ms,
            timeout=setpoint_age_ms > t.shutdown_ms,
            emergency=self.emergency,
            crashed=self.crashed,
            preflight_timeout=self.state is State.READY and here_ms > t.preflight_ms,
            landing_timeout=self.state is State.LANDED and here_ms > t.landing_ms,
        )
        for holds, following in TRANSITIONS[self.state]:
            if holds(conditions):
                self._enter(following, now_ms)
                break

    def info(self, *, high_level_active: bool, high_level_finished: bool) -> Info:
        """The information bits that clients read."""
        info = Info(0)
        for bit, holds in (
            (Info.CAN_BE_ARMED, self.state is State.CHECKED),
            (Info.ARMED, self.armed),
            (Info.AUTO_ARMED, self.auto_arm),
            (Info.CAN_FLY, self.motors_allowed),
            (Info.FLYING, self.flying),
            (Info.TUMBLED, self.tumbled),
            (Info.LOCKED, self.state is State.LOCKED),
            (Info.CRASHED, self.crashed),
            (Info.HIGH_LEVEL_ACTIVE, high_level_active),
            (Info.HIGH_LEVEL_FINISHED, high_level_finished),
        ):
            if holds:
                info |= bit
        return info

    def _enter(self, state: State, now_ms: int) -> None:
        self.state, self._entered_ms = state, now_ms
        if state is State.CRASHED:
            self.crashed = True
        if state not in MOTORS_RUN:
            self.armed = self.auto_arm and state is State.CHECKED

    def _tumbled(self, now_ms: int, acc_g: tuple[float, float, float]) -> bool:
        """Tilted for long, or upside down for a short while; free fall is a valid way to fly."""
        t = self.timings
        if all(abs(a) < t.free_fall_g for a in acc_g) or not acc_g[2] < t.tilt_g:
            self._tilted_since_ms = None
            return False
        if self._tilted_since_ms is None:
            self._tilted_since_ms = now_ms
        tilted_ms = now_ms - self._tilted_since_ms
        return tilted_ms > t.tilt_ms or (acc_g[2] < t.upside_down_g and tilted_ms > t.upside_down_ms)
