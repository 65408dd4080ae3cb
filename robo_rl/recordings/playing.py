"""`robo-rl log play`: a log's messages on ROS 2 again."""

from dataclasses import dataclass

from hardware.errors import BadInput
from robo_rl.cli import Outcome
from robo_rl.recordings.opening import LogPath, say


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
    topics: tuple[str, ...] = ()
    """Play only these topics."""
    regex: str = ""
    """Play only topics whose whole name matches."""
    exclude: str = ""
    """Play no topic whose whole name matches."""
    remap: tuple[str, ...] = ()
    """Publish elsewhere: /recorded:=/published, any number of them."""
    loop: bool = False
    """Begin again at the start when the end is reached, until Ctrl-C."""
    allow_commands: bool = False
    """Publish commands on their own topics."""
    clock: float = 0.0
    """Publish /clock at this rate, Hz; 0: not at all."""
    paused: bool = False
    """Wait for the service ~/resume."""
    delay: float = 1.0
    """Seconds between making the publishers and the first message."""


def run(action: Play) -> Outcome:
    """Plays, then says how late messages were."""
    from controllers.nodes.play_node import Playing, play

    playing = Playing(
        log=action.log,
        rate=action.rate,
        start_s=action.start,
        duration_s=action.duration,
        topics=action.topics,
        regex=action.regex,
        exclude=action.exclude,
        remap=_remappings(action.remap),
        loop=action.loop,
        allow_commands=action.allow_commands,
        clock_hz=action.clock,
        paused=action.paused,
        delay_s=action.delay,
    )
    done = play(playing, say=say)
    late = done.lateness_ms
    print(f"played {sum(done.counts.values())} messages in {done.duration_s:.2f} s")
    print(f"lateness p50 {late['p50']:.2f} ms, p99 {late['p99']:.2f} ms, max {late['max']:.2f} ms")
    for how_late, count in done.histogram.items():
        if count:
            print(f"  {how_late:>13}: {count:7d}  {'#' * round(40 * count / max(done.histogram.values()))}")
    result = {
        "messages": sum(done.counts.values()),
        "duration_s": done.duration_s,
        "channels": done.counts,
        "skipped": done.skipped,
        "lateness_ms": late,
        "lateness_histogram": done.histogram,
    }
    return Outcome(result)


def _remappings(pairs: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        recorded, separator, published = pair.partition(":=")
        if not separator or not recorded or not published.startswith("/"):
            raise BadInput(f"--remap {pair}: expected /recorded:=/published")
        found[recorded] = published
    return found
