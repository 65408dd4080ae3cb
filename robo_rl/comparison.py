"""Learning curves of several runs in one figure: seeds of a setting form a band, settings differ by colour."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hardware.errors import BadInput
from robo_rl.report.figures import BLUE, GREEN, ORANGE, PURPLE, STYLE
from robo_rl.runs import RunDir

Array = NDArray[np.float64]

COLORS = (BLUE, ORANGE, GREEN, PURPLE, "#56b4e9", "#e69f00", "#3f3f3f")
POINTS = 400
_UNSETTLED = {"seed", "steps", "num_envs", "checkpoint_every", "device", "processes"}
"""Settings by which runs of one group may differ."""


def draw_comparison(out: Path, runs: Sequence[RunDir], metrics: Sequence[str], smooth: float, title: str) -> list[str]:
    """One panel per column of metrics.csv, as PNG; returns the names of the groups.

    Each point is the mean over a window of `smooth` times the longest run, weighted by the episodes that ended in each
    update. Of several seeds the line is their mean, as far as all of them reach, and the band their extremes.
    """
    if out.suffix.lower() != ".png":
        raise BadInput(f"--plot {out}: expected a name that ends in .png")
    if not 0.0 < smooth <= 1.0:
        raise BadInput(f"--smooth {smooth}: expected above 0 and at most 1")
    groups = group_by_name(runs)
    read = {name: [_read(run, metrics) for run in members] for name, members in groups.items()}
    window = smooth * max(steps[-1] for tables in read.values() for steps, *_ in tables)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2 * len(metrics), 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(f"{title}; means over {window / 1e6:.2g} million steps", fontsize=11)
        axes = np.atleast_1d(figure.subplots(1, len(metrics)))
        for ax, metric in zip(axes, metrics, strict=True):
            for i, (name, tables) in enumerate(read.items()):
                _draw(ax, COLORS[i % len(COLORS)], name, [smoothed(s, v[metric], n, window) for s, n, v in tables])
            ax.set(title=metric.replace("_", " "), xlabel="million steps")
        axes[0].legend(loc="best")
        figure.savefig(out, dpi=110, facecolor="white")
    return list(groups)


def group_by_name(runs: Sequence[RunDir]) -> dict[str, list[RunDir]]:
    """Runs by the name of their folder without time stamp and seed: `20261120T190000Z-no-replay-s1` is `no-replay`."""
    groups: dict[str, list[RunDir]] = {}
    for run in runs:
        plain = re.sub(r"[-_]?(s|seed)\d+$", "", re.sub(r"^\d{8}T\d{6}Z-", "", run.path.resolve().name))
        groups.setdefault(plain or run.path.resolve().name, []).append(run)
    return groups


def unlike(differences: Mapping[str, Sequence[Any]]) -> list[str]:
    """Settings, name -> value in each run of one group, that make them more than seeds of the same."""
    return [name for name in differences if name.rsplit(".", 1)[-1] not in _UNSETTLED]


def smoothed(steps: Array, values: Array, weights: Array, window: float) -> tuple[Array, Array]:
    """Weighted means (POINTS,) of values that are known, over windows about POINTS steps; NaN where there are none."""
    at = np.linspace(steps[0], steps[-1], POINTS)
    known = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, weights * np.where(known, values, 0.0), 0.0))])
    weight = np.concatenate([[0.0], np.cumsum(np.where(known, weights, 0.0))])
    low, high = np.searchsorted(steps, at - 0.5 * window), np.searchsorted(steps, at + 0.5 * window, "right")
    with np.errstate(invalid="ignore"):
        return at, (total[high] - total[low]) / (weight[high] - weight[low])


def _read(run: RunDir, metrics: Sequence[str]) -> tuple[Array, Array, dict[str, Array]]:
    """Environment steps, episodes that ended, and the metrics, each (updates,); BadInput where there are none."""
    if not run.metrics.is_file():
        raise BadInput(f"{run.path} holds no metrics.csv")
    with run.metrics.open(newline="") as f:
        rows = list(csv.DictReader(f))
    if not rows:
        raise BadInput(f"{run.metrics} holds no update yet")
    for metric in metrics:
        if metric not in rows[0]:
            raise BadInput(f"--metric {metric}: {run.metrics} has {', '.join(rows[0])}")
    column = lambda name: np.array([float(row[name] or "nan") for row in rows])  # noqa: E731
    episodes = column("episodes") if "episodes" in rows[0] else np.ones(len(rows))
    return column("env_steps"), np.maximum(np.nan_to_num(episodes), 1e-9), {name: column(name) for name in metrics}


def _draw(ax: Any, color: str, name: str, curves: Sequence[tuple[Array, Array]]) -> None:
    """The mean of a group's curves and the band between its extremes."""
    if len(curves) == 1:
        ax.plot(curves[0][0] / 1e6, curves[0][1], color=color, lw=1.6, label=name)
        return
    at = np.linspace(max(s[0] for s, _ in curves), min(s[-1] for s, _ in curves), POINTS)
    stacked = np.stack([np.interp(at, steps, values) for steps, values in curves])
    ax.fill_between(at / 1e6, stacked.min(0), stacked.max(0), color=color, alpha=0.18, lw=0)
    ax.plot(at / 1e6, stacked.mean(0), color=color, lw=1.6, label=f"{name}, {len(curves)} seeds")
