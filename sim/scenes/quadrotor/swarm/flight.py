"""A flight of one room's drones as arrays: recorded from an environment, and what can be read off it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hardware.geometry import quat_to_matrix
from sim.scenes.quadrotor.swarm.contacts import ARM_M

Array = NDArray[np.float64]
Law = Callable[[Mapping[str, Tensor]], Tensor]


class Flight(NamedTuple):
    """What A drones did in one room, at T moments."""

    times_s: Array  # (T,)
    positions: Array  # (T, A, 3), m
    rotations: Array  # (T, A, 3, 3), body to world
    goals: Array  # (T, A, 3)
    contacts: NDArray[np.bool_]  # (T, A): a contact of this drone begins
    obstacles: Array  # (L, 2)
    radius: Array  # (L,)
    room: Array  # (3,)
    near_m: float
    """A drone this near to its goal is there."""

    @property
    def dt_s(self) -> float:
        """Time between two moments."""
        return float(self.times_s[1] - self.times_s[0])

    @property
    def away(self) -> Array:
        """Distances to the own goals (T, A), m."""
        return np.linalg.norm(self.positions - self.goals, axis=2)


def record(env: Any, law: Callable[[Any], Law]) -> Flight:
    """One episode of the first room of an environment of `quadrotor/swarm`."""
    task = env.task
    obs, act = env.reset(), law(env)
    rows = slice(0, env.num_envs, env.num_envs // task.agents)
    bank, chosen = task.bank, int(task.state["map"][0])
    obstacles = _array(bank.axes[chosen][bank.present[chosen]])
    radius = np.full(len(obstacles), float(bank.radius[chosen]))
    bodies, goals, contacts = [], [], [torch.zeros(task.agents, dtype=torch.bool)]
    with torch.no_grad():
        for _ in range(env.episode_steps):
            bodies.append(task.state["body"][:10, rows].cpu().clone())
            goals.append(task.state["goal"][:, rows].cpu().clone())
            obs = env.step(act(obs).to(env.device)).obs
            contacts.append((task.state["facts"][:4, rows] > 0.5).any(0).cpu())
    body, goal = _array(torch.stack(bodies)).transpose(0, 2, 1), _array(torch.stack(goals)).transpose(0, 2, 1)
    return Flight(
        times_s=np.arange(len(body)) / env.spec.rate_hz,
        positions=body[..., :3],
        rotations=np.asarray(quat_to_matrix(body[..., 6:10])),
        goals=goal,
        contacts=torch.stack(contacts[:-1]).numpy(),
        obstacles=obstacles,
        radius=radius,
        room=np.array(task.config.room_m, dtype=float),
        near_m=0.4 if task.agents > 1 and (goal[-1] == goal[-1, :1]).all() else task.config.radius_m,
    )


def gaps(flight: Flight) -> dict[str, Array]:
    """Smallest distances between surfaces over time (T,), m: of two drones, and of a drone and an obstacle."""
    p = flight.positions
    found: dict[str, Array] = {}
    if p.shape[1] > 1:
        first, second = np.triu_indices(p.shape[1], 1)
        found["two drones"] = np.linalg.norm(p[:, first] - p[:, second], axis=2).min(1) - 2 * ARM_M
    if len(flight.obstacles):
        beside = np.linalg.norm(p[:, :, None, :2] - flight.obstacles, axis=3) - flight.radius
        found["drone and obstacle"] = beside.min((1, 2)) - ARM_M
    return found


def outcome(flight: Flight) -> str:
    """How the flight went, in words."""
    late = flight.times_s > flight.times_s[-1] - 1.0
    there = int((flight.away[late].mean(0) <= flight.near_m).sum())
    hits = int(flight.contacts.sum())
    return f"{there} of {flight.goals.shape[1]} there in the last second, {hits or 'no'} contact{'s' * (hits != 1)}"


def _array(values: Tensor) -> Array:
    return values.double().cpu().numpy()
