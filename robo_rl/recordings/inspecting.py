"""`robo-rl log info`: what a recording holds."""

import datetime
from dataclasses import asdict, dataclass

from hardware.log.figures import TopicFigures, figures
from hardware.log.imports import provenance
from robo_rl.cli import Outcome
from robo_rl.recordings.opening import LogPath, open_log, summary


@dataclass(frozen=True)
class Info:
    """Print what a log holds: topics, counts, rates, gaps, clock skew, and where an imported one comes from."""

    log: LogPath
    """Directory of a recording, or an .mcap file."""


def run(action: Info) -> Outcome:
    """Prints the figures of every topic."""
    log = open_log(action.log)
    rows = figures(log)
    size = sum(f.stat().st_size for f in log.files)
    print(f"{action.log}: {log.count} messages in {log.duration_s:.3f} s, {_size(size)} on disk")
    print(f"start {_utc(log.start_ns)}, content {log.content_hash}")
    source = provenance(log)
    if source:
        print(f"imported from {source['source']} ({source['format']}), sha256 {source['sha256']}")
    _print_table(rows)
    result = summary(log) | {
        "channels": {r.name: {k: v for k, v in asdict(r).items() if k != "name"} for r in rows},
        "start_ns": log.start_ns,
        "end_ns": log.end_ns,
        "content_hash": log.content_hash,
        "files": [str(f) for f in log.files],
        "fields": {t.name: {leaf.path: leaf.unit for leaf in t.leaves().values()} for t in log.topics.values()},
        "imported": source,
    }
    return Outcome(result)


def _print_table(rows: list[TopicFigures]) -> None:
    head = ("topic", "type", "messages", "Hz", "longest gap s", "skew ms", "QoS")
    body = [
        (
            r.name,
            r.type,
            str(r.messages),
            f"{r.rate_hz:.2f}",
            f"{r.longest_gap_s:.3f}",
            "" if r.skew_ms is None else f"{r.skew_ms:.2f}",
            "; ".join(dict.fromkeys(r.qos)) + (f"  SKIPPED: {r.problem}" if r.problem else ""),
        )
        for r in rows
    ]
    widths = [max(len(row[i]) for row in (head, *body)) for i in range(len(head))]
    for row in (head, *body):
        numbers = (2, 3, 4, 5)
        cells = (c.rjust(w) if i in numbers else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        print("  ".join(cells).rstrip())


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _utc(t_ns: int) -> str:
    return datetime.datetime.fromtimestamp(t_ns / 1e9, datetime.UTC).isoformat(timespec="milliseconds")
