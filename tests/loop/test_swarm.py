"""Several drones in one loop on a stepped clock, against the emulator's firmware and physics.

What strikes one drone is that drone's fault; the others fly on, or land with it where that was asked.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.flying import Story
from support.pd_policy import write_pd_policy, write_perceiving_policy
from support.stepped_crazyflie import SteppedCrazyflie

from controllers.artifact import PolicyArtifact
from controllers.crew import Crew
from controllers.flight import FlightPlan, Phase
from controllers.loop import Loop
from controllers.neighbourhood import Dropouts, Neighbourhood, SharedPositions
from controllers.results import outcome
from controllers.supervisor import Supervisor
from controllers.swarm import Swarm
from hardware.clock import SteppedClock
from hardware.guard import GuardedRobot
from hardware.robots.crazyflie.plant import RigidBodyPlant

NUM = 3
PLAN = FlightPlan(takeoff_s=1.0, handover_s=0.3, duration_s=7.0, take_back_s=0.3)
SHORT = FlightPlan(takeoff_s=1.0, handover_s=0.3, duration_s=2.0, take_back_s=0.3)


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pd_policy(tmp_path_factory.mktemp("swarm") / "p.onnx", nan_above=0.8)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_perceiving_policy(tmp_path_factory.mktemp("swarm") / "p.onnx")


class Scene:
    """A swarm ready to start, one metre apart along y; goals half a metre above the floor of each."""

    def __init__(self, policy: Path, plan: FlightPlan = SHORT, **options: Any) -> None:
        self.clock = SteppedClock(1_000_000_000)
        artifact = PolicyArtifact.load(policy)
        crew = Crew(artifact, NUM)
        self.robots: list[SteppedCrazyflie] = []
        self.stories: list[Story] = []
        loops = []
        for i in range(NUM):
            plant = RigidBodyPlant(start_world=np.array([[0.0, i - 1.0, 0.0]]))
            self.robots.append(SteppedCrazyflie(self.clock, seed=i, plant=plant))
            self.stories.append(Story())
            supervisor = Supervisor(self.robots[i].spec, 100.0)
            supervisor.configure()
            robot = GuardedRobot(self.robots[i], self.clock)
            loops.append(Loop(robot, crew.members[i], supervisor, plan, self.clock, self.stories[i]))
            loops[i].goal({"position_world": np.array([0.3, i - 1.0, 0.8])})
        self.clock.advance_s(0.1)
        self.hood = Neighbourhood(artifact.interface, SharedPositions(NUM))
        self.swarm = Swarm(loops, crew, self.hood, self.clock, **options)

    def fly(self, at_s: float = np.inf, strike: Callable[[], object] = lambda: None) -> list[dict[str, Any]]:
        """To rest; something strikes so long after the take-off."""
        self.swarm.start()
        begin_ns, struck = self.clock.now_ns(), False
        while self.swarm.step():
            if not struck and self.clock.now_ns() - begin_ns >= at_s * 1e9:
                struck = True
                strike()
        return [outcome(loop, why) for loop, why in zip(self.swarm.loops, self.swarm.failures, strict=True)]


def test_three_drones_fly_to_their_goals_and_land(blind: Path) -> None:
    scene = Scene(blind, PLAN)
    results = scene.fly()
    assert [r["success"] for r in results] == [True] * NUM
    assert all(r["overruns"] == 0 for r in results)
    assert all(r["distance_m_max"] < 0.1 for r in results)
    for robot, place in zip(scene.robots, (-1.0, 0.0, 1.0), strict=True):
        np.testing.assert_allclose(robot.position, [0.3, place, 0.0], atol=0.12)
    assert scene.swarm.separation_m == pytest.approx(np.ones(NUM), abs=0.1)


def test_every_decision_sees_the_others_where_they_are(seeing: Path) -> None:
    """The middle drone's nearest neighbours are a metre to its left and right, throughout the flight."""
    scene = Scene(seeing)
    scene.fly()
    for tick in scene.stories[1].ticks:
        seen = tick.perceived["neighbour_position"].reshape(2, 3)
        np.testing.assert_allclose(np.sort(seen[:, 1]), [-1.0, 1.0], atol=0.15)
        assert tick.perceived["neighbour_present"].tolist() == [1.0, 1.0]


def test_who_is_not_heard_of_is_not_there(seeing: Path) -> None:
    scene = Scene(seeing, dropouts=Dropouts(0.99, NUM, seed=1))
    scene.fly()
    present = [t.perceived["neighbour_present"].sum() for s in scene.stories for t in s.ticks]
    assert np.mean(present) < 1.2


@pytest.mark.parametrize("on_fault", ["one", "all"])
def test_a_fault_lands_its_drone_and_the_others_as_was_asked(blind: Path, on_fault: str) -> None:
    scene = Scene(blind, on_fault=on_fault)
    results = scene.fly(1.6, lambda: scene.robots[0].fault("battery_low"))
    assert [r["fault"] for r in results] == ["battery_low", None, None]
    assert all(robot.position[2] < 0.05 for robot in scene.robots)
    assert [loop.flight.phase for loop in scene.swarm.loops[1:]] == [Phase.DONE, Phase.DONE]
    full = round(SHORT.duration_s * 100)
    if on_fault == "one":
        assert [r["policy_ticks"] for r in results[1:]] == [full, full]
        assert [r["success"] for r in results] == [False, True, True]
    else:
        assert all(r["policy_ticks"] < 0.8 * full for r in results)


def test_a_broken_decision_of_one_is_not_the_others(blind: Path) -> None:
    """The graph gives not-a-number for the one drone that is sent far ahead; the batch goes on."""
    scene = Scene(blind)
    ahead = {"position_world": np.array([1.5, 0.0, 0.8])}
    results = scene.fly(1.5, lambda: scene.swarm.loops[1].goal(ahead))
    assert [r["fault"] for r in results] == [None, "not_finite_command", None]
    assert all(np.isfinite(t.command).all() for t in scene.stories[0].ticks)
    assert all(robot.position[2] < 0.05 for robot in scene.robots)


def test_a_lost_link_is_survived_by_the_others(blind: Path) -> None:
    scene = Scene(blind)
    results = scene.fly(2.0, lambda: setattr(scene.robots[2], "link_up", False))
    assert [r["fault"] for r in results] == [None, None, "link_lost"]
    assert [r["phase"] for r in results[:2]] == ["done", "done"]


def test_a_drone_that_fails_in_every_way_does_not_take_the_process_down(blind: Path) -> None:
    scene = Scene(blind)
    broken = scene.swarm.loops[0]

    def explode(*_: object) -> bool:
        raise RuntimeError("test: everything fails")

    def strike() -> None:
        broken._tick = explode  # type: ignore[method-assign]

    results = scene.fly(2.0, strike)
    assert scene.swarm.failures[0] == "RuntimeError: test: everything fails"
    assert scene.robots[0].stops
    assert [r["phase"] for r in results[1:]] == ["done", "done"]


def test_an_error_of_the_network_lands_all_who_had_asked(blind: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(blind)

    def strike() -> None:
        monkeypatch.setattr(Crew, "decide", lambda *_: 1 / 0)

    results = scene.fly(2.0, strike)
    assert [r["fault"] for r in results] == ["internal_error"] * NUM
    assert all(robot.position[2] < 0.05 for robot in scene.robots)


@pytest.mark.parametrize(("on_fault", "flown"), [("one", 2), ("all", 0)])
def test_a_drone_that_refuses_to_arm_stays_behind(blind: Path, on_fault: str, flown: int) -> None:
    scene = Scene(blind, on_fault=on_fault)
    scene.robots[1].autopilot.pilots[0].supervisor.emergency = True
    results = scene.fly()
    assert "may not be armed" in results[1]["reason"]
    assert sum(r["policy_ticks"] > 0 for r in results) == flown
    assert not any(robot.autopilot.pilots[0].supervisor.armed for robot in scene.robots)


def test_an_emergency_stop_stops_all(blind: Path) -> None:
    scene = Scene(blind)
    results = scene.fly(2.5, lambda: scene.swarm.estop("test"))
    assert [r["fault"] for r in results] == ["estop"] * NUM
    assert all(robot.stops for robot in scene.robots)


def test_positions_may_come_from_somebody_else(seeing: Path) -> None:
    """A feed says that robot 2 stands where it does not; robot 1 believes it."""
    elsewhere = np.array([0.0, 0.4, 0.8])
    clock: list[SteppedClock] = []
    scene = Scene(seeing, feed=lambda: {2: (clock[0].now_ns(), elsewhere)})
    clock.append(scene.clock)
    scene.fly()
    tick = scene.stories[1].ticks[-1]
    assert tick.perceived["neighbour_present"].tolist() == [1.0, 0.0]
    np.testing.assert_allclose(tick.perceived["neighbour_position"][:3], elsewhere - [0.3, 0.0, 0.8], atol=0.3)
