"""The swarm task in PyBullet beside the same task in its own equations: flights, contacts and maps."""

import pytest
import torch
from torch import Tensor

from hardware.errors import BadInput
from sim.env import BatchEnv
from sim.registry import make_env
from sim.scenes.quadrotor.swarm.config import SwarmConfig

BACKENDS = ("torch", "pybullet")
QUIET = {"engine": "eager", "airframe": "quad_swarm", "downwash": False, "contacts": "physical"}
HOVER = (1.0 / 1.9) ** 0.5  # thrust-to-weight 1.9, thrust square in the command


def rooms(backend: str, count: int = 8, **settings: object) -> BatchEnv:
    config = SwarmConfig(**(QUIET | settings))
    return make_env("quadrotor/swarm", count, family="nominal", seed=11, config=config, backend=backend)


def action_of(env: BatchEnv, command: Tensor) -> Tensor:
    field = env.interface.action[0]
    return (command - field.offset) / field.scale


def put(env: BatchEnv, row: int, position: list[float], velocity: list[float]) -> None:
    """A drone at a place with a speed, level, its rotors at hover."""
    state = env.task.state["body"]
    state[:10, row] = torch.tensor([*position, *velocity, 1.0, 0.0, 0.0, 0.0])
    state[10:13, row] = 0.0
    state[13:, row] = HOVER


def test_free_flights_agree_within_a_millimetre_over_a_second() -> None:
    generator = torch.Generator().manual_seed(2)
    pushes = 0.02 * torch.randn((100, 64, 4), generator=generator)
    ends, moved, free = [], torch.zeros(64), torch.ones(64, dtype=torch.bool)
    for backend in BACKENDS:
        env = rooms(backend, 64)
        start = env.task.state["body"][:3].clone()
        for push in pushes:
            env.step(action_of(env, HOVER + push))
        ends.append(env.task.state["body"][:3])
        moved = (ends[-1] - start).norm(dim=0)
        free &= env.task.state["records"][:4].sum(0) == 0.0
    assert int(free.sum()) > 40
    assert float(moved[free].mean()) > 0.2
    assert float((ends[0] - ends[1])[:, free].norm(dim=0).max()) < 1e-3


def test_contacts_are_counted_alike() -> None:
    """Hits begun (drone, obstacle, wall, floor) by each drone of a room with one cylinder, in half a second."""
    found = []
    for backend in BACKENDS:
        env = rooms(backend, density=1.0 / 64.0)
        bank, index = env.task.bank, int(env.task.state["map"][0])
        x, y = bank.axes[index][bank.present[index]][0].tolist()
        side, free = (-1.0 if x > 0.0 else 1.0), (-1.0 if y > 0.0 else 1.0)  # towards the middle
        courses = [
            ([0.5 * side, 4.3 * free, 2.0], [0.5, 0.0, 0.0]),  # 0 and 1 meet head on
            ([0.5 * side + 0.3, 4.3 * free, 2.0], [-0.5, 0.0, 0.0]),
            ([x + 0.5 * side, y, 3.0], [-1.0 * side, 0.0, 0.0]),  # into the cylinder
            ([4.7, -4.3 * free, 2.0], [1.0, 0.0, 0.0]),  # into a wall
            ([-4.5, -4.3 * free, 9.8], [0.0, 0.0, 1.0]),  # into the ceiling
            ([-4.5, -4.3 * free, 0.2], [0.0, 0.0, -1.0]),  # onto the floor
            ([x + 0.36 * side, y, 5.0], [0.0, 0.0, 0.5]),  # up along the cylinder, 1.4 cm beside it
            ([-4.5, -4.3 * free + 0.1, 5.0], [0.0, 0.0, 0.0]),  # hovers
        ]
        for row, course in enumerate(courses):
            put(env, row, *course)
        for _ in range(50):
            env.step(action_of(env, torch.full((8, 4), HOVER)))
        found.append(env.task.state["records"][:4].clone())
    expected = torch.zeros(4, 8)
    expected[0, :2] = expected[1, 2] = expected[2, 3] = expected[2, 4] = expected[3, 5] = 1.0
    assert torch.equal(found[0] > 0.5, expected > 0.5), found[0]
    assert torch.equal(found[1], expected), found[1]


def test_a_new_episode_has_its_own_obstacles_and_drones() -> None:
    """Worlds after a restart: a drone beside a cylinder of the new map meets it."""
    env = rooms("pybullet", 16, episode_s=2.0, density=0.2)
    before = env.task.state["map"].clone()
    hover = action_of(env, torch.full((16, 4), HOVER))
    for _ in range(200):
        step = env.step(hover)
    assert bool(step.truncated.all())
    maps, bank = env.task.state["map"], env.task.bank
    assert not torch.equal(maps, before)
    for room in (0, 1):
        x, y = bank.axes[maps[room]][bank.present[maps[room]]][0].tolist()
        put(env, room, [x + 0.36, y, 6.0], [-1.0, 0.0, 0.0])
    for _ in range(10):
        env.step(hover)
    assert (env.task.state["records"][1] > 0.0).tolist() == [True, True] + [False] * 14


def test_another_device_is_refused_in_one_line() -> None:
    with pytest.raises(BadInput, match="back end pybullet runs on the cpu, not on cuda"):
        make_env("quadrotor/swarm", 8, device="cuda", backend="pybullet")
