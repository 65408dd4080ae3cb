"""Operations on marks, one per line of a file, and the view that they add up to.

Add, replace, delete and review are all there is; undo is an operation too. The view is a fold in the order of the
operations' ULIDs, so files of several annotators merge by being read together, and the last word on a mark counts.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from hardware.annotation.mark import SCHEMA, STATUSES, Annotation, By, from_json
from hardware.errors import BadInput

OPERATIONS = ("add", "replace", "delete", "review")


@dataclass(frozen=True)
class Operation:
    """One line."""

    op: str
    op_id: str
    id: str
    """Of the mark."""
    log: str
    by: By
    made_ns: int
    mark: Annotation | None = None
    """The new version, of add and replace."""
    status: str | None = None
    """The verdict, of review."""
    supersedes: str | None = None
    """The last operation on this mark that its maker had seen."""
    undoes: str | None = None
    redoes: str | None = None


@dataclass(frozen=True)
class Version:
    """What a mark is after some operation."""

    mark: Annotation
    alive: bool
    op_id: str
    who: str
    """Whose operation that was."""


def to_line(o: Operation) -> str:
    """One line of JSON, with its end."""
    values: dict[str, Any] = {"op": o.op, "op_id": o.op_id}
    if o.mark is not None:
        values |= o.mark.to_json()
        if o.mark.by != o.by:  # undo brings back what somebody else had made
            values["restored_by"] = asdict(o.by)
    else:
        values |= {"schema": SCHEMA, "id": o.id, "log": o.log, "by": asdict(o.by), "made_ns": o.made_ns}
        values |= {"supersedes": o.supersedes}
    if o.status is not None:
        values["status"] = o.status
    values |= {k: v for k, v in (("undoes", o.undoes), ("redoes", o.redoes)) if v}
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def from_line(line: str) -> Operation:
    """The operation on a line; raises BadInput for anything else."""
    try:
        values = json.loads(line)
    except ValueError as e:
        raise BadInput(f"not JSON ({e})") from None
    if not isinstance(values, dict) or values.get("op") not in OPERATIONS:
        raise BadInput(f"not an operation; expected one of {', '.join(OPERATIONS)}")
    if not isinstance(values.get("op_id"), str):
        raise BadInput("operation without op_id")
    links = {k: values.get(k) for k in ("supersedes", "undoes", "redoes")}
    try:
        by = By(**values.get("restored_by", values["by"]))
        head = (values["op"], values["op_id"], values["id"], values["log"], by, values["made_ns"])
    except (KeyError, TypeError) as e:
        raise BadInput(f"operation {values['op_id']}: {e}") from None
    if values["op"] in ("add", "replace"):
        return Operation(*head, mark=from_json(values), **links)
    status = values.get("status")
    if values.get("schema") != SCHEMA or (values["op"] == "review" and status not in STATUSES):
        raise BadInput(f"operation {values['op_id']}: schema {values.get('schema')!r}, status {status!r}")
    return Operation(*head, status=status if values["op"] == "review" else None, **links)


def fold(operations: Iterable[Operation]) -> dict[str, Version]:
    """Mark id -> what it is after all operations, deleted marks included."""
    versions: dict[str, Version] = {}
    for o in sorted(operations, key=lambda o: o.op_id):
        before = versions.get(o.id)
        if o.mark is not None:
            versions[o.id] = Version(o.mark, True, o.op_id, o.by.who)
        elif before is not None and o.op == "delete":
            versions[o.id] = Version(before.mark, False, o.op_id, o.by.who)
        elif before is not None:
            mark = replace(before.mark, status=o.status or before.mark.status)
            versions[o.id] = Version(mark, before.alive, o.op_id, o.by.who)
    return versions


def view(versions: dict[str, Version]) -> list[Annotation]:
    """The marks that there are, in the order of time; an outcome goes, and moves, with its episode."""
    alive = {id: v.mark for id, v in versions.items() if v.alive}
    shown = []
    for m in alive.values():
        if m.kind == "outcome":
            episode = alive.get(m.episode or "")
            if episode is None:
                continue
            m = replace(m, t0_ns=episode.t0_ns, t1_ns=episode.t1_ns)
        shown.append(m)
    return sorted(shown, key=lambda m: (m.t0_ns, m.t1_ns, m.id))


def done_and_undone(operations: Iterable[Operation], who: str) -> tuple[list[str], list[str]]:
    """Ids of the operations that an author can undo and redo, the next one last."""
    done: list[str] = []
    undone: list[str] = []
    for o in sorted((o for o in operations if o.by.who == who), key=lambda o: o.op_id):
        if o.undoes:
            done = [d for d in done if d != o.undoes]
            undone.append(o.undoes)
        elif o.redoes:
            undone = [u for u in undone if u != o.redoes]
            done.append(o.redoes)
        else:
            done.append(o.op_id)
            undone = []
    return done, undone


def conflicts(marks: Iterable[Annotation]) -> list[tuple[Annotation, Annotation]]:
    """Pairs of marks of different people that overlap in one tier and do not say the same."""
    found = []
    tiers: dict[str, list[Annotation]] = {}
    for m in marks:
        if m.kind not in ("note", "event") and m.status != "rejected":
            tiers.setdefault(m.kind, []).append(m)
    for tier in tiers.values():
        tier.sort(key=lambda m: (m.t0_ns, m.id))
        for i, a in enumerate(tier):
            for b in tier[i + 1 :]:
                if b.t0_ns >= max(a.t1_ns, a.t0_ns + 1):
                    break
                if a.by.who != b.by.who and (a.label, dict(a.value)) != (b.label, dict(b.value)):
                    found.append((a, b))
    return found
