"""A room with obstacles, drones, trails and goals, drawn from above or in perspective into an image, frame by frame.

Images are (height, width, 3) uint8, RGB. Lengths are metres in the world frame, z up. What stands still is drawn once;
a frame is then painted from far to near. Drones are drawn larger than they are, see `ENLARGED`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

COLORS = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (230, 159, 0),
    (70, 70, 70),
    (166, 150, 20),
)
"""Okabe and Ito's palette, its yellow darkened to be seen on white; it repeats after eight drones."""
ALARM = (190, 20, 40)
GROUND, LINES, WALL, SHADOW = (244, 245, 246), (224, 226, 229), (150, 156, 164), (214, 217, 221)
DISC, RIM = (196, 204, 213), (132, 143, 156)
"""An obstacle from above."""
PILLAR = np.array([150.0, 162.0, 176.0])
PILLAR_M = 3.3
"""Obstacles reach the ceiling, but are drawn up to here, so that flights behind them are seen."""
ENLARGED = 4.0
TRAIL_WIDTH = 2.2
_LIGHT = np.array([-0.45, -0.8, 0.4]) / np.linalg.norm([-0.45, -0.8, 0.4])
_SHIFT = 4
"""Fractional bits of pixel coordinates."""


@dataclass(frozen=True)
class View:
    """A camera: pixels = offset + scale * (the first two of `turn` @ point), divided by depth / distance if finite."""

    size: tuple[int, int]
    """Width and height, pixels."""
    turn: Array
    """World to camera (3, 3): right, down, away."""
    distance: float
    """From the camera to the origin, m; infinite for a parallel projection."""
    scale: float = 1.0
    offset: tuple[float, float] = (0.0, 0.0)

    def place(self, points: Array) -> Array:
        """Pixels (..., 2) of points (..., 3)."""
        seen = points @ self.turn.T
        near = 1.0 + seen[..., 2] / self.distance
        return self.scale * seen[..., :2] / near[..., None] + self.offset

    def depth(self, points: Array) -> Array:
        """What is painted first (...), of points (..., 3): the further on the floor and the lower; obstacles stand."""
        return points[..., :2] @ self.turn[2, :2] - 0.05 * points[..., 2]

    def pixels(self, length_m: float, point: Array) -> float:
        """A length at a point (3,), in pixels."""
        return self.scale * length_m / (1.0 + float(point @ self.turn[2]) / self.distance)


def overhead(size: tuple[int, int], room: Array) -> View:
    """From above: x to the right, y up."""
    turn = np.diag([1.0, -1.0, -1.0])
    return _fitted(View(size, turn, np.inf), _corners(room, 0.0), 0.02)


def perspective(size: tuple[int, int], room: Array) -> View:
    """From a corner above the room, looking at its middle."""
    away = np.array([0.50, 1.0, -0.62])
    away /= np.linalg.norm(away)
    right = np.cross(away, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    turn = np.stack([right, np.cross(away, right), away])
    box = np.concatenate([_corners(room, 0.0), _corners(room * [0.8, 0.8, 1.0], min(PILLAR_M, room[2]))])
    return _fitted(View(size, turn, 1.75 * float(room[:2].max())), box, 0.02)


def _fitted(view: View, points: Array, margin: float) -> View:
    """The same camera with points (n, 3) filling the image, less a share of it as margin."""
    at = view.place(points)
    low, high = at.min(0), at.max(0)
    scale = ((1 - 2 * margin) * np.array(view.size) / (high - low)).min()
    offset = 0.5 * np.array(view.size) - scale * 0.5 * (low + high)
    return View(view.size, view.turn, view.distance, float(scale), (float(offset[0]), float(offset[1])))


def _corners(room: Array, z: float) -> Array:
    x, y = 0.5 * room[:2]
    return np.array([[-x, -y, z], [x, -y, z], [x, y, z], [-x, y, z]])


class Stage:
    """One view of one room; `frame` paints a moment."""

    def __init__(self, view: View, room: Array, obstacles: Array, radius: Array, pen: float = 1.0) -> None:
        """Room (3,), obstacles (L, 2) and their radius (L,), m; pen: width of lines, in pixels of a screen."""
        self.view, self.pen = view, pen
        self.flat = not np.isfinite(view.distance)
        self._ground = self._floor(room)
        self._opacity = float(np.clip(0.72 * np.sqrt(16 / max(len(radius), 1)), 0.35, 0.72))
        if self.flat:
            for centre, r in zip(obstacles, radius, strict=True):
                _fill(self._ground, self._ring(np.array([*centre, 0.0]), r), DISC, RIM, self.pen)
            self._pillars = []
        else:
            self._pillars = [self._pillar(np.array([*c, 0.0]), r) for c, r in zip(obstacles, radius, strict=True)]

    def frame(
        self,
        positions: Array,
        rotations: Array,
        goals: Array,
        trails: Sequence[tuple[Array, Array]],
        contacts: Sequence[tuple[Array, float]] = (),
        *,
        arm_m: float,
    ) -> Image:
        """A moment: positions (A, 3), body to world (A, 3, 3), goals (A, 3); per drone a trail (n, 3) with the strength
        (n - 1,) of its parts between 0 and 1; contacts (place (3,), age between 0 and 1); arms of the drones, m."""
        image = self._ground.copy()
        if not self.flat:
            for p in positions:
                _fill(image, self._ring(np.array([p[0], p[1], 0.0]), 0.6 * ENLARGED * arm_m * 1.4), SHADOW)
        parts: list[tuple[float, int, tuple]] = [(depth, 0, (roi, *rest)) for depth, roi, *rest in self._pillars]
        for i, (goal, (trail, strength)) in enumerate(zip(goals, trails, strict=True)):
            color = COLORS[i % len(COLORS)]
            parts.append((float(self.view.depth(goal)), 1, (goal, color)))
            if len(trail) > 1:
                at, middle = self.view.place(trail), self.view.depth(0.5 * (trail[1:] + trail[:-1]))
                parts += [
                    (float(middle[j]), 2, (at[j : j + 2], color, float(strength[j])))
                    for j in np.flatnonzero(strength > 0.02)
                ]
            parts.append((float(self.view.depth(positions[i])) - 0.05, 3, (positions[i], rotations[i], arm_m, color)))
        parts += [(float(self.view.depth(place)) - 0.3, 4, (place, age)) for place, age in contacts]
        paint = (self._paint_pillar, self._paint_goal, self._paint_trail, self._paint_drone, self._paint_contact)
        for _, kind, what in sorted(parts, key=lambda part: -part[0]):
            paint[kind](image, *what)
        return image

    def _floor(self, room: Array) -> Image:
        """The floor with lines every metre."""
        image = np.full((self.view.size[1], self.view.size[0], 3), 255, np.uint8)
        corners = _corners(room, 0.0)
        _fill(image, self.view.place(corners), GROUND)
        x, y = 0.5 * room[:2]
        for t in np.arange(np.ceil(-x), x + 0.01):
            _line(image, self.view.place(np.array([[t, -y, 0.0], [t, y, 0.0]])), LINES, self.pen)
        for t in np.arange(np.ceil(-y), y + 0.01):
            _line(image, self.view.place(np.array([[-x, t, 0.0], [x, t, 0.0]])), LINES, self.pen)
        _line(image, self.view.place(np.concatenate([corners, corners[:1]])), WALL, self.pen)
        return image

    def _ring(self, centre: Array, radius: float, axes: Array | None = None, count: int = 28) -> Array:
        """A circle's outline in pixels (count, 2); axes (3, 2) span its plane, level where none are given."""
        angle = np.linspace(0.0, 2 * np.pi, count, endpoint=False)
        spread = radius * np.stack([np.cos(angle), np.sin(angle)])
        axes = np.eye(3)[:, :2] if axes is None else axes
        return self.view.place(centre + (axes @ spread).T)

    def _pillar(self, foot: Array, radius: float) -> tuple[float, tuple[slice, slice], NDArray[Any], NDArray[Any]]:
        """Depth, place in the image, colour and opacity of a cylinder."""
        up = np.array([0.0, 0.0, PILLAR_M])
        low, high = self._ring(foot, radius, count=40), self._ring(foot + up, radius, count=40)
        outline = cv2.convexHull(np.concatenate([low, high]).astype(np.float32))[:, 0].astype(float)
        x0, y0 = np.maximum(np.floor(outline.min(0)).astype(int) - 1, 0)
        x1, y1 = np.ceil(outline.max(0)).astype(int) + 2
        roi = (slice(y0, y1), slice(x0, x1))
        shape = self._ground[roi].shape
        color = np.zeros(shape, np.uint8)
        angle = np.linspace(0.0, 2 * np.pi, 40, endpoint=False) + np.pi / 40
        bright = 0.66 + 0.34 * np.clip(np.cos(angle) * _LIGHT[0] + np.sin(angle) * _LIGHT[1], -0.6, 1.0)
        facing = -(np.cos(angle) * self.view.turn[2, 0] + np.sin(angle) * self.view.turn[2, 1])
        for i in np.argsort(facing):
            j = (i + 1) % 40
            quad = np.stack([low[i], low[j], high[j], high[i]]) - (x0, y0)
            shade = np.minimum(PILLAR * 1.22 * bright[i], 255)
            cv2.fillConvexPoly(color, _fixed(quad), tuple(map(float, shade)), cv2.LINE_AA, _SHIFT)
        cap = np.minimum(PILLAR * 1.32, 255)
        cv2.fillConvexPoly(color, _fixed(high - (x0, y0)), tuple(map(float, cap)), cv2.LINE_AA, _SHIFT)
        alpha = np.zeros(shape[:2], np.uint8)
        cv2.fillConvexPoly(alpha, _fixed(outline - (x0, y0)), 255, cv2.LINE_AA, _SHIFT)
        return float(self.view.depth(foot)), roi, color.astype(float), self._opacity * alpha[..., None] / 255.0

    def _paint_pillar(self, image: Image, roi: tuple[slice, slice], color: NDArray[Any], alpha: NDArray[Any]) -> None:
        image[roi] = (image[roi] * (1 - alpha) + color * alpha + 0.5).astype(np.uint8)

    def _paint_goal(self, image: Image, goal: Array, color: tuple[int, int, int]) -> None:
        """A ring about the goal with a dot in it, the same from everywhere; in perspective a line to the floor."""
        at = self.view.place(goal)
        if not self.flat:
            foot = self.view.place(goal * [1.0, 1.0, 0.0])
            _line(image, np.stack([at, foot]), _mixed(color, 0.35), 0.8 * self.pen)
        size = self.view.pixels(0.2, goal)
        _circle(image, at, size, _mixed(color, 0.9), 1.3 * self.pen)
        _circle(image, at, 1.7 * self.pen, color, -1)

    def _paint_trail(self, image: Image, ends: Array, color: tuple[int, int, int], strength: float) -> None:
        _line(image, ends, _mixed(color, 0.15 + 0.75 * strength), self.pen * (0.9 + (TRAIL_WIDTH - 0.9) * strength))

    def _paint_drone(
        self, image: Image, position: Array, rotation: Array, arm_m: float, color: tuple[int, int, int]
    ) -> None:
        """Two arms and four rotors, those in front light."""
        reach = ENLARGED * arm_m
        ends = np.array([[1, -1], [1, 1], [-1, 1], [-1, -1]]) / np.sqrt(2) * reach
        motors = position + ends @ rotation[:, :2].T
        at = self.view.place(motors)
        dark = _mixed(color, 1.0, 0.7)
        for a, b in ((0, 2), (1, 3)):
            _line(image, at[[a, b]], dark, 1.8 * self.pen)
        for i, motor in enumerate(motors):
            rotor = self._ring(motor, 0.52 * reach, rotation[:, :2], 16)
            _fill(image, rotor, _mixed(color, 0.45 if i < 2 else 1.0), dark, 0.6 * self.pen)

    def _paint_contact(self, image: Image, place: Array, age: float) -> None:
        """A ring that widens and pales."""
        at = self.view.place(place)
        size = self.view.pixels(0.25 + 0.45 * age, place)
        _circle(image, at, size, _mixed(ALARM, 1.0 - 0.8 * age), (3.2 - 1.8 * age) * self.pen)


def palette_of_the_stage() -> list[int]:
    """Fewer than 256 colours that are painted, or become of them behind obstacles and at edges: r, g, b, r, ..."""
    greys = [(g, g, g) for g in np.linspace(20, 255, 22).astype(int)]
    pillars = [tuple(np.minimum(PILLAR * k, 255).astype(int)) for k in np.linspace(0.75, 1.5, 20)]
    flat = [GROUND, LINES, WALL, SHADOW, DISC, RIM]
    shades = [_mixed(c, k) for c in COLORS for k in (1.0, 0.84, 0.66, 0.5, 0.36, 0.24, 0.12)]
    behind = [tuple((0.28 * np.array(c) + 0.72 * 1.15 * PILLAR).astype(int)) for c in COLORS]
    alarm = [_mixed(ALARM, k) for k in (1.0, 0.8, 0.6, 0.4, 0.2)]
    found = [*greys, *pillars, *flat, *shades, *behind, *(_mixed(c, 1.0, 0.7) for c in COLORS), *alarm]
    return [int(value) for color in found for value in color]


def _mixed(color: tuple[int, int, int], strength: float, light: float = 1.0) -> tuple[int, int, int]:
    """The colour on white, at a strength between 0 and 1, darkened by `light`."""
    r, g, b = (round(light * (255 + strength * (c - 255))) for c in color)
    return r, g, b


def _fixed(points: Array) -> NDArray[np.int32]:
    """Pixel coordinates with _SHIFT fractional bits."""
    return np.clip(np.rint((points - 0.5) * (1 << _SHIFT)), -(1 << 20), 1 << 20).astype(np.int32)


def _line(image: Image, points: Array, color: tuple[int, int, int], width: float) -> None:
    cv2.polylines(image, [_fixed(points)], False, color, max(1, round(width)), cv2.LINE_AA, _SHIFT)


def _fill(
    image: Image,
    points: Array,
    color: tuple[int, int, int],
    edge: tuple[int, int, int] | None = None,
    width: float = 1.0,
) -> None:
    cv2.fillPoly(image, [_fixed(points)], color, cv2.LINE_AA, _SHIFT)
    if edge is not None:
        cv2.polylines(image, [_fixed(points)], True, edge, max(1, round(width)), cv2.LINE_AA, _SHIFT)


def _circle(image: Image, at: Array, radius: float, color: tuple[int, int, int], width: float) -> None:
    x, y = _fixed(at)
    thick = -1 if width < 0 else max(1, round(width))
    cv2.circle(image, (int(x), int(y)), round(radius * (1 << _SHIFT)), color, thick, cv2.LINE_AA, _SHIFT)
