"""What a robot perceives of its surroundings: other robots and upright cylinders, as signals for the interpreter.

The policy does not see every neighbour and obstacle, but the few that matter, sorted, in fixed places: the same
numbers whether they come from motion capture and a list of obstacles (numpy, on the robot) or from a simulator
(batched torch). A simulator may find them by a faster way of its own; this is the definition that it is tested against.
"""

from typing import Any, NamedTuple

from hardware.arrays import constant, namespace

FAR_M = 10.0
"""Distance and clearance of what is not there."""
GRID_M = 0.1
"""Spacing of the 3 x 3 points of the distance grid."""
TINY = 1e-6
NOBODY = 1e30
"""Sorting key of a place that nobody holds: behind everybody, but before those already taken (inf)."""


class Perceived(NamedTuple):
    """One perceived signal."""

    size: int
    """Numbers per member."""
    frame: str
    """'world' for vectors that an observation may turn into another frame, '' for scalars."""
    unit: str
    entity: str
    """'' for one's own, else what its members are."""


PERCEIVED = {
    "height": Perceived(1, "", "m", ""),
    "neighbour_position": Perceived(3, "world", "m", "neighbour"),
    "neighbour_velocity": Perceived(3, "world", "m/s", "neighbour"),
    "neighbour_distance": Perceived(1, "", "m", "neighbour"),
    "neighbour_closing": Perceived(1, "", "m/s", "neighbour"),
    "neighbour_present": Perceived(1, "", "1", "neighbour"),
    "obstacle_grid_world": Perceived(9, "", "m", "obstacle"),
    "obstacle_grid_yaw": Perceived(9, "", "m", "obstacle"),
    "obstacle_direction": Perceived(2, "world", "1", "obstacle"),
    "obstacle_clearance": Perceived(1, "", "m", "obstacle"),
    "obstacle_closing": Perceived(1, "", "m/s", "obstacle"),
    "obstacle_present": Perceived(1, "", "1", "obstacle"),
}
"""Sources that an observation's fields may name beside the robot's own signals. The grids have no members: one value
of nine signed distances, rows along x (ahead), columns along y (left), from -0.1 m to +0.1 m."""


class Around(NamedTuple):
    """Everything near a robot; leading dimensions are those of its own state."""

    positions: Any
    """(..., M, 3) other robots in the world, m."""
    velocities: Any
    """(..., M, 3) m/s."""
    known: Any
    """(..., M) bool: False where nobody is, or nothing was heard for too long."""
    obstacles: Any
    """(..., L, 2) axes of upright cylinders, m."""
    present: Any
    """(..., L) bool."""
    radius: Any
    """(..., L) m."""


def nowhere(like: Any) -> Around:
    """Nobody and nothing, for one robot whose state is made of arrays like `like`."""
    xp = namespace(like)
    none = lambda *shape: xp.zeros(shape, dtype=like.dtype, device=like.device)  # noqa: E731
    flags = xp.zeros((0,), dtype=xp.bool, device=like.device)
    return Around(none(0, 3), none(0, 3), flags, none(0, 2), flags, none(0))


def perceive(
    position: Any, velocity: Any, quat: Any, around: Around, *, neighbours: int, obstacles: int
) -> dict[str, Any]:
    """All perceived signals, name -> (..., members * size), of a robot's position, velocity (..., 3) and quat (..., 4).

    The `neighbours` others with the smallest distance minus closing speed times one second, most pressing first (Huang
    et al. 2024, arXiv 2309.13285); the `obstacles` nearest cylinders, nearest first.
    """
    signals = {"height": position[..., 2:]}
    signals |= _neighbours(position, velocity, around, neighbours)
    signals |= _obstacles(position[..., :2], velocity[..., :2], around, obstacles)
    zero = constant(0.0, position)
    cosine, sine = _heading(quat)
    return signals | {
        "obstacle_grid_world": _grid(position, around, 1.0 + zero * cosine, zero * sine),
        "obstacle_grid_yaw": _grid(position, around, cosine, sine),
    }


def select(key: Any, count: int) -> list[Any]:
    """Indices (...,) of the `count` smallest keys along the last axis, smallest first; inf once they are used up.

    `count` passes over few candidates are faster than sorting them, and compile to plain loops.
    """
    xp = namespace(key)
    found = []
    slots = xp.arange(key.shape[-1], device=key.device)
    for _ in range(count):
        index = xp.argmin(key, axis=-1)
        found.append(index)
        key = xp.where(slots == index[..., None], constant(float("inf"), key), key)
    return found


def _neighbours(position: Any, velocity: Any, around: Around, count: int) -> dict[str, Any]:
    xp = namespace(position)
    to, by, known = _padded(
        around.positions - position[..., None, :], around.velocities - velocity[..., None, :], around.known, count
    )
    distance = xp.sqrt(xp.sum(to * to, axis=-1)) + TINY
    opening = xp.sum(to * by, axis=-1) / distance
    key = xp.where(known, distance + opening, constant(NOBODY, distance))
    parts: dict[str, list[Any]] = {name: [] for name, p in PERCEIVED.items() if p.entity == "neighbour"}
    for index in select(key, count):
        there = _take(known, index)
        zero = constant(0.0, position)
        parts["neighbour_position"].append(xp.where(there, _take(to, index), zero))
        parts["neighbour_velocity"].append(xp.where(there, _take(by, index), zero))
        parts["neighbour_distance"].append(xp.where(there, _take(distance, index), constant(FAR_M, position)))
        parts["neighbour_closing"].append(xp.where(there, -_take(opening, index), zero))
        parts["neighbour_present"].append(xp.where(there, 1.0 + zero, zero))
    return _joined(parts, position)


def _obstacles(position: Any, velocity: Any, around: Around, count: int) -> dict[str, Any]:
    xp = namespace(position)
    to, radius, present = _padded(around.obstacles - position[..., None, :], around.radius, around.present, count)
    distance = xp.sqrt(xp.sum(to * to, axis=-1)) + TINY
    key = xp.where(present, distance - radius, constant(NOBODY, distance))
    parts: dict[str, list[Any]] = {
        name: [] for name, p in PERCEIVED.items() if p.entity == "obstacle" and "grid" not in name
    }
    for index in select(key, count):
        there, zero = _take(present, index), constant(0.0, position)
        direction = _take(to, index) / _take(distance, index)
        closing = xp.sum(velocity * direction, axis=-1, keepdims=True)
        parts["obstacle_direction"].append(xp.where(there, direction, zero))
        parts["obstacle_clearance"].append(xp.where(there, _take(distance - radius, index), constant(FAR_M, position)))
        parts["obstacle_closing"].append(xp.where(there, closing, zero))
        parts["obstacle_present"].append(xp.where(there, 1.0 + zero, zero))
    return _joined(parts, position)


def _grid(position: Any, around: Around, cosine: Any, sine: Any) -> Any:
    """(..., 9) distance from the nearest cylinder's surface at points turned by a heading."""
    xp = namespace(position)
    values = []
    for i in (-GRID_M, 0.0, GRID_M):
        for j in (-GRID_M, 0.0, GRID_M):
            x = position[..., 0] + (cosine * i - sine * j)
            y = position[..., 1] + (sine * i + cosine * j)
            dx, dy = around.obstacles[..., 0] - x[..., None], around.obstacles[..., 1] - y[..., None]
            gap = xp.sqrt(dx * dx + dy * dy) - around.radius
            gap = xp.where(around.present, gap, constant(FAR_M, gap))
            none = xp.full((*gap.shape[:-1], 1), FAR_M, dtype=gap.dtype, device=gap.device)
            values.append(xp.min(xp.concat([gap, none], axis=-1), axis=-1))
    return xp.stack(values, axis=-1)


def _heading(quat: Any) -> tuple[Any, Any]:
    """Cosine and sine (...) of the body's x axis on the ground."""
    xp = namespace(quat)
    w, x, y, z = (quat[..., i] for i in range(4))
    c, s = 1.0 - 2.0 * (y * y + z * z), 2.0 * (w * z + x * y)
    norm = xp.sqrt(c * c + s * s) + 1e-12
    return c / norm, s / norm


def _padded(a: Any, b: Any, flags: Any, count: int) -> tuple[Any, Any, Any]:
    """The same with at least `count` members, those added unknown."""
    xp, lack = namespace(a), count - flags.shape[-1]
    if lack <= 0:
        return a, b, flags

    def more(value: Any, axes: int) -> Any:
        shape = (*value.shape[: value.ndim - axes], lack, *value.shape[value.ndim - axes + 1 :])
        return xp.concat([value, xp.zeros(shape, dtype=value.dtype, device=value.device)], axis=-axes)

    return more(a, 2), more(b, b.ndim - flags.ndim + 1), more(flags, 1)


def _take(values: Any, index: Any) -> Any:
    """(..., k) or (..., 1): the member `index` (...) of (..., M, k) or (..., M)."""
    xp = namespace(index)
    if values.ndim == index.ndim + 1:
        return xp.take_along_axis(values, index[..., None], axis=-1)
    where = xp.broadcast_to(index[..., None, None], (*index.shape, 1, values.shape[-1]))
    return xp.take_along_axis(values, where, axis=-2)[..., 0, :]


def _joined(parts: dict[str, list[Any]], like: Any) -> dict[str, Any]:
    xp = namespace(like)
    none = xp.zeros((*like.shape[:-1], 0), dtype=like.dtype, device=like.device)
    return {name: xp.concat([none, *values], axis=-1) for name, values in parts.items()}
