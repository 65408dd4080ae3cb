"""`robo-rl log record`: topics of a running ROS 2 system into a log."""

from dataclasses import dataclass

from hardware.errors import BadInput
from robo_rl.cli import Outcome
from robo_rl.recordings.opening import LogPath, open_log, say, summary


@dataclass(frozen=True)
class Record:
    """Record topics of a running ROS 2 system until Ctrl-C.

    Services ~/start_episode, ~/end_episode, ~/abort_episode and ~/mark of the node log_recorder set marks.
    """

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
    max_size: float | None = None
    """Begin another file of the same recording after so many MB."""
    linger: float = 0.0
    """Once asked to stop, go on for so many seconds at most while messages still come."""


def run(action: Record) -> Outcome:
    """Records, then says what was recorded and what the middleware lost."""
    if action.max_size is not None and not action.max_size >= 0.001:
        raise BadInput(f"--max-size {action.max_size:g}: expected MB, at least 0.001")
    if action.duration is not None and not action.duration > 0.0:
        raise BadInput(f"--duration {action.duration:g}: expected seconds above 0")
    from controllers.nodes.record_node import Recording, record

    recording = Recording(
        out=action.log,
        topics=action.topics,
        regex=action.regex,
        exclude=action.exclude,
        flush_s=action.flush,
        fsync_s=action.fsync,
        max_bytes=None if action.max_size is None else round(action.max_size * 1e6),
        duration_s=action.duration,
        linger_s=action.linger,
    )
    done = record(recording, say=say)
    for topic, count in done.counts.items():
        lost = f", {done.lost[topic]} lost by the middleware" if done.lost.get(topic) else ""
        print(f"  {topic}: {count}{lost}")
    log = open_log(action.log)
    marked = f", {done.marks} marks" if done.marks else ""
    print(f"{action.log}: {log.count} messages in {log.duration_s:.3f} s{marked}")
    result = {"channels": done.counts, "lost": done.lost, "marks": done.marks, "log": str(action.log)}
    return Outcome(summary(log) | result)
