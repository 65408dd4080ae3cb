"""A hand-built recording of twenty control steps of a Crazyflie, and marks on it by the number of the step."""

from pathlib import Path

import numpy as np
from support.pd_policy import HOVER, write_pd_policy

from controllers.artifact import PolicyArtifact
from controllers.channels import GOAL as GOAL_CHANNEL
from controllers.channels import goal_message
from controllers.logsink import LogSink
from hardware.annotation import Annotation, AnnotationStore
from hardware.messages import RosbagsMessages, Tick
from hardware.robot import Command, RobotState
from hardware.spec import load_spec

START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 10_000_000
STEPS = 20
GOAL = {"position_world": np.array([1.0, 0.0, 1.0])}


def state_ns(step: float) -> int:
    """Header stamp of the state that step sees."""
    return START_NS + round(step * PERIOD_NS)


def log_ns(step: float) -> int:
    """Log time of a step: its state is 2 ms old by then."""
    return state_ns(step) + 2_000_000


def sent(step: int) -> np.ndarray:
    """Command of a step: its number shows in the roll."""
    return np.array([0.01 * step, 0.0, 0.0, HOVER])


def write_log(
    folder: Path,
    *,
    by_hand: range = range(0),
    beside: range = range(0),
    gap_before: int | None = None,
    extra_states: int = 1,
    goal: bool = False,
) -> Path:
    """Twenty steps, x = 0.1 m per step; `gap_before` moves that step and all later ones half a second on.

    In the steps `by_hand` no policy ticks, only commands are recorded; in the steps `beside` the policy ticks on, and
    somebody else's command, pitched by 0.3 rad, follows a millisecond later. `extra_states` more states follow the
    last step.
    `goal`: the goal is recorded on its own topic too.
    """
    spec = load_spec("crazyflie")
    artifact = PolicyArtifact.load(write_pd_policy(folder.with_suffix(".onnx")))
    path = folder
    with LogSink(path, spec, "crazyflie", artifact, START_NS - PERIOD_NS) as sink:
        if goal:
            sink._put(GOAL_CHANNEL[0], goal_message(GOAL, START_NS, RosbagsMessages()), START_NS)
        for i in range(STEPS + extra_states):
            shift = 500_000_000 if gap_before is not None and i >= gap_before else 0
            now = log_ns(i) + shift
            signals = {
                "position_world": np.array([0.1 * i, 0.0, 1.0]),
                "quat_wxyz": np.array([1.0, 0.0, 0.0, 0.0]),
                "velocity_world": np.array([float(i), 0.0, 0.0]),
                "angular_velocity_body": np.zeros(3),
            }
            if i < STEPS:
                sink.sent(Command("attitude_thrust", sent(i)), now)
                if i not in by_hand:
                    number = i - len([h for h in by_hand if h < i]) + (50 if shift else 0)
                    sink.tick(Tick(number, state_ns(i) + shift, GOAL, {}, sent(i), sent(i)), now)
            sink.state(RobotState(state_ns(i) + shift, signals), now + 500_000)
            if i in beside:
                sink.sent(Command("attitude_thrust", sent(i) + np.array([0.0, 0.3, 0.0, 0.0])), now + 1_000_000)
    return path


class Marker:
    """Sets marks by step numbers: a range [a, b) covers steps a to b - 1."""

    def __init__(self, log: Path) -> None:
        self.store = AnnotationStore(log, "tester")

    def range(self, kind: str, first: int, end: int, label: str = "", **more: object) -> Annotation:
        return self.store.add(kind, log_ns(first - 0.5), log_ns(end - 0.5), label=label, **more)  # type: ignore[arg-type]

    def instant(self, kind: str, step: int, label: str = "", **more: object) -> Annotation:
        return self.store.add(kind, log_ns(step + 0.5), label=label, **more)  # type: ignore[arg-type]

    def episode(self, first: int, end: int, outcome: str | None = None) -> Annotation:
        mark = self.range("episode", first, end)
        if outcome is not None:
            self.store.add("outcome", mark.t1_ns - 1, label=outcome, episode=mark.id)
        return mark
