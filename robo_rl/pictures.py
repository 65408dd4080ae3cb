"""Pictures of a run and of an evaluation's episodes: PNG, or a GIF that moves."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robo_rl.evaluate import Episodes
from robo_rl.report.figures import BLUE, GREEN, GREY, ORANGE, STYLE

CURVES = ("return_mean", "length_mean", "distance", "value_loss", "kl", "std", "learning_rate")
"""Columns of metrics.csv that are drawn where they exist."""
FRAMES, FRAMES_PER_S = 60, 15


def draw_curves(metrics: Path, out: Path, title: str) -> None:
    """Learning curves of a run's metrics.csv as PNG."""
    with metrics.open(newline="") as f:
        rows = list(csv.DictReader(f))
    names = [n for n in CURVES if rows and rows[0].get(n) is not None]
    if not names:
        return
    steps = np.array([float(r["env_steps"]) for r in rows]) / 1e6
    with mpl.rc_context(STYLE):
        columns = min(4, len(names))
        lines = -(-len(names) // columns)
        figure = Figure(figsize=(3.2 * columns, 2.4 * lines + 0.3), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=11)
        for i, name in enumerate(names):
            ax = figure.add_subplot(lines, columns, i + 1)
            values = np.array([float(r[name]) if r[name] else np.nan for r in rows])
            ax.plot(steps, values, color=BLUE, lw=1.4)
            positive = values[np.isfinite(values)]
            if name in ("value_loss", "learning_rate", "distance") and len(positive) and positive.min() > 0:
                ax.set_yscale("log")
            ax.set(title=name.replace("_", " "), xlabel="million steps")
        figure.savefig(out, dpi=110, facecolor="white")


def draw_episodes(out: Path, episodes: Episodes, baseline: Episodes | None, title: str, rate_hz: float) -> None:
    """Paths in space and distance over time; a GIF shows the paths growing. The suffix decides."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 5), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=11)
        space: Any = None
        if episodes.path.size:
            space = figure.add_subplot(1, 2, 1, projection="3d")
        ax = figure.add_subplot(1, 2, 2) if space is not None else figure.add_subplot(1, 1, 1)
        _distances(ax, episodes, baseline, rate_hz)
        if out.suffix.lower() == ".gif":
            _animate(out, figure, space, ax, episodes.path, rate_hz)
            return
        if space is not None:
            _paths(space, episodes.path)
        figure.savefig(out, dpi=130, facecolor="white")


def _distances(ax: Any, episodes: Episodes, baseline: Episodes | None, rate_hz: float) -> None:
    shown: Sequence[tuple[str, NDArray[np.float32], str]] = [("policy", episodes.distance, BLUE)]
    if baseline is not None:
        shown = [("baseline", baseline.distance, ORANGE), *shown]
    for name, distance, color in shown:
        t = np.arange(1, distance.shape[0] + 1) / rate_hz
        ax.plot(t, distance, color=color, lw=0.5, alpha=0.25)
        alive = np.isfinite(distance).any(axis=1)
        if alive.any():
            ax.plot(t[alive], np.nanmedian(distance[alive], axis=1), color=color, lw=2.2, label=f"{name}, median")
            ax.plot(t[alive], np.nanmax(distance[alive], axis=1), color=color, lw=1.2, ls="--", label=f"{name}, worst")
    ax.set_yscale("log")
    ax.set(title=f"distance to the goal, {episodes.distance.shape[1]} episodes", xlabel="time (s)", ylabel="m")
    ax.legend(loc="lower left")


def _paths(space: Any, path: NDArray[np.float32]) -> None:
    colors = mpl.colormaps["viridis"](np.linspace(0.05, 0.9, path.shape[1]))
    for i, color in enumerate(colors):
        space.plot(*path[:, i].T, color=color, lw=0.9, alpha=0.8)
    space.scatter(*path[0].T, color=GREY, s=8, depthshade=False, label="start")
    space.scatter([0], [0], [0], color=ORANGE, marker="*", s=140, depthshade=False, label="goal")
    _frame(space, path)
    space.legend(loc="upper left")


def _animate(out: Path, figure: Figure, space: Any, ax: Any, path: NDArray[np.float32], rate_hz: float) -> None:
    """One frame per tenth of a second or so: where every drone is, with the last half second behind it."""
    steps = path.shape[0]
    tail = max(1, round(0.5 * rate_hz))
    lines = [space.plot([], [], [], color=GREEN, lw=0.9, alpha=0.6)[0] for _ in range(path.shape[1])]
    dots = space.plot([], [], [], "o", color=BLUE, ms=3)[0]
    space.scatter([0], [0], [0], color=ORANGE, marker="*", s=140, depthshade=False)
    _frame(space, path)
    cursor = ax.axvline(0.0, color=GREY, lw=1)

    def draw(frame: int) -> list[Any]:
        now = min(steps - 1, frame * steps // FRAMES)
        for i, line in enumerate(lines):
            line.set_data_3d(*path[max(0, now - tail) : now + 1, i].T)
        dots.set_data_3d(*path[now].T)
        cursor.set_xdata([now / rate_hz] * 2)
        return [*lines, dots, cursor]

    animation = FuncAnimation(figure, draw, frames=FRAMES + FRAMES // 6, blit=False)
    animation.save(str(out), writer=PillowWriter(fps=FRAMES_PER_S), dpi=80)


def _frame(space: Any, path: NDArray[np.float32]) -> None:
    reach = float(np.nanpercentile(np.abs(path), 99.5)) * 1.05
    space.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
    space.set(xlabel="x (m)", ylabel="y (m)", zlabel="z (m)", title="paths around the goal")
    space.set_box_aspect((1, 1, 1))
