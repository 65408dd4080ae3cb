"""Where the drones of a swarm start and fly to: goals of A drones over time, for E environments at once.

Kinds, timings and sizes are those of quad-swarm-rl (gym_art/quadrotor_multi/scenarios; Huang et al. 2024, Batra et al.
2021). Where they differ, each scenario says so. Static goals are free places: they never lie in an obstacle. Moving
goals cross obstacles, as published, and so may the formations, which were made for rooms without obstacles. Every goal
stays half a metre from walls, floor and ceiling, as far as the places do.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hardware.errors import BadInput, NotFoundError
from sim.scenes.quadrotor.swarm.formations import (
    between,
    bounds,
    centre_within,
    formed,
    inside,
    middle_of,
    rand,
    shrink,
    shuffled,
)

PATH_ROWS = 20
"""Planes that describe one drone's goal path."""
POINTS = 6
"""Goals that a drone is sent to one after the other; then the first again: 24 s to 36 s of them."""
PERIOD_S = (4.0, 6.0)
"""Goals switch after a time that is drawn once per episode."""
REACH_M = 4.0
"""dynamic_same_goal: how far the next goal may be from the last."""
GROUPS_M = (0.5, 2.0)
"""swarm_vs_swarm: between the groups' centres."""
SPACING_M = (0.25, 0.5)
"""Between the neighbours of a formation: 5 to 10 arm lengths of 5 cm."""
WIDEST_M = 1.0
"""`formations`: the same when it is widest."""
SIZE_SPEED = (0.1, 0.3)
"""`formations`: growth of the size, m/s; and the speed of its centre, on a circle of radius ORBIT_M."""
ORBIT_M = 1.0
BEZIER_S = 6.0
BEZIER_REACH_M = 5
BEZIER_HEIGHT_M = (1.0, 3.0)
LISSAJOUS_M = (3.0, 0.5, 0.5)
LISSAJOUS_PHASE = 90.0
"""In radians, though degrees were probably meant: the published curve is kept."""
_CANDIDATES = 48


class Scenario(NamedTuple):
    """One rule for starts and goals."""

    summary: str
    moving: bool
    """Whether goals change; where not, they are path[0:3]."""
    draw: Callable[[Tensor, int, Tensor, torch.Generator], tuple[Tensor, Tensor]]
    """draw(places (3, P, E), agents, room (3,), generator) -> starts (3, A, E), path (PATH_ROWS, A, E). Places are
    P >= 2A free ones per environment, in random order; a room of size (x, y, z) has its origin in the floor's middle.
    Raises BadInput where places are too few."""
    goal: Callable[[Tensor, Tensor], Tensor]
    """goal(path (PATH_ROWS, ...), t_s (...)) -> (3, ...), m, at a time since the episode began."""


def scenario(name: str) -> Scenario:
    """The scenario of that name; raises NotFoundError listing those there are."""
    if name not in SCENARIOS:
        raise NotFoundError("scenario", name, list(SCENARIOS))
    return SCENARIOS[name]


def _draw_random(places: Tensor, agents: int, room: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    starts, free = _split(places, agents)
    return starts, _packed(free[:, :agents])


def _draw_same(places: Tensor, agents: int, room: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    starts, free = _split(places, agents)
    return starts, _packed(free[:, :1].expand_as(starts))


def _draw_mixed(places: Tensor, agents: int, room: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    starts, free = _split(places, agents)
    shared = rand((places.shape[2],), generator) < 0.5
    return starts, _packed(torch.where(shared, free[:, :1], free[:, :agents]))


def _draw_swap(places: Tensor, agents: int, room: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The published goals are a formation in the largest free square; these are the A free places nearest to one."""
    starts, free = _split(places, agents)
    near = (free - free[:, :1]).norm(dim=0).argsort(dim=0)[:agents]
    points = free.gather(1, near.expand(3, -1, -1)).expand(POINTS, -1, -1, -1)
    return starts, _switched(shuffled(points, generator), generator)


def _draw_dynamic_same(places: Tensor, agents: int, room: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Another free place within REACH_M of the last; the nearest one where there is none."""
    starts, free = _split(places, agents)
    here, points = free[:, :1], []
    for chance in rand((POINTS, places.shape[1], places.shape[2]), generator):
        points.append(here.expand_as(starts))
        away = (places - here).norm(dim=0)
        score = torch.where(away < REACH_M, chance, -away).masked_fill(away == 0, -math.inf)
        here = places.gather(1, score.argmax(0, keepdim=True).expand(3, -1, -1))
    return starts, _switched(torch.stack(points), generator)


def _draw_dynamic_diff(places: Tensor, agents: int, room: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A formation of another kind and size at another place, from the start (there: first about the room's middle)."""
    starts, _ = _split(places, agents)
    offsets, reach, _ = formed(agents, (POINTS, places.shape[2]), SPACING_M, room, generator)
    return starts, _switched(
        shuffled(offsets + centre_within(reach, room, generator)[:, :, None], generator), generator
    )


def _draw_versus(places: Tensor, agents: int, room: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two groups that exchange places. Their centres are as far apart as published, and further where the groups would
    overlap; there, goals of the two could coincide."""
    starts, _ = _split(places, agents)
    shape = (POINTS, places.shape[2])
    groups = [formed(n, shape, SPACING_M, room, generator) for n in (agents // 2, agents - agents // 2)]
    radius = torch.stack([offsets.norm(dim=1).amax(1) for offsets, _, _ in groups if offsets.shape[2]])
    apart = between(GROUPS_M, shape[1:], generator)
    apart = torch.maximum(apart, 2 * radius.amax((0, 1)) + SPACING_M[0])
    phi, theta = between((-math.pi, math.pi), (2, shape[1]), generator)
    towards = torch.stack([theta.cos() * phi.cos(), theta.cos() * phi.sin(), 0.5 * theta.sin()])
    arm = 0.5 * apart * towards / towards.norm(dim=0)
    reach = torch.stack([reach for _, reach, _ in groups]).amax((0, 1)) + arm.abs()
    scale = shrink(reach, room)
    middle, arm = centre_within(scale * reach, room, generator), scale * arm
    arms = torch.tensor([1.0, -1.0], device=arm.device).repeat(POINTS // 2)[:, None, None] * arm
    points = [
        shuffled(scale * offsets + (middle + side * arms)[:, :, None], generator)
        for (offsets, _, _), side in zip(groups, (1, -1), strict=True)
    ]
    return starts, _switched(torch.cat(points, 2), generator)


def _draw_bezier(places: Tensor, agents: int, room: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each piece's two new points lie 2 m to 5 m from where it begins. The third piece leads back to the beginning, so
    that a path is three pieces (there: new ones without end), and heights are those of the places (there 2 m to 2.5 m).
    """
    starts, free = _split(places, agents)
    nodes = [free[:, 0]]
    for piece in range(2):
        home = [nodes[0]] if piece else []
        nodes += [_around([nodes[2 * piece]], room, generator), _around([nodes[2 * piece], *home], room, generator)]
    nodes.append(_around([nodes[4]], room, generator))
    return starts, _packed(torch.cat(nodes)[:, None].expand(-1, agents, -1))


def _draw_lissajous(places: Tensor, agents: int, room: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The published curve about the room's middle, turned at random and begun anywhere (there: always the same)."""
    starts, _ = _split(places, agents)
    count = places.shape[2]
    turn, phase = between((-math.pi, math.pi), (2, count), generator)
    sizes = torch.tensor(LISSAJOUS_M, device=places.device)[:, None].expand(3, count)
    reach = torch.cat([sizes[:2].norm(dim=0).expand(2, count), sizes[2:]])
    scale = shrink(reach, room)
    centre = inside(middle_of(count, places.device), scale * reach, room)
    rows = torch.cat([centre, scale * sizes, torch.stack([turn.cos(), turn.sin(), phase])])
    return starts, _packed(rows[:, None].expand(-1, agents, -1))


def _draw_formations(places: Tensor, agents: int, room: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A formation that grows, shrinks, passes through a point and grows mirrored, as published, at one speed per
    episode (there: a new one at each turn); its centre moves too (there: it stands)."""
    starts, _ = _split(places, agents)
    count = places.shape[2]
    offsets, reach, size = formed(agents, (1, count), (WIDEST_M, WIDEST_M), room, generator, spare=ORBIT_M)
    flat = torch.tensor([ORBIT_M, ORBIT_M, 0.0], device=places.device)[:, None]
    centre = inside(middle_of(count, places.device), reach[0] + flat, room)
    speed, place, angle = (
        between(bounds, (count,), generator) for bounds in (SIZE_SPEED, (0.0, 4.0), (-math.pi, math.pi))
    )
    common = torch.cat([centre, torch.stack([speed, place, size[0], angle])])[:, None].expand(-1, agents, -1)
    return starts, _packed(torch.cat([shuffled(offsets, generator)[0], common]))


def _goal_still(path: Tensor, t_s: Tensor) -> Tensor:
    return path[:3]


def _goal_switched(path: Tensor, t_s: Tensor) -> Tensor:
    """Points (6 x 3 rows), then the time between them."""
    k = (t_s / path[18].clamp(min=1e-3)).floor().remainder(POINTS).long()
    return _pick(path, k)


def _goal_bezier(path: Tensor, t_s: Tensor) -> Tensor:
    """Nodes of three quadratic curves, end to end, closed (6 x 3 rows)."""
    u = t_s / BEZIER_S
    k, u = 2 * u.floor().remainder(3).long(), u - u.floor()
    first, middle, last = (_pick(path, (k + i).remainder(POINTS)) for i in range(3))
    return (1 - u) ** 2 * first + 2 * u * (1 - u) * middle + u**2 * last


def _goal_lissajous(path: Tensor, t_s: Tensor) -> Tensor:
    """Centre (3), amplitudes (3), cosine and sine of the turn, phase."""
    t = t_s + path[8]
    x, y = -path[3] * t.cos(), -path[4] * (2 * t + LISSAJOUS_PHASE).cos()
    z = path[5] * (2 * t + LISSAJOUS_PHASE).sin()
    return path[:3] + torch.stack([path[6] * x - path[7] * y, path[7] * x + path[6] * y, z])


def _goal_formation(path: Tensor, t_s: Tensor) -> Tensor:
    """Offset when widest (3), centre (3), speed, place in the cycle (quarters), largest size, angle of the centre."""
    speed, widest = path[6], path[8].clamp(min=1e-3)
    quarters = path[7] + speed * t_s / widest
    share = ((quarters - 1).remainder(4) - 2).abs() - 1
    angle = path[9] + speed * t_s / ORBIT_M
    return path[3:6] + share * path[:3] + ORBIT_M * torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)])


SCENARIOS: dict[str, Scenario] = {
    "random": Scenario("own goals, which stay (o_random)", False, _draw_random, _goal_still),
    "same_goal": Scenario("one goal for all, which stays (o_static_same_goal)", False, _draw_same, _goal_still),
    "mixed": Scenario("random or same_goal, by the toss of a coin", False, _draw_mixed, _goal_still),
    "swap": Scenario("drones exchange goals every 4 s to 6 s (o_swap_goals)", True, _draw_swap, _goal_switched),
    "dynamic_same_goal": Scenario(
        "one goal for all jumps every 4 s to 6 s (o_dynamic_same_goal)", True, _draw_dynamic_same, _goal_switched
    ),
    "dynamic_diff_goal": Scenario(
        "a new formation elsewhere every 4 s to 6 s (dynamic_diff_goal)", True, _draw_dynamic_diff, _goal_switched
    ),
    "bezier": Scenario("all pursue one goal on Bezier curves (o_ep_rand_bezier)", True, _draw_bezier, _goal_bezier),
    "lissajous": Scenario(
        "all pursue one goal on a Lissajous curve (ep_lissajous3D)", True, _draw_lissajous, _goal_lissajous
    ),
    "formations": Scenario(
        "a formation that grows, shrinks and moves (dynamic_formations)", True, _draw_formations, _goal_formation
    ),
    "swarm_vs_swarm": Scenario(
        "two groups exchange places every 4 s to 6 s (swarm_vs_swarm)", True, _draw_versus, _goal_switched
    ),
}


def _split(places: Tensor, agents: int) -> tuple[Tensor, Tensor]:
    """Starts (3, A, E) and the places left."""
    if places.shape[1] < 2 * agents:
        raise BadInput(f"{places.shape[1]} free places for {agents} drones; expected at least {2 * agents}")
    return places[:, :agents], places[:, agents:]


def _packed(rows: Tensor) -> Tensor:
    """(k, A, E) with rows of zeros up to PATH_ROWS."""
    return torch.nn.functional.pad(rows, (0, 0, 0, 0, 0, PATH_ROWS - rows.shape[0]))


def _switched(points: Tensor, generator: torch.Generator) -> Tensor:
    """The path through points (POINTS, 3, A, E), with one time between them per environment."""
    period = between(PERIOD_S, points.shape[-1:], generator).expand(1, *points.shape[2:])
    return _packed(torch.cat([points.flatten(0, 1), period]))


def _pick(path: Tensor, k: Tensor) -> Tensor:
    """Point k (...) of six, (3, ...)."""
    return path[:18].unflatten(0, (POINTS, 3)).gather(0, k.expand(1, 3, *k.shape))[0]


def _around(anchors: list[Tensor], room: Tensor, generator: torch.Generator) -> Tensor:
    """A random point 2 m to 5 m from the first anchor (3, E) and at most 5 m from all; less far in small rooms."""
    shape = (_CANDIDATES, anchors[0].shape[1])
    unit = (room.max() / 10.0).clamp(max=1.0)
    steep = torch.stack([0.5 * room[0], 0.5 * room[1], room.new_tensor(BEZIER_HEIGHT_M[1])])
    towards = (2 * rand((3, *shape), generator) - 1) * steep[:, None, None]
    length = unit * torch.randint(2, BEZIER_REACH_M + 1, shape, generator=generator, device=generator.device)
    found = anchors[0][:, None] + length * towards / towards.norm(dim=0).clamp(min=1e-6)
    low, high = bounds(room)
    level = room.new_tensor([[-math.inf, -math.inf, BEZIER_HEIGHT_M[0]], [math.inf, math.inf, BEZIER_HEIGHT_M[1]]])
    low, high = torch.maximum(low, level[0, :, None]), torch.minimum(high, level[1, :, None])
    fits = ((found > low[:, None]) & (found < high[:, None])).all(0)
    for anchor in anchors[1:]:
        fits &= (found - anchor[:, None]).norm(dim=0) <= BEZIER_REACH_M * unit
    first = fits.int().argmax(0, keepdim=True)
    chosen = found.gather(1, first.expand(3, 1, -1))[:, 0]
    return torch.where(fits.any(0), chosen, torch.stack(anchors).mean(0))
