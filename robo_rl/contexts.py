"""Worlds with given parameters: setting them, drawing candidates, laying a grid, and what a policy earns in each.

A context is a column of P parameters in the order of the scene's `spec.params`; a task that has the attribute
`contexts` takes them at every restart instead of drawing its own. The present ones are its `parameters`, or the planes
`params` of its state.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hardware.errors import BadInput, NotFoundError

Make = Callable[[int, int], Any]
"""(environments, seed) -> VecEnv."""
Act = Callable[[Tensor], Tensor]
"""Observation group `policy` (N, D), as observed -> actions (N, A)."""


def task_of(env: Any) -> Any:
    """What takes contexts; raises BadInput for a scene whose task does not."""
    task = getattr(env, "task", env)
    if not hasattr(task, "contexts"):
        raise BadInput(f"scene {env.spec.id} draws its own parameters: its task takes no contexts")
    return task


def present(task: Any) -> Tensor:
    """(P, N) parameters of the worlds as they are now."""
    return (task.parameters if hasattr(task, "parameters") else task.state["params"]).clone()


def set_contexts(env: Any, contexts: Tensor) -> None:
    """Gives environment n the context n modulo C, (P, C), from its next restart on."""
    task_of(env).contexts = contexts[:, torch.arange(env.num_envs) % contexts.shape[1]]


def drawn(make: Make, count: int, seed: int) -> Tensor:
    """(P, C) contexts as the scene's own family draws them."""
    env = make(count, seed)
    env.reset(seed)
    return present(task_of(env))


def grid(spec: Any, nominal: Tensor, names: tuple[str, ...], points: int) -> tuple[Tensor, Tensor]:
    """Contexts (P, C) over all combinations of `points` values of some parameters, and their places (C, K) in 0..1.

    The others keep their nominal value (P, 1). Each value spans the parameter's range.
    """
    known = list(spec.params)
    for name in names:
        if name not in known:
            raise NotFoundError("parameter", name, known)
    axis = torch.linspace(0.0, 1.0, points)
    places = torch.cartesian_prod(*[axis] * len(names)).reshape(-1, len(names))
    contexts = nominal.expand(-1, len(places)).clone()
    for k, name in enumerate(names):
        low, high = value_range(spec.params[name])
        contexts[known.index(name)] = low + (high - low) * places[:, k]
    return contexts, places


def value_range(param: Any) -> tuple[float, float]:
    """Lowest and highest value of a parameter in its own unit, whether or not its group is switched on."""
    if param.how == "set":
        return param.low, param.high
    if param.how == "add":
        return param.nominal + param.low, param.nominal + param.high
    low, high = sorted((param.nominal * param.low, param.nominal * param.high))
    return low, high


@torch.no_grad()
def returns_in(make: Make, act: Act, contexts: Tensor, *, repeats: int, seed: int) -> Tensor:
    """(C) mean return of one episode in each of C contexts, over `repeats` starts; equal seeds give equal starts."""
    count = contexts.shape[1]
    env = make(count * repeats, seed)
    set_contexts(env, contexts)
    obs = env.reset(seed)["policy"]
    total, running = torch.zeros(env.num_envs, device=obs.device), torch.ones(env.num_envs, device=obs.device)
    for _ in range(round(env.spec.episode_s * env.spec.rate_hz)):
        step = env.step(act(obs))
        total += running * step.reward
        running *= 1.0 - (step.terminated | step.truncated).to(running)
        obs = step.obs["policy"]
    return total.view(repeats, count).mean(0).cpu()


def keep_worlds(env: Any) -> None:
    """From now on every environment restarts in the world that it has now: parameters and, where it can, start."""
    task = task_of(env)
    task.contexts = present(task)
    if hasattr(task, "starts"):
        task.starts = task.state["begun"].clone()
