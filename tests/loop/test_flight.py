"""Whole flights of the real loop on a stepped clock against the emulator's firmware and physics."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.flying import make_loop
from support.pd_policy import write_pd_policy, write_rotor_policy

from controllers.flight import FlightPlan, Phase
from controllers.results import outcome
from hardware.errors import RoboError


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pd_policy(tmp_path_factory.mktemp("flight") / "p.onnx")


def test_a_flight_goes_through_its_phases_holds_the_point_and_lands(policy: Path) -> None:
    loop, robot, story, _ = make_loop(policy, FlightPlan(duration_s=8.0))
    loop.goal({"position_world": np.array([0.5, -0.3, 1.0])})
    loop.start()
    last = robot.position
    while loop.step():
        last = robot.position if loop.flight.phase is Phase.POLICY else last
    phases = [values["phase"] for _, _, text, values in story.events if text.startswith("phase")]
    assert phases == ["arm", "takeoff", "handover", "policy", "take_back", "land", "done"]
    assert np.linalg.norm(last - [0.5, -0.3, 1.0]) < 0.1
    assert robot.position[2] < 0.03
    assert not robot.autopilot.pilots[0].supervisor.armed
    result = outcome(loop)
    assert result["success"]
    assert result["policy_ticks"] == 800 == len(story.ticks)
    assert result["overruns"] == 0
    assert result["distance_m_max"] < 0.1
    assert loop.supervisor.mode == "inactive"


def test_a_policy_of_rotor_thrusts_takes_over_flies_and_hands_back(tmp_path: Path) -> None:
    loop, robot, _, _ = make_loop(write_rotor_policy(tmp_path / "rotor.onnx"), FlightPlan(duration_s=8.0))
    loop.goal({"position_world": np.array([0.3, -0.3, 0.8])})
    loop.start()
    last, tilt = robot.position, 0.0
    while loop.step():
        last = robot.position if loop.flight.phase is Phase.POLICY else last
        q = robot.autopilot.plant.signals()["quat_wxyz"][0]
        tilt = max(tilt, float(np.arccos(1 - 2 * (q[1] ** 2 + q[2] ** 2))))
    assert loop.summary.fault is None
    assert np.linalg.norm(last - [0.3, -0.3, 0.8]) < 0.1
    assert tilt < 0.5  # neither handover shook it
    assert robot.position[2] < 0.03


def test_the_same_seed_gives_the_same_flight_to_the_last_bit(policy: Path) -> None:
    flights = []
    for _ in range(2):
        loop, robot, story, _ = make_loop(policy, FlightPlan(duration_s=1.0), seed=3)
        loop.start()
        while loop.step():
            pass
        flights.append((robot.position.tobytes(), [t.sent.tobytes() for t in story.ticks]))
    assert flights[0] == flights[1]


def test_the_policy_takes_over_without_a_jump_and_remembers_what_was_sent(policy: Path) -> None:
    loop, _, story, _ = make_loop(policy, FlightPlan(duration_s=2.0))
    loop.goal({"position_world": np.array([1.0, 0.0, 1.0])})  # the policy would pitch hard at once
    loop.start()
    while loop.step():
        pass
    sent = np.array([t.sent for t in story.ticks])
    wished = np.array([t.command for t in story.ticks])
    assert abs(wished[0, 1]) > 0.25
    assert np.abs(np.diff(sent[:, 1])).max() < 0.03
    assert abs(sent[0, 1]) < 0.05
    # The observation of each tick shows the command sent in the one before: the last 8 numbers, in action units.
    scale, offset = np.array([0.5, 0.5, 2.0, 0.35]), np.array([0, 0, 0, 0.55])
    shown = np.array([t.observation["policy"][12:16] for t in story.ticks])
    np.testing.assert_allclose(shown[1:], (sent[:-1] - offset) / scale, atol=1e-6)
    older = np.array([t.observation["policy"][16:20] for t in story.ticks])
    np.testing.assert_allclose(older[1:], shown[:-1], atol=1e-6)


def test_finishing_early_lands_from_every_phase(policy: Path) -> None:
    for phase in (Phase.TAKEOFF, Phase.HANDOVER, Phase.POLICY):
        loop, robot, _, _ = make_loop(policy, FlightPlan(duration_s=0.0))
        loop.start()
        while loop.step():
            if loop.flight.phase is phase:
                loop.finish()
        assert loop.flight.phase is Phase.DONE
        assert loop.supervisor.fault is None
        assert robot.position[2] < 0.05


def test_a_drone_that_does_not_rise_is_a_fault(policy: Path) -> None:
    loop, robot, _, _ = make_loop(policy)
    for motor in range(4):
        robot.autopilot._motor_gain[motor] = 0.3
    loop.start()
    while loop.step():
        pass
    assert loop.supervisor.fault is not None
    assert "takeoff: rose 0.0" in loop.supervisor.fault.reason


def test_several_goals_are_flown_in_turn(policy: Path) -> None:
    loop, robot, _, _ = make_loop(policy, FlightPlan(duration_s=12.0))
    goals = [np.array([0.5, 0.0, 1.0]), np.array([-0.5, 0.0, 0.7])]
    loop.tour([{"position_world": g} for g in goals], 6.0)
    loop.start()
    near = [np.inf, np.inf]
    while loop.step():
        if loop.flight.phase is Phase.POLICY:
            near = [min(n, float(np.linalg.norm(robot.position - g))) for n, g in zip(near, goals, strict=True)]
    assert max(near) < 0.1
    assert outcome(loop)["success"]


def test_a_goal_set_while_the_tour_moves_on_stands(policy: Path) -> None:
    """Another thread gives its goal while the loop takes the tour's next step."""
    loop, _, story, _ = make_loop(policy, FlightPlan(duration_s=2.0))
    wanted = np.array([0.1, 0.2, 0.6])
    other = threading.Thread(target=loop.goal, args=({"position_world": wanted},))

    class Tour(tuple):
        """Wakes the other thread when the loop takes the rest of the tour."""

        def __getitem__(self, at: Any) -> Any:
            if isinstance(at, slice):
                other.start()
                other.join(timeout=0.2)
            return super().__getitem__(at)

    loop.tour([{"position_world": np.array([0.0, 0.0, 0.5])}], 0.0)
    loop._tour = Tour(({"position_world": np.array([0.0, 0.0, z])}) for z in (0.5, 0.7))
    loop.start()
    while loop.step():
        pass
    assert loop.error is None
    assert story.ticks[-1].goal["position_world"].tolist() == wanted.tolist()


def test_a_late_loop_skips_ticks_instead_of_catching_up(policy: Path) -> None:
    loop, _, _, clock = make_loop(policy, FlightPlan(duration_s=1.0))
    loop.start()
    for _ in range(50):
        loop.step()
    clock.advance_s(0.055)
    begin = clock.now_ns()
    loop.step()
    assert loop.summary.overruns == 4  # deadlines at 10, 20, 30, 40 ms of the pause; the fifth is served late
    loop.step()
    assert 0 < clock.now_ns() - begin <= 10_000_000
    assert (clock.now_ns() - 1_000_000_000) % 1_000_000 == 0


def test_a_drone_that_refuses_to_arm_leaves_a_fault_that_can_be_reset(policy: Path) -> None:
    loop, robot, _, _ = make_loop(policy)
    robot.autopilot.pilots[0].supervisor.emergency = True
    with pytest.raises(RoboError, match="may not be armed"):
        loop.start()
    assert loop.supervisor.fault is not None
    assert loop.supervisor.fault.name == "refused"
    loop.supervisor.reset()
    assert loop.supervisor.mode == "inactive"


def test_an_emergency_stop_before_the_start_arms_nothing(policy: Path) -> None:
    loop, robot, story, _ = make_loop(policy)
    loop.estop("pressed while waiting")
    with pytest.raises(RoboError, match="e-stop latched"):
        loop.start()
    assert not robot.autopilot.pilots[0].supervisor.armed
    assert story.events == []
    assert loop.supervisor.estop_latched


def test_starting_is_refused_without_the_signals_that_the_policy_needs(policy: Path) -> None:
    loop, robot, _, _ = make_loop(policy)
    read = robot.read
    robot.read = lambda: type(read())(read().t_ns, {"battery_voltage": np.array(4.0)})  # type: ignore[method-assign]
    with pytest.raises(RoboError, match="needs position_world, quat_wxyz, velocity_world, which the robot"):
        loop.start()
    assert loop.supervisor.mode == "inactive"
