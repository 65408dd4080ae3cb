"""`robo-rl log import`: recordings of other programs as logs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hardware.errors import BadInput
from hardware.log.imports import Options, import_log, known_importers
from robo_rl.cli import Outcome
from robo_rl.recordings.opening import open_log, summary


@dataclass(frozen=True)
class Import:
    """Write another program's recording as a log, with its units, source hash and every conversion.

    The format is found by the file's content.
    """

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """The recording; for rosbag2 a directory or one of its files."""
    format: str = ""
    """Name of the format, where the content does not tell."""
    out: Path | None = None
    """New directory; default: beside the file, with -imported."""
    rate: float | None = None
    """Samples per second, for tables without a time."""
    time: str = ""
    """The column or array that holds the time, where its name does not tell."""
    dates: Literal["auto", "day-first", "month-first"] = "auto"
    """How to read 03/04/2021 where the table leaves it open."""


def run(action: Import) -> Outcome:
    """Imports, then says what was found and what was converted."""
    if action.rate is not None and not 0.0 < action.rate < 1e9:
        raise BadInput(f"--rate {action.rate:g}: expected samples per second above 0")
    options = Options(action.rate, action.time, None if action.dates == "auto" else action.dates == "day-first")
    done = import_log(action.file, action.out, action.format, options)
    log = open_log(done.output)
    print(f"{action.file}: {known_importers()[done.format].ABOUT}")
    for line in done.conversions:
        print(f"  {line}")
    for topic, count in done.counts.items():
        print(f"  {topic}: {count}")
    print(f"{done.output}: {log.count} messages in {log.duration_s:.3f} s")
    result = summary(log) | {
        "channels": done.counts,
        "format": done.format,
        "conversions": done.conversions,
        "log": str(done.output),
    }
    return Outcome(result)
