"""`robo-rl log export`: a log for other programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hardware.errors import BadInput
from hardware.log.exporters.copies import export_copy
from hardware.log.exporters.tables import export_csv, export_npz
from hardware.log.pictures import camera_topics
from hardware.log.reader import Log, TimeBase
from hardware.log.steps import demonstrations
from robo_rl.cli import Outcome
from robo_rl.recordings.opening import LogPath, open_log, summary

Format = Literal["csv", "npz", "lerobot", "robomimic", "minari", "mcap"]
_ENDINGS: dict[Format, str] = {
    "csv": "-csv",
    "npz": ".npz",
    "lerobot": "-lerobot",
    "robomimic": ".hdf5",
    "minari": "-v0",
    "mcap": "-copy",
}


@dataclass(frozen=True)
class Export:
    """Write a log for other programs.

    csv, npz: tables of every topic in SI units. lerobot, robomimic, minari: the annotated episodes (the whole log
    where none is annotated) as rows of observation and action, by the time of reception. mcap: a copy of the recording,
    with its annotations inside or for an older ROS 2.
    """

    log: LogPath
    """Directory of a recording, or an .mcap file."""
    out: Path | None = None
    """New directory or file (npz, robomimic); default: beside the log."""
    format: Format = "csv"
    """What to write."""
    embed: bool = False
    """Write a copy (mcap) with the annotations as attachment and topic."""
    ros: Literal["kilted", "humble"] = "kilted"
    """Write a copy (mcap) that this distribution's `ros2 bag` reads."""
    topics: tuple[str, ...] = ()
    """Topics to export as tables; none named: all that can be decoded."""
    time_base: TimeBase = "header"
    """Instants in tables: stamped by the sender (header), received (log) or sent (publish)."""
    observation: tuple[str, ...] = ()
    """What was observed, TOPIC or TOPIC.COLUMN; none named: a policy's ticks, or all that is no command."""
    action: tuple[str, ...] = ()
    """What was done, TOPIC or TOPIC.COLUMN; none named: a policy's ticks, or all commands."""
    cameras: tuple[str, ...] | None = None
    """Picture topics to export (lerobot, robomimic); default: all there are."""
    rate: float | None = None
    """Rows per second; default: as the actions come."""


def run(action: Export) -> Outcome:
    """Exports, then says what was written."""
    format: Format = "mcap" if action.embed or action.ros != "kilted" else action.format
    if action.rate is not None and not 0.0 < action.rate < 1e6:
        raise BadInput(f"--rate {action.rate:g}: expected rows per second above 0")
    tables = format in ("csv", "npz")
    log = open_log(action.log, action.time_base if tables else "log")
    out = action.out or action.log.with_name(action.log.stem + _ENDINGS[format])
    if tables:
        written = _tables(log, out, action)
    elif format == "mcap":
        version = 5 if action.ros == "humble" else 9
        written = {"marks": export_copy(log, out, embed=action.embed, version=version)}
        print(f"{out}: {log.count} messages, {written['marks']} marks")
    else:
        written = _episodes(log, out, format, action)
    return Outcome(summary(log) | {"channels": written, "format": format, "output": str(out)})


def _tables(log: Log, out: Path, action: Export) -> dict[str, int]:
    topics = action.topics or None
    if action.format == "csv":
        written = {str(path): rows for path, rows in export_csv(log, out, topics).items()}
        for path, rows in written.items():
            print(f"{path}: {rows} rows")
        return written
    written = export_npz(log, out, topics)
    print(f"{out}: {sum(written.values())} rows of {len(written)} topics")
    return written


def _episodes(log: Log, out: Path, format: Format, action: Export) -> dict[str, int]:
    cameras = camera_topics(log) if action.cameras is None else list(action.cameras)
    cameras = [] if format == "minari" else cameras
    found = demonstrations(log, action.observation, action.action, action.rate, cameras)
    if format == "lerobot":
        from hardware.log.exporters.lerobot import export_lerobot

        written = export_lerobot(found, out)
    elif format == "robomimic":
        from hardware.log.exporters.robomimic import export_robomimic

        written = export_robomimic(found, out)
    else:
        from hardware.log.exporters.minari import export_minari

        written = export_minari(found, out)
    for note in found.notes:
        print(note)
    sizes = f"{len(found.observation)} observed and {len(found.action)} commanded values at {found.rate_hz:g} Hz"
    print(f"{out}: {len(written)} episodes, {sum(written.values())} rows of {sizes}")
    return written
