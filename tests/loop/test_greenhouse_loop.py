"""Whole days of the real loop on a stepped clock against the emulated PLC's program, registers and built-in world."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.flying import Story
from support.greenhouse_policy import write_greenhouse_policy
from support.stepped_plc import SteppedBus, make_greenhouse_loop

from controllers.fallback import SafeHold, fallback_law
from controllers.flight import FlightPlan
from controllers.loop import Loop
from controllers.results import outcome
from controllers.standing import standing
from controllers.supervisor import Bounds, Supervisor, bounds_for, ticks_per_decision
from hardware.clock import SteppedClock
from hardware.robot import RobotState
from hardware.robots.greenhouse_plc.check import judge
from hardware.robots.greenhouse_plc.emulator import Compartments
from hardware.robots.greenhouse_plc.faults import parse_fault
from hardware.robots.greenhouse_plc.plc import LOCAL, REMOTE_DIRECT, REMOTE_SETPOINTS
from hardware.spec import load_spec

SPEC = load_spec("greenhouse_plc")
HOURS = 3600.0


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_greenhouse_policy(tmp_path_factory.mktemp("greenhouse") / "p.onnx")


class Kept(Story):
    """Keeps the states too, as a recording does."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[RobotState] = []

    def state(self, state: RobotState, now_ns: int) -> None:
        self.states.append(state)


class Day:
    """A run, ready to be stepped."""

    def __init__(self, policy: Path, *faults: str, hours: float = 24.0, write: bool = True) -> None:
        rng = np.random.default_rng(0)
        self.house = Compartments(faults=[parse_fault(f, rng) for f in faults])
        self.story = Kept()
        made = make_greenhouse_loop(
            policy, self.house, FlightPlan(duration_s=hours * HOURS), write=write, story=self.story
        )
        self.loop: Loop = made[0]
        self.bus: SteppedBus = made[1]
        self.clock: SteppedClock = made[3]
        self.plc = self.house.plcs[0]
        self.loop.start()

    def run(self, until_h: float = 1e9) -> bool:
        """Steps to an hour of plant time; False once the loop is at rest."""
        while self.house.now_s < until_h * HOURS:
            if not self.loop.step():
                return False
        return True

    @property
    def phases(self) -> list[str]:
        return [v["phase"] for _, _, text, v in self.story.events if text.startswith("phase")]

    @property
    def told(self) -> list[str]:
        return [text for _, _, text, _ in self.story.events]


def test_a_day_is_armed_handed_over_run_and_given_back(policy: Path) -> None:
    day = Day(policy)
    assert day.run(23.0)
    assert day.plc.mode == REMOTE_DIRECT
    day.run()
    assert day.phases == ["arm", "handover", "policy", "take_back", "done"]
    result = outcome(day.loop)
    assert result["success"]
    assert result["policy_ticks"] == 48 == len(day.story.ticks)
    assert result["ticks"] == pytest.approx(24 * 60, abs=5)
    assert result["distance_m_max"] is None
    assert day.plc.mode == LOCAL
    assert day.plc.trips == 0
    assert judge(day.story.states) == {"violations": [], "interlocks": {}, "failsafe": []}
    gaps_s = np.diff([t.state_t_ns for t in day.story.ticks]) / 1e9
    np.testing.assert_allclose(gaps_s, 1800.0, atol=61.0)


def test_the_policy_begins_where_the_actuators_stand_and_moves_a_tenth_per_step(policy: Path) -> None:
    day = Day(policy, hours=6.0)
    day.run()
    sent = np.array([t.sent for t in day.story.ticks])
    largest = np.array([1.2, 7.5, 150.0])
    begin = np.array([day.story.states[0].signals["actuators"]]) * largest
    steps = np.diff(np.concatenate([begin, sent]), axis=0) / largest
    assert np.abs(steps).max() <= 0.1 * 1.02 + 1e-3  # 2 %: the clock's ticks; a thousandth: the register's resolution
    assert np.abs(steps).max() > 0.09  # and the limit was met
    shown = np.array([t.observation["policy"][6:9] for t in day.story.ticks])
    np.testing.assert_allclose(shown[1:], (sent[:-1] - largest / 2) / (largest / 2), atol=1e-6)
    np.testing.assert_allclose(shown[0], (begin[0] - largest / 2) / (largest / 2), atol=0.02)


def test_power_cut_lost_network_stuck_vent_and_storm_are_survived(policy: Path) -> None:
    day = Day(policy, "restart:4h:10m", "dead_connection:8h:40m", "stuck_vent:14h:4h", "storm:20h:1h")
    assert day.run() is False
    result = outcome(day.loop)
    assert result["success"], result
    found = judge(day.story.states)
    assert found["violations"] == []
    assert found["interlocks"]["wind: vents nearly shut"] == 1
    assert any("ventilation_does_not_follow" in s.status for s in day.story.states)
    assert [s["cause"] for s in found["failsafe"]] == ["restart or key", "watchdog"]
    assert all(s["left_after_s"] <= 120 for s in found["failsafe"])
    assert day.plc.trips == 1
    assert 0 < result["stale_ticks"] < 60


def test_old_states_are_held_then_handed_to_set_points_then_given_up(policy: Path) -> None:
    """5 min the policy acts, to 15 min its last command stands, to an hour the PLC's set points, then local control."""
    day = Day(policy, "drop_temperature:3h:4h")
    day.run(3.0 + 14 / 60)
    assert day.plc.mode == REMOTE_DIRECT
    ticks = len(day.story.ticks)
    assert day.loop.summary.stale_ticks > 0
    day.run(3.0 + 20 / 60)
    assert day.plc.mode == REMOTE_SETPOINTS
    assert day.plc.read("holding", 102, 4) == [100, 250, 350, 900]  # the spec's safe set points
    assert "the state is too old: the fallback acts" in day.told
    assert day.run() is False
    assert len(day.story.ticks) == ticks
    assert day.loop.summary.fault is not None
    assert day.loop.summary.fault.name == "stale_state"
    assert day.plc.mode == LOCAL
    assert day.house.now_s / HOURS == pytest.approx(4.0, abs=0.1)
    assert not outcome(day.loop)["success"]


def test_a_short_gap_in_the_sensors_is_bridged_and_the_policy_takes_up_again(policy: Path) -> None:
    day = Day(policy, "drop_co2:3h:30m", hours=8.0)
    day.run(3.0 + 29 / 60)
    assert day.plc.mode == REMOTE_SETPOINTS
    stood = np.array(day.plc.actual)[[2, 0, 1]] * [1.2, 7.5, 150.0]
    day.run(3.0 + 36 / 60)
    assert day.plc.mode == REMOTE_DIRECT
    assert "the state is fresh again: the policy acts" in day.told
    jump = np.abs(day.story.ticks[-1].sent - stood) / [1.2, 7.5, 150.0]
    assert jump.max() < 0.16  # from where the machine stands: no jump back to an old command
    day.run()
    assert outcome(day.loop)["success"]


def test_a_finished_run_ends_within_a_tick_and_not_within_a_period_of_the_policy(policy: Path) -> None:
    day = Day(policy)
    day.run(2.0)
    day.loop.finish()
    before = day.clock.now_ns()
    assert day.run() is False
    assert (day.clock.now_ns() - before) / 1e9 <= 130
    assert day.phases[-2:] == ["take_back", "done"]
    assert day.plc.mode == LOCAL


def test_finishing_while_the_state_is_old_ends_too(policy: Path) -> None:
    day = Day(policy, "drop_temperature:2h:3h")
    day.run(2.3)
    day.loop.finish()
    assert day.run() is False
    assert day.house.now_s / HOURS < 2.5
    assert day.plc.mode == LOCAL


def test_the_emergency_stop_gives_the_greenhouse_back_at_once(policy: Path) -> None:
    day = Day(policy)
    day.run(2.0)
    before = day.clock.now_ns()
    day.loop.estop("test")
    day.loop.step()
    assert day.plc.mode == LOCAL
    assert (day.clock.now_ns() - before) / 1e9 <= 61
    assert day.run() is False
    assert day.loop.supervisor.estop_latched


def test_somebody_else_stopping_the_robot_ends_the_run(policy: Path) -> None:
    day = Day(policy)
    day.run(2.0)
    day.loop.robot._robot.stop()
    assert day.run() is False
    assert day.loop.summary.fault is not None
    assert "no longer armed" in day.loop.summary.fault.reason


def test_a_dry_run_decides_and_touches_nothing(policy: Path) -> None:
    day = Day(policy, hours=6.0, write=False)
    assert day.run() is False
    assert len(day.story.ticks) == 12
    assert day.bus.written == []
    assert day.plc.mode == LOCAL


def test_the_same_seed_gives_the_same_day_to_the_last_bit(policy: Path) -> None:
    days = []
    for _ in range(2):
        day = Day(policy, hours=3.0)
        day.run()
        days.append([t.sent.tobytes() for t in day.story.ticks])
    assert days[0] == days[1]


def test_ages_and_rates_come_from_the_robots_spec() -> None:
    bounds = bounds_for(SPEC)
    assert (bounds.stale_s, bounds.fallback_s) == (3600.0, 900.0)
    assert Supervisor(SPEC, 1 / 1800).observation_age_s == pytest.approx(300.0)
    assert bounds_for(SPEC, Bounds(stale_s=7.0)).stale_s == 7.0  # what the user says wins
    assert bounds_for(SPEC, Bounds(stale_s=7.0)).fallback_s == 900.0
    drone = load_spec("crazyflie")
    assert bounds_for(drone) == Bounds()
    assert (ticks_per_decision(SPEC, 1 / 1800), ticks_per_decision(drone, 100.0)) == (30, 1)


def test_the_fallback_of_the_greenhouse_is_the_plcs_own_control() -> None:
    law = fallback_law(SPEC, "direct")
    assert isinstance(law, SafeHold)
    assert law.mode == "setpoint"
    np.testing.assert_array_equal(law.command({}, {}), [10.0, 25.0, 350.0, 0.9])
    now = standing(SPEC, "direct", {"actuators": np.array([0.5, 0.2, 1.3])})
    np.testing.assert_allclose(now, [0.6, 1.5, 150.0])
    assert standing(SPEC, "setpoint", {"actuators": np.zeros(3)}) is None
    assert standing(load_spec("crazyflie"), "attitude_thrust", {}) is None


def weather(t_s: int, status: str = "armed remote remote_enabled", **signals: float) -> RobotState:
    s = {"temperature": 15.0, "co2": 600.0, "wind": 3.0, "valve": 0.0, "vent": 0.0, "heat": 0.0} | signals
    values = {
        "air_temperature": np.array(s["temperature"]),
        "co2": np.array(s["co2"]),
        "outdoor": np.array([0.0, 5.0, 0.8, 410.0, s["wind"]]),
        "actuators": np.array([s["valve"], s["vent"], s["heat"]]),
    }
    return RobotState(t_s * 1_000_000_000, values, frozenset(status.split()))


@pytest.mark.parametrize(
    ("bad", "good", "words"),
    [
        ({"temperature": 2.0, "heat": 0.5}, {"heat": 1.0}, "frost: full heating not obeyed at"),
        ({"temperature": 36.0, "vent": 0.5}, {"vent": 1.0}, "heat: open vents not obeyed at"),
        ({"co2": 1900.0, "valve": 0.5}, {"valve": 0.0}, "CO2: shut valve not obeyed at"),
        ({"wind": 16.0, "vent": 0.5}, {"vent": 0.1}, "wind: vents nearly shut not obeyed at"),
    ],
)
def test_the_check_of_a_recording_finds_every_disobedience(bad: dict, good: dict, words: str) -> None:
    states = [weather(60 * i, **bad) for i in range(30)]
    assert judge(states)["violations"][0].startswith(words)
    assert judge([weather(60 * i, **(bad | good)) for i in range(30)])["violations"] == []
    assert judge([*states[:1], *(weather(60 * i, **(bad | good)) for i in range(1, 30))])["violations"] == []


def test_the_check_finds_a_fail_safe_that_was_never_left() -> None:
    words = [
        "armed remote remote_enabled",
        "armed local watchdog_tripped",
        "armed local",
        "armed remote remote_enabled",
    ]
    states = [weather(60 * i, status=w) for i, w in enumerate(words)]
    assert judge(states)["failsafe"] == [{"at_h": 0.02, "cause": "watchdog", "left_after_s": 120}]
    after = lambda words: [weather(60 * i, status=words) for i in range(4, 60)]  # noqa: E731
    assert judge([*states, *after("armed local")])["violations"] == ["fail-safe entered at 0.07 h was not left"]
    assert judge([*states, *after("local")])["violations"] == []  # after the end of a run it belongs there
    partial = [replace(s, signals={"co2": np.array(1.0)}) for s in states]
    assert judge(partial) == {"violations": [], "interlocks": {}, "failsafe": []}
