"""What is to be deployed, checked before anything moves."""

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from controllers.artifact import PolicyArtifact
from controllers.flight import FlightPlan
from controllers.goals import Goal, fence_of, parse_goal
from controllers.policy import goal_signals
from controllers.supervisor import Bounds
from hardware.errors import BadInput
from hardware.log.reader import Log

DURATION_S = 10.0
"""For which a policy acts, where neither the user nor the robot's spec says otherwise."""

RobotKind = Literal["emulated", "real", "replay"]


@dataclass(frozen=True)
class Order:
    """One deployment."""

    artifact: PolicyArtifact
    kind: RobotKind
    uri: str | None
    name: str
    """Namespace of the robot's topics."""
    goals: tuple[Goal, ...]
    plan: FlightPlan
    bounds: Bounds
    time_scale: float
    log: Path
    faults: tuple[str, ...]
    """Faults for an emulator that is started here."""
    scene: str | None = None
    """Scene that is the world of that emulator; None for the built-in one."""

    @property
    def flies(self) -> bool:
        """Whether the robot takes off and lands."""
        return "land" in self.artifact.interface.robot.modes

    @property
    def ending(self) -> str:
        """What the first signal brings about."""
        return "landing" if self.flies else "giving the robot back to its own control"

    @property
    def goal_s(self) -> float:
        """Time for each of several goals."""
        return self.plan.duration_s / max(len(self.goals), 1) if self.plan.duration_s > 0 else DURATION_S


def goals_of(texts: Sequence[str], artifact: PolicyArtifact) -> tuple[Goal, ...]:
    """Goals from flags; raises BadInput for a policy that takes none, and for goals that are refused."""
    signals = goal_signals(artifact.interface)
    if texts and not signals:
        raise BadInput(f"{artifact.path}: this policy takes no goal")
    robot = artifact.interface.robot
    return tuple(parse_goal(text, signals[0], robot, fence_of(robot)) for text in texts)


def judged(order: Order, figures: dict[str, Any]) -> dict[str, Any]:
    """The figures with what the robot's own check (its `check.py`, where it has one) finds in the recording."""
    robot = order.artifact.interface.robot
    module = f"hardware.robots.{robot.name}.check"
    if order.kind == "replay" or importlib.util.find_spec(module) is None:
        return figures
    found = importlib.import_module(module).check_recording(Log(order.log), robot, order.name)
    figures = figures | {"check": found}
    if found["violations"]:
        first, more = found["violations"][0], len(found["violations"]) - 1
        reason = figures["reason"] or f"{first}{f' and {more} more' if more else ''}"
        figures |= {"success": False, "reason": reason}
    return figures
