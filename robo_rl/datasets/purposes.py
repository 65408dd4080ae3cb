"""What each consumer makes of labelled control steps: which rows stay, what they pay, where they end.

The table of the reference: episode ends, outcomes, interventions, rewards, subtasks, exclusions and events, for
imitation, for reinforcement learning from rewards or from interventions, and for reward models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robo_rl.datasets.labels import HUMAN, NO_ATTEMPT, Labels, Mask

PURPOSES: dict[str, str] = {
    "bc": "behaviour cloning: what succeeded, corrections flagged",
    "hg-dagger": "imitation of the human's actions only",
    "iql": "offline reinforcement learning from rewards",
    "rlpd": "the same with the buffers `demo` and `online`",
    "rlif": "-1 on the step that made somebody take over, else 0",
    "h2o": "real data beside a simulator's: dense rewards, true ends",
    "reward": "a reward model: positives, negatives, progress",
}
"""Consumer -> what its rows are."""
REWARDS = ("auto", "sparse", "marks", "progress", "scene")
"""Where rewards come from: outcomes on the last step, reward marks, progress through subtasks, the scene's own."""
OUT_OF_RANGE = 1.0 + 1e-3
_IMITATION = ("bc", "hg-dagger")
_SPARSE = ("iql", "rlpd")


@dataclass(frozen=True)
class Options:
    """What is made of the marks."""

    purpose: str = "iql"
    rewards: tuple[str, ...] = ("sparse", "marks")
    """Which rewards are added up; of REWARDS, without auto."""
    success: float = 1.0
    """Reward of the last step of an episode that succeeded."""
    failure: float = -1.0
    """Reward of the last step of one that failed, and of a crash or e-stop."""
    failure_weight: float = 0.0
    """bc: weight of the rows of episodes that did not succeed; 0 leaves them out."""
    frames: int = 10
    """reward: steps at the end of a success that are positive, and before an intervention that are negative."""


@dataclass(frozen=True)
class Rows:
    """What became of T steps; arrays have one row per step, kept or not."""

    keep: Mask
    reward: NDArray[np.float64]
    terminated: Mask
    weight: NDArray[np.float64]
    extra: dict[str, NDArray[Any]]
    dropped: dict[str, int]
    counts: dict[str, int]


def rows_for(
    options: Options,
    labels: Labels,
    *,
    follows: Mask,
    has_next: Mask,
    action: NDArray[Any],
    scene_reward: NDArray[Any] | None = None,
    flown: bool = True,
) -> Rows:
    """Rows of one log for `options.purpose`.

    `follows`: the step comes right after the one before it; `has_next`: a state was recorded after it; `flown`: a
    policy was in command, not only a person.
    """
    purpose = options.purpose
    event = (labels.crash | labels.estop) & ~labels.excluded
    took_over = event & (labels.estop | _safety_near(labels)) if purpose == "rlif" else np.zeros_like(event)
    over = _after(event, labels, follows, went_on=took_over)
    terminal, last = event & ~took_over, _last(labels)
    final = last & np.isin(labels.attempt, [a for a, o in labels.outcome.items() if o in ("success", "failure")])
    terminated = terminal | final
    drop = {
        "outside the marked episodes": labels.attempt == NO_ATTEMPT,
        "excluded": labels.excluded,
        "after a crash or e-stop": over | (event if purpose in _IMITATION else False),
        "action outside the scene's range": np.abs(action).max(axis=1) > OUT_OF_RANGE,
        "nothing recorded after it": ~has_next & ~terminated,
    }
    failed = _in_attempts(labels, ("failure", "aborted"))
    if purpose == "hg-dagger":
        drop["not a human's action"] = (labels.taken != HUMAN) & flown
    if purpose == "bc" and options.failure_weight == 0.0:
        drop["episode without success"] = failed
    keep, dropped = np.ones(len(event), dtype=np.bool_), {}
    for reason, mask in drop.items():
        dropped[reason] = int((keep & mask).sum())
        keep &= ~mask
    triggers = (labels.triggers | (took_over & (labels.taken == 0))) & keep
    reward = _reward(options, labels, terminal, final, triggers, scene_reward)
    weight = np.where(failed, options.failure_weight, 1.0) if purpose == "bc" else np.ones(len(event))
    extra, counts = _extras(options, labels, event, last, flown)
    taken = int(((labels.taken != 0) & keep).sum())
    counts = {k: int((v & keep).sum()) for k, v in counts.items()} | {"interventions": taken}
    if purpose == "rlif":
        counts["triggers"] = int(triggers.sum())
    return Rows(keep, reward, terminated & keep, weight, extra, {k: n for k, n in dropped.items() if n}, counts)


def _reward(
    options: Options,
    labels: Labels,
    terminal: Mask,
    final: Mask,
    triggers: Mask,
    scene_reward: NDArray[Any] | None,
) -> NDArray[np.float64]:
    if options.purpose == "rlif":
        return np.where(triggers, -1.0, 0.0)
    reward = np.zeros(len(terminal))
    if "marks" in options.rewards:
        reward += labels.reward
    if "progress" in options.rewards:
        reward += labels.progress[:, 1] - labels.progress[:, 0]
    if "scene" in options.rewards and scene_reward is not None:
        reward += scene_reward
    if "sparse" in options.rewards:
        succeeded = _in_attempts(labels, ("success",))
        reward += np.where(final & ~terminal, np.where(succeeded, options.success, options.failure), 0.0)
        if options.purpose in _SPARSE:
            reward += np.where(terminal, options.failure, 0.0)
    return reward


def _extras(
    options: Options, labels: Labels, event: Mask, last: Mask, flown: bool
) -> tuple[dict[str, NDArray[Any]], dict[str, Mask]]:
    """Arrays that only some consumers want, and masks to be counted."""
    extra: dict[str, NDArray[Any]] = {"subtask": labels.subtask}
    succeeded, failed = _in_attempts(labels, ("success",)), _in_attempts(labels, ("failure", "aborted"))
    counts = {"successes": last & succeeded, "failures": last & failed}
    if options.purpose == "rlpd":
        human = labels.taken == HUMAN
        demo = succeeded | human | (~failed & (not flown))
        extra |= {"demo": demo, "online": np.full(len(demo), flown)}
        counts |= {"demo": demo, "online": extra["online"]}
    if options.purpose == "reward":
        label = np.full(len(event), -1, dtype=np.int64)
        for a, outcome in labels.outcome.items():
            if outcome == "success":
                label[np.flatnonzero(labels.attempt == a)[-options.frames :]] = 1
        for i in np.flatnonzero(labels.triggers):
            before = np.arange(max(0, i + 1 - options.frames), i + 1)
            label[before[(labels.attempt[before] == labels.attempt[i]) & (labels.taken[before] == 0)]] = 0
        label[event] = 0
        extra |= {"label": label, "progress": labels.progress[:, 1].astype(np.float32)}
        counts |= {"positives": label == 1, "negatives": label == 0}
    return extra, counts


def _in_attempts(labels: Labels, outcomes: tuple[str, ...]) -> Mask:
    return np.isin(labels.attempt, [a for a, o in labels.outcome.items() if o in outcomes])


def _last(labels: Labels) -> Mask:
    """The last step of every marked episode."""
    last = np.zeros(len(labels.attempt), dtype=np.bool_)
    for a in np.unique(labels.attempt[labels.attempt != NO_ATTEMPT]) if labels.marked else ():
        last[np.flatnonzero(labels.attempt == a)[-1]] = True
    return last


def _safety_near(labels: Labels) -> Mask:
    """Safety or a supervisor acts in the step or in the next one."""
    safe = labels.taken > HUMAN
    return safe | np.append(safe[1:], False)


def _after(event: Mask, labels: Labels, follows: Mask, went_on: Mask) -> Mask:
    """Steps after an event, up to the end of the episode or of the recording's stretch.

    Where somebody took over (`went_on`), their steps are not among them.
    """
    over, state = np.zeros(len(event), dtype=np.bool_), "before"
    for i in range(len(event)):
        if i == 0 or not follows[i] or labels.attempt[i] != labels.attempt[i - 1]:
            state = "before"
        if state == "taken" and labels.taken[i] == 0:
            state = "over"
        over[i] = state == "over"
        if event[i] and state == "before":
            state = "taken" if went_on[i] else "over"
    return over


def counted(parts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Counts by name, added up."""
    return {k: parts.get(k, 0) + more.get(k, 0) for k in (*parts, *(m for m in more if m not in parts))}
