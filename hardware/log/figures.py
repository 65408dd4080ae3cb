"""What a recording holds, in figures: one pass over the raw messages, nothing decoded."""

from array import array
from dataclasses import dataclass, field

import numpy as np

from hardware.log.reader import Log, LogTopic, header_stamp_ns


@dataclass
class TopicFigures:
    """One topic of a log in figures."""

    name: str
    type: str
    messages: int
    rate_hz: float
    """Messages per second between its first and its last one; 0 for fewer than two."""
    longest_gap_s: float
    skew_ms: float | None
    """Median of receive time minus header stamp; None where nothing is stamped."""
    bytes: int
    qos: list[str]
    """Reliability and durability of each publisher."""
    problem: str


@dataclass
class _Seen:
    """What is gathered about a topic on the way."""

    first_ns: int = 0
    last_ns: int = 0
    count: int = 0
    gap_ns: int = 0
    bytes: int = 0
    skew_ns: array = field(default_factory=lambda: array("q"))


def figures(log: Log) -> list[TopicFigures]:
    """Figures of every topic, by name; raises BadInput where the log does not hold what it says."""
    seen = {name: _Seen() for name in log.topics}
    for m in log.messages(raw=True):
        s = seen[m.topic]
        if s.count:
            s.gap_ns = max(s.gap_ns, m.log_ns - s.last_ns)
        else:
            s.first_ns = m.log_ns
        s.last_ns, s.count, s.bytes = m.log_ns, s.count + 1, s.bytes + len(m.cdr)
        if log.topics[m.topic].stamped:
            stamp = header_stamp_ns(m.cdr)
            if stamp is not None:
                s.skew_ns.append(m.log_ns - stamp)
    return [_figures(log.topics[name], seen[name]) for name in sorted(log.topics)]


def _figures(topic: LogTopic, s: _Seen) -> TopicFigures:
    span_s = (s.last_ns - s.first_ns) / 1e9
    return TopicFigures(
        name=topic.name,
        type=topic.type.name,
        messages=s.count,
        rate_hz=(s.count - 1) / span_s if span_s > 0 else 0.0,
        longest_gap_s=s.gap_ns / 1e9,
        skew_ms=float(np.median(s.skew_ns)) / 1e6 if s.skew_ns else None,
        bytes=s.bytes,
        qos=[f"{q.reliability}, {q.durability}" for q in topic.qos],
        problem=topic.problem,
    )
