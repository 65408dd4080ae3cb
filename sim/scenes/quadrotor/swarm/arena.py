"""Maps of upright cylinders on a grid of cells: where they are, which may be near, and where there is room.

A bank holds M maps. To find the nearest cylinder a drone does not ask all of them: each small square of a map lists
those that can be nearest or second nearest for a point in it, which is exact and at most a handful.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from controllers.surroundings import FAR_M, GRID_M
from sim.scenes.quadrotor.swarm.config import CELL_M, CELLS, FIELD_M, HEIGHTS_M

SQUARE_M = 0.5
"""Side of the squares that list candidates."""
ABSENT_M = 1.0e3
"""Where cylinders stand that do not exist."""
_SIDE = round(FIELD_M / CELL_M)


class Bank(NamedTuple):
    """M maps."""

    axes: Tensor
    """(M, 64, 2) m; absent ones are far away."""
    present: Tensor
    """(M, 64) bool."""
    free: Tensor
    """(M, 64) cells in random order, free ones first."""
    count: Tensor
    """(M,) number of cylinders."""
    radius: Tensor
    """(M,) m."""
    candidates: Tensor
    """(M * S, 2 * C): x of the candidates, then y, per square; C is what the fullest square needs, 6 to 12."""


def draw_bank(density: Tensor, radius: Tensor, room: tuple[float, ...], generator: torch.Generator) -> Bank:
    """Maps with so many cylinders, (M,) shares of the 64 cells, and radii (M,), in random order of cells."""
    maps, device = len(density), density.device
    count = (CELLS * density + 1e-4).long()
    order = torch.rand((maps, CELLS), generator=generator, device=device).argsort(1)
    rank = order.argsort(1)
    present = rank < count[:, None]
    centres = cell_centres(device)
    axes = torch.where(present[..., None], centres, ABSENT_M)
    free = (rank - count[:, None]).where(~present, rank + CELLS).argsort(1)
    parts = [_candidates(axes[i : i + 32], room) for i in range(0, maps, 32)]
    most = max(int(n.max()) for _, n in parts)
    rows = torch.cat([listed[..., :most].reshape(-1, 2 * most) for listed, _ in parts])
    return Bank(axes, present, free, count, radius, rows)


def cell_centres(device: torch.device | str = "cpu") -> Tensor:
    """(64, 2) m."""
    steps = (torch.arange(_SIDE, device=device) + 0.5) * CELL_M - 0.5 * FIELD_M
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).reshape(CELLS, 2)


def squares(room: tuple[float, ...]) -> tuple[int, int]:
    """Number of squares along x and y."""
    return round(room[0] / SQUARE_M + 0.4999), round(room[1] / SQUARE_M + 0.4999)


def _candidates(axes: Tensor, room: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Candidates (m, S, 2, 64) of the squares of maps (m, 64, 2), nearest first, and their number (m, S).

    A cylinder is left out where two others are nearer at all four corners of the square, which is widened by the reach
    of the distance grid: the points that are nearer to one than to another form a half-plane, so they are nearer
    everywhere in it.
    """
    nx, ny = squares(room)
    x = (torch.arange(nx, device=axes.device) + 0.5) * SQUARE_M - 0.5 * room[0]
    y = (torch.arange(ny, device=axes.device) + 0.5) * SQUARE_M - 0.5 * room[1]
    centre = torch.stack(torch.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 1, 2)
    signs = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], device=axes.device)
    corners = centre + (0.5 * SQUARE_M + GRID_M * 2.0**0.5) * signs
    away = (axes[:, None] - centre[None]).square().sum(-1)  # (m, S, 64)
    rivals = away.topk(6, dim=-1, largest=False).indices
    from_corner = (axes[:, None, :, None] - corners[None, :, None]).square().sum(-1)  # (m, S, 64, 4)
    least = from_corner.gather(2, rivals[..., None].expand(*rivals.shape, 4))
    beaten = (least[:, :, None] < from_corner[:, :, :, None]).all(-1).sum(-1)  # by how many rivals
    kept = (beaten < 2) & (away < (0.5 * ABSENT_M) ** 2)
    order = torch.where(kept, away, torch.inf).argsort(-1)
    kept = kept.gather(2, order)
    chosen = axes[:, None].expand(-1, len(centre), -1, -1).gather(2, order[..., None].expand(*order.shape, 2))
    return torch.where(kept[..., None], chosen, ABSENT_M).transpose(2, 3), kept.sum(-1).clamp(min=2)


def nearby(xy: Tensor, maps: Tensor, candidates: Tensor, room: tuple[float, ...]) -> Tensor:
    """Axes (2, C, N) of the cylinders that may be nearest or second nearest to points (2, N) in maps (N,)."""
    nx, ny = squares(room)
    i = ((xy[0] + 0.5 * room[0]) * (1.0 / SQUARE_M)).long().clamp(0, nx - 1)
    j = ((xy[1] + 0.5 * room[1]) * (1.0 / SQUARE_M)).long().clamp(0, ny - 1)
    rows = candidates.index_select(0, (maps * nx + i) * ny + j)
    return rows.T.reshape(2, rows.shape[1] // 2, -1)


class Nearest(NamedTuple):
    """The nearest cylinders of N points, as planes."""

    direction: Tensor
    """(L, 2, N) unit vector from the point to the axis; 0 where there is none."""
    clearance: Tensor
    """(L, N) m from the surface; FAR_M where there is none."""
    present: Tensor
    """(L, N) bool."""


def nearest(xy: Tensor, near: Tensor, radius: Tensor, count: int) -> Nearest:
    """The `count` (1 or 2) nearest of the candidates (2, C, N) to points (2, N)."""
    to = near - xy[:, None]
    squared = (to * to).sum(0)
    first, index = squared.min(0)
    chosen = [(first, index)]
    if count == 2:
        slots = torch.arange(squared.shape[0], device=squared.device)[:, None]
        chosen.append(torch.where(slots == index, torch.inf, squared).min(0))
    clearance, direction, there = [], [], []
    for value, where in chosen:
        distance = torch.sqrt(value) + 1e-6
        exists = value < (0.5 * ABSENT_M) ** 2
        unit = to.gather(1, where.expand(2, 1, -1))[:, 0] / distance
        direction.append(torch.where(exists, unit, 0.0))
        clearance.append(torch.where(exists, distance - radius, FAR_M))
        there.append(exists)
    return Nearest(torch.stack(direction), torch.stack(clearance), torch.stack(there))


def distance_grid(xy: Tensor, near: Tensor, radius: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Signed distances (9, N) at 3 x 3 points around (2, N), turned by a heading; FAR_M at most."""
    to = near - xy[:, None]
    values = []
    for i in (-GRID_M, 0.0, GRID_M):
        for j in (-GRID_M, 0.0, GRID_M):
            dx, dy = to[0] - (cosine * i - sine * j), to[1] - (sine * i + cosine * j)
            values.append((dx * dx + dy * dy).amin(0))
    return (torch.sqrt(torch.stack(values)) - radius).clamp(max=FAR_M)


def free_places(bank: Bank, maps: Tensor, count: int, jitter_m: float, generator: torch.Generator) -> Tensor:
    """`count` distinct places (3, count, E) per map (E,): pairs of a free cell and a height, in random order."""
    heights = len(HEIGHTS_M)
    device = maps.device
    keys = torch.rand((len(maps), CELLS * heights), generator=generator, device=device)
    slot = torch.arange(CELLS * heights, device=device) // heights
    keys = torch.where(slot < (CELLS - bank.count[maps])[:, None], keys, 2.0)
    chosen = keys.topk(count, dim=1, largest=False).indices
    cells = bank.free[maps].gather(1, chosen // heights)
    levels = torch.tensor(HEIGHTS_M, device=device)[chosen % heights]
    places = torch.cat([cell_centres(device)[cells].permute(2, 1, 0), levels.T[None]])
    shift = torch.rand(places.shape, generator=generator, device=device) - 0.5
    return places + jitter_m * shift


def roominess(places: Tensor, others: Tensor, counted: Tensor, most_m: float) -> Tensor:
    """(P, n) distance of places (3, P, n) from the nearest of the counted (A, n) points (3, A, n), at most `most_m`."""
    away = (places[:, :, None] - others[:, None]).square().sum(0).sqrt()
    return torch.where(counted, away, most_m).amin(1).clamp(max=most_m)
