"""Cuts logs into windows of equal length, some of them held out, and says what is wrong with the data."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hardware.errors import BadInput
from sim.identify.rollout import Rollout, Windows
from sim.replay import Track

HELD_OUT_EVERY = 4
"""Without annotated windows, every fourth one is held out."""
MAX_WINDOWS = 60
"""More are thinned out evenly: intervals shrink slowly, time grows."""


@dataclass(frozen=True)
class Marked:
    """A stretch that a person marked for identification, in seconds on its track's grid."""

    log: int
    begin_s: float
    end_s: float
    held_out: bool


@dataclass(frozen=True)
class Split:
    """Windows to fit to and windows to judge by."""

    train: Windows
    held_out: Windows
    rule: str
    """How they were chosen."""


def split(
    rollout: Rollout,
    tracks: Sequence[Track],
    marks: Sequence[Marked] = (),
    excluded: Sequence[Marked] = (),
    *,
    tail: float = 0.0,
) -> Split:
    """Windows of all tracks; raises BadInput where too few fit.

    Held out is what is marked so; else the last share `tail` of each log; else every fourth window.
    """
    steps = max(2, round(rollout.window_s * rollout.rate_hz))
    found: list[tuple[int, int, bool]] = []
    for i, track in enumerate(tracks):
        starts = np.arange(rollout.history, len(track.commands) - steps, steps)
        for n, begin in enumerate(starts):
            begin_s, end_s = begin * track.dt_s, (begin + steps) * track.dt_s
            if any(m.log == i and m.begin_s < end_s and begin_s < m.end_s for m in excluded):
                continue
            if not marks:
                late = int(begin) + steps > (1.0 - tail) * len(track.commands)
                found.append((i, int(begin), late if tail else n % HELD_OUT_EVERY == HELD_OUT_EVERY - 1))
                continue
            within = [m for m in marks if m.log == i and m.begin_s <= begin_s and end_s <= m.end_s]
            if within:
                found.append((i, int(begin), within[0].held_out))
    train, held_out = (_thinned([f for f in found if f[2] == kind]) for kind in (False, True))
    if marks and not held_out:  # nobody marked windows to judge by
        train, held_out = [f for n, f in enumerate(train) if n % 4 != 3], train[3::4]
    if len(train) < 4 or not held_out:
        raise BadInput(
            f"{len(train)} windows of {rollout.window_s:g} s to fit to and {len(held_out)} to judge by; expected at "
            "least 4 and 1: record longer, or mark longer sysid windows"
        )
    by_order = f"the last {tail:.0%} held out" if tail else f"every {HELD_OUT_EVERY}th window held out"
    rule = "annotated sysid windows" if marks else by_order
    return Split(_cut(rollout, tracks, train, steps), _cut(rollout, tracks, held_out, steps), rule)


def _thinned(found: list[tuple[int, int, bool]]) -> list[tuple[int, int, bool]]:
    keep = np.unique(np.linspace(0, len(found) - 1, min(len(found), MAX_WINDOWS)).round().astype(int))
    return [found[i] for i in keep] if found else []


def _cut(rollout: Rollout, tracks: Sequence[Track], found: list[tuple[int, int, bool]], steps: int) -> Windows:
    names = [*rollout.signals, *rollout.inputs]
    for track in tracks:
        missing = [n for n in names if n not in track.signals]
        if missing:
            raise BadInput(f"the log lacks {', '.join(missing)}; it holds {', '.join(track.signals)}")
    signals = {n: torch.tensor(np.stack([tracks[i].signals[n][b : b + steps + 1] for i, b, _ in found])) for n in names}
    past = rollout.history
    commands = torch.tensor(np.stack([tracks[i].commands[b - past : b + steps] for i, b, _ in found]))
    log = np.array([i for i, _, _ in found], dtype=np.int64)
    return Windows(signals, commands, log, np.array([b * tracks[i].dt_s for i, b, _ in found]))


@dataclass(frozen=True)
class Quality:
    """What the data look like before anything is fitted."""

    rate_hz: float
    """Median rate of the states."""
    gaps: int
    """Intervals between states longer than five periods of the grid."""
    longest_gap_s: float
    duration_s: float
    excitation: dict[str, float]
    """Command component -> its standard deviation over the width of its range."""
    refusals: list[str]
    """Why nothing can be learned from it; empty where it can."""


def check(
    rollout: Rollout, track: Track, t_state_ns: NDArray[np.int64], components: Sequence[tuple[str, float, float]]
) -> Quality:
    """Judges one log: its state instants and its track; `components` are (name, low, high) of the commands."""
    period = np.median(np.diff(t_state_ns)) / 1e9 if len(t_state_ns) > 1 else np.inf
    grid_s = 1.0 / rollout.rate_hz
    between = np.diff(t_state_ns) / 1e9
    gaps = int((between > 5.0 * grid_s).sum())
    longest = float(between.max()) if len(between) else float("inf")
    duration = len(track.commands) * track.dt_s
    excitation = {
        name: float(track.commands[:, j].std() / (high - low) if high > low else 0.0)
        for j, (name, low, high) in enumerate(components)
    }
    refusals = []
    if period > 2.0 * grid_s:
        refusals.append(f"states come every {period:.4g} s; expected at least every {2 * grid_s:.4g} s")
    if between[between > 5.0 * grid_s].sum() > 0.1 * duration:
        refusals.append(f"{gaps} gaps of up to {longest:.3g} s in {duration:.4g} s")
    if duration < 5.0 * rollout.window_s:
        refusals.append(f"{duration:.3g} s of commands; expected at least {5.0 * rollout.window_s:.3g} s")
    if excitation and max(excitation.values()) < MIN_EXCITATION:
        refusals.append(
            f"the commands hardly move ({max(excitation.values()):.2%} of their range at most; expected "
            f"{MIN_EXCITATION:.0%}): nothing shows"
        )
    frozen = [n for n in rollout.signals if np.ptp(track.signals[n], axis=0).max() == 0.0] if not refusals else []
    if frozen:
        refusals.append(f"{', '.join(frozen)} never changes")
    if any(not np.isfinite(track.signals[n]).all() for n in rollout.signals if n in track.signals):
        refusals.append("signals hold NaN")
    return Quality(1.0 / period, gaps, longest, duration, excitation, refusals)


MIN_EXCITATION = 0.01
"""Smallest useful movement of the liveliest command, as a share of its range."""
