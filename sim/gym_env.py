"""Scenes as Gymnasium environments, single and vectorised, in numpy."""

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from hardware.errors import BadInput
from sim.registry import make_env, scene_entry

Array = NDArray[np.float32]


class SceneEnv(gymnasium.Env[Array, Array]):
    """One environment of a scene, of a swarm one drone alone.

    The observation is the policy's group; `info` holds the scene's metrics as far as they are known.
    """

    metadata = {"render_modes": []}

    def __init__(self, scene: str, family: str = "train", device: str = "cpu", **settings: Any) -> None:
        self._env = _make(scene, 1, family, device, {**scene_entry(scene).alone, **settings})
        self.observation_space, self.action_space = _spaces(self._env)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """A new episode in a new world."""
        super().reset(seed=seed)
        obs = self._env.reset(int(self.np_random.integers(2**31)))
        return _rows(obs["policy"])[0], {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One control step; at an episode's end the observation is its last."""
        step = self._env.step(torch.as_tensor(np.asarray(action, dtype=np.float32)[None], device=self._env.device))
        found = {name: value[0].item() for name, value in step.metrics.items()}
        info = {name: value for name, value in found.items() if value == value}  # what is not known yet is NaN
        return (
            _rows(step.final_obs["policy"])[0],
            step.reward[0].item(),
            bool(step.terminated[0]),
            bool(step.truncated[0]),
            info,
        )


class SceneVectorEnv(VectorEnv[Array, Array, Array]):
    """N environments of a scene with same-step autoreset; `infos["final_obs"]` holds the last observations."""

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, scene: str, num_envs: int = 1, family: str = "train", device: str = "cpu", **settings: Any):
        self.num_envs = num_envs
        self._env = _make(scene, num_envs, family, device, settings)
        self.single_observation_space, self.single_action_space = _spaces(self._env)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """New episodes everywhere; one seed serves the whole batch."""
        if isinstance(seed, list):
            raise BadInput("this vector environment draws all its worlds from one seed; got a list of seeds")
        if seed is not None:
            self._np_random, self._np_random_seed = seeding.np_random(seed)
        obs = self._env.reset(int(self.np_random.integers(2**31)))
        return _rows(obs["policy"]), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One control step of all environments."""
        step = self._env.step(torch.as_tensor(np.asarray(actions, dtype=np.float32), device=self._env.device))
        infos: dict[str, Any] = {name: _rows(value) for name, value in step.metrics.items()}
        ended = _rows(step.terminated | step.truncated)
        if ended.any():
            infos |= {"final_obs": _rows(step.final_obs["policy"]), "_final_obs": ended}
        reward = _rows(step.reward).astype(np.float64)
        return _rows(step.obs["policy"]), reward, _rows(step.terminated), _rows(step.truncated), infos


def _make(scene: str, num_envs: int, family: str, device: str, settings: dict[str, Any]) -> Any:
    config = scene_entry(scene).config
    known = [f.name for f in dataclasses.fields(config)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise BadInput(f"scene {scene} has no setting {', '.join(unknown)}; settings: {', '.join(known)}")
    config = dataclasses.replace(config, **settings)
    return make_env(scene, num_envs, family=family, device=device, config=config)


def _spaces(env: Any) -> tuple[Any, Any]:
    fields = [f for f in env.interface.observation if f.group == "policy"]
    most = float(np.finfo(np.float32).max)  # Gymnasium's checker objects to infinity
    bound = np.concatenate([np.full(f.size * f.history, min(f.clip, most), np.float32) for f in fields])
    return Box(-bound, bound, dtype=np.float32), Box(-1.0, 1.0, (env.interface.action_size,), np.float32)


def _rows(value: Tensor) -> Any:
    return value.cpu().numpy().copy()
