"""Recordings: record, inspect, play, recover, import, export, open.

A log is a directory with MCAP files and metadata.yaml, as `ros2 bag` writes and plays it; a lone .mcap file is read
too. `record` and `play` need ROS 2; the rest does not.
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from robo_rl.cli import Outcome
from robo_rl.recordings import exporting, importing, inspecting, playing, recording, recovering, viewing


@dataclass(frozen=True)
class Args:
    """What to do with a recording."""

    action: (
        Annotated[inspecting.Info, tyro.conf.subcommand("info")]
        | Annotated[recording.Record, tyro.conf.subcommand("record")]
        | Annotated[playing.Play, tyro.conf.subcommand("play")]
        | Annotated[recovering.Recover, tyro.conf.subcommand("recover")]
        | Annotated[importing.Import, tyro.conf.subcommand("import")]
        | Annotated[exporting.Export, tyro.conf.subcommand("export")]
        | Annotated[viewing.Open, tyro.conf.subcommand("open")]
    )


def run(args: Args) -> Outcome:
    """Runs the chosen action."""
    match args.action:
        case inspecting.Info() as action:
            return inspecting.run(action)
        case recording.Record() as action:
            return recording.run(action)
        case playing.Play() as action:
            return playing.run(action)
        case recovering.Recover() as action:
            return recovering.run(action)
        case importing.Import() as action:
            return importing.run(action)
        case exporting.Export() as action:
            return exporting.run(action)
        case viewing.Open() as action:
            return viewing.run(action)
