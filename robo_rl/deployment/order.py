"""What is to be deployed, checked before anything moves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from controllers.artifact import PolicyArtifact
from controllers.flight import FlightPlan
from controllers.goals import Goal, fence_of, parse_goal
from controllers.policy import goal_signals
from controllers.supervisor import Bounds
from hardware.errors import BadInput

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

    @property
    def goal_s(self) -> float:
        """Time for each of several goals."""
        return self.plan.duration_s / max(len(self.goals), 1) if self.plan.duration_s > 0 else 10.0


def goals_of(texts: Sequence[str], artifact: PolicyArtifact) -> tuple[Goal, ...]:
    """Goals from flags; raises BadInput for a policy that takes none, and for goals that are refused."""
    signals = goal_signals(artifact.interface)
    if texts and not signals:
        raise BadInput(f"{artifact.path}: this policy takes no goal")
    robot = artifact.interface.robot
    return tuple(parse_goal(text, signals[0], robot, fence_of(robot)) for text in texts)
