"""Batched pendula: a world that costs next to nothing, to measure and test a learner with.

Each environment holds D pendula (dynamics and reward of Gymnasium's Pendulum-v1, without its clipping of the reward);
observation 3 D (cos, sin, angular velocity), action D. Time-outs only.
"""

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from controllers.interface import Field
from sim.param import Param
from sim.randomization import draw, draw_bounds
from sim.spec import SceneSpec, Step

DT_S, GRAVITY, MAX_SPEED, MAX_TORQUE = 0.05, 10.0, 8.0, 2.0


class PendulumEnv:
    """N environments of D pendula as a `sim.spec.VecEnv`, stepped in place."""

    def __init__(self, num_envs: int, pendula: int = 1, episode: int = 200, seed: int = 0, device: str = "cpu") -> None:
        self.num_envs, self.pendula, self.episode, self.device = num_envs, pendula, episode, torch.device(device)
        self.spec = pendulum_spec(pendula, episode)
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.angle = torch.zeros(num_envs, pendula, device=device)
        self.speed = torch.zeros(num_envs, pendula, device=device)
        self.age = torch.zeros(num_envs, dtype=torch.long, device=device)
        self.obs = torch.zeros(num_envs, 3 * pendula, device=device)
        self.final = torch.zeros_like(self.obs)
        self.never = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self.free = torch.zeros(num_envs, device=device)

    def reset(self, seed: int | None = None) -> dict[str, Tensor]:
        """All pendula anywhere, at up to 1 rad/s."""
        if seed is not None:
            self.generator.manual_seed(seed)
        self.angle.uniform_(-math.pi, math.pi, generator=self.generator)
        self.speed.uniform_(-1.0, 1.0, generator=self.generator)
        self.age.zero_()
        return {"policy": self._observe(self.obs)}

    def stagger(self) -> None:
        """Spreads the ages of the episodes, so that their first time-outs do not coincide."""
        self.age.random_(self.episode, generator=self.generator)

    def step(self, action: Tensor) -> Step:
        """Applies torques (N, D), +-1 meaning +-2 Nm, for 0.05 s."""
        torque = action.clamp(-1.0, 1.0).mul_(MAX_TORQUE)
        around = torch.remainder(self.angle + math.pi, 2 * math.pi).sub_(math.pi)
        cost = around.square_().addcmul_(self.speed, self.speed, value=0.1).addcmul_(torque, torque, value=0.001)
        reward = cost.mean(-1).neg_()
        self._accelerate(torque)
        self.speed.clamp_(-MAX_SPEED, MAX_SPEED)
        self.angle.add_(self.speed, alpha=DT_S)
        self.age += 1
        over = self.age >= self.episode
        self._observe(self.final)
        self._restart(over)
        obs = {"policy": self._observe(self.obs)}
        return Step(obs, reward, self.free, self.never, over, {"policy": self.final}, {})

    def get_state(self) -> dict[str, Tensor]:
        """Angles, speeds, ages and the generator."""
        return {
            "angle": self.angle.clone(),
            "speed": self.speed.clone(),
            "age": self.age.clone(),
            "generator": self.generator.get_state(),
        }

    def set_state(self, ids: Tensor | None, state: Mapping[str, Tensor]) -> None:
        """Puts rows back; the generator too where all rows are meant."""
        rows = slice(None) if ids is None else ids
        self.angle[rows], self.speed[rows], self.age[rows] = state["angle"], state["speed"], state["age"]
        if ids is None:
            self.generator.set_state(state["generator"].cpu())

    def _accelerate(self, torque: Tensor) -> None:
        """Gravity and torque on rods of 1 m and 1 kg."""
        self.speed.add_(torch.sin(self.angle), alpha=1.5 * GRAVITY * DT_S).add_(torque, alpha=3.0 * DT_S)

    def _restart(self, over: Tensor) -> None:
        """Draws new starts for all and keeps those of the ended: no count leaves the device."""
        start = torch.rand(2, self.num_envs, self.pendula, generator=self.generator, device=self.device).mul_(2).sub_(1)
        ended = over.unsqueeze(-1)
        torch.where(ended, start[0].mul_(math.pi), self.angle, out=self.angle)
        torch.where(ended, start[1], self.speed, out=self.speed)
        self.age.mul_(~over)

    def _observe(self, out: Tensor) -> Tensor:
        d = self.pendula
        torch.cos(self.angle, out=out[:, :d])
        torch.sin(self.angle, out=out[:, d : 2 * d])
        out[:, 2 * d :] = self.speed
        return out


class PendulumFamily(PendulumEnv):
    """Pendula of different length and mass, one rod per environment; they may be given as contexts, as a task's may."""

    def __init__(self, num_envs: int, episode: int = 200, seed: int = 0, device: str = "cpu") -> None:
        super().__init__(num_envs, episode=episode, seed=seed, device=device)
        self.spec = dataclasses.replace(self.spec, id="pendulum/family", params=RODS)
        self.contexts: Tensor | None = None
        """(2, N) lengths (m) and masses (kg) that every restart takes instead of drawing them."""
        self.state = {"params": torch.ones(2, num_envs, device=device)}

    def reset(self, seed: int | None = None) -> dict[str, Tensor]:
        """All pendula anywhere, at up to 1 rad/s, with rods as given or drawn."""
        obs = super().reset(seed)
        if self.contexts is None:
            bounds = draw_bounds(self.spec.params, "train", device=self.device)
            self.state["params"] = draw(bounds, self.num_envs, self.generator)
        else:
            self.state["params"] = self.contexts.clone()
        return obs

    def get_state(self) -> dict[str, Tensor]:
        """As of all pendula, and the rods."""
        return super().get_state() | {"params": self.state["params"].T.clone()}

    def set_state(self, ids: Tensor | None, state: Mapping[str, Tensor]) -> None:
        """Puts rows back; the generator too where all rows are meant."""
        super().set_state(ids, state)
        self.state["params"][:, slice(None) if ids is None else ids] = state["params"].T

    def _accelerate(self, torque: Tensor) -> None:
        length, mass = self.state["params"][..., None]
        gravity = torch.sin(self.angle) * (1.5 * GRAVITY / length)
        self.speed.add_(gravity + torque * (3.0 / (mass * length.square())), alpha=DT_S)


_GUESS = "chosen so that the torque of 2 Nm just suffices"
RODS = {
    "length": Param("length", nominal=1.0, unit="m", low=0.6, high=1.4, how="set", source="guess", reference=_GUESS),
    "mass": Param("mass", nominal=1.0, unit="kg", low=0.6, high=1.4, how="set", source="guess", reference=_GUESS),
}


def pendulum_spec(pendula: int, episode: int) -> SceneSpec:
    """Sizes and rates; there is no robot behind it, so its policies cannot be exported."""
    parts = [Field(f"{kind}_{i}", kind, 1, "1") for kind in ("cos", "sin", "speed") for i in range(pendula)]
    return SceneSpec(
        id="pendulum",
        summary="batched pendula to measure a learner with",
        robot="",
        mode="",
        params={},
        observation=tuple(parts),
        action=tuple(Field(f"torque_{i}", "torque", 1, "N m", scale=MAX_TORQUE) for i in range(pendula)),
        rate_hz=1.0 / DT_S,
        episode_s=episode * DT_S,
        rewards={},
        terminations=(),
        success="none",
    )
