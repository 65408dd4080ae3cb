"""Maps: places for any number of drones, and nearest obstacles that equal a search through all of them."""

import math

import pytest
import torch
from torch import Tensor

from controllers.surroundings import FAR_M, Around, perceive
from hardware.errors import RoboError
from sim.scenes.quadrotor.swarm.arena import Bank, cell_centres, distance_grid, draw_bank, free_places, nearby, nearest
from sim.scenes.quadrotor.swarm.config import HEIGHTS_M, SwarmConfig, check

ROOM = (10.0, 10.0, 10.0)
DENSITIES = (0.0, 1 / 64, 2 / 64, 0.1, 0.2, 0.5, 0.8)


def bank(density: float, maps: int = 24, seed: int = 0) -> Bank:
    generator = torch.Generator().manual_seed(seed)
    radius = 0.15 + 0.15 * torch.rand(maps, generator=generator)
    return draw_bank(torch.full((maps,), density), radius, ROOM, generator)


def everything(drawn: Bank, maps: Tensor) -> Around:
    n = len(maps)
    none = torch.zeros(n, 0, 3)
    radius = drawn.radius[maps][:, None].expand(n, drawn.axes.shape[1])
    return Around(none, none, torch.zeros(n, 0, dtype=torch.bool), drawn.axes[maps], drawn.present[maps], radius)


@pytest.mark.parametrize("density", DENSITIES)
def test_candidates_give_what_a_search_through_all_obstacles_gives(density: float) -> None:
    """At random points of the whole room, borders of squares among them; to rounding of float32."""
    drawn, count = bank(density), 6000
    generator = torch.Generator().manual_seed(1)
    xy = (torch.rand(2, count, generator=generator) - 0.5) * 10.0
    xy[:, ::5] = (2.0 * xy[:, ::5]).round() / 2.0  # borders and corners of squares
    maps = torch.randint(len(drawn.count), (count,), generator=generator)
    yaw = 2.0 * math.pi * torch.rand(count, generator=generator)
    near, radius = nearby(xy, maps, drawn.candidates, ROOM), drawn.radius[maps]
    found = nearest(xy, near, radius, 2)
    position = torch.cat([xy, torch.ones(1, count)]).T
    quat = torch.stack([(yaw / 2).cos(), 0 * yaw, 0 * yaw, (yaw / 2).sin()], 1)
    truth = perceive(position, torch.zeros(count, 3), quat, everything(drawn, maps), neighbours=1, obstacles=2)
    torch.testing.assert_close(found.clearance.T, truth["obstacle_clearance"], rtol=0, atol=2e-6)
    assert torch.equal(found.present.T.float(), truth["obstacle_present"])
    # Where two are equally near, either may come first.
    clear = (found.clearance[0] - found.clearance[1]).abs() > 1e-4
    both = found.direction.permute(2, 0, 1).reshape(count, 4)
    torch.testing.assert_close(both[clear][:, :2], truth["obstacle_direction"][clear][:, :2], rtol=0, atol=1e-5)
    for name, cosine, sine in (("yaw", yaw.cos(), yaw.sin()), ("world", torch.ones(count), torch.zeros(count))):
        grid = distance_grid(xy, near, radius, cosine, sine)
        torch.testing.assert_close(grid.T, truth[f"obstacle_grid_{name}"], rtol=0, atol=5e-6)


def test_a_map_holds_as_many_obstacles_as_its_density_says_on_centres_of_cells() -> None:
    drawn = bank(0.2)
    assert drawn.present.sum(1).tolist() == [12] * 24  # int(64 * 0.2), as published
    assert bank(0.8).present.sum(1).tolist() == [51] * 24
    centres = {tuple(c) for c in cell_centres().tolist()}
    assert {tuple(c) for c in drawn.axes[drawn.present].tolist()} <= centres
    assert len({tuple(map(bool, row)) for row in drawn.present.tolist()}) == 24  # no two alike


@pytest.mark.parametrize(("drones", "density"), [(8, 0.2), (32, 0.8), (128, 0.2)])
def test_places_are_free_distinct_and_apart(drones: int, density: float) -> None:
    """32 drones at 80 % have 13 free cells times 5 heights: the published rule draws 32 of 13 cells and fails."""
    check(SwarmConfig(drones=drones, density=density))
    drawn = bank(density)
    maps = torch.arange(24)
    places = free_places(drawn, maps, 2 * drones, 0.1, torch.Generator().manual_seed(0))
    assert places.shape == (3, 2 * drones, 24)
    away = (places[:, :, None] - places[:, None]).square().sum(0).sqrt() + 10.0 * torch.eye(2 * drones)[..., None]
    assert away.min() >= 0.4
    flat = places.permute(2, 1, 0)
    gap = (flat[:, :, None, :2] - drawn.axes[maps][:, None]).square().sum(-1).sqrt().amin(-1)
    assert (gap - drawn.radius[:, None]).min() > 0.6  # a metre less the jitter and the radius
    assert flat[..., 2].min() >= min(HEIGHTS_M) - 0.05
    assert flat[..., 2].max() <= max(HEIGHTS_M) + 0.05


def test_without_obstacles_everything_is_far() -> None:
    drawn = bank(0.0)
    xy = torch.zeros(2, 1)
    near = nearby(xy, torch.zeros(1, dtype=torch.long), drawn.candidates, ROOM)
    found = nearest(xy, near, drawn.radius[:1], 2)
    assert found.clearance.tolist() == [[FAR_M], [FAR_M]]
    assert not found.direction.any()
    assert not found.present.any()
    one, zero = torch.ones(1), torch.zeros(1)
    assert distance_grid(xy, near, drawn.radius[:1], one, zero).tolist() == [[FAR_M]] * 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drones": 0}, "drones = 0; expected 1 to 128"),
        ({"density": 0.9}, "density = 0.9; expected 0 to 0.8"),
        ({"density": math.nan}, "density = nan"),
        ({"drones": 33, "density": 0.8}, "33 drones need 66 places, to start and to go to; density 0.8 leaves 65"),
        ({"scenario": "dance"}, "scenario 'dance' not found"),
        ({"airframe": "zeppelin"}, "airframe 'zeppelin' not found"),
        ({"obstacle_diameter_m": 1.2}, "expected above 0 and at most 0.85"),
        ({"room_m": (4.0, 4.0, 3.0)}, "expected at least 9 x 9 x 4 m"),
        ({"neighbours": 0}, "neighbours = 0"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"episode_s": 1.0}, "episode_s = 1.0"),
    ],
)
def test_impossible_worlds_are_refused_in_one_line(changes: dict, message: str) -> None:
    from sim.scenes.quadrotor.scene import swarm_spec

    with pytest.raises(RoboError, match=message.replace("(", r"\(")) as refused:
        swarm_spec(SwarmConfig(**changes))
    assert "\n" not in str(refused.value)
