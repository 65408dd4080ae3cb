"""`robo-rl log recover`: what is whole in a log that was cut off."""

from dataclasses import dataclass
from pathlib import Path

from hardware.annotation.recorded import keep_recorded
from hardware.log.recover import recover
from robo_rl.cli import Outcome
from robo_rl.recordings.opening import LogPath, open_log, summary


@dataclass(frozen=True)
class Recover:
    """Rescue a log that was cut off or damaged: copies what is whole into a new directory, and verifies the copy."""

    log: LogPath
    """Directory of a recording, or an .mcap file; it is only read."""
    out: Path | None = None
    """New directory; default: beside the log, with -recovered."""


def run(action: Recover) -> Outcome:
    """Rescues, then says what is missing."""
    done = recover(action.log, action.out)
    log = open_log(done.output)
    marks = keep_recorded(log)
    for line in done.stopped:
        print(line)
    print(f"rescued {done.messages} messages, {log.duration_s:.3f} s, into {done.output} (read back and compared)")
    if not done.stopped:
        print("nothing was missing: the original reads to its end")
    if marks:
        print(f"{len(marks)} marks that were set while recording are annotations of {done.output}")
    result = summary(log) | {
        "channels": done.counts,
        "marks": len(marks),
        "output": str(done.output),
        "stopped": list(done.stopped),
        "lost_bytes": done.lost_bytes,
    }
    return Outcome(result)
