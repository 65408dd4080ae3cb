"""How hard training is at the moment: one level between 0 and 1, kept among the environment's shared tensors."""

import torch
from torch import Tensor

from sim.scenes.quadrotor.swarm.config import Curriculum
from sim.scenes.quadrotor.swarm.records import Standing

WINDOW = 0.25
"""Rooms take maps from this share of the bank below the level, which is sorted by density; the last share holds the
scene's own density."""
FLIGHTS = 200.0
"""Over about so many flights the share of successful ones is averaged."""


class Level:
    """Reads and moves the level; `shared` holds all that evolves."""

    def __init__(self, config: Curriculum, shared: dict[str, Tensor], device: torch.device) -> None:
        self.config, self.shared, self.device = config, shared, device
        self._on = config.gate != "off"
        start = 0.0 if self._on else 1.0
        shared["level"] = torch.tensor(start, device=device)
        shared["share"] = torch.zeros((), device=device)
        """Share of the latest flights that succeeded."""

    @property
    def contact_factor(self) -> Tensor:
        """Scalar that multiplies the contact weights."""
        low = self.config.contact if self._on else 1.0
        return low + (1.0 - low) * self.shared["level"]

    def masks(self, agents: int) -> bool:
        """Whether some drones may not fly."""
        return self._on and (self.config.drones or agents) < agents

    def flying(self, agents: int) -> int:
        """How many drones fly in a room that begins now."""
        if not self.masks(agents):
            return agents
        few = self.config.drones or agents
        return few + int(float(self.shared["level"]) * (agents - few) + 1e-4)

    def densities(self, count: int, density: float) -> Tensor:
        """(count,) rising from the density of level 0 to the scene's own, which the last share of the maps has."""
        if not self._on:
            return torch.full((count,), density, device=self.device)
        share = (torch.arange(count, device=self.device) / count / (1.0 - WINDOW)).clamp(max=1.0)
        return self.config.density + (density - self.config.density) * share

    def choose(self, count: int, maps: int, generator: torch.Generator) -> Tensor:
        """(count,) maps for rooms that begin now."""
        share = torch.rand(count, generator=generator, device=self.device)
        if self._on:
            share = self.shared["level"] * (1.0 - WINDOW) + WINDOW * share
        return (share * maps).long().clamp(max=maps - 1)

    def step(self, rows: int) -> None:
        """So many drone steps later."""
        if not self._on:
            return
        rise = rows / self.config.steps
        level = self.shared["level"]
        if self.config.gate == "success":
            rise = rise * (self.shared["share"] >= self.config.enough)
        self.shared["level"] = (level + rise).clamp(max=1.0)

    def count(self, flights: Standing, flying: Tensor) -> None:
        """Takes finished flights into account."""
        if self.config.gate != "success":
            return
        done = flying.sum()
        good = (flights.reached & (flights.late == 0.0) & flying).sum()
        weight = (done / FLIGHTS).clamp(max=1.0)
        share = good / done.clamp(min=1)
        self.shared["share"] = self.shared["share"] + weight * (share - self.shared["share"])
