"""`robo-rl log open`: a recording in a viewer."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hardware.errors import RoboError
from robo_rl.cli import Outcome
from robo_rl.recordings.opening import LogPath, open_log, summary

_VIEWERS = {
    "rerun": ("rerun", (), "pip install rerun-sdk"),
    "foxglove": ("foxglove-studio", (), "foxglove.dev/download"),
    "plotjuggler": ("plotjuggler", ("-d",), "github.com/facontidavide/PlotJuggler"),
}
"""Viewer -> program, options before the file, where to get it."""


@dataclass(frozen=True)
class Open:
    """Show a recording in another program, where that is installed; else print the command."""

    log: LogPath
    """Directory of a recording, or an .mcap file."""
    viewer: Annotated[Literal["rerun", "foxglove", "plotjuggler"], tyro.conf.arg(name="in")] = "rerun"
    """The program."""
    dry_run: bool = False
    """Only print the command."""


def run(action: Open) -> Outcome:
    """Runs the viewer and waits for it, or prints how to."""
    log = open_log(action.log)
    command = command_of(action.viewer, log.files)
    program, _, where = _VIEWERS[action.viewer]
    installed = shutil.which(program) is not None
    print(" ".join(command))
    if not installed:
        print(f"{program} is not installed here: {where}")
    elif not action.dry_run:
        status = subprocess.run(command, check=False).returncode
        if status:
            raise RoboError(f"{program} ended with status {status}")
    return Outcome(summary(log) | {"command": command, "installed": installed})


def command_of(viewer: str, files: list[Path]) -> list[str]:
    """The command line that shows MCAP files."""
    program, options, _ = _VIEWERS[viewer]
    return [program, *options, *(str(f) for f in files)]
