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
from controllers.policy import goal_signals, signals_perceived
from controllers.supervisor import Bounds
from hardware.errors import BadInput
from hardware.log.reader import Log
from hardware.robots.crazyflie.obstacles import NOTHING as NO_OBSTACLES
from hardware.robots.crazyflie.obstacles import Obstacles, read_obstacles
from robo_rl.deployment.flags import SwarmFlags

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
    obstacles_file: Path | None = None
    """What the policy is told to avoid."""
    swarm: SwarmFlags | None = None
    """None for one robot that a policy here flies."""

    @property
    def flies(self) -> bool:
        """Whether the robot takes off and lands."""
        return "land" in self.artifact.interface.robot.modes

    @property
    def obstacles(self) -> Obstacles:
        """What is in the file; raises BadInput."""
        return NO_OBSTACLES if self.obstacles_file is None else read_obstacles(self.obstacles_file)

    @property
    def perceives(self) -> bool:
        """Whether the policy needs to know what is around the robot."""
        return bool(signals_perceived(self.artifact.interface))

    @property
    def ending(self) -> str:
        """What the first signal brings about."""
        return "landing" if self.flies else "giving the robot back to its own control"

    @property
    def goal_s(self) -> float:
        """Time for each of several goals."""
        return self.plan.duration_s / max(len(self.goals), 1) if self.plan.duration_s > 0 else DURATION_S


def swarm_order(
    flags: SwarmFlags, kind: RobotKind, goals: Sequence[str], artifact: PolicyArtifact
) -> SwarmFlags | None:
    """The swarm that flags ask for, None where they ask for one robot only; raises BadInput."""
    if flags.num < 1:
        raise BadInput(f"--num {flags.num}: expected at least 1 robot")
    alone = flags.num == 1 and not flags.onboard
    for flag, given in (("formation", flags.formation), ("mocap", flags.mocap), ("share-dropout", flags.share_dropout)):
        if alone and given:
            raise BadInput(f"--{flag} is for several robots: give --num")
    if alone:
        return None
    if kind == "replay":
        raise BadInput("--mode replay is for one robot: each one's recording is replayed by itself")
    if goals and flags.formation is not None:
        raise BadInput("--goal and --formation were both given; expected one of them")
    count = len(single_goals(goals))
    if goals and count != flags.num:
        raise BadInput(
            f"{count} goals for {flags.num} robots; give one each as in --goal='0,0,1 -1,0,1', or --formation"
        )
    if not 0.0 <= flags.share_dropout < 1.0:
        raise BadInput(f"--share-dropout {flags.share_dropout:g}: expected a share from 0 to less than 1")
    if not 0.3 <= flags.spacing <= 5.0:
        raise BadInput(f"--spacing {flags.spacing:g}: expected 0.3..5 m")
    if flags.onboard and artifact.interface.robot.name != "crazyflie":
        raise BadInput(f"--onboard is for robot 'crazyflie', not '{artifact.interface.robot.name}'")
    if flags.formation is not None and not goal_signals(artifact.interface):
        raise BadInput(f"{artifact.path}: this policy takes no goal, so no --formation")
    return flags


def check_link(uri: str | None, artifact: PolicyArtifact, *, onboard: bool) -> None:
    """Raises BadInput for a policy whose commands the link cannot carry, before anything is opened."""
    if onboard or artifact.card.mode != "rotor_thrust" or uri is None:
        return
    if uri.partition(":")[0] in ("radio", "usb"):
        raise BadInput(
            f"{uri}: rotor thrusts cannot be streamed over the air; put the policy into the drone "
            "(robo-rl export --c) and fly it with --onboard, or deploy a policy of set points"
        )


def single_goals(texts: Sequence[str]) -> list[str]:
    """One text per goal: a flag's value may hold several, separated by blanks."""
    return [part for text in texts for part in text.split() or [text]]


def goals_of(texts: Sequence[str], artifact: PolicyArtifact) -> tuple[Goal, ...]:
    """Goals from flags; raises BadInput for a policy that takes none, and for goals that are refused."""
    signals = goal_signals(artifact.interface)
    if texts and not signals:
        raise BadInput(f"{artifact.path}: this policy takes no goal")
    robot = artifact.interface.robot
    texts = single_goals(texts)
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
