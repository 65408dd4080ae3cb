"""Formations of A points, as in quad-swarm-rl's scenarios/utils.py, and how they fit into a room.

A formation has a size: the radius of a circle or sphere, the distance between neighbours of a grid or cube. Circles
hold eight points per layer, grids fifty; further layers lie beside them: many points on a circle are a cylinder.
Three differences: layers stand as far apart as neighbours (there: drawn apart), a cube is filled by the smallest side
that holds all points (there: the next smaller, which makes a column of fewer than eight points), and formations shrink
where the room does not hold them.
"""

import math

import torch
from torch import Tensor

MARGIN_M = 0.5
"""Between goals and walls, floor and ceiling."""
BOX_M = 2.0
"""Formations appear within this distance of the room's middle, and within half of it of HEIGHT_M."""
HEIGHT_M = 2.0
KINDS = (
    "circle_horizontal",
    "circle_vertical_xz",
    "circle_vertical_yz",
    "sphere",
    "grid_horizontal",
    "grid_vertical_xz",
    "grid_vertical_yz",
    "cube",
)
_PER_CIRCLE, _PER_GRID = 8, 50
_PLANES = {"horizontal": (0, 1, 2), "vertical_xz": (0, 2, 1), "vertical_yz": (1, 2, 0)}
"""Axes along which a flat formation spreads, and the axis of its layers."""


def formations(agents: int) -> tuple[Tensor, Tensor]:
    """Every kind for A points: places at size one (kinds, 3, A), and size (m) per metre between neighbours (kinds,)."""
    places, sizes = [], []
    for kind in KINDS:
        shape, _, plane = kind.partition("_")
        if shape == "sphere":
            points, size = _sphere(agents), _sphere_size(agents)
        elif shape == "cube":
            points, size = _cube(agents), 1.0
        else:
            flat, size = (_circle(agents), _circle_size(_PER_CIRCLE)) if shape == "circle" else (_grid(agents), 1.0)
            points = torch.empty_like(flat)
            points[list(_PLANES[plane])] = flat
        places.append(points)
        sizes.append(size)
    return torch.stack(places), torch.tensor(sizes)


def formed(
    agents: int,
    shape: tuple[int, int],
    spacing: tuple[float, float],
    room: Tensor,
    generator: torch.Generator,
    spare: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Formations for shape (S, E), in the room: offsets (S, 3, A, E), reach along each axis (S, 3, E), size (S, E).

    Smaller ones where the room, less `spare` m at each wall, does not hold them.
    """
    table, sizes = (x.to(generator.device) for x in formations(agents))
    kind = torch.randint(len(KINDS), shape, generator=generator, device=generator.device)
    size = between(spacing, shape, generator) * sizes[kind]
    extent = table.abs().amax(2) if agents else table.new_zeros(table.shape[:2])
    reach = size[:, None] * extent[kind].movedim(2, 1)
    scale = shrink(reach, room - 2 * spare)
    offsets = size[:, None, None] * table[kind].permute(0, 2, 3, 1)
    return scale[:, None, None] * offsets, scale[:, None] * reach, scale * size


def centre_within(reach: Tensor, room: Tensor, generator: torch.Generator) -> Tensor:
    """A centre about the room's middle for something that reaches so far (..., 3, E)."""
    box = torch.tensor([BOX_M, BOX_M, 0.5 * BOX_M], device=reach.device)[:, None]
    offset = (2 * rand(tuple(reach.shape), generator) - 1) * box
    return inside(offset + middle_of(reach.shape[-1], reach.device), reach, room)


def middle_of(count: int, device: torch.device) -> Tensor:
    """The room's middle at the height of formations, (3, count)."""
    return torch.tensor([0.0, 0.0, HEIGHT_M], device=device)[:, None].expand(3, count)


def inside(centre: Tensor, reach: Tensor, room: Tensor) -> Tensor:
    """The nearest centre (..., 3, E) from which `reach` stays within the room's bounds."""
    low, high = bounds(room)
    low, high = low + reach, high - reach
    middle = 0.5 * (low + high)
    return torch.maximum(torch.minimum(centre, torch.maximum(high, middle)), torch.minimum(low, middle))


def shrink(reach: Tensor, room: Tensor) -> Tensor:
    """Factor (..., E), at most one, by which reach (..., 3, E) fits into the room."""
    low, high = bounds(room)
    return (0.5 * (high - low).clamp(min=0.0) / reach.clamp(min=1e-6)).amin(-2).clamp(max=1.0)


def bounds(room: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest coordinates (3, 1) of goals."""
    half = torch.stack([0.5 * room[0], 0.5 * room[1], room[2]])[:, None]
    low = torch.stack([-0.5 * room[0], -0.5 * room[1], torch.zeros_like(room[2])])[:, None]
    return low + MARGIN_M, half - MARGIN_M


def shuffled(points: Tensor, generator: torch.Generator) -> Tensor:
    """Points (S, 3, A, E), dealt to the drones in a random order for each S and E."""
    order = rand((points.shape[0], 1, *points.shape[2:]), generator).argsort(dim=2)
    return points.gather(2, order.expand_as(points))


def between(bounds: tuple[float, float], shape: tuple[int, ...] | torch.Size, generator: torch.Generator) -> Tensor:
    """Uniform between two bounds."""
    return bounds[0] + (bounds[1] - bounds[0]) * rand(tuple(shape), generator)


def rand(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform between zero and one, on the generator's device."""
    return torch.rand(shape, generator=generator, device=generator.device)


def _circle(count: int) -> Tensor:
    """Layers of up to eight on a circle of radius one, (3, count); each layer spread evenly."""
    i = torch.arange(count)
    layer = i // _PER_CIRCLE
    in_layer = (count - layer * _PER_CIRCLE).clamp(max=_PER_CIRCLE)
    angle = 2 * math.pi * (i % _PER_CIRCLE) / in_layer
    return torch.stack([angle.cos(), angle.sin(), _centred(layer / _circle_size(_PER_CIRCLE))])


def _grid(count: int) -> Tensor:
    """Layers of up to fifty, one unit apart, as square as their number has divisors for, (3, count)."""
    columns = []
    for first in range(0, count, _PER_GRID):
        here = min(_PER_GRID, count - first)
        rows = next(d for d in range(math.isqrt(here), 0, -1) if here % d == 0)
        i = torch.arange(here)
        across = here // rows
        columns.append(torch.stack([i % across, i // across, torch.full_like(i, first // _PER_GRID)]))
    return _centred(torch.cat(columns, 1).float()) if columns else torch.zeros(3, 0)


def _cube(count: int) -> Tensor:
    """The smallest cube that holds `count` points one unit apart, filled in order, (3, count)."""
    side = next(n for n in range(1, count + 2) if n**3 >= count)
    i = torch.arange(count)
    return _centred(torch.stack([i // side % side, i % side, i // side**2]).float())


def _sphere(count: int) -> Tensor:
    """A spiral over a sphere of radius one, (3, count); three or more points."""
    n = max(count, 3)
    s = torch.linspace(-1 + 1 / (n - 1), 1 - 1 / (n - 1), n, dtype=torch.float64)[:count]
    x, y = s * (0.1 + 1.2 * n), math.pi / 2 * s.sign() * (1 - (1 - s.abs()).sqrt())
    return torch.stack([x.cos() * y.cos(), x.sin() * y.cos(), y.sin()]).float()


def _circle_size(count: int) -> float:
    return 0.5 / math.sin(math.pi / count)


def _sphere_size(count: int) -> float:
    """Radius of a sphere on which `count` points are one unit apart: quad-swarm-rl's fit."""
    a, b, c, d = 1.75388487222762, 0.860487305801679, 10.3632729642351, 0.0920858134405214
    return 1.0 / ((a - d) / (1 + (count / c) ** b) + d)


def _centred(points: Tensor) -> Tensor:
    """With their mean at zero along the last dimension."""
    return points - points.mean(-1, keepdim=True) if points.shape[-1] else points
