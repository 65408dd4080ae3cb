"""Transitions from a simulator: whole episodes of a law, with noise on its actions where wanted."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hardware.errors import BadInput
from hardware.guard import limit_command
from robo_rl.config import to_plain
from robo_rl.datasets.transitions import DataCard, DataSet, card_of, joined
from robo_rl.evaluate import Law
from robo_rl.seeds import child_seed
from sim.registry import make_env, scene_entry

BATCH = 256
"""Episodes that run side by side."""


def collect(
    scene: str,
    law: Callable[[Any], Law],
    *,
    episodes: int,
    noise: float = 0.0,
    seed: int = 0,
    family: str = "train",
    config: Any = None,
    name: str = "",
) -> DataSet:
    """Whole episodes under `law(env)`; `noise` is the standard deviation of what is added to its actions.

    Equal seeds give equal worlds, whatever the law. An `action` is what left the guard; the extra array `wish` holds
    the law's own, without noise. `name` is kept as where the rows come from.
    """
    if episodes < 1 or not 0.0 <= noise <= 10.0:
        raise BadInput(f"episodes = {episodes}, noise = {noise}; expected at least 1 episode and noise from 0 to 10")
    config = scene_entry(scene).config if config is None else config
    card = card_of(scene_entry(scene).spec(config))
    parts = []
    for first in range(0, episodes, BATCH):
        count, stream = min(BATCH, episodes - first), child_seed(seed, "collect", first // BATCH)
        env = make_env(scene, count, family=family, seed=stream, config=config)
        wobble = torch.Generator().manual_seed(child_seed(seed, "noise", first // BATCH))
        parts.append(_episodes(env, law(env), noise, wobble, card))
    source = {
        "kind": "simulation",
        "law": name,
        "episodes": episodes,
        "noise": noise,
        "seed": seed,
        "family": family,
        "scene_config": to_plain(config),
    }
    whole = joined(parts)
    return dataclasses.replace(whole, card=dataclasses.replace(whole.card, sources=(source,)))


@torch.no_grad()
def _episodes(env: Any, act: Law, noise: float, wobble: torch.Generator, card: DataCard) -> DataSet:
    """One episode in each environment; what runs on after its end is left out."""
    n, limit = env.num_envs, round(env.spec.episode_s * env.spec.rate_hz)
    like = torch.zeros(1, device=env.device)
    limits = env.interface.mode.limits.on(like)
    scale = torch.tensor([f.scale for f in env.interface.action], device=env.device)
    offset = torch.tensor([f.offset for f in env.interface.action], device=env.device)
    rows: dict[str, list[Tensor]] = {name: [] for name in _KEPT}
    obs, running = env.reset(), torch.ones(n, dtype=torch.bool, device=env.device)
    for _ in range(limit):
        wish = act(obs).to(env.device)
        action = wish + noise * torch.randn(wish.shape, generator=wobble).to(env.device) if noise else wish
        sent = limit_command(env.interface.command(action), env.command, limits, 1.0 / env.spec.rate_hz)
        seen = obs["policy"].clone()
        step = env.step(action)
        after = (seen, (sent - offset) / scale, step.reward, step.final_obs["policy"], step.terminated, step.truncated)
        for name, values in zip(_KEPT, (*after, running, wish), strict=True):
            rows[name].append(values.cpu().clone())
        running = running & ~(step.terminated | step.truncated)
        obs = step.obs
        if not running.any():
            break
    # Time-major (T, N) -> the episodes one after the other.
    table: dict[str, Any] = {k: torch.stack(v).movedim(0, 1).flatten(0, 1).numpy() for k, v in rows.items()}
    mask = table.pop("running")
    numbers = np.repeat(np.arange(n, dtype=np.int64), len(mask) // n)
    table = {name: np.ascontiguousarray(values[mask]) for name, values in table.items()}
    wish, count = table.pop("wish"), int(mask.sum())
    table["action"] = np.clip(table["action"], -1.0, 1.0)
    return DataSet(
        card,
        **table,
        episode=numbers[mask],
        intervention=np.zeros(count, dtype=np.bool_),
        weight=np.ones(count, dtype=np.float32),
        extra={"wish": wish},
    )


_KEPT = ("obs", "action", "reward", "next_obs", "terminated", "truncated", "running", "wish")
