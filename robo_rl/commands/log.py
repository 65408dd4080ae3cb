"""Recordings: record, inspect, play, recover, export.

A log is a directory with an MCAP file and metadata.yaml, as `ros2 bag` writes and plays it; a lone .mcap file is read
too. `record` and `play` need ROS 2; the rest does not.
"""

import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hardware.errors import BadInput
from hardware.log.export import export_csv, export_npz
from hardware.log.figures import TopicFigures, figures
from hardware.log.reader import Log, LogWarning, TimeBase
from hardware.log.recover import recover
from robo_rl.cli import Outcome

LogPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="LOG")]


@dataclass(frozen=True)
class Info:
    """Print what a log holds: topics, counts, rates, gaps, clock skew."""

    log: LogPath
    """Directory of a recording, or an .mcap file."""


@dataclass(frozen=True)
class Record:
    """Record topics of a running ROS 2 system until Ctrl-C."""

    log: LogPath
    """Directory to write; must not hold a recording yet."""
    topics: tuple[str, ...] = ()
    """Topics to record; none named: all that are not hidden."""
    regex: str = ""
    """Record every topic whose whole name matches."""
    exclude: str = ""
    """Leave out every topic whose whole name matches."""
    duration: float | None = None
    """Stop after so many seconds."""
    flush: float = 0.5
    """Hand what was received to the operating system at the latest after so many seconds."""
    fsync: float | None = None
    """Also force it to the disk, this often (seconds)."""
    linger: float = 0.0
    """Once asked to stop, go on for so many seconds at most while messages still come."""


@dataclass(frozen=True)
class Play:
    """Publish a log's messages again on ROS 2, at their recorded pace.

    Commands, goals, e-stop and heartbeats of known robots go to /replay/... unless --allow-commands is given, and
    never reach a live robot.
    """

    log: LogPath
    """Directory of a recording, or an .mcap file."""
    rate: float = 1.0
    """Recorded seconds per second."""
    start: float = 0.0
    """Begin so many seconds after the log's start."""
    duration: float | None = None
    """Stop after so many recorded seconds."""
    regex: str = ""
    """Play only topics whose whole name matches."""
    allow_commands: bool = False
    """Publish commands on their own topics."""
    clock: float = 0.0
    """Publish /clock at this rate, Hz; 0: not at all."""
    paused: bool = False
    """Wait for the service ~/resume."""
    delay: float = 1.0
    """Seconds between making the publishers and the first message."""


@dataclass(frozen=True)
class Recover:
    """Rescue a log that was cut off or damaged: copies what is whole into a new directory, and verifies the copy."""

    log: LogPath
    """Directory of a recording, or an .mcap file; it is only read."""
    out: Path | None = None
    """New directory; default: beside the log, with -recovered."""


@dataclass(frozen=True)
class Export:
    """Write a log as tables in SI units: one CSV file per topic, or one .npz."""

    log: LogPath
    """Directory of a recording, or an .mcap file."""
    out: Path | None = None
    """New directory (csv) or file (npz); default: beside the log."""
    format: Literal["csv", "npz"] = "csv"
    """csv or npz."""
    topics: tuple[str, ...] = ()
    """Topics to export; none named: all that can be decoded."""
    time_base: TimeBase = "header"
    """Instants: stamped by the sender (header), received (log) or sent (publish)."""


@dataclass(frozen=True)
class Args:
    """What to do with a recording."""

    action: (
        Annotated[Info, tyro.conf.subcommand("info")]
        | Annotated[Record, tyro.conf.subcommand("record")]
        | Annotated[Play, tyro.conf.subcommand("play")]
        | Annotated[Recover, tyro.conf.subcommand("recover")]
        | Annotated[Export, tyro.conf.subcommand("export")]
    )


def run(args: Args) -> Outcome:
    """Runs the chosen action."""
    action = args.action
    if isinstance(action, Info):
        return _info(action)
    if isinstance(action, Record):
        return _record(action)
    if isinstance(action, Play):
        return _play(action)
    return _recover(action) if isinstance(action, Recover) else _export(action)


def _info(action: Info) -> Outcome:
    log = _open(action.log)
    rows = figures(log)
    print(f"{action.log}: {log.count} messages in {log.duration_s:.3f} s, {_size(sum(_sizes(log)))} on disk")
    print(f"start {_utc(log.start_ns)}, content {log.content_hash}")
    _print_table(rows)
    result = _summary(log) | {
        "channels": {r.name: {k: v for k, v in asdict(r).items() if k != "name"} for r in rows},
        "start_ns": log.start_ns,
        "end_ns": log.end_ns,
        "content_hash": log.content_hash,
        "files": [str(f) for f in log.files],
        "fields": {t.name: {leaf.path: leaf.unit for leaf in t.leaves().values()} for t in log.topics.values()},
    }
    return Outcome(result)


def _record(action: Record) -> Outcome:
    if action.duration is not None and not action.duration > 0.0:
        raise BadInput(f"--duration {action.duration:g}: expected seconds above 0")
    from controllers.nodes.record_node import Recording, record

    recording = Recording(
        action.log,
        action.topics,
        action.regex,
        action.exclude,
        action.flush,
        action.fsync,
        action.duration,
        action.linger,
    )
    done = record(recording, say=_say)
    for topic, count in done.counts.items():
        lost = f", {done.lost[topic]} lost by the middleware" if done.lost.get(topic) else ""
        print(f"  {topic}: {count}{lost}")
    log = _open(action.log)
    print(f"{action.log}: {log.count} messages in {log.duration_s:.3f} s")
    return Outcome(_summary(log) | {"channels": done.counts, "lost": done.lost, "log": str(action.log)})


def _play(action: Play) -> Outcome:
    from controllers.nodes.play_node import Playing, play

    playing = Playing(
        log=action.log,
        rate=action.rate,
        start_s=action.start,
        duration_s=action.duration,
        regex=action.regex,
        allow_commands=action.allow_commands,
        clock_hz=action.clock,
        paused=action.paused,
        delay_s=action.delay,
    )
    done = play(playing, say=_say)
    late = done.lateness_ms
    print(f"played {sum(done.counts.values())} messages in {done.duration_s:.2f} s")
    print(f"lateness p50 {late['p50']:.2f} ms, p99 {late['p99']:.2f} ms, max {late['max']:.2f} ms")
    result = {
        "messages": sum(done.counts.values()),
        "duration_s": done.duration_s,
        "channels": done.counts,
        "skipped": done.skipped,
        "lateness_ms": late,
    }
    return Outcome(result)


def _recover(action: Recover) -> Outcome:
    done = recover(action.log, action.out)
    log = _open(done.output)
    for line in done.stopped:
        print(line)
    print(f"rescued {done.messages} messages, {log.duration_s:.3f} s, into {done.output} (read back and compared)")
    if not done.stopped:
        print("nothing was missing: the original reads to its end")
    result = _summary(log) | {
        "channels": done.counts,
        "output": str(done.output),
        "stopped": list(done.stopped),
        "lost_bytes": done.lost_bytes,
    }
    return Outcome(result)


def _export(action: Export) -> Outcome:
    log = _open(action.log, action.time_base)
    topics = action.topics or None
    default = action.log.with_name(action.log.stem + ("-csv" if action.format == "csv" else ".npz"))
    out = action.out or default
    if action.format == "csv":
        written = {str(path): rows for path, rows in export_csv(log, out, topics).items()}
        for path, rows in written.items():
            print(f"{path}: {rows} rows")
    else:
        written = export_npz(log, out, topics)
        print(f"{out}: {sum(written.values())} rows of {len(written)} topics")
    return Outcome(_summary(log) | {"channels": written, "output": str(out)})


def _open(path: Path, time_base: TimeBase = "header") -> Log:
    """Opens a log; what it has to skip is said on stderr, a line each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LogWarning)
        log = Log(path, time_base)
    for w in caught:
        print(f"robo-rl: log: {w.message}", file=sys.stderr)
    return log


def _summary(log: Log) -> dict[str, Any]:
    return {"messages": log.count, "duration_s": log.duration_s}


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


def _sizes(log: Log) -> list[int]:
    return [f.stat().st_size for f in log.files]


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _utc(t_ns: int) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(t_ns / 1e9, datetime.UTC).isoformat(timespec="milliseconds")


def _say(line: str) -> None:
    print(line, flush=True)
