"""Further figures of `robo-rl bench quadrotor/swarm`: whole environments by number of drones and by engine."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch

from sim.registry import make_env
from sim.scenes.quadrotor.swarm.config import SwarmConfig

Work = tuple[str, int, Callable[[], Any]]
"""What is done, how many drone steps it is, and the function that does it once."""
ROOMS = ((8, 0.2), (32, 0.8))
"""Drones and density."""


def works(num_envs: int, compiled: bool) -> Iterator[Work]:
    """Full worlds of family `train`: noise, delays, battery, downwash, contacts, perception, reward, records, restarts.

    Drones hover at random thrusts, so that some fall and touch; one thread, float32.
    """
    for drones, density in ROOMS:
        for frame in ("yaw", "world"):
            for engine in ("eager", "traced", *(["compiled"] if compiled else [])):
                config = dataclasses.replace(
                    SwarmConfig(), drones=drones, density=density, frame=frame, history=1, engine=engine
                )
                rows = max(1, num_envs // drones) * drones
                env = make_env("quadrotor/swarm", rows, family="train", config=config)
                env.stagger()
                noise = torch.randn((rows, 4), generator=torch.Generator().manual_seed(0))
                action = 0.2 + 0.1 * noise
                name = f"swarm of {drones} at {density:.0%}, observation {frame}, {engine}, {rows} drones"
                yield name, rows, lambda e=env, a=action: e.step(a)
