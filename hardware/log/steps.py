"""Episodes of a log as rows at one rate: what was observed, what was done, and what people marked on it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware.annotation import Annotation, annotations
from hardware.errors import BadInput
from hardware.log.exporters.tables import Column, columns_of, is_command
from hardware.log.pictures import TYPES as PICTURES
from hardware.log.pictures import pictures_of
from hardware.log.reader import Log
from hardware.messages import TICK_TOPIC

_DULL = ("header", "layout", "sequence", "state_stamp")
"""First parts of column names that are neither observed nor done."""
ACTION_NAMES = ("joint_command", "commands", "command", "cmd_vel", "action", "actions")
"""Last parts of topic names that mean a command, besides those of known robots."""


class Episode(NamedTuple):
    """One attempt, T rows."""

    id: str
    t_ns: NDArray[np.int64]
    observation: NDArray[np.float32]
    """(T, D)."""
    action: NDArray[np.float32]
    """(T, A); in force from its row's instant to the next."""
    reward: NDArray[np.float32]
    """(T,); by marks of kind reward, or 1 on the last row of a success."""
    intervention: NDArray[np.bool_]
    """(T,)."""
    outcome: str
    """success, failure, aborted, or '' where nobody has said or the rest is excluded."""
    task: str
    pictures: dict[str, list[bytes]]
    """Camera topic -> one compressed picture per row."""

    @property
    def terminated(self) -> bool:
        """Whether it ended by itself; otherwise it was cut (truncated)."""
        return self.outcome in ("success", "failure")


@dataclass(frozen=True)
class Demonstrations:
    """The episodes of a log."""

    rate_hz: float
    observation: list[str]
    """Names of the columns."""
    action: list[str]
    units: dict[str, str]
    episodes: list[Episode]
    source: str
    """Content hash of the log."""
    cameras: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Topic -> height and width."""
    notes: list[str] = field(default_factory=list)


class _Signal(NamedTuple):
    """One quantity over time."""

    topic: str
    names: list[str]
    units: list[str]
    t_ns: NDArray[np.int64]
    values: NDArray[np.float64]


def demonstrations(
    log: Log,
    observation: Sequence[str] = (),
    action: Sequence[str] = (),
    rate_hz: float | None = None,
    cameras: Sequence[str] = (),
) -> Demonstrations:
    """The episodes that annotations mark on a log (all of it where none is marked), as rows at one rate.

    `observation`, `action`: names `TOPIC` or `TOPIC.COLUMN`; by default a policy's own ticks (what it observed, what
    was sent), else commands and everything that is none. Where one topic holds both, its messages are the rows;
    otherwise, or with `rate_hz`, rows are evenly spaced: the newest observation not after the row, the last command
    before the next one. What is excluded by a mark cuts the episode. Raises BadInput where nothing is left.
    """
    tick = next((t for t in log.topics if t.endswith(f"/{TICK_TOPIC}")), "")
    if not observation and not action and tick:
        observation, action = [f"{tick}.observation."], [f"{tick}.sent"]
    action = list(action) or _actions(log)
    observation = list(observation) or [t for t in _topics(log) if t not in {a.partition(".")[0] for a in action}]
    seen, done = _signals(log, observation), _signals(log, action)
    seen_by = [pictures_of(log, c) for c in cameras]
    if not seen or not done:
        raise BadInput(f"{log.path}: no numbers among {', '.join([*observation, *action])[:200]}")
    notes: list[str] = []
    rows = len({s.topic for s in (*seen, *done)}) == 1 and rate_hz is None
    spacing = np.diff(done[0].t_ns)
    if rate_hz is None and not len(spacing):
        raise BadInput(f"{log.path}: one command is no episode")
    rate_hz = rate_hz or _nominal(float(1e9 / np.median(spacing)))
    marks = annotations(log)
    pieces = _pieces(log, marks)
    start_ns = max(int(s.t_ns[0]) for s in (*seen, *done, *seen_by))
    episodes = []
    for piece in pieces:
        t_ns = _instants(done[0].t_ns, max(piece.t0_ns, start_ns), piece.t1_ns, rate_hz, rows)
        if len(t_ns) < 2:
            notes.append(f"episode {piece.id or 'of the whole log'}: {len(t_ns)} rows; left out")
            continue
        following = np.append(t_ns[1:], t_ns[-1] + round(1e9 / rate_hz))
        obs = np.concatenate([_held(s, t_ns) for s in seen], axis=1)
        act = np.concatenate([_held(s, t_ns if rows else following - 1) for s in done], axis=1)
        shown = {p.topic: [p.encoded[i] for i in _newest(p.t_ns, t_ns)] for p in seen_by}
        episodes.append(_episode(piece, t_ns, following, obs, act, shown, marks))
    if not episodes:
        raise BadInput(f"{log.path}: no episode has two rows; {'; '.join(notes)[:300]}")
    if any(not np.isfinite(e.observation).all() or not np.isfinite(e.action).all() for e in episodes):
        notes.append("some values are missing (NaN) in the log")
    units = {n: u for s in (*seen, *done) for n, u in zip(s.names, s.units, strict=True)}
    names = [[n for s in group for n in s.names] for group in (seen, done)]
    sizes = {p.topic: p.size for p in seen_by}
    return Demonstrations(rate_hz, names[0], names[1], units, episodes, log.content_hash, sizes, notes)


def _nominal(rate_hz: float) -> float:
    """The whole number that a measured rate stands for; else the rate with four digits."""
    whole = round(rate_hz)
    return float(whole) if whole and abs(rate_hz / whole - 1.0) < 5e-3 else float(f"{rate_hz:.4g}")


class _Piece(NamedTuple):
    """A stretch of an episode between exclusions."""

    id: str
    t0_ns: int
    t1_ns: int
    outcome: str
    task: str


def _pieces(log: Log, marks: Iterable[Annotation]) -> list[_Piece]:
    """Episodes without what is excluded."""
    marks = list(marks)
    outcomes = {m.episode: m.label for m in marks if m.kind == "outcome"}
    excluded = sorted((m.t0_ns, m.t1_ns) for m in marks if m.kind == "exclude")
    whole = [_Piece(m.id, m.t0_ns, m.t1_ns, outcomes.get(m.id, ""), m.label) for m in marks if m.kind == "episode"]
    pieces = []
    for episode in whole or [_Piece("", log.start_ns, log.end_ns + 1, "", "")]:
        at = episode.t0_ns
        for t0, t1 in excluded:
            if t1 > at and t0 < episode.t1_ns:
                if t0 > at:
                    pieces.append(episode._replace(t0_ns=at, t1_ns=t0, outcome=""))
                at = t1
        if at < episode.t1_ns:
            pieces.append(episode._replace(t0_ns=at))
    return pieces


def _episode(
    piece: _Piece,
    t_ns: NDArray[np.int64],
    following: NDArray[np.int64],
    observation: NDArray[np.float64],
    action: NDArray[np.float64],
    pictures: dict[str, list[bytes]],
    marks: Sequence[Annotation],
) -> Episode:
    reward = np.zeros(len(t_ns), dtype=np.float32)
    intervention = np.zeros(len(t_ns), dtype=bool)
    rewarded = False
    for m in marks:
        touched = (
            (t_ns <= m.t1_ns) & (following > m.t0_ns) if m.t1_ns == m.t0_ns else (t_ns >= m.t0_ns) & (t_ns < m.t1_ns)
        )
        if m.kind == "reward":
            reward[touched] += np.float32(m.value["reward"])
            rewarded = True
        elif m.kind == "intervention":
            intervention |= touched
    if not rewarded and piece.outcome == "success":
        reward[-1] = 1.0
    arrays = observation.astype(np.float32), action.astype(np.float32)
    return Episode(piece.id, t_ns, *arrays, reward, intervention, piece.outcome, piece.task, pictures)


def _instants(t_ns: NDArray[np.int64], start_ns: int, end_ns: int, rate_hz: float, rows: bool) -> NDArray[np.int64]:
    """The instants of an episode's rows: of the messages themselves, or evenly spaced."""
    if rows:
        return t_ns[(t_ns >= start_ns) & (t_ns < end_ns)]
    last_ns = min(end_ns, int(t_ns[-1]) + 1)
    count = max(0, int(np.ceil((last_ns - start_ns) * rate_hz / 1e9)))
    return start_ns + np.round(np.arange(count) * (1e9 / rate_hz)).astype(np.int64)


def _held(signal: _Signal, t_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """The newest value not after each instant."""
    return signal.values[_newest(signal.t_ns, t_ns)]


def _newest(t_ns: NDArray[np.int64], instants: NDArray[np.int64]) -> NDArray[np.intp]:
    """Index of the newest sample not after each instant."""
    return np.searchsorted(t_ns, instants, side="right") - 1


def _topics(log: Log) -> list[str]:
    """Topics that may be observations."""
    aside = ("/rosout", "/annotation", "/parameter_events", "/clock", "/diagnostics")
    topics = [t for t in log.topics.values() if not t.problem and t.count > 1 and t.type.name not in PICTURES]
    return [t.name for t in topics if t.name not in aside]


def _actions(log: Log) -> list[str]:
    found = [n for n in _topics(log) if is_command(log.topics[n]) or n.rpartition("/")[2] in ACTION_NAMES]
    if not found:
        known = ", ".join(_topics(log))
        raise BadInput(f"{log.path}: which topic is the action? say --action TOPIC[.COLUMN]; topics: {known[:300]}")
    return found


def _signals(log: Log, names: Iterable[str]) -> list[_Signal]:
    """The numeric columns that are named, in their order; those of one topic share their instants."""
    wanted: dict[str, list[str]] = {}
    for name in names:
        topic = next(
            (t for t in sorted(log.topics, key=len, reverse=True) if name == t or name.startswith(f"{t}.")), name
        )
        wanted.setdefault(topic, []).append(name.removeprefix(topic).removeprefix("."))
    signals: list[_Signal] = []
    for name, fields in wanted.items():
        topic = log.topic(name)
        if topic.problem:
            raise BadInput(f"{log.path}: topic {name} cannot be decoded: {topic.problem}")
        columns = [c for c in columns_of(log, topic) if _is_wanted(c, fields)]
        found = _collect(log, name, columns)
        signals += found
        for f in fields:
            if f and not any(_matches(c.name, f) for c in columns):
                have = ", ".join(c.name for c in columns_of(log, topic))
                raise BadInput(f"{log.path}: column '{f}' of {name} not found or no numbers; columns: {have[:300]}")
    return signals


def _is_wanted(column: Column, fields: list[str]) -> bool:
    if any(f and _matches(column.name, f) for f in fields):
        return True
    parts = column.name.split(".")
    return "" in fields and parts[0] not in _DULL and not parts[-1].endswith("covariance")


def _matches(name: str, field: str) -> bool:
    return name == field or name.startswith(field if field.endswith(".") else f"{field}.")


def _collect(log: Log, topic: str, columns: Sequence[Column]) -> list[_Signal]:
    t_ns: list[int] = []
    taken: list[list[Any]] = [[] for _ in columns]
    for m in log.messages([topic]):
        t_ns.append(m.t_ns)
        for column, values in zip(columns, taken, strict=True):
            values.append(column.take(m.message))
    instants = np.array(t_ns, dtype=np.int64)
    order = np.argsort(instants, kind="stable")
    instants = instants[order]
    signals = []
    for column, values in zip(columns, taken, strict=True):
        try:
            table = np.array(values, dtype=np.float64)
        except (ValueError, TypeError):  # text, or sequences whose length changes
            continue
        table = table[:, None] if table.ndim == 1 else table
        if len(table) and table.shape[1]:
            base = f"{topic}.{column.name}"
            names = [base] if column.width is None else [f"{base}.{i}" for i in range(table.shape[1])]
            signals.append(_Signal(topic, names, [column.unit] * len(names), instants, table[order]))
    return signals
