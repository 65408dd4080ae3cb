"""Logs as identification sees them: a track on the rollout's grid, its quality, its marked stretches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hardware.annotation import annotations
from hardware.errors import BadInput
from hardware.log.reader import Log
from hardware.replay import recorded_commands, recorded_states
from hardware.spec import RobotSpec
from sim.identify.rollout import Rollout
from sim.identify.windows import Marked, Quality, check
from sim.replay import Track, resample


@dataclass(frozen=True)
class Recording:
    """One log, ready to be cut into windows."""

    path: Path
    digest: str
    track: Track
    quality: Quality


def streamed_mode(log: Log, spec: RobotSpec, namespace: str | None = None) -> str:
    """The command mode that was streamed most; raises BadInput where no command was recorded."""
    modes = [c.value.mode for c in recorded_commands(log, spec, namespace)]
    if not modes:
        raise BadInput(f"{log.path}: no commands were recorded")
    return max(dict.fromkeys(modes), key=modes.count)


def read_recording(path: Path, spec: RobotSpec, rollout: Rollout, mode: str, namespace: str | None = None) -> Recording:
    """Raises BadInput for a log that holds no such commands."""
    log = Log(path)
    states = list(recorded_states(log, spec, namespace))
    commands = list(recorded_commands(log, spec, namespace))
    track = resample(states, commands, mode, spec.mode(mode).rate_hz, rollout.rate_hz)
    begin, end = track.start_ns, track.start_ns + round(len(track.commands) * track.dt_s * 1e9)
    stamps = np.unique([s.value.t_ns for s in states])
    inside: NDArray[np.int64] = stamps[(stamps >= begin) & (stamps <= end)]
    wanted = spec.mode(mode)
    bounds = zip(wanted.components, wanted.limits.position, strict=True)
    components = [(name, low, high) for name, (low, high) in bounds]
    return Recording(path, log.content_hash, track, check(rollout, track, inside, components))


def marked(recordings: Sequence[Recording]) -> tuple[list[Marked], list[Marked]]:
    """Stretches marked for identification, and stretches that nobody may use, of all logs."""
    windows, excluded = [], []
    for i, r in enumerate(recordings):
        for m in annotations(r.path):
            begin_s, end_s = (m.t0_ns - r.track.start_ns) / 1e9, (m.t1_ns - r.track.start_ns) / 1e9
            if m.kind == "exclude":
                excluded.append(Marked(i, begin_s, end_s, held_out=False))
            elif m.kind == "sysid":
                windows.append(Marked(i, begin_s, end_s, held_out=m.value.get("split") == "val"))
    return windows, excluded
