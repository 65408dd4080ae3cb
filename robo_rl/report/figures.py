"""Pictures of a training run, an evaluation, a flight and its replays, as PNG bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

Array = NDArray[Any]

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a94a0"
"""Okabe and Ito's palette: distinguishable with every common form of colour blindness."""

STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e9ed",
    "axes.edgecolor": "#8a94a0",
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "legend.frameon": False,
}


def png(figure: Figure) -> bytes:
    """A figure as PNG bytes."""
    out = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(out, format="png", dpi=130, facecolor="white")
    return out.getvalue()


def learning_curve(steps: Array, series: Mapping[str, Array]) -> bytes:
    """One panel per named series (I,) over environment steps (I,)."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.7), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(series)))
        for ax, (name, values) in zip(axes, series.items(), strict=True):
            ax.plot(steps / 1e6, values, color=BLUE, lw=1.6)
            ax.set(title=name, xlabel="million environment steps")
        return png(figure)


def success_intervals(rows: Sequence[tuple[str, float, float, float]], *, target: float | None) -> bytes:
    """Dots with 95 % intervals: rows of (name, success, low, high), best read top down."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 0.9 + 0.42 * len(rows)), layout="constrained")
        ax = figure.subplots()
        for i, (name, rate, low, high) in enumerate(rows):
            color = BLUE if name.startswith("policy") else GREY
            ax.plot([low, high], [-i, -i], color=color, lw=3, solid_capstyle="butt", alpha=0.45)
            ax.plot(rate, -i, "o", color=color, ms=7)
            ax.annotate(f"{rate:.1%}", (rate, -i), (0, 7), textcoords="offset points", ha="center", fontsize=9)
        if target is not None:
            ax.axvline(target, color=ORANGE, lw=1, ls="--")
        ax.set_yticks([-i for i in range(len(rows))], [r[0] for r in rows])
        ax.set_ylim(-len(rows) + 0.4, 0.75)
        ax.set_xlim(min(0.9, min(r[2] for r in rows) - 0.05), 1.01)
        ax.set_xlabel("share of episodes that succeed, with 95 % interval")
        ax.grid(axis="y", visible=False)
        return png(figure)


def flight(t_s: Array, position: Array, goal: Array, phases: Sequence[tuple[float, str]], bound_m: float) -> bytes:
    """A flight's path in space (T, 3), its height, and its distance to the goal (T, 3) over time, with its phases."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 4.6), layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=(1.05, 1))
        space: Any = figure.add_subplot(grid[:, 0], projection="3d")
        space.plot(*position.T, color=GREY, lw=0.8, alpha=0.7)
        dots = space.scatter(*position[::5].T, c=t_s[::5], cmap="viridis", s=5, depthshade=False)
        targets = np.unique(np.round(goal[np.isfinite(goal).all(axis=1)], 3), axis=0)
        space.scatter(*targets.T, color=ORANGE, marker="*", s=110, depthshade=False, label="goal")
        space.set(xlabel="x (m)", ylabel="y (m)", zlabel="z (m)", title="path in the room")
        _equal_box(space, np.vstack([position, targets]))
        figure.colorbar(dots, ax=space, label="time (s)", shrink=0.6, pad=0.12)
        distance = np.linalg.norm(position - goal, axis=1)
        near: Any = figure.add_subplot(grid[0, 1])
        near.semilogy(t_s, np.maximum(distance, 1e-3), color=BLUE, lw=1.3)
        near.axhline(bound_m, color=ORANGE, lw=1, ls="--", label=f"{bound_m:g} m")
        near.set(title="distance to the goal (m)")
        near.legend(loc="upper right")
        height: Any = figure.add_subplot(grid[1, 1], sharex=near)
        height.plot(t_s, position[:, 2], color=GREEN, lw=1.3)
        height.plot(t_s, goal[:, 2], color=ORANGE, lw=1, ls="--")
        height.set(title="height (m)", xlabel="time (s)")
        for ax in (near, height):
            _phases(ax, phases, labels=ax is height)
        return png(figure)


def commands(t_s: Array, wanted: Array, sent: Array, names: Sequence[str]) -> bytes:
    """What the policy wanted (T, J) and what passed the guard (T, J), one panel per component."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        axes = figure.subplots(2, -(-len(names) // 2), sharex=True).ravel()
        for ax, name, w, s in zip(axes, names, wanted.T, sent.T, strict=False):
            ax.plot(t_s, w, color=ORANGE, lw=0.9, label="policy")
            ax.plot(t_s, s, color=BLUE, lw=0.9, label="sent")
            ax.set_title(name)
        axes[0].legend(loc="upper right", ncols=2, fontsize=8)
        axes[-1].set_xlabel("time (s)")
        return png(figure)


def divergence(rmse: Mapping[str, Mapping[str, float]], units: Mapping[str, str]) -> bytes:
    """Error of the simulator against the recording after k control steps: signal -> k -> RMSE; signal -> unit."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.6), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(rmse)))
        for ax, (name, by_k) in zip(axes, rmse.items(), strict=True):
            ax.loglog([int(k) for k in by_k], list(by_k.values()), "o-", color=BLUE, ms=4)
            unit = "rad" if name == "quat_wxyz" else units[name]
            words = "attitude" if name == "quat_wxyz" else name.removesuffix("_world").removesuffix("_body")
            ax.set(title=f"{words.replace('_', ' ')} ({unit})", xlabel="control steps")
            ax.minorticks_off()
        return png(figure)


def _phases(ax: Any, phases: Sequence[tuple[float, str]], *, labels: bool) -> None:
    for t, name in phases:
        ax.axvline(t, color=GREY, lw=0.8, ls=":")
        if labels:
            ax.annotate(
                name, (t, 1.0), (2, -8), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=7
            )


def _equal_box(ax: Any, points: Array) -> None:
    """Equal scale on all three axes, so that a sphere looks like one."""
    low, high = points.min(axis=0), points.max(axis=0)
    half, mid = max(float((high - low).max()) / 2, 0.3), (low + high) / 2
    ax.set(xlim=(mid[0] - half, mid[0] + half), ylim=(mid[1] - half, mid[1] + half))
    ax.set(zlim=(max(0.0, mid[2] - half), max(0.0, mid[2] - half) + 2 * half))
