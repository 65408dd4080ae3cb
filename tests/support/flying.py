"""The real control loop around a stepped Crazyflie, and what it tells."""

from pathlib import Path
from typing import Any

from support.stepped_crazyflie import SteppedCrazyflie

from controllers.artifact import PolicyArtifact
from controllers.flight import FlightPlan
from controllers.loop import Loop
from controllers.policy import Policy
from controllers.sinks import Level, NullSink
from controllers.supervisor import Supervisor
from hardware.clock import SteppedClock
from hardware.guard import GuardedRobot
from hardware.messages import Tick


class Story(NullSink):
    """Keeps what the loop tells."""

    def __init__(self) -> None:
        self.events: list[tuple[int, str, str, dict[str, str]]] = []
        self.ticks: list[Tick] = []

    def event(self, level: Level, text: str, values: dict[str, Any], now_ns: int) -> None:
        self.events.append((now_ns, level, text, values))

    def tick(self, tick: Tick, now_ns: int) -> None:
        self.ticks.append(tick)


def make_loop(
    policy: Path, plan: FlightPlan | None = None, story: Story | None = None, *, seed: int = 0
) -> tuple[Loop, SteppedCrazyflie, Story, SteppedClock]:
    """A loop ready to start; the drone has been on the ground for a moment."""
    clock = SteppedClock(1_000_000_000)
    robot = SteppedCrazyflie(clock, seed=seed)
    story = story or Story()
    supervisor = Supervisor(robot.spec, 100.0)
    supervisor.configure()
    artifact = PolicyArtifact.load(policy)
    loop = Loop(GuardedRobot(robot, clock), Policy(artifact), supervisor, plan or FlightPlan(), clock, story)
    clock.advance_s(0.1)
    return loop, robot, story, clock
