"""What happens between the drones of a room after each flight of one control step: contacts, downwash, perception."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sim.dynamics import quadrotor as body
from sim.scenes.quadrotor.swarm import contacts, perception, reward
from sim.scenes.quadrotor.swarm.arena import nearby, nearest
from sim.scenes.quadrotor.swarm.config import SwarmConfig
from sim.scenes.quadrotor.swarm.scenarios import scenario
from sim.scenes.quadrotor.world import QuadrotorWorlds
from sim.spec import SceneSpec

RANDOM_ROWS = contacts.RANDOM_ROWS + 4 + 1
"""Uniform numbers per drone and step: contacts, downwash, dropouts."""
PARKED_M = 20.0
"""Depth below the floor at which drones wait that do not fly."""


class Physics(NamedTuple):
    """What moves the drones, who touches what, and what that does; another engine brings its own."""

    step: Callable[..., Tensor] = body.step_semi_implicit
    touching: Callable[..., Tensor] = contacts.touching
    respond: Callable[..., Tensor] = contacts.respond


TORCH = Physics()


class Interaction:
    """Pure functions of planes (k, N), for the drones of one task."""

    def __init__(
        self, config: SwarmConfig, spec: SceneSpec, worlds: QuadrotorWorlds, physics: Physics, *, masked: bool
    ) -> None:
        """`masked`: some drones may not fly."""
        self.config, self.physics, self.masked = config, physics, masked
        self.layout = perception.layout(config.neighbours, config.obstacles_seen, config.frame)
        """Perceived signal -> number of its planes."""
        self._worlds, self._scenario, self._dt_s = worlds, scenario(config.scenario), 1.0 / spec.rate_hz
        index = {name: i for i, name in enumerate(spec.params)}
        self._mass, self._inertia = index["mass"], [index[f"inertia_{a}{a}"] for a in "xyz"]

    def bodies(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Mass (N,) in kg and moments of inertia (3, N) in kg m^2 of drones with parameters (P, N)."""
        return params[self._mass], params[self._inertia]

    def signals(self, perceived: Tensor) -> dict[str, Tensor]:
        """Perceived planes (R, n) by signal."""
        return dict(zip(self.layout, perceived.split(list(self.layout.values())), strict=True))

    def perceived(
        self,
        measured: Mapping[str, Tensor],
        shared: Tensor,
        flying: Tensor,
        maps: Tensor,
        candidates: Tensor,
        radius: Tensor,
    ) -> Tensor:
        """What the drones perceive (R, n), n rows of whole rooms, from their own measured signals."""
        own = torch.cat([measured["position_world"].T, measured["velocity_world"].T])
        forms = body.rotation_forms(measured["quat_wxyz"].T)
        heading = forms[[6, 4]]
        return perception.perceived(
            own,
            shared,
            flying,
            heading * torch.rsqrt((heading * heading).sum(0) + 1e-12),
            maps,
            candidates,
            radius,
            agents=self.config.drones,
            neighbours=self.config.neighbours,
            obstacles=self.config.obstacles_seen,
            frame=self.config.frame,
            room=self.config.room_m,
        )

    def after_flight(
        self,
        state: Tensor,
        noise: Tensor,
        shared: Tensor,
        touched: Tensor,
        path: Tensor,
        clock: Tensor,
        fixed: Tensor,
        flying: Tensor,
        maps: Tensor,
        candidates: Tensor,
        radius: Tensor,
        random: Tensor,
    ) -> tuple[Tensor, ...]:
        """Body, shared positions, perception, goal, contacts and facts after a flight of one step; pure."""
        c, agents = self.config, self.config.drones
        pairs = contacts.pairs_of(state[:3], agents)
        closest = nearest(state[:2], nearby(state[:2], maps, candidates, c.room_m), radius.index_select(0, maps), 1)
        direction, clearance = closest.direction[0], closest.clearance[0]
        touch = self.physics.touching(state[:3], pairs, clearance, c.room_m) & flying
        bounced = self._moved(state, touch, pairs, direction, self._worlds.params({"fixed": fixed}), random)
        if self.masked:
            bounced = torch.where(flying, bounced, _waiting(bounced, agents))
        measured = self._worlds.measured({"body": bounced, "noise": noise, "fixed": fixed})
        heard = torch.cat([measured["position_world"].T, measured["velocity_world"].T])
        if c.dropout > 0.0:
            heard = torch.where(random[-1] < c.dropout, shared, heard)
        seen = self.perceived(measured, heard, flying, maps, candidates, radius)
        goal = self._scenario.goal(path, clock * self._dt_s)
        parts = self.signals(seen)
        gap, others = reward.gaps(pairs, flying, agents)
        facts = torch.cat(
            [
                (touch & ~touched).to(seen.dtype),
                touch.to(seen.dtype),
                torch.stack([gap, others, clearance, (direction * bounced[3:5]).sum(0)]),
                reward.neighbour_closing(parts["neighbour_distance"], parts["neighbour_closing"])[None],
            ]
        )
        return bounced, heard, seen, goal, touch, facts

    def _moved(
        self,
        state: Tensor,
        touch: Tensor,
        pairs: contacts.Pairs,
        direction: Tensor,
        params: Tensor,
        random: Tensor,
    ) -> Tensor:
        """The state (17, N) after contacts and under downwash."""
        c, agents = self.config, self.config.drones
        mass, inertia = self.bodies(params)
        bounced = self.physics.respond(
            state,
            touch,
            pairs,
            direction,
            mass,
            random[: contacts.RANDOM_ROWS],
            inertia,
            agents=agents,
            room=c.room_m,
            physical=c.contacts == "physical",
        )
        if not c.downwash or agents == 1:
            return bounced
        position, velocity, quat, rate, rotor = bounced.split(body.STATE_PARTS)
        forms = body.rotation_forms(quat)
        push, turn = contacts.downwash(position, forms, pairs, random[contacts.RANDOM_ROWS : -1], agents)
        velocity = torch.cat([velocity[:2], torch.add(velocity[2:], push[None], alpha=self._dt_s)])
        return torch.cat([position, velocity, quat, torch.add(rate, turn, alpha=self._dt_s), rotor])


def _waiting(state: Tensor, agents: int) -> Tensor:
    """The same drones (17, N), parked below the floor, each at a depth of its own."""
    rooms = state.shape[1] // agents
    slot = torch.arange(agents, device=state.device).repeat_interleave(rooms)
    zero = torch.zeros_like(state[0])
    rest = torch.zeros_like(state[3:6])
    place = torch.stack([zero, zero, -PARKED_M - 10.0 * slot])
    return torch.cat([place, rest, state[6:10], rest, state[13:]])
