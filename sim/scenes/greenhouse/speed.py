"""Further figures of `robo-rl bench greenhouse/lettuce`: the bare model and whole environments, by engine."""

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from sim.dynamics import greenhouse as model
from sim.registry import make_env
from sim.scenes.greenhouse.config import LettuceConfig

Work = tuple[str, int, Callable[[], Any]]
"""What is done, how many environment steps it is, and the function that does it once."""


def works(num_envs: int, compiled: bool) -> Iterator[Work]:
    """Steps of 15 min in three substeps of 300 s, by each engine; one thread, float32, parameters per greenhouse."""
    for engine in ("eager", "traced", *(["compiled"] if compiled else [])):
        config = dataclasses.replace(LettuceConfig(), step_s=900.0, engine=engine)
        env = make_env("greenhouse/lettuce", num_envs, family="train", config=config)
        env.stagger()
        yield f"greenhouse model, {engine}, {num_envs} x 3 substeps", num_envs, _model(env)
        action = torch.rand((num_envs, 3), generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
        yield f"greenhouse environment, {engine}, {num_envs}", num_envs, lambda e=env, a=action: e.step(a)
    if importlib.util.find_spec("lettuce_greenhouse_gym") and importlib.util.find_spec("casadi"):
        yield "lettuce-greenhouse-gym, one environment", 1, _package()


def _model(env: Any) -> Callable[[], None]:
    """The bare equations, from one state to the next."""
    task, state = env.task, [env.task.state["climate"].clone()]
    weather = task.bank.disturbance.T[:, task.state["row"]].contiguous()
    control, coefficients = task.state["command"], task.state["coefficients"]

    @torch.no_grad()
    def work() -> None:
        x = state[0]
        for _ in range(3):
            (x,) = task.substep(x, control, weather, coefficients)
        state[0] = model.within_bounds(x)

    return work


def _package() -> Callable[[], None]:
    """The reference package under random actions; its step is 30 min in four substeps."""
    from lettuce_greenhouse_gym import LettuceGreenhouseEnv  # pyright: ignore[reportMissingImports]

    env, rng = LettuceGreenhouseEnv(), np.random.default_rng(0)
    env.reset(seed=0)

    def work() -> None:
        *_, terminated, truncated, _ = env.step(rng.uniform(-1.0, 1.0, 3).astype(np.float32))
        if terminated or truncated:
            env.reset()

    return work
