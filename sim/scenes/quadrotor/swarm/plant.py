"""The swarm's room as the world behind emulated drones: obstacles, walls, contacts and downwash."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from sim.dynamics import quadrotor as body
from sim.engine import Engine, TensorFunction, prepared
from sim.scenes.quadrotor.swarm import contacts
from sim.scenes.quadrotor.swarm.arena import Nearest, nearby, nearest
from sim.scenes.quadrotor.swarm.contacts import Pairs
from sim.scenes.quadrotor.swarm.task import SwarmTask


class SwarmRoom:
    """One room with all its drones, driven by rotor commands; see sim.emulate.DrivenWorld.

    Drones start at rest on the floor below the scenario's starts. The floor is at z = 0, where the emulated drones
    stand; what they hit in the air bounces as the task's settings say.
    """

    def __init__(self, task: SwarmTask, seed: int, engine: Engine = "traced") -> None:
        self.task, self.num_envs, self._room = task, task.num_envs, task.config.room_m
        self._engine: Engine = engine
        self._moves: dict[float, TensorFunction] = {}
        self._touched = torch.zeros((len(contacts.KINDS), self.num_envs), dtype=torch.bool)
        self._contacts = torch.zeros(len(contacts.KINDS), dtype=torch.long)
        self._random = torch.Generator().manual_seed(seed)
        task.restart(None, self._random)
        self._starts = task.state["body"][:2].clone()

    @property
    def obstacles(self) -> Tensor:
        """(L, 3) m: x and y of the cylinders' axes, and their radius."""
        bank, room = self.task.bank, int(self.task.state["map"][0])
        axes = bank.axes[room][bank.present[room]]
        return torch.cat([axes, bank.radius[room].expand(len(axes), 1)], 1)

    @property
    def contacts(self) -> dict[str, int]:
        """How often a drone began to touch another (counted for both), an obstacle or a wall."""
        return dict(zip(contacts.KINDS[:3], self._contacts[:3].tolist(), strict=True))

    def park(self, ids: Tensor) -> None:
        """Puts drones at rest on the floor below their starts, rotors stopped."""
        rest = body.rest_state((len(ids),), self.task.state["body"])
        rest[:2] = self._starts[:, ids]
        self.task.state["body"] = self.task.state["body"].index_copy(1, ids, rest)

    def drive(self, actuators: Tensor, dt_s: float) -> None:
        """Advances all drones by `dt_s` under rotor commands (4, N)."""
        random = torch.rand((contacts.RANDOM_ROWS + 4, self.num_envs), generator=self._random)
        if dt_s not in self._moves:
            self._moves[dt_s] = prepared(partial(self._move, dt_s=dt_s), self._engine)
        state = self.task.state
        flown, touch, washed = self._moves[dt_s](state["body"], actuators, random)
        if touch.any():
            self._contacts += (touch & ~self._touched).sum(1)
            washed = self._washed(self._bounced(flown, touch, random), random, dt_s)
        state["body"], self._touched = washed, touch

    def _move(self, state: Tensor, actuators: Tensor, random: Tensor, *, dt_s: float) -> tuple[Tensor, Tensor, Tensor]:
        """State (17, N) after a step, what touches (4, N), and the state after downwash where nothing does."""
        self.task.state["body"] = state
        self.task.worlds.drive(actuators, dt_s)
        flown = self.task.state["body"]
        touch = contacts.touching(flown[:3], self._pairs(flown), self._closest(flown).clearance[0], self._room)
        standing = torch.zeros_like(touch[:1])  # that is the worlds' own affair
        return flown, torch.cat([touch[:3], standing]), self._washed(flown, random, dt_s)

    def _bounced(self, state: Tensor, touch: Tensor, random: Tensor) -> Tensor:
        mass, inertia = self.task.bodies()
        bounced = contacts.respond(
            state,
            touch,
            self._pairs(state),
            self._closest(state).direction[0],
            mass,
            random[: contacts.RANDOM_ROWS],
            inertia,
            agents=self.task.agents,
            room=self._room,
            physical=self.task.config.contacts == "physical",
        )
        bounced[2] = torch.where(state[2] < contacts.ARM_M, state[2], bounced[2])
        return torch.where(touch.any(0), bounced, state)

    def _washed(self, state: Tensor, random: Tensor, dt_s: float) -> Tensor:
        if not self.task.config.downwash or self.task.agents == 1:
            return state
        forms = body.rotation_forms(state[body.QUAT])
        random = random[contacts.RANDOM_ROWS :]
        push, turn = contacts.downwash(state[:3], forms, self._pairs(state), random, self.task.agents)
        lifted = (state[2] > 0.0).float() * dt_s
        sinking = (state[5] + push * lifted)[None]
        return torch.cat([state[:5], sinking, state[6:10], state[body.RATE] + turn * lifted, state[body.ROTOR]])

    def _pairs(self, state: Tensor) -> Pairs:
        return contacts.pairs_of(state[:3], self.task.agents)

    def _closest(self, state: Tensor) -> Nearest:
        rooms, bank = self.task.state["map"], self.task.bank
        near = nearby(state[:2], rooms, bank.candidates, self._room)
        return nearest(state[:2], near, bank.radius[rooms], 1)

    def truth(self) -> Mapping[str, Tensor]:
        """True signals, name -> (N, *shape)."""
        return self.task.worlds.truth()
