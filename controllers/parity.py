"""A recorded flight through a policy again, to see whether observations and commands are those recorded.

Observations are rebuilt from the recorded states, goals and sent commands by the one interpreter, so that equality
proves the whole pipeline from message to command. Another policy than the recorded one is compared, not judged.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from controllers.artifact import PolicyArtifact
from controllers.channels import CARD
from controllers.latency import Durations
from controllers.policy import Policy
from hardware.errors import BadInput
from hardware.log.reader import Log
from hardware.messages import Tick, absolute
from hardware.replay import namespace_of, recorded_states, recorded_ticks
from hardware.robot import RobotState

TOLERANCE = 1e-5
"""Largest difference in action units that counts as the same."""


MOST_KNOWN = 2000
"""Known observations that are compared with."""
WINDOW_NS = 1_000_000_000


class Strange(NamedTuple):
    """How unlike the known observations those of a log are."""

    score: NDArray[np.float64]
    """(T,) per compared tick; about 1 is usual."""
    known: int
    """How many were compared with."""


@dataclass
class Parity:
    """What a replay found; arrays hold one row per compared tick."""

    same_policy: bool
    """The log was flown with exactly this file."""
    ticks: int = 0
    """Ticks in the log."""
    unmatched: int = 0
    """Ticks whose state was not recorded."""
    warming: int = 0
    """Ticks left out because the history before them is not in the log."""
    t_ns: list[int] = field(default_factory=list)
    observation: list[float] = field(default_factory=list)
    """Largest difference of the rebuilt observation from the recorded one."""
    wanted: list[NDArray[np.float64]] = field(default_factory=list)
    """(J,) commands of this policy."""
    recorded: list[NDArray[np.float64]] = field(default_factory=list)
    """(J,) commands that the recorded policy wished."""
    seen: list[NDArray[np.float64]] = field(default_factory=list)
    """(D,) rebuilt observations, all groups after one another."""
    latency: Durations = field(default_factory=Durations)


def replay_policy(artifact: PolicyArtifact, log: Log, namespace: str | None = None) -> Parity:
    """Runs every recorded tick through the policy; raises BadInput for a log without ticks of this robot."""
    spec = artifact.interface.robot
    space = namespace_of(log, spec, namespace)
    states = {s.value.t_ns: s.value for s in recorded_states(log, spec, space)}
    found = Parity(same_policy=_recorded_sha256(log, space) == artifact.sha256)
    policy = Policy(artifact)
    longest = max((f.history for f in artifact.interface.observation), default=1)
    unsure, following = longest, 0
    for tick in _ticks(log, artifact, space):
        found.ticks += 1
        state = states.get(tick.state_t_ns)
        if tick.sequence == 0:
            policy.start(None if state is None else state.signals)
            unsure = 0
        elif tick.sequence != following:  # ticks are missing: the history has to fill up again
            policy.start()
            unsure = longest
        following = tick.sequence + 1
        if state is None:
            found.unmatched += 1
            following = -1
            continue
        _compare(policy, tick, state, found, counts=unsure == 0)
        unsure = max(unsure - 1, 0)
    if not found.wanted:
        raise BadInput(f"{log.path}: none of its {found.ticks} policy ticks can be compared; their states are missing")
    return found


def figures(found: Parity, artifact: PolicyArtifact) -> dict[str, Any]:
    """Plain values: differences in action units and per command component."""
    wanted, recorded = np.array(found.wanted), np.array(found.recorded)
    scale = np.array([f.scale for f in artifact.card.action])
    difference = (wanted - recorded) / scale
    names = [f.name for f in artifact.card.action]
    rmse = np.sqrt(np.mean((wanted - recorded) ** 2, axis=0))
    worst = int(np.argmax(np.abs(difference).max(axis=1)))
    return {
        "same_policy": found.same_policy,
        "ticks": found.ticks,
        "compared": len(found.wanted),
        "unmatched": found.unmatched,
        "warming": found.warming,
        "max_action_difference": float(np.abs(difference).max()),
        "max_observation_difference": float(max(found.observation)),
        "worst_t_ns": found.t_ns[worst],
        "rmse": dict(zip(names, rmse.tolist(), strict=True)),
        "units": {f.name: f.unit for f in artifact.card.action},
        "cosine": _cosine(wanted / scale, recorded / scale),
        "error": dict(zip(names, np.abs(difference).max(axis=0).tolist(), strict=True)),
        "saturated": dict(zip(names, _saturated(wanted, artifact).mean(axis=0).tolist(), strict=True)),
        "saturated_share": float(_saturated(wanted, artifact).mean()),
        "latency_ms_p50": found.latency.percentile_ms(50),
        "latency_ms_p99": found.latency.percentile_ms(99),
    }


def _compare(policy: Policy, tick: Tick, state: RobotState, found: Parity, *, counts: bool) -> None:
    begin = time.perf_counter_ns()
    decision = policy.decide(state.signals, tick.goal, tick.perceived)
    found.latency.add((time.perf_counter_ns() - begin) / 1e9)
    policy.sent(tick.sent)
    if not counts:
        found.warming += 1
        return
    shared = decision.observation.keys() & tick.observation.keys()
    sizes_fit = all(decision.observation[g].shape == tick.observation[g].shape for g in shared)
    if shared and sizes_fit:
        found.observation.append(
            max(float(np.abs(decision.observation[g] - tick.observation[g]).max()) for g in shared)
        )
    else:
        found.observation.append(float("nan"))  # another policy sees other things
    found.seen.append(np.concatenate([decision.observation[g].ravel() for g in sorted(decision.observation)]))
    found.t_ns.append(tick.state_t_ns)
    found.wanted.append(decision.command)
    found.recorded.append(tick.command)


def _ticks(log: Log, artifact: PolicyArtifact, space: str) -> Iterator[Tick]:
    size = artifact.interface.action_size
    for row in recorded_ticks(log, artifact.interface.robot, space):
        if row.value.command.shape != (size,):
            raise BadInput(
                f"{log.path}: its policy commanded {row.value.command.size} values; {artifact.path} commands {size} "
                f"in mode {artifact.card.mode}"
            )
        yield row.value


def _recorded_sha256(log: Log, space: str) -> str:
    topic = absolute(space, CARD[0])
    if topic not in log.topics:
        return ""
    cards = [json.loads(m.message.data).get("policy_sha256", "") for m in log.messages([topic])]
    return cards[-1] if cards else ""


def strangeness(found: Parity, artifact: PolicyArtifact, reference: NDArray[np.float64] | None = None) -> Strange:
    """How far every observation lies from those that the policy is known to have met.

    Known are `reference` (M, D), for instance a data set's, or else the artifact's probes. The score is the root mean
    square of the nearest known observation's distance, each component in units of its spread, over the same distance
    among the known ones: about 1 where the log looks like them.
    """
    probes = artifact.probes.observation
    known = np.concatenate([probes[g] for g in sorted(probes)], axis=1) if reference is None else reference
    known = known.astype(np.float64)
    if known.shape[1] != found.seen[0].size:
        raise BadInput(f"known observations have {known.shape[1]} numbers; the policy sees {found.seen[0].size}")
    known = known[np.linspace(0, len(known) - 1, min(len(known), MOST_KNOWN)).astype(int)]
    spread = np.maximum(known.std(axis=0), 1e-6 + 1e-3 * np.abs(known).max(axis=0))
    known, seen = known / spread, np.array(found.seen) / spread
    usual = np.median(_nearest(known, known, skip=1))
    return Strange(_nearest(seen, known, skip=0) / max(float(usual), 1e-9), len(known))


def worst_windows(t_ns: NDArray[np.int64], score: NDArray[np.float64], count: int = 10) -> list[tuple[int, float]]:
    """The windows of one second with the largest root mean square of a score: (instant of their start, value)."""
    which = (t_ns - t_ns[0]) // WINDOW_NS
    numbers = np.unique(which)
    rms = np.array([np.sqrt(np.mean(score[which == n] ** 2)) for n in numbers])
    order = np.argsort(-rms)[:count]
    return [(int(t_ns[0] + numbers[i] * WINDOW_NS), float(rms[i])) for i in order]


def _nearest(rows: NDArray[np.float64], known: NDArray[np.float64], *, skip: int) -> NDArray[np.float64]:
    """(R,) distance to the nearest known row, or the one after it where a row is among them itself."""
    found = []
    for part in np.array_split(rows, max(1, len(rows) * len(known) // 500_000)):
        square = np.maximum((part**2).sum(1)[:, None] + (known**2).sum(1)[None] - 2.0 * part @ known.T, 0.0)
        found.append(np.sqrt(np.partition(square, skip, axis=1)[:, skip] / known.shape[1]))
    return np.concatenate(found)


def _saturated(commands: NDArray[np.float64], artifact: PolicyArtifact) -> NDArray[np.bool_]:
    return np.abs(_action(commands, artifact)) >= 1.0 - 1e-6


def _action(commands: NDArray[np.float64], artifact: PolicyArtifact) -> NDArray[np.float64]:
    offset = np.array([f.offset for f in artifact.card.action])
    return (commands - offset) / np.array([f.scale for f in artifact.card.action])


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.sum(a * b) / norm) if norm > 0 else 1.0
