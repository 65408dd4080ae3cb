"""`robo-rl log export`: a log for other programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hardware.log.export import export_csv, export_npz
from hardware.log.reader import TimeBase
from robo_rl.cli import Outcome
from robo_rl.commands.log.opening import LogPath, open_log, summary


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


def run(action: Export) -> Outcome:
    """Exports, then says what was written."""
    log = open_log(action.log, action.time_base)
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
    return Outcome(summary(log) | {"channels": written, "output": str(out)})
