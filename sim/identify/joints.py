"""Joints of a recording, each as a servo of its own; see sim.identify.servo for the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.log.reader import Log
from sim.identify.run import Identified, identify
from sim.identify.servo import ServoRollout
from sim.identify.windows import split
from sim.replay import Track

Array = NDArray[np.float64]

HELD_OUT = 0.4
"""Share of the recording, at its end, that the fit does not see."""


@dataclass(frozen=True)
class Joint:
    """One joint's fit, and how far a single run over the held-out part goes astray."""

    found: Identified
    free_run: dict[str, float]
    """Model -> root mean square error (rad) of one run from its start, without correction."""
    held_out_s: float
    t_s: Array
    """(T,) instants of the held-out part, from its start."""
    paths: dict[str, Array]
    """logged, commanded, fitted, nominal -> (T,) rad."""


def joint_tracks(path: Path, measured: str, commanded: str) -> tuple[float, dict[str, Track]]:
    """Rate (Hz) and joint name -> its measured and commanded angle on a uniform grid; raises BadInput."""
    log = Log(path)
    found = {}
    for topic in (measured, commanded):
        if topic not in log.topics:
            raise BadInput(f"{path}: no topic {topic}; topics: {', '.join(log.topics)}")
        rows = [(m.t_ns, list(m.message.name), np.asarray(m.message.position)) for m in log.messages([topic])]
        rows = [r for r in rows if len(r[2])]
        if len(rows) < 2:
            raise BadInput(f"{path}: {topic} holds {len(rows)} messages with positions; expected a recording")
        found[topic] = rows
    names = [n for n in found[measured][0][1] if n in found[commanded][0][1]]
    if not names:
        raise BadInput(f"{path}: {measured} and {commanded} name no joint in common")
    times = {t: np.array([r[0] for r in rows], dtype=np.int64) for t, rows in found.items()}
    start = max(t[0] for t in times.values())
    end = min(t[-1] for t in times.values())
    dt_ns = round(float(np.median(np.diff(times[measured]))))
    if dt_ns <= 0 or end - start < 10 * dt_ns:
        raise BadInput(f"{path}: {measured} and {commanded} do not overlap in time")
    grid = np.arange(0, end - start, dt_ns)
    tracks = {}
    for name in names:
        values = []
        for topic, rows in found.items():
            column = rows[0][1].index(name)
            angles = np.array([r[2][column] for r in rows], dtype=np.float64)
            if not np.isfinite(angles).all():
                raise BadInput(f"{path}: {topic} holds angles of {name} that are not finite")
            values.append(np.interp(grid, times[topic] - start, angles)[:, None])
        tracks[name] = Track(dt_ns / 1e9, {"position": values[0]}, values[1], int(start))
    return 1e9 / dt_ns, tracks


def identify_joint(
    track: Track, rate_hz: float, *, known: Mapping[str, float], seed: int = 0, search: str = "auto"
) -> Joint:
    """Fits the first 60 % in windows, and runs the rest at one go."""
    rollout = ServoRollout(rate_hz)
    found = identify(rollout, split(rollout, [track], tail=HELD_OUT), known=known, seed=seed, search=search)
    problem = found.problem
    begin = round((1.0 - HELD_OUT) * len(track.commands))
    logged, wanted = track.signals["position"][begin:, 0], track.commands[begin:, 0]
    paths = {"logged": logged, "ideal servo (the command itself)": wanted}
    speed = float(np.gradient(track.signals["position"][:, 0], track.dt_s)[begin])
    for name, unit in (("nominal servo", problem.start_unit), ("fitted servo", torch.tensor(found.solution.unit))):
        values = problem.params(unit[None]).T
        commands = torch.tensor(track.commands[None, begin - rollout.history : -1])
        start = {"position": torch.tensor([[logged[0]]])}
        guess = (commands[:, rollout.history, 0] - commands[:, rollout.history - 1, 0]) * rollout.rate_hz
        hidden = speed - guess[:, None]
        with torch.no_grad():
            paths[name] = rollout(values, start, hidden, commands, {})["position"][0, :, 0].numpy()
    free_run = {n: float(np.sqrt(np.mean((p - logged) ** 2))) for n, p in paths.items() if n != "logged"}
    return Joint(
        found, free_run, len(logged) * track.dt_s, track.dt_s * np.arange(len(logged), dtype=np.float64), paths
    )
