"""Every fault, at random times and in pairs: the safe command goes out within 0.5 s of the fault being observable.

The loop is the real one on a stepped clock; the drone is the emulator's firmware and physics.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from support.flying import Story, make_loop
from support.pd_policy import write_pd_policy
from support.stepped_crazyflie import SteppedCrazyflie

from controllers.flight import FlightPlan, Phase
from controllers.loop import Loop
from hardware.clock import SteppedClock

DEADLINE_S = 0.5
PLAN = FlightPlan(takeoff_s=1.0, handover_s=0.3, duration_s=2.5, take_back_s=0.3)
AHEAD = {"position_world": np.array([1.2, 0.0, 0.6])}


def tumbling(robot: SteppedCrazyflie) -> bool:
    _, x, y, _ = robot.autopilot.plant.signals()["quat_wxyz"][0]
    return 1 - 2 * (x * x + y * y) < np.cos(1.4)


class Kind(NamedTuple):
    """A fault: how it strikes, which names it may be latched under, and when it can first be seen."""

    strike: Callable[[SteppedCrazyflie, Loop, SteppedClock], None]
    names: set[str]
    observable: Callable[[SteppedCrazyflie], bool] = lambda robot: True


KINDS = {
    "battery_low": Kind(lambda r, l, c: r.fault("battery_low"), {"battery_low"}),
    "gyro_nan": Kind(lambda r, l, c: r.fault("gyro_nan"), {"not_finite_state"}),
    "sensor_freeze": Kind(lambda r, l, c: r.fault("sensor_freeze"), {"frozen_state"}),
    "motor_loss": Kind(lambda r, l, c: r.fault("motor_loss"), {"tumbled", "geofence"}, tumbling),
    "link_down": Kind(lambda r, l, c: setattr(r, "link_up", False), {"link_lost"}),
    "states_stop": Kind(lambda r, l, c: setattr(r, "stale", True), {"stale_state"}),
    "estop": Kind(lambda r, l, c: l.estop("test"), {"estop"}),
    "held_up": Kind(lambda r, l, c: c.advance_s(0.4), {"overruns", "stale_state"}),
    "policy_nan": Kind(lambda r, l, c: l.goal(AHEAD), {"not_finite_command"}),
}
"""Faults of the emulator, of the link, of this computer, of the policy."""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pd_policy(tmp_path_factory.mktemp("faults") / "p.onnx", nan_above=0.8)


class Flown(NamedTuple):
    loop: Loop
    robot: SteppedCrazyflie
    story: Story
    seen_ns: dict[str, int]
    """Fault -> instant at which it could first be seen."""


def fly(policy: Path, faults: dict[str, float]) -> Flown:
    """A flight in which faults strike so many seconds after the take-off began."""
    loop, robot, story, clock = make_loop(policy, PLAN)
    loop.start()
    begin = clock.now_ns()
    struck: set[str] = set()
    seen: dict[str, int] = {}
    for _ in range(4000):
        for name, at_s in faults.items():
            if name not in struck and clock.now_ns() - begin >= at_s * 1e9:
                struck.add(name)
                KINDS[name].strike(robot, loop, clock)
            if name in struck and name not in seen and KINDS[name].observable(robot):
                seen[name] = clock.now_ns()
        if not loop.step():
            return Flown(loop, robot, story, seen)
    raise AssertionError(f"not at rest after 40 s; {loop.flight.phase}, {loop.supervisor.faults}")


def safe_commands_ns(f: Flown, since_ns: int) -> list[int]:
    """Instants of stops, landings and, after a fault of the policy, of the classical law."""
    times = [t for t in f.robot.stops if t >= since_ns]
    times += [t for t, c in f.robot.written if c.mode == "land" and t >= since_ns]
    if f.loop.supervisor.fault is not None and f.loop.supervisor.fault.name == "not_finite_command":
        times.append(f.loop.supervisor.fault.t_ns)
    return sorted(times)


def check(f: Flown, faults: dict[str, float]) -> None:
    fault = f.loop.supervisor.fault
    assert fault is not None, f"{faults}: nothing was noticed"
    assert fault.name in set().union(*(KINDS[n].names for n in faults)), (faults, fault)
    first = min(f.seen_ns.values())
    late_s = (safe_commands_ns(f, first)[0] - first) / 1e9
    assert late_s <= DEADLINE_S, (faults, fault, late_s)
    assert ("error", fault.reason) in [(level, text) for _, level, text, _ in f.story.events]
    assert f.loop.supervisor.settled
    assert f.loop.supervisor.mode == "fault"


@pytest.mark.parametrize("name", KINDS)
def test_a_fault_at_a_random_time_is_answered_in_time(policy: Path, name: str) -> None:
    at_s = float(np.random.default_rng(sum(map(ord, name))).uniform(1.2, 3.5))
    faults = {name: at_s}
    check(fly(policy, faults), faults)


@pytest.mark.slow
@pytest.mark.parametrize("pair", list(itertools.combinations(KINDS, 2)), ids="+".join)
def test_faults_in_pairs_at_random_times_are_answered_in_time(policy: Path, pair: tuple[str, str]) -> None:
    rng = np.random.default_rng(sum(map(ord, "".join(pair))))
    first = float(rng.uniform(1.2, 2.8))
    faults = dict(zip(rng.permutation(pair).tolist(), (first, first + float(rng.uniform(0.0, 1.0))), strict=True))
    check(fly(policy, faults), faults)


@pytest.mark.parametrize("name", ["battery_low", "policy_nan", "held_up"])
def test_a_drone_that_can_still_fly_is_put_down_softly(policy: Path, name: str) -> None:
    f = fly(policy, {name: 2.0})
    assert f.robot.position[2] < 0.05
    assert not f.robot.autopilot.motors.any()
    landings = [t for t, c in f.robot.written if c.mode == "land"]
    assert landings
    touched = [t for t in f.robot.stops if t > landings[0]]
    assert (touched[0] - landings[0]) / 1e9 > 1.5  # the motors stopped after the descent, not instead of it


def test_half_of_the_packets_lost_does_not_keep_a_landing_from_arriving(policy: Path) -> None:
    loop, robot, _, clock = make_loop(policy, PLAN)
    loop.start()
    robot.loss = 0.5
    begin = clock.now_ns()
    robot_told = False
    while loop.step():
        if clock.now_ns() - begin > 2.0e9 and not robot_told:
            robot_told = True
            robot.fault("battery_low")
    assert loop.supervisor.fault is not None
    assert robot.position[2] < 0.05


def test_a_policy_that_fights_the_guard_loses_the_drone_to_the_classical_law(tmp_path: Path) -> None:
    loop, robot, _, _ = make_loop(write_pd_policy(tmp_path / "wild.onnx", gain=60.0), PLAN)
    loop.start()
    while loop.step():
        pass
    assert loop.supervisor.fault is not None
    assert loop.supervisor.fault.name == "guard_interventions"
    held = [t for t, c in robot.written if c.mode == "attitude_thrust" and t > loop.supervisor.fault.t_ns]
    assert len(held) > 50  # the classical law levelled and braked
    assert robot.position[2] < 0.05
    assert not robot.stops or robot.stops[0] > loop.supervisor.fault.t_ns


def test_a_sink_that_breaks_ends_the_flight_in_order_and_is_reported(policy: Path) -> None:
    class FullDisk(Story):
        def tick(self, tick, now_ns) -> None:
            if len(self.ticks) == 50:
                raise OSError(28, "No space left on device")
            super().tick(tick, now_ns)

    loop, robot, _, _ = make_loop(policy, PLAN, FullDisk())
    loop.start()
    while loop.step():
        pass
    assert loop.flight.phase is Phase.DONE
    assert loop.supervisor.fault is None
    assert "No space left" in str(loop.sink.failure)
    assert robot.position[2] < 0.05
    assert loop.summary.policy_ticks < 100


def test_an_error_inside_the_loop_lands_and_is_kept(policy: Path) -> None:
    loop, robot, _, _ = make_loop(policy, PLAN)
    loop.goal({"position_world": np.zeros(7)})  # a goal that nobody checked: the interpreter cannot use it
    loop.start()
    while loop.step():
        pass
    assert loop.supervisor.fault is not None
    assert loop.supervisor.fault.name == "internal_error"
    assert loop.error is not None
    assert any(c.mode == "land" for _, c in robot.written)
    assert robot.position[2] < 0.05
