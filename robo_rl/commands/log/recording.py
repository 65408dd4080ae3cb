"""`robo-rl log record`: topics of a running ROS 2 system into a log."""

from dataclasses import dataclass

from hardware.errors import BadInput
from robo_rl.cli import Outcome
from robo_rl.commands.log.opening import LogPath, open_log, say, summary


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


def run(action: Record) -> Outcome:
    """Records, then says what was recorded and what the middleware lost."""
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
    done = record(recording, say=say)
    for topic, count in done.counts.items():
        lost = f", {done.lost[topic]} lost by the middleware" if done.lost.get(topic) else ""
        print(f"  {topic}: {count}{lost}")
    log = open_log(action.log)
    print(f"{action.log}: {log.count} messages in {log.duration_s:.3f} s")
    return Outcome(summary(log) | {"channels": done.counts, "lost": done.lost, "log": str(action.log)})
