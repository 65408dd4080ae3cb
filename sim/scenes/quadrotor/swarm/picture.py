"""Draws a flight of the swarm from above and in perspective, with the gaps that were left: .png, .gif or .mp4.

A still shows whole paths and the drones on their way; an animation runs in real time. What is drawn is a `Flight`, of
the simulator or any other.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image as Pillow

from hardware.errors import BadInput
from sim.scenes.quadrotor.swarm.contacts import ARM_M
from sim.scenes.quadrotor.swarm.flight import Array, Flight, Law, gaps, outcome, record
from sim.scenes.quadrotor.swarm.stage import (
    ALARM,
    COLORS,
    Image,
    Stage,
    overhead,
    palette_of_the_stage,
    perspective,
)

SUFFIXES = (".png", ".gif", ".mp4")
WIDTH, VIEWS, ROW = 960, 372, 550
"""Pixels of a row per law: its width, the height of its views, its height."""
HEAD, LEFT = 34, 572
STILL_SCALE = 1.8
FRAME_S = 0.07
"""Time between frames; a GIF counts in hundredths of a second."""
TRAIL_S, FRESH_S, RECENT_S, CONTACT_S = 6.0, 0.4, 1.0, 0.7
"""How long trails are seen, at full and at middle strength, and contacts. In steps: what does not change costs a GIF
nothing."""
WIDE_M = 1.5
"""Largest gap on the chart."""
GAP_COLORS = {"two drones": "#0072b2", "drone and obstacle": "#d55e00"}
_STYLE: Any = {
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.edgecolor": "#8a94a0",
    "axes.grid": True,
    "grid.color": "#eceef0",
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def picture(out: Path, make: Callable[[], Any], laws: Mapping[str, Callable[[Any], Law]], title: str) -> None:
    """One room flown under each law, name -> law(env) -> act(obs); `make()` gives a fresh environment of one room,
    always the same one. Raises BadInput for a name that is none of .png, .gif, .mp4."""
    _check(out)
    draw_flights(out, {name: record(make(), law) for name, law in laws.items()}, title)


def draw_flights(out: Path, flights: Mapping[str, Flight], title: str) -> None:
    """One row per flight, named as in the mapping; the suffix decides what is made of them."""
    _check(out)
    still = out.suffix.lower() == ".png"
    scale = STILL_SCALE if still else 1.0
    rows = [_Row(name, flight, scale) for name, flight in flights.items()]
    head = _text(title, scale)
    if still:
        Pillow.fromarray(np.concatenate([head, *(row.still() for row in rows)])).save(out, optimize=True)
        return
    end_s = max(float(flight.times_s[-1]) for flight in flights.values())
    frames = (np.concatenate([head, *(row.moment(t) for row in rows)]) for t in np.arange(0.0, end_s + 1e-6, FRAME_S))
    (_save_gif if out.suffix.lower() == ".gif" else _save_mp4)(out, frames)


class _Row:
    """One law's flight: perspective, from above, and two charts under them."""

    def __init__(self, name: str, flight: Flight, scale: float) -> None:
        self.flight, self.scale = flight, scale
        size = lambda width, height: (round(width * scale), round(height * scale))  # noqa: E731
        about = (flight.room, flight.obstacles, flight.radius, scale)
        self.stages = [
            Stage(perspective(size(LEFT - 8, VIEWS), flight.room), *about),
            Stage(overhead(size(WIDTH - LEFT - 8, VIEWS), flight.room), *about),
        ]
        self.corners = [size(8, HEAD), size(LEFT, HEAD)]
        self.page, self.spans = _charts(name, flight, scale)

    def still(self) -> Image:
        """Whole paths; the drones where half of their way is done."""
        f = self.flight
        away = f.away.mean(1)
        halfway = int(np.argmax(away < 0.5 * away[0])) if (away < 0.5 * away[0]).any() else len(away) // 2
        every = np.arange(0, len(f.times_s), max(1, round(0.05 / f.dt_s)))
        strength = np.where(every[1:] <= halfway, 0.8, 0.25)
        page = self._page(f.times_s[-1])
        return self._with_views(page, halfway, every, strength, [(i, 0.0) for i in np.argwhere(f.contacts)])

    def moment(self, t_s: float) -> Image:
        """The page at a time; at the last one where the flight is over."""
        f = self.flight
        now = int(np.clip(np.searchsorted(f.times_s, t_s + 1e-6) - 1, 0, len(f.times_s) - 1))
        step = max(1, round(0.05 / f.dt_s))
        trail = np.append(np.arange(0, now, step), now)
        trail = trail[f.times_s[trail] >= f.times_s[now] - TRAIL_S]
        age = f.times_s[now] - f.times_s[trail[1:]]
        strength = np.select([age < FRESH_S, age < RECENT_S], [1.0, 0.65], 0.3)
        recent = [
            (i, float((f.times_s[now] - f.times_s[i[0]]) / CONTACT_S))
            for i in np.argwhere(f.contacts[: now + 1])
            if f.times_s[now] - f.times_s[i[0]] < CONTACT_S
        ]
        return self._with_views(self._page(f.times_s[now]), now, trail, strength, recent)

    def _with_views(
        self,
        page: Image,
        now: int,
        trail: NDArray[Any],
        strength: Array,
        contacts: Sequence[tuple[NDArray[Any], float]],
    ) -> Image:
        f = self.flight
        trails = [(_unbroken(f.positions[trail, i]), strength) for i in range(f.positions.shape[1])]
        marks = [(f.positions[i[0], i[1]], age) for i, age in contacts]
        for stage, (x, y) in zip(self.stages, self.corners, strict=True):
            image = stage.frame(f.positions[now], f.rotations[now], f.goals[now], trails, marks, arm_m=ARM_M)
            page[y : y + image.shape[0], x : x + image.shape[1]] = image
        return page

    def _page(self, t_s: float) -> Image:
        """The charts with what has not happened yet paled."""
        page = self.page.copy()
        for left, right, top, bottom in self.spans:
            x = left + round((right - left) * t_s / self.flight.times_s[-1])
            ahead = page[top:bottom, x + 1 : right + 2]
            ahead[:] = (0.25 * ahead + 0.75 * 255).astype(np.uint8)
            if x < right:
                page[top:bottom, x : x + max(1, round(self.scale))] = (120, 128, 138)
        return page


def _unbroken(path: Array) -> Array:
    """A path (n, 3) without what came before a drone was set down elsewhere: no line across."""
    jump = np.flatnonzero(np.linalg.norm(np.diff(path, axis=0), axis=1) > 1.0)
    path = path.copy()
    for i in jump:
        path[: i + 1] = path[i + 1]
    return path


def _charts(name: str, flight: Flight, scale: float) -> tuple[Image, list[tuple[int, int, int, int]]]:
    """The page of a row without its views, and each chart's left, right, top and bottom, pixels."""
    t = flight.times_s
    away = flight.away
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH / 100, ROW / 100), dpi=100 * scale, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        bottom, height = 26 / ROW, (ROW - HEAD - VIEWS - 26 - 28) / ROW
        left = figure.add_axes((52 / WIDTH, bottom, (LEFT - 84) / WIDTH, height))
        right = figure.add_axes(((LEFT + 40) / WIDTH, bottom, (WIDTH - LEFT - 56) / WIDTH, height))
        for label, gap in gaps(flight).items():
            left.plot(t, np.clip(gap, -0.05, WIDE_M), color=GAP_COLORS[label], lw=1.3, label=label)
        hits = t[flight.contacts.any(1)]
        left.axhline(0.0, color=tuple(c / 255 for c in ALARM), lw=1)
        left.plot(
            hits, np.zeros_like(hits), "v", color=tuple(c / 255 for c in ALARM), ms=5, label="contact", clip_on=False
        )
        left.set(title="smallest gap (m)", ylim=(-0.08, WIDE_M), xlim=(0, t[-1]))
        left.legend(
            loc="lower right", bbox_to_anchor=(1.01, 0.97), ncols=3, handlelength=1.2, borderpad=0.0, columnspacing=1.2
        )
        for i in range(away.shape[1]):
            right.plot(t, away[:, i], color=tuple(c / 255 for c in COLORS[i % len(COLORS)]), lw=1.0)
        right.axhline(flight.near_m, color="#8a94a0", lw=0.8, ls="--")
        right.set(title="distance to the own goal (m)", yscale="log", ylim=(0.01, 15), xlim=(0, t[-1]))
        right.set_yticks([0.01, 0.1, 1.0, 10.0], ["0.01", "0.1", "1", "10"])
        right.minorticks_off()
        for ax in (left, right):
            ax.xaxis.set_major_formatter("{x:g} s")
        figure.text(10 / WIDTH, 1 - 20 / ROW, name, fontsize=11, fontweight="bold", va="center")
        figure.text((LEFT - 12) / WIDTH, 1 - 20 / ROW, outcome(flight), fontsize=9, va="center", ha="right")
        figure.text((LEFT + 2) / WIDTH, 1 - 20 / ROW, "from above", fontsize=9, va="center")
        canvas.draw()
    page = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    spans = []
    for ax in (left, right):
        box = ax.get_window_extent()
        spans.append((round(box.x0), round(box.x1), round(page.shape[0] - box.y1), round(page.shape[0] - box.y0)))
    return page, spans


def _check(out: Path) -> None:
    if out.suffix.lower() not in SUFFIXES:
        raise BadInput(f"{out}: expected a name that ends in {', '.join(SUFFIXES)}")


def _text(line: str, scale: float) -> Image:
    """A title across the page."""
    figure = Figure(figsize=(WIDTH / 100, 0.3), dpi=100 * scale, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    figure.text(10 / WIDTH, 0.35, line, fontsize=11, va="center")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _save_gif(out: Path, frames: Iterator[Image]) -> None:
    """One palette for all frames and no dithering, so that what stands still costs nothing."""
    palette = Pillow.new("P", (1, 1))
    palette.putpalette(palette_of_the_stage())
    reduced = [Pillow.fromarray(i).quantize(palette=palette, dither=Pillow.Dither.NONE) for i in frames]
    reduced[0].save(
        out, save_all=True, append_images=reduced[1:], duration=round(1000 * FRAME_S), loop=0, optimize=True
    )


def _save_mp4(out: Path, frames: Iterator[Image]) -> None:
    """VP9, which browsers play; MPEG-4 where OpenCV was built without it. Raises BadInput where it has neither."""
    first = next(frames)
    height, width = (n - n % 2 for n in first.shape[:2])
    for code in ("vp09", "mp4v"):
        writer = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*code), 1.0 / FRAME_S, (width, height))
        if writer.isOpened():
            break
    else:
        raise BadInput(f"{out}: this OpenCV writes no video; expected .png or .gif")
    for frame in (first, *frames):
        writer.write(np.ascontiguousarray(frame[:height, :width, ::-1]))
    writer.release()
