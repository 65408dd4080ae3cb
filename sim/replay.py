"""A recorded flight through the simulator: how far and how fast the two part.

The simulator is put into a logged state, is fed the logged commands, and is compared with the log after k steps; many
such windows run as one batch. The delay between commands and answers is measured first, by cross-correlation, because
it would otherwise pass for an error of the dynamics.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hardware.errors import BadInput
from hardware.replay import Recorded
from hardware.robot import Command, RobotState

Array = NDArray[np.float64]

STEPS = (1, 10, 50, 200)
"""Horizons, in control steps."""
MAX_WINDOWS = 512
FRESH_PERIODS = 10
"""A command that is older than so many periods of its mode is no longer in force."""
DELAY_STEPS = 5
"""Horizon of the prediction whose lag behind the log is measured."""
MAX_LAG = 15
DIVERGED_M = 0.25
"""Position error at which a free run counts as diverged; without positions, an error of the first signal's spread."""
WORST = 10
"""Windows that are named as the worst."""


class OpenLoop(Protocol):
    """N worlds of a scene that can be put into measured states and driven by commands."""

    inputs: tuple[str, ...]
    """Logged signals that drive a world beside the commands: the weather."""

    def place(self, signals: Mapping[str, Tensor], commands: Tensor) -> None:
        """Puts world i into the state that signals[name][i] show, after commands (N, H, J), newest first."""
        ...

    def advance(self, command: Tensor, given: Mapping[str, Tensor]) -> None:
        """One control period under commands (N, J), SI, and the mean (N, k) of each of `inputs` over it."""
        ...

    def signals(self) -> Mapping[str, Tensor]:
        """True signals, name -> (N, k)."""
        ...


class Track(NamedTuple):
    """A stretch of a log on a uniform grid."""

    dt_s: float
    signals: dict[str, Array]
    """Name -> (T, k)."""
    commands: Array
    """(T, J) in force from each instant to the next."""
    start_ns: int = 0
    """Instant of the first row."""


@dataclass(frozen=True)
class Divergence:
    """How the simulator and the log part."""

    windows: int
    rmse: dict[str, dict[int, float]]
    """Signal -> horizon -> root mean square of the error's length (angle for attitudes)."""
    relative: dict[str, dict[int, float]]
    """The same over the signal's own spread in the log."""
    free_run: dict[str, float]
    """Signal -> root mean square error of one run from start to end."""
    diverged_s: float | None
    """Time into the free run at which the position error exceeded 0.25 m; None where it never did."""
    diverged_at: str
    """What counts as diverged."""
    worst: list[tuple[float, float]]
    """The worst windows, apart from one another: (seconds into the track, error over the signals' spread)."""
    delay_s: float | None
    """How much later than the simulator the log answers to commands; None where nothing moves enough to tell."""
    aligned_steps: int
    """Control periods by which the commands were shifted for that."""


def resample(
    states: Iterable[Recorded[RobotState]],
    commands: Iterable[Recorded[Command]],
    mode: str,
    rate_hz: float,
    grid_hz: float | None = None,
) -> Track:
    """The longest stretch in which commands of `mode` streamed at `rate_hz`, on a grid of that or another rate.

    Vectors are interpolated linearly (attitudes too, then normalised). Commands are held: a period's is the one in
    force at its middle, since one that comes milliseconds after the grid's instant acts for nearly all of the period.
    Raises BadInput where nothing was streamed.
    """
    by_t: dict[int, RobotState] = {s.value.t_ns: s.value for s in states}
    sent = [(c.received_ns, c.value.values) for c in commands if c.value.mode == mode]
    if len(sent) < 2 or len(by_t) < 2:
        raise BadInput(f"the log holds {len(sent)} commands of mode {mode} and {len(by_t)} states; expected a flight")
    t_sent = np.array([t for t, _ in sent], dtype=np.int64)
    begin, end = _longest_stretch(t_sent, FRESH_PERIODS / rate_hz)
    t_state = np.array(sorted(by_t), dtype=np.int64)
    dt_ns = round(1e9 / (grid_hz or rate_hz))
    grid = np.arange(max(t_sent[begin], t_state[0]), min(t_sent[end], t_state[-1]), dt_ns, dtype=np.int64)
    if len(grid) < 2:
        raise BadInput("states and commands of the log do not overlap in time")
    held = np.clip(np.searchsorted(t_sent, grid + dt_ns // 2, side="right") - 1, 0, None)
    origin = int(grid[0])
    names = [n for n, v in by_t[int(t_state[-1])].signals.items() if v.ndim <= 1]
    whole = next(t for t in t_state if all(n in by_t[int(t)].signals for n in names))
    t_state = t_state[t_state >= whole]
    signals = {}
    for name in names:
        rows = np.array([np.atleast_1d(by_t[int(t)].signals[name]) for t in t_state])
        if name == "quat_wxyz":
            rows = _continuous(rows)
        columns = [np.interp(grid - origin, t_state - origin, rows[:, j]) for j in range(rows.shape[1])]
        signals[name] = np.stack(columns, axis=1)
    if "quat_wxyz" in signals:
        signals["quat_wxyz"] /= np.linalg.norm(signals["quat_wxyz"], axis=1, keepdims=True)
    return Track(dt_ns / 1e9, signals, np.array([v for _, v in sent])[held], origin)


@torch.inference_mode()
def diverge(make: Any, track: Track, steps: Sequence[int] = STEPS) -> Divergence:
    """Compares a track with the simulator; `make(num)` gives an OpenLoop of that many worlds.

    The delay is measured first. The commands are shifted by it, to the nearest control period, where that brings log
    and simulator closer together.
    """
    length = len(track.commands)
    delay_s = _delay(make, track)
    aligned = 0 if delay_s is None else round(delay_s / track.dt_s)
    if aligned and _near_error(make, shifted(track, aligned)) > _near_error(make, track):
        aligned = 0
    track = shifted(track, aligned)
    horizons = [k for k in steps if k < length - 1]
    if not horizons:
        raise BadInput(f"the log's stretch has {length} steps; expected more than {min(steps) + 1}")
    starts = np.unique(np.linspace(1, length - 1 - min(horizons), MAX_WINDOWS).astype(int))
    errors = _windows(make(len(starts)), track, starts, horizons)
    rmse = {name: {k: _rms(e) for k, e in by_k.items()} for name, by_k in errors.items()}
    spread = {name: max(_spread(name, track.signals[name]), 1e-9) for name in rmse}
    free = _windows(make(1), track, np.array([1]), list(range(1, length - 1)))
    paths = {name: np.array([float(e[0]) for e in by_k.values()]) for name, by_k in free.items()}
    judged = "position_world" if "position_world" in paths else next(iter(paths))
    bound = DIVERGED_M if judged == "position_world" else spread[judged]
    away = np.flatnonzero(~(paths[judged] <= bound))
    return Divergence(
        windows=len(starts),
        rmse=rmse,
        relative={n: {k: v / spread[n] for k, v in by_k.items()} for n, by_k in rmse.items()},
        free_run={name: _rms(path) for name, path in paths.items()},
        diverged_s=float((away[0] + 1) * track.dt_s) if away.size else None,
        diverged_at=f"{bound:.3g} of {judged}",
        worst=_worst(errors, starts, spread, track.dt_s, length),
        delay_s=delay_s,
        aligned_steps=aligned,
    )


def shifted(track: Track, steps: int) -> Track:
    """The track with its commands so many control periods later."""
    length = len(track.commands)
    at = np.clip(np.arange(length) - steps, 0, length - 1)
    return track._replace(commands=track.commands[at])


def _near_error(make: Any, track: Track) -> float:
    """Error after a few steps, over the signals' spread."""
    k, length = DELAY_STEPS, len(track.commands)
    starts = np.unique(np.linspace(MAX_LAG, length - 1 - k, MAX_WINDOWS).astype(int))
    errors = _windows(make(len(starts)), track, starts, [k])
    return float(np.mean([_rms(e[k]) / max(_spread(n, track.signals[n]), 1e-9) for n, e in errors.items()]))


def _worst(
    errors: Mapping[str, Mapping[int, Array]],
    starts: NDArray[Any],
    spread: Mapping[str, float],
    dt_s: float,
    length: int,
) -> list[tuple[float, float]]:
    """The windows of the longest horizon but one (or the only one) with the largest errors, apart from one another."""
    horizons = sorted(next(iter(errors.values())))
    k = horizons[-2] if len(horizons) > 1 else horizons[0]
    inside = starts[starts + k <= length - 1]
    score = np.mean([by_k[k] / spread[name] for name, by_k in errors.items()], axis=0)
    found: list[tuple[float, float]] = []
    for i in np.argsort(-score):
        t_s = float(inside[i] * dt_s)
        if all(abs(t_s - t) >= k * dt_s for t, _ in found):
            found.append((t_s, float(score[i])))
        if len(found) == WORST:
            break
    return found


def _windows(
    world: OpenLoop, track: Track, starts: NDArray[Any], horizons: Sequence[int]
) -> dict[str, dict[int, Array]]:
    """Signal -> horizon -> error of every window that is long enough."""
    _place(world, track, starts)
    last, wanted = len(track.commands) - 1, set(horizons)
    errors: dict[str, dict[int, Array]] = {}
    for k in range(1, max(horizons) + 1):
        at = np.minimum(starts + k - 1, last)
        world.advance(_tensor(track.commands[at]), _given(world, track, at))
        if k in wanted:
            inside = starts + k <= last
            for name, simulated in _numpy(world.signals()).items():
                if name in track.signals:
                    logged = track.signals[name][np.minimum(starts + k, last)]
                    errors.setdefault(name, {})[k] = _distance(name, simulated, logged)[inside]
    return errors


def _delay(make: Any, track: Track) -> float | None:
    """Lag of the log's change behind the simulator's prediction, by cross-correlation with a parabola through the peak.

    Compared is how the velocity (or, without one, the first signal) changes over a few steps.
    """
    k, length = DELAY_STEPS, len(track.commands)
    if length < 4 * MAX_LAG + k:
        return None
    starts = np.arange(1, length - k)
    world = make(len(starts))
    _place(world, track, starts)
    for j in range(k):
        world.advance(_tensor(track.commands[starts + j]), _given(world, track, starts + j))
    simulated = {n: v for n, v in _numpy(world.signals()).items() if n in track.signals}
    name = "velocity_world" if "velocity_world" in simulated else next(iter(simulated))
    logged = track.signals[name]
    predicted = simulated[name] - logged[starts]
    happened = logged[starts + k] - logged[starts]
    lags = np.arange(-MAX_LAG, MAX_LAG + 1)
    scores = np.array([_correlation(predicted, happened, int(lag)) for lag in lags])
    peak = int(np.argmax(scores))
    if scores[peak] < 0.2 or peak in (0, len(lags) - 1):
        return None
    a, b, c = scores[peak - 1 : peak + 2]
    bend = a - 2 * b + c
    part = float(np.clip(0.5 * (a - c) / bend, -0.5, 0.5)) if bend < 0 else 0.0
    return float((lags[peak] + part) * track.dt_s)


def _correlation(predicted: Array, happened: Array, lag: int) -> float:
    """Correlation of happened(t + lag) with predicted(t), over all components."""
    n = len(predicted)
    p = predicted[max(-lag, 0) : n - max(lag, 0)]
    h = happened[max(lag, 0) : n - max(-lag, 0)]
    p, h = p - p.mean(axis=0), h - h.mean(axis=0)
    norm = float(np.sqrt((p * p).sum() * (h * h).sum()))
    return float((p * h).sum() / norm) if norm > 0 else 0.0


def _place(world: OpenLoop, track: Track, starts: NDArray[Any]) -> None:
    before = [track.commands[np.maximum(starts - 1 - j, 0)] for j in range(8)]
    signals = {name: _tensor(values[starts]) for name, values in track.signals.items()}
    world.place(signals, _tensor(np.stack(before, axis=1)))


def _given(world: OpenLoop, track: Track, at: NDArray[Any]) -> dict[str, Tensor]:
    """Means of the world's inputs over the periods that begin at rows `at`."""
    after = np.minimum(at + 1, len(track.commands) - 1)
    return {name: _tensor(0.5 * (v[at] + v[after])) for name, v in track.signals.items() if name in world.inputs}


def _longest_stretch(t_ns: NDArray[np.int64], fresh_s: float) -> tuple[int, int]:
    breaks = np.flatnonzero(np.diff(t_ns) > fresh_s * 1e9)
    edges = np.concatenate([[-1], breaks, [len(t_ns) - 1]])
    longest = int(np.argmax(np.diff(edges)))
    return int(edges[longest]) + 1, int(edges[longest + 1])


def _continuous(quats: Array) -> Array:
    """The same attitudes with signs such that neighbours are close."""
    flips = np.sign(np.sum(quats[1:] * quats[:-1], axis=1))
    return quats * np.concatenate([[1.0], np.cumprod(np.where(flips == 0, 1.0, flips))])[:, None]


def _distance(name: str, a: Array, b: Array) -> Array:
    """(N,) length of the difference; the angle between attitudes."""
    if name == "quat_wxyz":
        return 2.0 * np.arccos(np.clip(np.abs(np.sum(a * b, axis=1)), 0.0, 1.0))
    return np.linalg.norm(a - b, axis=1)


def _spread(name: str, values: Array) -> float:
    middle = values.mean(axis=0, keepdims=True)
    if name == "quat_wxyz":
        middle = middle / np.linalg.norm(middle)
    return _rms(_distance(name, values, np.broadcast_to(middle, values.shape)))


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values * values))) if len(values) else float("nan")


def _tensor(values: Array) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def _numpy(signals: Mapping[str, Tensor]) -> dict[str, Array]:
    return {name: v.numpy().astype(np.float64) for name, v in signals.items() if v.ndim == 2}
