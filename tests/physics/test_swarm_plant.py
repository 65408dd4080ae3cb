"""The swarm's room behind emulated drones: they start apart on the floor, bounce off what they hit, feel downwash."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sim.emulate import ScenePlant
from sim.registry import scene_entry
from sim.scenes.quadrotor.swarm.contacts import ARM_M
from sim.scenes.quadrotor.swarm.plant import SwarmRoom

DT = 0.002


def room(num: int = 2, seed: int = 3, **settings: object) -> ScenePlant:
    entry = scene_entry("quadrotor/swarm")
    config = replace(entry.config, **{"contacts": "physical", "density": 0.2, **settings})
    return entry.plant(num, family="nominal", seed=seed, config=config)  # type: ignore[misc]


def body_of(plant: ScenePlant) -> torch.Tensor:
    return plant._world.task.state["body"]  # type: ignore[attr-defined]


def place(plant: ScenePlant, drone: int, position: list[float], velocity: list[float]) -> None:
    body_of(plant)[:6, drone] = torch.tensor([*position, *velocity])


def fall(plant: ScenePlant, seconds: float) -> np.ndarray:
    """Positions (T, R, 3) under no thrust."""
    track = []
    for _ in range(round(seconds / DT)):
        plant.step(np.zeros((plant.num_robots, 4)), DT)
        track.append(plant.signals()["position_world"])
    return np.array(track)


def test_drones_start_at_rest_on_the_floor_apart_from_one_another_and_from_obstacles() -> None:
    plant = room(8)
    signals, found = plant.signals(), plant.obstacles
    assert found is not None
    axes, radius = found
    start = signals["position_world"]
    assert (start[:, 2] == 0.0).all()
    assert not signals["velocity_world"].any()
    apart = np.linalg.norm(start[:, None] - start, axis=-1) + 10.0 * np.eye(8)
    assert apart.min() > 0.4
    assert len(radius) == 12
    assert (np.linalg.norm(start[:, None, :2] - axes, axis=-1) - radius).min() > ARM_M
    track = fall(plant, 0.1)
    np.testing.assert_allclose(track[-1], start, atol=1e-6)


def test_a_drone_does_not_get_into_an_obstacle() -> None:
    plant = room()
    found = plant.obstacles
    assert found is not None
    (x, y), radius = found[0][0], found[1][0]
    place(plant, 0, [x + radius + 0.3, y, 4.0], [-2.0, 0.0, 0.0])
    gap = np.linalg.norm(fall(plant, 0.4)[:, 0, :2] - (x, y), axis=-1) - radius
    assert gap.min() > 0.5 * ARM_M
    assert gap[-1] > gap.min() + 0.02  # it left again
    assert plant.contacts == {"drone": 0, "obstacle": 1, "wall": 0}


def test_two_drones_exchange_momentum_and_part() -> None:
    plant = room(density=0.0, downwash=False)
    place(plant, 0, [0.0, 0.0, 5.0], [1.0, 0.0, 0.0])
    place(plant, 1, [0.4, 0.0, 5.0], [-1.0, 0.0, 0.0])
    track = fall(plant, 0.5)
    apart = np.linalg.norm(track[:, 0] - track[:, 1], axis=-1)
    assert apart.min() > 0.5 * ARM_M
    assert apart[-1] > apart.min() + 0.1
    velocity = plant.signals()["velocity_world"]
    np.testing.assert_allclose(velocity[0, :2] + velocity[1, :2], 0.0, atol=0.02)
    assert plant.contacts == {"drone": 2, "obstacle": 0, "wall": 0}


def test_who_flies_below_another_is_pushed_down_and_nobody_else() -> None:
    sunk = {}
    for downwash in (True, False):
        plant = room(density=0.0, downwash=downwash)
        place(plant, 0, [0.0, 0.0, 5.0], [0.0, 0.0, 0.0])
        place(plant, 1, [0.0, 0.0, 4.7], [0.0, 0.0, 0.0])
        sunk[downwash] = fall(plant, 0.1)[-1, :, 2]
    # 6/17 (7 - 10 x 0.3) m/s^2 over a tenth of a second: 7 mm
    assert sunk[False][1] - sunk[True][1] == pytest.approx(0.007, abs=0.0015)
    assert sunk[False][0] == pytest.approx(sunk[True][0], abs=1e-6)


def test_recorded_and_eager_steps_agree_bit_for_bit() -> None:
    tracks = []
    for engine in ("traced", "eager"):
        plant = room(4, seed=7)
        world = plant._world
        assert isinstance(world, SwarmRoom)
        world._engine = engine
        thrust = np.full((4, 4), 0.62)
        states = []
        for _ in range(120):
            plant.step(thrust, DT)
            states.append(body_of(plant).clone())
        tracks.append(torch.stack(states))
    assert torch.equal(*tracks)
