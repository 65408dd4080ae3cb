"""Marks that were set while recording: messages on `/annotation` in a log, and the annotations that they become.

A message is std_msgs/String with JSON: `op` begin, end or mark, `kind`, `label`, `value`, and an `id` (ULID) that its
maker chose, so that it outlives the process; `end` may carry an `outcome`. A button may send as little as
`{"kind": "event", "label": "pedal"}`. A mark counts at the instant at which its message was recorded.
Whole annotations, as `robo-rl log export --embed` writes them, are taken as they are.
"""

import hashlib
import json
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hardware.annotation.mark import SCHEMA, Annotation, By, from_json, is_range
from hardware.annotation.operations import Operation, to_line
from hardware.annotation.store import AnnotationStore
from hardware.annotation.ulid import new_ulid
from hardware.errors import RoboError
from hardware.log.reader import Log, LogMessage, LogWarning

TOPIC = "/annotation"
TYPE = "std_msgs/msg/String"
AUTHOR = "recorder"
_BY = By(AUTHOR, "robot")


def recorded_marks(log: Log) -> list[Annotation]:
    """The marks that a log's own messages set; what they say wrong is passed over with a warning.

    A range that was begun and never ended lasts to the end of the log, and says so in its value.
    """
    topic = log.topics.get(TOPIC)
    if topic is None or topic.type.name != TYPE:
        return []
    marks: list[Annotation] = []
    begun: dict[str, tuple[dict[str, Any], int]] = {}
    for m in log.messages([TOPIC]):
        try:
            said = json.loads(m.message.data)
            marks += _marks(log, m, said, begun)
        except (ValueError, KeyError, TypeError, AttributeError, RoboError) as e:
            what = f"{log.path}: a mark at {m.log_ns} ns is passed over: {type(e).__name__} {e}"
            warnings.warn(what, LogWarning, stacklevel=2)
    for said, t0_ns in begun.values():
        value = {**said.get("value", {}), "end": "the recording ended"}
        marks.append(_mark(log, said, t0_ns, max(log.end_ns, t0_ns + 1), value))
    return list({m.id: m for m in marks}.values())


def keep_recorded(log: Log) -> list[Annotation]:
    """Takes the marks of a log's own messages over into its annotations; those that are new there.

    May be repeated: a mark that somebody has changed or deleted since stays as they left it.
    """
    marks = recorded_marks(log)
    if not marks:
        return []
    store = AnnotationStore(log, AUTHOR)
    before = {m.id for m in store.marks()}
    lines = [to_line(Operation("add", m.id, m.id, m.log, m.by, m.made_ns, m)) for m in marks]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "marks.jsonl"
        file.write_text("".join(lines))
        store.merge(file)
    wanted = {m.id for m in marks} - before
    return [m for m in store.marks() if m.id in wanted]


def _marks(
    log: Log, m: LogMessage, said: Mapping[str, Any], begun: dict[str, tuple[dict[str, Any], int]]
) -> list[Annotation]:
    """The marks that are complete with this message."""
    if said.get("schema") == SCHEMA:
        return [from_json({**said, "log": log.content_hash})]
    said = dict(said)
    said.setdefault("id", new_ulid(m.log_ns, lambda n: hashlib.sha256(m.cdr).digest()[:n]))
    op = said.get("op", "mark")
    if op == "begin":
        begun[said["id"]] = (said, m.log_ns)
        return []
    if op == "mark":
        return [_mark(log, said, m.log_ns, m.log_ns, said.get("value", {}))]
    if op != "end":
        raise ValueError(f"op {op!r}; expected begin, end or mark")
    first, t0_ns = begun.pop(said["id"])
    value = {**first.get("value", {}), **said.get("value", {})}
    episode = _mark(log, first, t0_ns, max(m.log_ns, t0_ns + 1), value)
    if "outcome" not in said:
        return [episode]
    outcome = {"id": said["outcome_id"], "kind": "outcome", "label": said["outcome"]}
    return [episode, _mark(log, outcome, episode.t0_ns, episode.t1_ns, {}, episode.id)]


def _mark(
    log: Log, said: Mapping[str, Any], t0_ns: int, t1_ns: int, value: Mapping[str, Any], episode: str | None = None
) -> Annotation:
    kind = said["kind"]
    if is_range(kind) and t1_ns == t0_ns:
        raise ValueError(f"a mark of kind {kind} needs a begin and an end")
    return Annotation(
        id=said["id"],
        log=log.content_hash,
        kind=kind,
        t0_ns=t0_ns,
        t1_ns=t1_ns,
        label=said.get("label", ""),
        value=value,
        episode=episode,
        by=_BY,
        made_ns=t1_ns,
    )
