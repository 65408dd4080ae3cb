"""What every action on a recording needs: its argument, opening it, saying what it holds."""

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import tyro

from hardware.log.reader import Log, LogWarning, TimeBase

LogPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="LOG")]


def open_log(path: Path, time_base: TimeBase = "header") -> Log:
    """Opens a log; what it has to skip is said on stderr, a line each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LogWarning)
        log = Log(path, time_base)
    for w in caught:
        print(f"robo-rl: log: {w.message}", file=sys.stderr)
    return log


def summary(log: Log) -> dict[str, Any]:
    """What `--json` of every action holds."""
    return {"messages": log.count, "duration_s": log.duration_s}


def say(line: str) -> None:
    """A line of a running action, at once."""
    print(line, flush=True)
