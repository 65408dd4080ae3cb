"""The swarm task in PyBullet: it moves the drones and solves all contacts; the task's own code does everything else.

What a contact does is PyBullet's affair, so `contacts` of the settings is not heeded: there is no random bounce, and a
drone that hits the floor may roll over. A contact counts from the moment that spheres, cylinders and walls overlap in
any of the steps of 2.5 ms, where the task's own engine looks once per control step.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sim.backends.bullet import BulletBodies, Contacts, Room
from sim.randomization import Family
from sim.scenes.quadrotor.bullet import INERTIA, BulletStep, check_device
from sim.scenes.quadrotor.swarm.config import SwarmConfig
from sim.scenes.quadrotor.swarm.contacts import ARM_M, FRICTION, RESTITUTION
from sim.scenes.quadrotor.swarm.interaction import Physics
from sim.scenes.quadrotor.swarm.task import SwarmTask
from sim.spec import SceneSpec


def swarm_task(
    num_envs: int, *, spec: SceneSpec, config: SwarmConfig, family: Family, device: str | torch.device
) -> SwarmTask:
    """The swarm task with drones that PyBullet moves; raises BadInput for a device other than the CPU."""
    check_device(device)
    rooms = BulletRooms(num_envs // config.drones, config.drones, config.room_m)
    physics = Physics(rooms.step, rooms.touching, rooms.respond)
    # PyBullet cannot be recorded or compiled.
    task = SwarmTask(num_envs, spec=spec, config=replace(config, engine="eager"), family=family, physics=physics)
    rooms.serve(task)
    return task


class BulletRooms:
    """E rooms of A drones in PyBullet, in the shape of what the task asks of an engine."""

    def __init__(self, rooms: int, agents: int, size_m: tuple[float, ...]) -> None:
        self._bodies = BulletBodies(rooms, agents, Room(ARM_M, size_m, RESTITUTION, FRICTION))
        self._rooms = rooms
        self._task: SwarmTask | None = None
        self._moments: list[int] = []
        """Where the worlds' parameters hold the moments of inertia."""
        self._built: Tensor | None = None
        """(2, E): map of each room, and the seed of the maps."""
        self._step = BulletStep(self._bodies, self._inertia)

    def serve(self, task: SwarmTask) -> None:
        """Whose drones and maps these are."""
        self._task, known = task, list(task.spec.params)
        self._moments = [known.index(name) for name in INERTIA]

    def step(self, *args: Any, **kwargs: Any) -> Tensor:
        """`BulletStep`, in rooms furnished like the task's."""
        self._furnish()
        return self._step(*args, **kwargs)

    def touching(self, *_: Any) -> Tensor:
        """(4, N) bool: who has touched a drone, an obstacle, a wall or the ceiling, the floor since the last call."""
        seen, self._step.contacts = self._step.contacts, []
        return torch.from_numpy(touched(seen, self._bodies.num))

    def respond(self, state: Tensor, *_: Any, **__: Any) -> Tensor:
        """The state (17, N) as it is: PyBullet has responded already."""
        return state

    def _inertia(self) -> Tensor:
        worlds = self._serving().worlds
        return worlds.params(worlds.view(None))[self._moments]

    def _furnish(self) -> None:
        """Puts up the obstacles of rooms that have another map now."""
        task = self._serving()
        maps = task.state["map"][: self._rooms]
        wanted = torch.stack([maps, torch.full_like(maps, int(task.shared["bank"]))])
        if self._built is not None and torch.equal(wanted, self._built):
            return
        new = range(self._rooms) if self._built is None else (wanted != self._built).any(0).nonzero()[:, 0].tolist()
        bank = task.bank
        for room in new:
            index = int(maps[room])
            self._bodies.furnish(room, bank.axes[index][bank.present[index]].numpy(), float(bank.radius[index]))
        self._built = wanted

    def _serving(self) -> SwarmTask:
        if self._task is None:
            raise RuntimeError("BulletRooms serve no task yet; call serve(task) first")
        return self._task


def touched(seen: list[Contacts], count: int) -> np.ndarray:
    """(4, N) bool: drone, obstacle, wall or ceiling, floor; at any of the steps."""
    touch = np.zeros((4, count), dtype=bool)
    for contacts in seen:
        touch[0, contacts.pairs.reshape(-1)] = True
        touch[1] |= contacts.obstacle
        touch[2] |= contacts.wall | contacts.ceiling
        touch[3] |= contacts.floor
    return touch
