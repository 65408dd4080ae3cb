"""Whole flights of the real loop on a stepped clock against the emulator's firmware and physics."""

from pathlib import Path

import numpy as np
from support.pd_policy import write_pd_policy
from support.stepped_crazyflie import SteppedCrazyflie

from controllers.artifact import PolicyArtifact
from controllers.flight import FlightPlan, Phase
from controllers.loop import Loop
from controllers.policy import Policy
from controllers.sinks import NullSink
from controllers.supervisor import Supervisor
from hardware.clock import SteppedClock
from hardware.guard import GuardedRobot


class Story(NullSink):
    """Keeps what the loop tells."""

    def __init__(self) -> None:
        self.events: list[tuple[int, str, str, dict[str, str]]] = []
        self.ticks = []

    def event(self, level, text, values, now_ns) -> None:
        self.events.append((now_ns, level, text, values))

    def tick(self, tick, now_ns) -> None:
        self.ticks.append(tick)


def make_loop(policy: Path, plan: FlightPlan | None = None) -> tuple[Loop, SteppedCrazyflie, Story, SteppedClock]:
    clock = SteppedClock(1_000_000_000)
    robot = SteppedCrazyflie(clock)
    story = Story()
    supervisor = Supervisor(robot.spec, 100.0)
    supervisor.configure()
    loop = Loop(
        GuardedRobot(robot, clock),
        Policy(PolicyArtifact.load(policy)),
        supervisor,
        plan or FlightPlan(duration_s=8.0),
        clock,
        story,
    )
    clock.advance_s(0.1)
    return loop, robot, story, clock


def test_a_flight_goes_through_its_phases_holds_the_point_and_lands(tmp_path: Path) -> None:
    loop, robot, story, _ = make_loop(write_pd_policy(tmp_path / "p.onnx"))
    loop.goal({"position_world": np.array([0.5, -0.3, 1.0])})
    loop.start()
    flown = []
    while loop.step():
        if loop.flight.phase is Phase.POLICY:
            flown.append(robot.position)
    print([e[1:] for e in story.events], robot.position, loop.summary)
    assert loop.summary.fault is None
    assert np.linalg.norm(flown[-1] - [0.5, -0.3, 1.0]) < 0.15
    assert robot.position[2] < 0.03
    assert not robot.autopilot.pilots[0].supervisor.armed
