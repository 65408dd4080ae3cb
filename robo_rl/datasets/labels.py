"""Marks on a log as arrays over its control steps: pure arithmetic on instants."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hardware.annotation import Annotation
from hardware.errors import BadInput

Instants = NDArray[np.int64]
Mask = NDArray[np.bool_]
NO_ATTEMPT = -1
CUTS = ("crash", "estop")
"""Events that end an episode."""
HUMAN, SAFETY, SUPERVISOR = 1, 2, 3
_TAKERS = {"human": HUMAN, "safety": SAFETY, "supervisor": SUPERVISOR}


@dataclass(frozen=True)
class Labels:
    """What the marks say about T control steps; step i lasts from its instant to the next one's."""

    attempt: NDArray[np.int64]
    """Index of the marked episode; -1 outside; all 0 where no episode was marked."""
    marked: bool
    """Whether episodes were marked at all."""
    outcome: dict[int, str]
    """Attempt -> success, failure or aborted."""
    excluded: Mask
    """An excluded stretch touches the step, its two ends included."""
    taken: NDArray[np.int64]
    """Who else acted in the step: 0 nobody, 1 human, 2 safety, 3 supervisor."""
    triggers: Mask
    """The step before somebody took over."""
    crash: Mask
    estop: Mask
    reward: NDArray[np.float64]
    """Sum of reward marks."""
    rewarded: bool
    """Whether there were any."""
    subtask: NDArray[np.int64]
    """Index into the vocabulary; -1 none."""
    progress: NDArray[np.float64]
    """(T, 2) share of the subtasks that are done when a step begins and when it ends."""


def labels(
    marks: Sequence[Annotation], log_ns: Instants, state_ns: Instants, period_ns: int, vocabulary: Sequence[str]
) -> Labels:
    """Labels of steps with these log times and header stamps, in order."""
    steps = _Steps(log_ns, state_ns, period_ns)
    attempt, ids = _attempts(marks, steps)
    of = lambda kind: [m for m in marks if m.kind == kind]  # noqa: E731
    outcome = {ids[m.episode]: m.label for m in of("outcome") if m.episode in ids}
    taken, triggers = np.zeros(len(steps), dtype=np.int64), np.zeros(len(steps), dtype=np.bool_)
    for m in of("intervention"):
        inside = steps.inside(m)
        taken[inside] = _TAKERS[m.label]
        before = steps.before(m)
        triggers |= before & np.isin(attempt, attempt[inside][:1])
    reward = np.zeros(len(steps))
    for m in of("reward"):
        reward[steps.inside(m) if m.t1_ns > m.t0_ns else steps.during(m)] += float(m.value["reward"])
    event = {label: np.zeros(len(steps), dtype=np.bool_) for label in CUTS}
    for m in of("event"):
        if m.label in event:
            event[m.label] |= steps.during(m)
    subtask, progress = _subtasks(of("subtask"), steps, attempt, vocabulary)
    return Labels(
        attempt=attempt,
        marked=bool(ids),
        outcome=outcome,
        excluded=np.any([steps.touched(m) for m in of("exclude")], axis=0)
        if of("exclude")
        else np.zeros_like(triggers),
        taken=taken,
        triggers=triggers & (taken == 0),
        crash=event["crash"],
        estop=event["estop"],
        reward=reward,
        rewarded=bool(of("reward")),
        subtask=subtask,
        progress=progress,
    )


def vocabulary_of(marks: Sequence[Annotation]) -> list[str]:
    """Names of subtasks in the order in which they first occur."""
    return list(dict.fromkeys(m.label for m in marks if m.kind == "subtask"))


class _Steps:
    """Instants of steps on both time bases, and which of them a mark means."""

    def __init__(self, log_ns: Instants, state_ns: Instants, period_ns: int) -> None:
        self._begin = {"log_time": log_ns, "header_stamp": state_ns}
        self._period_ns = period_ns

    def __len__(self) -> int:
        return len(self._begin["log_time"])

    def begin(self, mark: Annotation) -> Instants:
        """(T,) when each step begins, on the mark's time base."""
        if mark.time_base not in self._begin:
            raise BadInput(f"{mark.kind} {mark.id} is in {mark.time_base}; expected {' or '.join(self._begin)}")
        return self._begin[mark.time_base]

    def end(self, mark: Annotation) -> Instants:
        """(T,) when each step ends: when the next one begins, or a period later."""
        begin = self.begin(mark)
        following = np.append(begin[1:], begin[-1:] + self._period_ns)
        return np.minimum(following, begin + 2 * self._period_ns)

    def inside(self, mark: Annotation) -> Mask:
        """Steps that begin in a range."""
        begin = self.begin(mark)
        return (mark.t0_ns <= begin) & (begin < mark.t1_ns)

    def during(self, mark: Annotation) -> Mask:
        """The step in which an instant lies."""
        return (self.begin(mark) <= mark.t0_ns) & (mark.t0_ns < self.end(mark))

    def touched(self, mark: Annotation) -> Mask:
        """Steps of which a range covers some part, or an end."""
        return (self.begin(mark) < mark.t1_ns) & (self.end(mark) >= mark.t0_ns)

    def before(self, mark: Annotation) -> Mask:
        """The last step that begins before a range."""
        i = int(np.searchsorted(self.begin(mark), mark.t0_ns)) - 1
        found = np.zeros(len(self), dtype=np.bool_)
        found[i : i + 1] = i >= 0 and self.end(mark)[i] >= mark.t0_ns
        return found


def _attempts(marks: Sequence[Annotation], steps: _Steps) -> tuple[NDArray[np.int64], dict[str | None, int]]:
    """Attempt of every step, and episode id -> attempt; raises BadInput for episodes that overlap."""
    episodes = sorted((m for m in marks if m.kind == "episode"), key=lambda m: m.t0_ns)
    attempt = np.full(len(steps), NO_ATTEMPT, dtype=np.int64)
    if not episodes:
        return np.zeros_like(attempt), {}
    for number, m in enumerate(episodes):
        inside = steps.inside(m)
        if (attempt[inside] != NO_ATTEMPT).any():
            raise BadInput(f"episode {m.id} overlaps the one before it; correct one of them")
        attempt[inside] = number
    return attempt, {m.id: number for number, m in enumerate(episodes)}


def _subtasks(
    marks: Sequence[Annotation], steps: _Steps, attempt: NDArray[np.int64], vocabulary: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Subtask of every step; and progress: (index + share of the range that is over) / number of subtasks."""
    subtask, progress = np.full(len(steps), -1, dtype=np.int64), np.zeros((len(steps), 2))
    for m in sorted(marks, key=lambda m: m.t0_ns):
        inside = steps.inside(m)
        if not inside.any():
            continue
        index = vocabulary.index(m.label)
        subtask[inside] = index
        at = np.stack([steps.begin(m), steps.end(m)], axis=1)
        share = np.clip((at - m.t0_ns) / (m.t1_ns - m.t0_ns), 0.0, 1.0)
        begun = (at >= m.t0_ns) & (attempt == attempt[inside][0])[:, None]
        progress = np.where(begun, (index + share) / len(vocabulary), progress)
    return subtask, progress
