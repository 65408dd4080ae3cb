"""One mark on a log: nine kinds, what each may say, and its form as JSON."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from hardware.errors import BadInput, NotFoundError

SCHEMA = "robo_rl.annotation/1"
Kind = Literal["episode", "outcome", "subtask", "reward", "intervention", "event", "exclude", "sysid", "note"]
Status = Literal["draft", "confirmed", "rejected"]
STATUSES = ("draft", "confirmed", "rejected")
SOURCES = ("human", "rule", "model", "robot")
TIME_BASES = {"log_time": "log", "publish_time": "publish", "header_stamp": "header"}
"""Time base of a mark -> the same of a `Log`."""
EVENTS = ("contact", "slip", "crash", "estop", "dropout", "battery")
"""Usual labels of events; others are allowed."""
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class KindRule:
    """What marks of one kind are."""

    meaning: str
    range: bool | None
    """True: it lasts; False: it is an instant; None: either."""
    labels: tuple[str, ...] = ()
    """Labels that are allowed; none listed: any text."""
    label_needed: bool = False


KINDS: dict[str, KindRule] = {
    "episode": KindRule("one attempt, from its start to its end", True),
    "outcome": KindRule("how an episode ended", None, ("success", "failure", "aborted"), True),
    "subtask": KindRule("one stage of a task", True, (), True),
    "reward": KindRule("a scalar in value.reward", None),
    "intervention": KindRule(
        "somebody or something else was in command", True, ("human", "safety", "supervisor"), True
    ),
    "event": KindRule("something that happened at an instant", False, (), True),
    "exclude": KindRule("a stretch that no consumer may use; value.reason says why", True),
    "sysid": KindRule("a window for identification", True, ("free-space", "contact", "excitation"), True),
    "note": KindRule("a remark", None, (), True),
}
"""Kind -> its rule, in the order of the tiers on the page."""


@dataclass(frozen=True)
class By:
    """Who or what made a mark."""

    who: str
    type: str = "human"
    """human, rule, model or robot."""
    tool: str = "robo-rl"
    model: str | None = None
    """Name of the rule or model."""


@dataclass(frozen=True)
class Annotation:
    """One mark; making an impossible one raises BadInput with one line."""

    id: str
    """ULID; stays the same while the mark is changed."""
    log: str
    """Content hash of the log."""
    kind: str
    t0_ns: int
    t1_ns: int
    """Equal to t0_ns for an instant."""
    label: str = ""
    value: Mapping[str, Any] = field(default_factory=dict)
    """reward: `reward`; outcome, exclude, intervention: `reason`; sysid: `split` (train or val), `joints`."""
    episode: str | None = None
    """Id of the episode that an outcome belongs to."""
    channels: tuple[str, ...] = ()
    confidence: float = 1.0
    status: str = "confirmed"
    """draft, confirmed or rejected."""
    by: By = By("unknown")
    made_ns: int = 0
    """When this version was made."""
    supersedes: str | None = None
    """Operation that made the version before this one."""
    time_base: str = "log_time"

    def __post_init__(self) -> None:
        """Raises BadInput for a mark that its kind does not allow."""
        _check_identity(self)
        _check_time(self)
        _check_kind(self)

    @property
    def duration_s(self) -> float:
        """0 for an instant."""
        return (self.t1_ns - self.t0_ns) / 1e9

    def covers(self, t_ns: int) -> bool:
        """Whether an instant lies in it: `t0 <= t < t1`, and exactly at an instant."""
        return self.t0_ns <= t_ns < self.t1_ns or t_ns == self.t0_ns == self.t1_ns

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the schema's name."""
        return {"schema": SCHEMA, **asdict(self), "value": dict(self.value), "channels": list(self.channels)}


def from_json(values: Mapping[str, Any]) -> Annotation:
    """The mark that plain values describe; keys of operations are passed over. Raises BadInput for what is none."""
    if values.get("schema") != SCHEMA:
        raise BadInput(f"mark of schema {values.get('schema')!r}; expected {SCHEMA}")
    known = {f.name for f in fields(Annotation)}
    picked = {k: v for k, v in values.items() if k in known}
    try:
        by = By(**picked.pop("by"))
        picked["channels"] = tuple(picked.get("channels", ()))
        return Annotation(**picked, by=by)
    except (TypeError, KeyError) as e:
        raise BadInput(f"mark {values.get('id')}: {e}") from None


def is_range(kind: str) -> bool | None:
    """Whether a kind lasts (True), is an instant (False), or may be either (None); raises NotFoundError."""
    if kind not in KINDS:
        raise NotFoundError("kind of mark", kind, KINDS)
    return KINDS[kind].range


def _check_identity(a: Annotation) -> None:
    if not isinstance(a.id, str) or not _ULID.fullmatch(a.id):
        raise BadInput(f"mark id {a.id!r} is not a ULID")
    where = f"mark {a.id}"
    if not isinstance(a.log, str) or not _HASH.fullmatch(a.log):
        raise BadInput(f"{where}: log {a.log!r}; expected sha256: and 64 hex digits")
    if a.status not in STATUSES:
        raise BadInput(f"{where}: status {a.status!r}; expected one of {', '.join(STATUSES)}")
    if a.by.type not in SOURCES:
        raise BadInput(f"{where}: by.type {a.by.type!r}; expected one of {', '.join(SOURCES)}")
    if not _real(a.confidence) or not 0.0 <= a.confidence <= 1.0:
        raise BadInput(f"{where}: confidence {a.confidence!r}; expected 0 to 1")
    if not isinstance(a.label, str) or not all(isinstance(c, str) for c in a.channels):
        raise BadInput(f"{where}: label and channels are text")


def _check_time(a: Annotation) -> None:
    rule = KINDS.get(a.kind) if isinstance(a.kind, str) else None
    if rule is None:
        raise NotFoundError("kind of mark", str(a.kind), KINDS)
    for t in (a.t0_ns, a.t1_ns, a.made_ns):
        if isinstance(t, bool) or not isinstance(t, int) or not 0 <= t < 2**63:
            raise BadInput(f"{a.kind} {a.id}: instant {t!r}; expected whole nanoseconds, 0 to 2^63")
    if a.t1_ns < a.t0_ns:
        raise BadInput(f"{a.kind} {a.id} ends {(a.t0_ns - a.t1_ns) / 1e9:g} s before it begins")
    if rule.range is True and a.t1_ns == a.t0_ns:
        raise BadInput(f"{a.kind} {a.id} has no length; it needs a start and an end")
    if rule.range is False and a.t1_ns != a.t0_ns:
        raise BadInput(f"{a.kind} {a.id} lasts {a.duration_s:g} s; expected one instant")
    if a.time_base not in TIME_BASES:
        raise BadInput(f"{a.kind} {a.id}: time base {a.time_base!r}; expected one of {', '.join(TIME_BASES)}")


def _check_kind(a: Annotation) -> None:
    rule, where = KINDS[a.kind], f"{a.kind} {a.id}"
    if not isinstance(a.value, Mapping):
        raise BadInput(f"{where}: value {a.value!r}; expected an object")
    try:
        json.dumps(a.value, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise BadInput(f"{where}: value is no JSON ({e})") from None
    if rule.label_needed and not a.label:
        raise BadInput(f"{where}: needs a label{': ' + ', '.join(rule.labels) if rule.labels else ''}")
    if rule.labels and a.label not in rule.labels:
        raise BadInput(f"{where}: label '{a.label}'; expected one of {', '.join(rule.labels)}")
    if a.kind == "outcome" and not (isinstance(a.episode, str) and _ULID.fullmatch(a.episode)):
        raise BadInput(f"{where}: needs the id of its episode")
    if a.kind == "reward" and not _real(a.value.get("reward")):
        raise BadInput(f"{where}: value.reward {a.value.get('reward')!r}; expected a number")
    if a.kind == "sysid" and a.value.get("split", "train") not in ("train", "val"):
        raise BadInput(f"{where}: value.split {a.value['split']!r}; expected train or val")


def _real(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)
