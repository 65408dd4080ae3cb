"""Annotated logs -> a data set: steps by the one interpreter, labels by the marks, rows by the consumer."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from controllers.interface import Interface
from hardware.annotation import Annotation, annotations
from hardware.errors import BadInput, NotFoundError
from hardware.log.reader import Log
from hardware.spec import load_spec
from robo_rl.datasets.labels import Labels, labels, vocabulary_of
from robo_rl.datasets.logsteps import LogSteps, Seen, interpret, recorded_card, recorded_steps, signals_of
from robo_rl.datasets.purposes import PURPOSES, REWARDS, Options, counted, rows_for
from robo_rl.datasets.transitions import DataCard, DataSet, card_of, interface_of, joined


class Contract(NamedTuple):
    """What the rows of all logs share."""

    card: DataCard
    interface: Interface
    scene_config: Any = None
    """The scene's settings; None where the logs' own policy card is the contract."""


@dataclass
class _Read:
    """One log before its rows are chosen."""

    log: Log
    marks: list[Annotation]
    steps: LogSteps
    seen: Seen
    labels: Labels


def from_logs(
    paths: Sequence[Path | str],
    options: Options,
    *,
    rewards: Sequence[str] = ("auto",),
    scene: str | None = None,
    scene_config: Any = None,
    namespace: str | None = None,
    drafts: bool = False,
) -> DataSet:
    """The data set of annotated logs for `options.purpose`; `rewards` replaces the options' own.

    Observation and action are those of the policy that flew, or of `scene` where one is named. Raises BadInput for
    logs of different contracts, without steps, or without anything that could be a reward.
    """
    if options.purpose not in PURPOSES:
        raise NotFoundError("purpose", options.purpose, PURPOSES)
    for name in rewards:
        if name not in REWARDS:
            raise NotFoundError("reward", name, REWARDS)
    logs = [Log(path) for path in paths]
    if not logs:
        raise BadInput("no log given")
    contract = _contract(logs, scene, scene_config, namespace)
    marks = [annotations(log, drafts=drafts) for log in logs]
    vocabulary = list(dict.fromkeys(name for m in marks for name in vocabulary_of(m)))
    reads = [_read(log, m, contract, vocabulary, namespace) for log, m in zip(logs, marks, strict=True)]
    options = dataclasses.replace(options, rewards=_chosen(rewards, options, reads, vocabulary, contract))
    parts = [_part(read, number, options, contract, drafts) for number, read in enumerate(reads)]
    return _together(parts, options, vocabulary)


def scene_reward_of(contract: Contract) -> Any:
    """The scene's function for rewards of logged steps; None where it has none."""
    from sim.registry import scene_entry, scene_ids

    return scene_entry(contract.card.scene).logged_reward if contract.card.scene in scene_ids() else None


def _contract(logs: Sequence[Log], scene: str | None, scene_config: Any, namespace: str | None) -> Contract:
    if scene is not None:
        from sim.registry import scene_entry

        entry = scene_entry(scene)
        config = entry.config if scene_config is None else scene_config
        card = card_of(entry.spec(config))
        return Contract(card, interface_of(card), config)
    cards = [(log.path, recorded_card(log, namespace)) for log in logs]
    found = [(path, card_of(card)) for path, card in cards if card is not None]
    if not found:
        raise BadInput(
            f"{cards[0][0]} holds no policy's card; name the scene whose observation to build: --scene SCENE"
        )
    path, card = found[0]
    for other, theirs in found[1:]:
        if theirs != card:
            raise BadInput(
                f"{other} was flown with other fields than {path}; name a scene to rebuild both for: --scene"
            )
    return Contract(card, Interface(load_spec(card.robot), card.mode, card.observation, card.action))


def _read(
    log: Log, marks: list[Annotation], contract: Contract, vocabulary: Sequence[str], namespace: str | None
) -> _Read:
    rate_hz = contract.card.rate_hz
    over = [(m.t0_ns, m.t1_ns) for m in marks if m.kind == "intervention" and m.time_base == "log_time"]
    steps = recorded_steps(log, contract.interface, rate_hz, namespace=namespace, taken_over=over)
    found = labels(marks, steps.log_ns(), steps.state_ns(), round(1e9 / rate_hz), vocabulary)
    begins = np.ones(len(steps.steps), dtype=np.bool_)
    begins[1:] = (found.attempt[1:] != found.attempt[:-1]) | found.excluded[:-1]
    return _Read(log, marks, steps, interpret(steps, contract.interface, begins, rate_hz), found)


def _chosen(
    rewards: Sequence[str], options: Options, reads: Sequence[_Read], vocabulary: Sequence[str], contract: Contract
) -> tuple[str, ...]:
    """The rewards to add up; `auto` takes what the marks offer, and the scene's own where they offer nothing."""
    if options.purpose in ("rlif", "reward", "hg-dagger"):
        return ()
    if "auto" not in rewards:
        return tuple(rewards)
    judged = any(r.labels.outcome or r.labels.crash.any() or r.labels.estop.any() for r in reads)
    marked = any(r.labels.rewarded for r in reads)
    offered = {"sparse": judged and options.purpose != "h2o", "marks": marked}
    if any(offered.values()):
        return tuple(name for name, there in offered.items() if there)
    if scene_reward_of(contract) is not None:
        return ("scene",)
    if vocabulary:
        return ("progress",)
    if options.purpose == "bc":
        return ()
    raise BadInput(
        f"{reads[0].log.path}: nothing says what is good: mark outcomes, rewards or subtasks (robo-rl annotate); "
        f"{contract.card.scene} has no reward of its own for logs"
    )


def _part(read: _Read, number: int, options: Options, contract: Contract, drafts: bool) -> DataSet:
    """The rows of one log; `extra.log` says which log it was."""
    seen, steps = read.seen, read.steps
    dense = _scene_reward(read, contract) if "scene" in options.rewards else None
    rows = rows_for(
        options,
        read.labels,
        follows=steps.follows,
        has_next=seen.has_next,
        action=seen.action,
        scene_reward=dense,
        flown=steps.flown,
    )
    keep = rows.keep
    begins = _begins(read, keep)
    episode = np.cumsum(begins)[keep].astype(np.int64) - 1
    last = np.append(episode[1:] != episode[:-1], True)[: len(episode)]
    terminated = rows.terminated[keep]
    source = {
        "kind": "log",
        "path": str(read.log.path),
        "content_hash": read.log.content_hash,
        "marks": len(read.marks),
        "drafts": drafts,
        "steps": len(steps.steps),
        "by_policy": steps.flown,
    }
    count = int(keep.sum())
    extra = {name: values[keep] for name, values in rows.extra.items()}
    extra |= {"t_ns": steps.log_ns()[keep], "attempt": read.labels.attempt[keep], "log": np.full(count, number)}
    kept = {"rows": count, "episodes": int(begins.sum())} | rows.counts
    card = dataclasses.replace(
        contract.card,
        purpose=options.purpose,
        sources=(source,),
        kept=kept,
        dropped=counted(steps.dropped, rows.dropped),
    )
    return DataSet(
        card,
        obs=seen.obs[keep],
        action=np.clip(seen.action[keep], -1.0, 1.0),
        reward=rows.reward[keep].astype(np.float32),
        next_obs=seen.next_obs[keep],
        terminated=terminated,
        truncated=last & ~terminated,
        episode=episode,
        intervention=(read.labels.taken != 0)[keep],
        weight=rows.weight[keep].astype(np.float32),
        extra=extra,
    )


def _begins(read: _Read, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Kept rows that do not follow a kept row of the same episode."""
    attempt = read.labels.attempt
    same = read.steps.follows[1:] & keep[:-1] & (attempt[1:] == attempt[:-1])
    return keep & ~np.append(False, same)


def _scene_reward(read: _Read, contract: Contract) -> NDArray[np.float64]:
    reward = scene_reward_of(contract)
    if reward is None:
        raise BadInput(f"scene {contract.card.scene} has no reward of its own for logged steps")
    from sim.registry import scene_entry

    config = contract.scene_config
    if config is None:
        from robo_rl.config import from_plain, to_plain

        config = scene_entry(contract.card.scene).config
        config = from_plain(config, {"mode": contract.card.mode}) if "mode" in to_plain(config) else config
    names = list(contract.interface.robot.signals)
    sent = read.seen.action
    before = np.concatenate([sent[:1], sent[:-1]])
    goals = [s.goal for s in read.steps.steps]
    goal: Mapping[str, Any] = {name: np.array([g[name] for g in goals]) for name in goals[0]}
    found = reward(
        signals_of(read.seen.before, names),
        signals_of(read.seen.after, names),
        goal,
        action=sent,
        last_action=np.where(read.steps.follows[:, None], before, sent),
        config=config,
    )
    return np.asarray(found, dtype=np.float64)


def _together(parts: Sequence[DataSet], options: Options, vocabulary: Sequence[str]) -> DataSet:
    whole = joined([p for p in parts if len(p)] or parts[:1])
    kept: dict[str, int] = {}
    dropped: dict[str, int] = {}
    for part in parts:
        kept, dropped = counted(kept, part.card.kept), counted(dropped, part.card.dropped)
    settings = dataclasses.asdict(options) | {"rewards": list(options.rewards), "subtasks": list(vocabulary)}
    sources = tuple(s for p in parts for s in p.card.sources)
    card = dataclasses.replace(whole.card, sources=sources, kept=kept, dropped=dropped, settings=settings)
    return dataclasses.replace(whole, card=card)
