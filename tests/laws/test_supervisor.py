"""The supervisor: no path leads to `active` past a latch, and every documented fault is latched with its reaction."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from controllers.supervisor import FAULTS, POLICY_FAULTS, Bounds, Health, Refused, Supervisor
from hardware.robot import RobotState
from hardware.spec import load_spec

SPEC = load_spec("crazyflie")
NOW = 5_000_000_000


def state(t_ns: int = NOW, status: tuple[str, ...] = (), **signals: object) -> RobotState:
    values = {
        "position_world": np.array([0.0, 0.0, 1.0]),
        "quat_wxyz": np.array([1.0, 0.0, 0.0, 0.0]),
        "velocity_world": np.zeros(3),
        "angular_velocity_body": np.zeros(3),
        "battery_voltage": np.array(3.9),
    }
    return RobotState(t_ns, values | {k: np.asarray(v, dtype=float) for k, v in signals.items()}, frozenset(status))


def active(bounds: Bounds | None = None) -> Supervisor:
    supervisor = Supervisor(SPEC, 100.0, bounds)
    supervisor.configure()
    supervisor.activate()
    return supervisor


def test_a_healthy_tick_changes_nothing() -> None:
    supervisor = active()
    assert supervisor.check(NOW, Health(state())) is None
    assert supervisor.mode == "active"


HALF_TURN = [np.cos(0.75), np.sin(0.75), 0.0, 0.0]
"""1.5 rad of roll."""


@pytest.mark.parametrize(
    ("health", "fault", "safe"),
    [
        (Health(None), "link_lost", "stop"),
        (Health(state(NOW - 210_000_000)), "stale_state", "land"),
        (Health(state(NOW + 210_000_000)), "stale_state", "land"),
        (Health(state(angular_velocity_body=[0, np.nan, 0])), "not_finite_state", "stop"),
        (Health(state(position_world=[np.inf, 0, 0])), "not_finite_state", "stop"),
        (Health(state(quat_wxyz=HALF_TURN)), "tumbled", "stop"),
        (Health(state(status=("tumbled",))), "tumbled", "stop"),
        (Health(state(position_world=[0, 10.6, 1])), "geofence", "land"),
        (Health(state(position_world=[0, 0, 5.6])), "geofence", "land"),
        (Health(state(), command_finite=False), "not_finite_command", "land"),
        (Health(state(), heartbeat_age_s=0.41), "heartbeat_lost", "land"),
        (Health(state(), missed=31), "overruns", "land"),
    ],
)
def test_each_fault_is_latched_with_its_reason_and_its_safe_state(health: Health, fault: str, safe: str) -> None:
    supervisor = active()
    found = supervisor.check(NOW, health)
    assert found is not None
    assert found.name == fault
    assert found.reason.startswith(FAULTS[fault])
    assert supervisor.mode == "fault"
    assert supervisor.reaction == SPEC.safe_state(fault)
    assert supervisor.reaction is not None
    assert supervisor.reaction.mode == safe
    # It stays latched when everything is well again.
    supervisor.check(NOW + 10_000_000, Health(state(NOW + 10_000_000)))
    assert supervisor.mode == "fault"
    with pytest.raises(Refused, match="fault"):
        supervisor.activate()


@pytest.mark.parametrize(
    "health",
    [
        Health(state(NOW - 190_000_000)),
        Health(state(position_world=[0, 10.4, 1])),
        Health(state(battery_voltage=3.21)),
        Health(state(), heartbeat_age_s=0.39),
        Health(state(), missed=29),
    ],
)
def test_just_inside_the_bounds_is_no_fault(health: Health) -> None:
    assert active().check(NOW, health) is None


def test_states_that_are_always_a_little_too_old_are_a_fault() -> None:
    supervisor = active()
    for ms in range(0, 210, 10):
        t = NOW + ms * 1_000_000
        assert supervisor.check(t, Health(state(t - 80_000_000))) is None
    t = NOW + 210_000_000
    found = supervisor.check(t, Health(state(t - 80_000_000)))
    assert found is not None
    assert found.reason == "no fresh state: none younger than 0.05 s for 0.21 s"
    supervisor = active()
    for ms in range(0, 1000, 10):  # every tenth one is young enough
        t = NOW + ms * 1_000_000
        assert supervisor.check(t, Health(state(t - (10 if ms % 100 == 0 else 80) * 1_000_000))) is None


def test_a_low_battery_must_last() -> None:
    supervisor = active()
    for ms in range(0, 100, 10):
        assert supervisor.check(NOW + ms * 1_000_000, Health(state(NOW + ms * 1_000_000, battery_voltage=3.1))) is None
    supervisor.check(NOW + 100_000_000, Health(state(NOW + 100_000_000, battery_voltage=3.3)))  # a moment's relief
    assert supervisor.check(NOW + 110_000_000, Health(state(NOW + 110_000_000, battery_voltage=3.1))) is None
    found = supervisor.check(NOW + 210_000_000, Health(state(NOW + 210_000_000, battery_voltage=3.1)))
    assert found is not None
    assert (found.name, found.reason) == ("battery_low", "battery low: 3.10 V")


def test_a_frozen_state_is_a_fault_in_the_air_only() -> None:
    for airborne, expected in ((True, "frozen_state"), (False, None)):
        supervisor = active()
        for ms in range(0, 300, 10):
            t = NOW + ms * 1_000_000
            found = supervisor.check(t, Health(state(t, battery_voltage=3.9 - ms * 1e-4), airborne=airborne))
        assert (found.name if found else None) == expected


def test_overruns_and_interventions_are_counted_in_a_sliding_window() -> None:
    supervisor = active()
    for tick in range(400):  # every second command changed, for four seconds: exactly the bound
        t = NOW + tick * 10_000_000
        assert supervisor.check(t, Health(state(t), intervened=tick % 2 == 0)) is None
    supervisor = active()
    for tick in range(60):
        t = NOW + tick * 10_000_000
        supervisor.check(t, Health(state(t), intervened=True))
    assert supervisor.fault is not None
    assert supervisor.fault.name == "guard_interventions"
    assert supervisor.fault.t_ns == NOW + 50 * 10_000_000


def test_a_later_fault_that_demands_a_stop_overrides_a_landing() -> None:
    supervisor = active()
    supervisor.check(NOW, Health(state(position_world=[11, 0, 1])))
    assert supervisor.reaction is not None
    assert supervisor.reaction.mode == "land"
    supervisor.check(NOW, Health(state(position_world=[11, 0, 1], quat_wxyz=HALF_TURN)))
    assert supervisor.reaction.mode == "stop"
    assert supervisor.fault is not None
    assert supervisor.fault.name == "geofence"  # the first one is the cause


def test_only_faults_of_the_policy_let_the_classical_law_recover() -> None:
    supervisor = active()
    supervisor.check(NOW, Health(state(), command_finite=False))
    assert supervisor.law_may_recover
    supervisor.check(NOW, Health(state(NOW - 10**9)))
    assert not supervisor.law_may_recover
    assert set(POLICY_FAULTS) - set(FAULTS) == set()


def test_every_fault_of_the_spec_is_known() -> None:
    assert set(SPEC.safe_states) - {"default"} <= FAULTS.keys()


def test_an_inactive_supervisor_judges_nothing() -> None:
    supervisor = Supervisor(SPEC, 100.0)
    supervisor.configure()
    assert supervisor.check(NOW, Health(None)) is None
    assert replace(Bounds(), stale_s=1.0) != Bounds()


class Paths(RuleBasedStateMachine):
    """Any order of transitions, faults and e-stops."""

    @initialize()
    def begin(self) -> None:
        self.supervisor = Supervisor(SPEC, 100.0)
        self.latched = False
        self.now = NOW

    def attempt(self, transition: str) -> None:
        before = (self.supervisor.mode, self.supervisor.estop_latched, list(self.supervisor.faults))
        refusal = None
        try:
            getattr(self.supervisor, transition)()
        except Refused as e:
            refusal = str(e)
        if refusal is not None:
            assert "\n" not in refusal
            after = (self.supervisor.mode, self.supervisor.estop_latched, list(self.supervisor.faults))
            assert after == before  # a refused transition changes nothing

    @rule()
    def configure(self) -> None:
        self.attempt("configure")

    @rule()
    def cleanup(self) -> None:
        self.attempt("cleanup")

    @rule()
    def activate(self) -> None:
        latched = self.supervisor.estop_latched or bool(self.supervisor.faults)
        self.attempt("activate")
        if latched:
            assert self.supervisor.mode != "active"

    @rule()
    def deactivate(self) -> None:
        self.attempt("deactivate")

    @rule()
    def settle(self) -> None:
        self.supervisor.settle()

    @rule()
    def estop(self) -> None:
        self.supervisor.estop(self.now, "rule")
        self.latched = True
        assert self.supervisor.mode != "active"

    @rule()
    def reset(self) -> None:
        mode, settled = self.supervisor.mode, self.supervisor.settled
        self.attempt("reset")
        if mode != "active" and settled:
            self.latched = False
            assert self.supervisor.mode != "fault"

    @rule(name=st.sampled_from(sorted(FAULTS.keys() - {"estop"})))
    def fault(self, name: str) -> None:
        self.supervisor.raise_fault(self.now, name)

    @rule(age_ms=st.integers(0, 400), missed=st.integers(0, 40), finite=st.booleans())
    def tick(self, age_ms: int, missed: int, finite: bool) -> None:
        self.now += 10_000_000
        health = Health(state(self.now - age_ms * 1_000_000), missed=missed, command_finite=finite)
        self.supervisor.check(self.now, health)

    @invariant()
    def a_latch_is_never_passed(self) -> None:
        s = self.supervisor
        assert s.estop_latched == self.latched
        assert not (s.mode == "active" and (s.estop_latched or s.faults))
        assert (s.mode == "fault") == bool(s.faults)
        assert s.mode != "fault" or s.reaction is not None


TestPaths = Paths.TestCase
TestPaths.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
