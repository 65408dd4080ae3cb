"""The swarm's room as the world behind emulated drones: obstacles, walls, contacts and downwash."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sim.dynamics import quadrotor as body
from sim.scenes.quadrotor.swarm import contacts
from sim.scenes.quadrotor.swarm.arena import nearby, nearest
from sim.scenes.quadrotor.swarm.task import SwarmTask


class SwarmRoom:
    """One room with all its drones, driven by rotor commands; see sim.emulate.DrivenWorld.

    Drones start at rest on the floor below the scenario's starts. The floor is at z = 0, where the emulated drones
    stand; what they hit in the air bounces as the task's settings say.
    """

    def __init__(self, task: SwarmTask, seed: int) -> None:
        self.task, self.num_envs = task, task.num_envs
        self._random = torch.Generator().manual_seed(seed)
        task.restart(None, self._random)
        self._starts = task.state["body"][:2].clone()

    @property
    def obstacles(self) -> Tensor:
        """(L, 3) m: x and y of the cylinders' axes, and their radius."""
        bank, room = self.task.bank, int(self.task.state["map"][0])
        axes = bank.axes[room][bank.present[room]]
        return torch.cat([axes, bank.radius[room].expand(len(axes), 1)], 1)

    def park(self, ids: Tensor) -> None:
        """Puts drones at rest on the floor below their starts, rotors stopped."""
        rest = body.rest_state((len(ids),), self.task.state["body"])
        rest[:2] = self._starts[:, ids]
        self.task.state["body"] = self.task.state["body"].index_copy(1, ids, rest)

    def drive(self, actuators: Tensor, dt_s: float) -> None:
        """Advances all drones by `dt_s` under rotor commands (4, N)."""
        task, c, state = self.task, self.task.config, self.task.state
        task.worlds.drive(actuators, dt_s)
        position = state["body"][:3]
        pairs = contacts.pairs_of(position, task.agents)
        radius = task.bank.radius[state["map"]]
        closest = nearest(position[:2], nearby(position[:2], state["map"], task.bank.candidates, c.room_m), radius, 1)
        touch = contacts.touching(position, pairs, closest.clearance[0], c.room_m)
        touch[3] = False  # standing is the worlds' own affair
        random = torch.rand((contacts.RANDOM_ROWS + 4, self.num_envs), generator=self._random)
        if touch.any():
            mass, inertia = task.bodies()
            on_floor = position[2] < contacts.ARM_M
            bounced = contacts.respond(
                state["body"],
                touch,
                pairs,
                closest.direction[0],
                mass,
                random[: contacts.RANDOM_ROWS],
                inertia,
                agents=task.agents,
                room=c.room_m,
                physical=c.contacts == "physical",
            )
            bounced[2] = torch.where(on_floor, position[2], bounced[2])
            state["body"] = torch.where(touch.any(0), bounced, state["body"])
        if c.downwash and task.agents > 1:
            forms = body.rotation_forms(state["body"][body.QUAT])
            push, turn = contacts.downwash(state["body"][:3], forms, pairs, random[contacts.RANDOM_ROWS :], task.agents)
            lifted = (position[2] > 0.0).float() * dt_s
            state["body"][5] += push * lifted
            state["body"][body.RATE] += turn * lifted

    def truth(self) -> Mapping[str, Tensor]:
        """True signals, name -> (N, *shape)."""
        return self.task.worlds.truth()
