"""Scenarios of the swarm: published timings and curves, goals within the room, bounded speed, reproducible draws."""

import math

import pytest
import torch
from torch import Tensor

from hardware.errors import BadInput, NotFoundError
from sim.scenes.quadrotor.swarm.formations import KINDS, formations
from sim.scenes.quadrotor.swarm.scenarios import PATH_ROWS, SCENARIOS, scenario

ROOM = torch.tensor([10.0, 10.0, 10.0])
LOW, HIGH = torch.tensor([-4.5, -4.5, 0.5]), torch.tensor([4.5, 4.5, 9.5])
SWARMS = (1, 2, 3, 5, 8, 32)
SWITCHING = ("swap", "dynamic_same_goal", "dynamic_diff_goal", "swarm_vs_swarm")
SHARED = ("same_goal", "dynamic_same_goal", "bezier", "lissajous")
DT_S = 0.01


def some_places(count: int, envs: int, seed: int = 0) -> Tensor:
    """Distinct pairs of a cell of the central 8 x 8 and a height, (3, count, envs)."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand((320, envs), generator=generator).argsort(0)[:count]
    cell, level = order // 5, order % 5
    return torch.stack([cell // 8 - 3.5, cell % 8 - 3.5, 1.0 + 0.5 * level])


def drawn(name: str, agents: int, envs: int = 40, seed: int = 0, spare: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Places, starts and path."""
    places = some_places(2 * agents + spare, envs, seed)
    generator = torch.Generator().manual_seed(seed)
    return places, *SCENARIOS[name].draw(places, agents, ROOM, generator)


def flown(name: str, path: Tensor, until_s: float = 20.0, dt_s: float = DT_S) -> Tensor:
    """Goals over time (T, 3, A, E)."""
    times = torch.arange(0.0, until_s, dt_s, dtype=path.dtype)
    return torch.stack([SCENARIOS[name].goal(path, t.expand(path.shape[1:])) for t in times])


@pytest.mark.parametrize("agents", SWARMS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_starts_are_the_first_places_and_goals_stay_in_the_room(name: str, agents: int) -> None:
    places, starts, path = drawn(name, agents)
    assert torch.equal(starts, places[:, :agents])
    assert path.shape == (PATH_ROWS, agents, 40)
    assert path.isfinite().all()
    goals = flown(name, path, dt_s=0.13)
    assert (goals > LOW[:, None, None] - 1e-4).all()
    assert (goals < HIGH[:, None, None] + 1e-4).all()
    if not SCENARIOS[name].moving:
        assert torch.equal(goals, path[:3].expand_as(goals))
    if name in SHARED:
        assert torch.equal(goals, goals[:, :, :1].expand_as(goals))


@pytest.mark.parametrize("agents", [1, 2, 7, 32])
@pytest.mark.parametrize("room", [(3.0, 3.0, 2.5), (6.0, 4.0, 3.0), (20.0, 20.0, 10.0)])
@pytest.mark.parametrize("name", ["dynamic_diff_goal", "swarm_vs_swarm", "formations", "lissajous"])
def test_formations_and_curves_shrink_to_the_room(name: str, room: tuple[float, float, float], agents: int) -> None:
    size = torch.tensor(room)
    _, path = SCENARIOS[name].draw(some_places(2 * agents, 9), agents, size, torch.Generator().manual_seed(3))
    goals = flown(name, path, dt_s=0.11)
    low = torch.tensor([0.5 - room[0] / 2, 0.5 - room[1] / 2, 0.5])
    assert (goals > low[:, None, None] - 1e-4).all()
    assert (goals < torch.stack([-low[0], -low[1], size[2] - 0.5])[:, None, None] + 1e-4).all()


@pytest.mark.parametrize(("name", "fastest"), [("bezier", 3.5), ("lissajous", math.sqrt(9 + 1 + 1)), ("formations", 3)])
def test_moving_goals_are_continuous_and_of_bounded_speed(name: str, fastest: float) -> None:
    for agents in (1, 8, 32):
        _, _, path = drawn(name, agents)
        speed = flown(name, path).diff(dim=0).norm(dim=1) / DT_S
        assert speed.max() < fastest + 0.01
        assert speed.mean() > 0.1


def test_lissajous_has_the_published_velocities() -> None:
    """quad-swarm-rl adds .03 sin t, .01 sin(2t + 90), .01 cos(2t + 90) per 10 ms to the goal."""
    _, _, path = drawn("lissajous", 1, envs=1)
    path[6:9] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    velocity = flown("lissajous", path.double(), dt_s=1e-3).diff(dim=0)[:, :, 0, 0] / 1e-3
    t = torch.arange(len(velocity), dtype=torch.float64) * 1e-3 + 0.5e-3
    published = torch.stack([3 * t.sin(), (2 * t + 90).sin(), (2 * t + 90).cos()], 1)
    assert (velocity - published).abs().max() < 2e-3


@pytest.mark.parametrize("name", SWITCHING)
def test_goals_switch_every_four_to_six_seconds_and_rest_between(name: str) -> None:
    _, _, path = drawn(name, 8)
    goals = flown(name, path)
    jumps = (goals.diff(dim=0).norm(dim=1) > 0).any(1)
    for env in range(path.shape[2]):
        period = path[18, 0, env].item()
        assert 4.0 <= period <= 6.0
        at = torch.nonzero(jumps[:, env]).flatten().add(1).mul(DT_S)
        due = torch.arange(period, 20.0 - DT_S, period)
        assert set(at.div(period).round().int().tolist()) <= set(range(1, len(due) + 1))
        assert (at - at.div(period).round() * period).abs().max() <= DT_S + 1e-4


@pytest.mark.parametrize("agents", [1, 2, 8, 32])
def test_swap_is_a_permutation_of_the_same_places(agents: int) -> None:
    places, _, path = drawn("swap", agents)
    points = path[:18].unflatten(0, (6, 3))
    key = points[:, 0] * 100 + points[:, 1] * 10 + points[:, 2]
    assert torch.equal(key.sort(1).values, key[:1].sort(1).values.expand_as(key))
    free = places[:, agents:].movedim(0, -1)
    gap = (points[0].movedim(0, -1)[:, None] - free[None]).norm(dim=-1)
    assert (gap.amin(1) == 0).all()
    if agents > 2:
        assert (points[1:] != points[:-1]).any()


@pytest.mark.parametrize("agents", [2, 8, 32])
@pytest.mark.parametrize("name", ["random", "swap", "dynamic_diff_goal", "swarm_vs_swarm"])
def test_own_goals_are_distinct(name: str, agents: int) -> None:
    _, _, path = drawn(name, agents)
    for t in (0.0, 7.0, 14.0):
        goals = SCENARIOS[name].goal(path, torch.full(path.shape[1:], t)).permute(2, 1, 0)
        apart = torch.cdist(goals, goals) + 100 * torch.eye(agents)
        assert apart.min() > (0.45 if name in ("random", "swap") else 0.15), (name, t)


def test_groups_exchange_places() -> None:
    _, _, path = drawn("swarm_vs_swarm", 9)
    points = path[:18].unflatten(0, (6, 3))
    first, second = points[:, :, :4].mean(2), points[:, :, 4:].mean(2)
    assert ((first[0] - second[0]).norm(dim=0) >= 0.45).all()
    assert ((first[1] - second[0]).norm(dim=0) < 0.75).all()
    assert ((first[2] - first[0]).norm(dim=0) < 0.75).all()


def test_the_next_shared_goal_is_another_place_within_reach() -> None:
    places, _, path = drawn("dynamic_same_goal", 4, spare=20)
    points = path[:18].unflatten(0, (6, 3))[:, :, 0]
    away = points.diff(dim=0).norm(dim=1)
    assert (away > 0.4).all()
    assert (away < 4.0).all()
    assert ((points[:, :, None] - places[None]).norm(dim=1).amin(1) == 0).all()


def test_mixed_is_half_and_half() -> None:
    _, _, path = drawn("mixed", 4, envs=2000)
    shared = (path[:3] == path[:3, :1]).all(0).all(0).float().mean()
    assert abs(shared - 0.5) < 4 * math.sqrt(0.25 / 2000)


def test_formations_pass_through_a_point_and_reach_the_published_width() -> None:
    """Size between -hi and hi where neighbours are one metre apart, at .1 to .3 m/s."""
    _, _, path = drawn("formations", 8, envs=60)
    goals = flown("formations", path, until_s=60.0, dt_s=0.1)
    spread = (goals - goals.mean(2, keepdim=True)).norm(dim=1).amax(1)
    assert spread.amin(0).max() < 0.1
    widest = torch.cdist(goals.permute(0, 3, 2, 1), goals.permute(0, 3, 2, 1)) + 100 * torch.eye(8)
    assert widest.amin((2, 3)).amax(0).min() > 0.75
    assert ((path[6] >= 0.1) & (path[6] <= 0.3)).all()


@pytest.mark.parametrize("agents", [1, 2, 7, 8, 9, 32, 51, 128])
def test_every_formation_keeps_its_points_apart(agents: int) -> None:
    places, sizes = formations(agents)
    assert places.shape == (len(KINDS), 3, agents)
    for kind, points, size in zip(KINDS, places, sizes, strict=True):
        apart = torch.cdist(points.T, points.T) + 100 * torch.eye(agents)
        assert apart.min() * size > 0.7, kind
    flat = {"circle_horizontal": 2, "grid_vertical_xz": 1, "grid_vertical_yz": 0}
    for kind, axis in flat.items():
        if agents <= 8:
            assert places[KINDS.index(kind), axis].abs().max() == 0


@pytest.mark.parametrize("name", SCENARIOS)
def test_equal_generators_draw_equal_paths(name: str) -> None:
    again = [drawn(name, 8, seed=s)[2] for s in (5, 5, 6)]
    assert torch.equal(again[0], again[1])
    assert not torch.equal(again[0], again[2])


@pytest.mark.parametrize("name", SCENARIOS)
def test_goal_of_flat_rows_is_that_of_planes_and_a_fresh_buffer_is_harmless(name: str) -> None:
    _, _, path = drawn(name, 4)
    t = torch.rand(path.shape[1:]) * 20
    goal = SCENARIOS[name].goal
    assert torch.equal(goal(path.flatten(1), t.flatten()), goal(path, t).flatten(1))
    assert goal(torch.zeros_like(path), t).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in SCENARIOS if SCENARIOS[n].moving])
def test_compiled_goals_equal_eager_ones(name: str) -> None:
    _, _, path = drawn(name, 8)
    t = torch.rand(path.shape[1:]) * 20
    compiled = torch.compile(SCENARIOS[name].goal, fullgraph=True)(path, t)
    assert (compiled - SCENARIOS[name].goal(path, t)).abs().max() < 2e-5


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(NotFoundError, match=r"^scenario 'swop' not found; known: bezier, dynamic_diff_goal, .*swarm"):
        scenario("swop")
    with pytest.raises(BadInput, match=r"^7 free places for 4 drones; expected at least 8$"):
        SCENARIOS["random"].draw(some_places(7, 2), 4, ROOM, torch.Generator())
