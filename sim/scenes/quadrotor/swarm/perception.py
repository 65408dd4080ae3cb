"""What every drone perceives of the others and of the obstacles, for A x E drones at once.

The same numbers as `controllers.surroundings.perceive`, found faster: neighbours by two passes over the pairs,
obstacles among the few that a square of the map lists. N = A E rows, row = a E + e.
"""

from typing import Literal

import torch
from torch import Tensor

from controllers.surroundings import FAR_M, PERCEIVED, TINY
from sim.scenes.quadrotor.swarm.arena import distance_grid, nearby, nearest

Frame = Literal["yaw", "world"]


def layout(neighbours: int, obstacles: int, frame: Frame) -> dict[str, int]:
    """Perceived signal -> number of its planes, in the order of `perceived`."""
    members = {"": 1, "neighbour": neighbours, "obstacle": obstacles}
    other = f"obstacle_grid_{'world' if frame == 'yaw' else 'yaw'}"
    return {
        name: what.size * (1 if "grid" in name else members[what.entity])
        for name, what in PERCEIVED.items()
        if name != other
    }


def perceived(
    own: Tensor,
    shared: Tensor,
    flying: Tensor,
    heading: Tensor,
    maps: Tensor,
    candidates: Tensor,
    radius: Tensor,
    *,
    agents: int,
    neighbours: int,
    obstacles: int,
    frame: Frame,
    room: tuple[float, ...],
) -> Tensor:
    """All planes of `layout`, (R, N).

    `own` (6, N): a drone's own measured position and velocity; `shared` (6, N): what the others know of it; `flying`
    (N,) bool; `heading` (2, N): cosine and sine of the yaw; `maps` (N,); `candidates` and `radius`
    are those of the bank of maps.
    """
    planes = {"height": own[2:3]} | _neighbours(own, shared, flying, agents, neighbours)
    xy = own[:2]
    near, radius = nearby(xy, maps, candidates, room), radius.index_select(0, maps)
    found = nearest(xy, near, radius, obstacles)
    planes |= {
        "obstacle_direction": found.direction.reshape(-1, xy.shape[1]),
        "obstacle_clearance": found.clearance,
        "obstacle_closing": (found.direction * own[3:5]).sum(1),
        "obstacle_present": found.present.to(xy.dtype),
    }
    if frame == "yaw":
        planes["obstacle_grid_yaw"] = distance_grid(xy, near, radius, heading[0], heading[1])
    else:
        one, zero = torch.ones_like(xy[0]), torch.zeros_like(xy[0])
        planes["obstacle_grid_world"] = distance_grid(xy, near, radius, one, zero)
    return torch.cat([planes[name] for name in layout(neighbours, obstacles, frame)])


def _neighbours(own: Tensor, shared: Tensor, flying: Tensor, agents: int, count: int) -> dict[str, Tensor]:
    n = own.shape[1]
    mine, theirs = own.reshape(6, 1, agents, -1), shared.reshape(6, agents, 1, -1)
    between = theirs - mine  # (6, j, i, E)
    to, by = between[:3], between[3:]
    distance = torch.sqrt((to * to).sum(0)) + TINY
    opening = (to * by).sum(0) / distance
    itself = torch.eye(agents, dtype=torch.bool, device=own.device)[..., None]
    known = flying.reshape(agents, 1, -1) & ~itself
    key = torch.where(known, distance + opening, torch.inf)
    slots = torch.arange(agents, device=own.device)[:, None, None]
    everything = torch.cat([between, distance[None], -opening[None]])  # (8, j, i, E)
    parts, present = [], []
    for k in range(count):
        if k >= agents:
            parts.append(torch.zeros_like(parts[0]))
            present.append(torch.zeros_like(present[0]))
            continue
        value, index = key.min(0)
        there = ~value.isinf()
        chosen = everything.gather(1, index.expand(8, 1, *index.shape))[:, 0]
        parts.append(torch.where(there, chosen, 0.0).reshape(8, n))
        present.append(there.reshape(n))
        key = torch.where(slots == index, torch.inf, key)
    there = torch.stack(present)
    stacked = torch.stack(parts)
    return {
        "neighbour_position": stacked[:, :3].reshape(-1, n),
        "neighbour_velocity": stacked[:, 3:6].reshape(-1, n),
        "neighbour_distance": torch.where(there, stacked[:, 6], FAR_M),
        "neighbour_closing": stacked[:, 7],
        "neighbour_present": there.to(own.dtype),
    }
