"""Running a law in many worlds, one episode each, and saying how good it was."""

import dataclasses
import itertools
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from controllers.artifact import PolicyArtifact
from controllers.interface import Interface
from hardware.errors import BadInput
from robo_rl.config import from_plain, to_plain
from robo_rl.seeds import EVALUATION, child_seed
from robo_rl.stats import bootstrap, cvar, iqm, wilson_clustered
from sim.registry import scene_entry

BATCH = 1000
"""Episodes that run side by side."""
TRACKED = 64
"""Episodes of which the path is kept for pictures."""

Law = Callable[[Mapping[str, Tensor]], Tensor]
"""Observation groups (N, D) -> actions (N, A)."""


@dataclass
class Episodes:
    """E episodes, one row each."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.float64]
    success: NDArray[np.bool_]
    metrics: dict[str, NDArray[np.float64]]
    """The scene's metrics at the end of each episode."""
    shares: frozenset[str]
    """Those of them that are true or false, so that their mean is a share."""
    distance: NDArray[np.float32]
    """(T, <= 64) of the first episodes: the metric `distance` over time, NaN after the end; empty without it."""
    group: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """(E,) which environment each episode was flown in, where several robots share one; else empty."""
    path: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 3), np.float32))
    """(T, <= 64, 3) position relative to the goal, NaN after the end; empty where the scene has no `track`."""


def law_of(artifact: PolicyArtifact) -> Law:
    """The policy as it is deployed: the file's own graph, its command turned back into an action."""
    scale = torch.tensor([f.scale for f in artifact.interface.action])
    offset = torch.tensor([f.offset for f in artifact.interface.action])

    def act(obs: Mapping[str, Tensor]) -> Tensor:
        feeds = {name: obs[name].cpu().numpy() for name in artifact.graph.input_sizes}
        return (torch.from_numpy(artifact.run(feeds)) - offset) / scale

    return act


def scene_config(artifact: PolicyArtifact, default: Any) -> Any:
    """The scene's default configuration in the policy's command mode.

    Where that shows other fields than the policy reads (a forecast, say, that it was trained without), the first choice
    of one setting under which they agree.
    """
    card = artifact.card
    world = from_plain(default, {"mode": card.mode}) if "mode" in to_plain(default) else default
    spec = scene_entry(card.scene).spec
    hints = typing.get_type_hints(type(world)) if dataclasses.is_dataclass(world) else {}
    choices = {name: typing.get_args(hint) for name, hint in hints.items() if typing.get_origin(hint) is typing.Literal}
    choices.pop("mode", None)
    variants = (from_plain(world, {name: value}) for name, values in choices.items() for value in values)
    shown = lambda config: tuple(f for f in spec(config).observation if f.group == "policy")  # noqa: E731
    return next((w for w in itertools.chain([world], variants) if shown(w) == card.observation), world)


def check_fits(interface: Interface, artifact: PolicyArtifact) -> None:
    """Raises BadInput where the policy does not see or do what the scene offers."""
    card = artifact.card
    if interface.mode.name != card.mode:
        raise BadInput(f"the scene is set to mode {interface.mode.name}, but the policy drives mode {card.mode}")
    if (interface.observation, interface.action) != (card.observation, card.action):
        raise BadInput(f"policy {artifact.path} was trained with other fields than scene {card.scene} has now")


def run_episodes(
    make: Callable[[int, int], Any],
    law: Callable[[Any], Law],
    episodes: int,
    seed: int,
    *,
    agents: int = 1,
    track: Callable[[Any], Tensor] | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Episodes:
    """Runs `episodes` episodes; `make(count, seed)` gives environments, `law(env)` what acts in them.

    Equal seeds give equal worlds, whatever the law. Where `agents` robots share an environment each of them flies an
    episode, and their number is rounded up to whole environments.
    """
    parts: list[Episodes] = []
    batch, episodes = (-(-n // agents) * agents for n in (BATCH, episodes))
    for first in range(0, episodes, batch):
        count = min(batch, episodes - first)
        env = make(count, child_seed(seed, EVALUATION, first // batch))
        report = lambda share, a=first, c=count: progress((a + share * c) / episodes)  # noqa: E731
        parts.append(_run_batch(env, law(env), track if first == 0 else None, report))
    whole = lambda name: np.concatenate([getattr(p, name) for p in parts])  # noqa: E731
    metrics = {k: np.concatenate([p.metrics[k] for p in parts]) for k in parts[0].metrics}
    group = np.concatenate(
        [(np.arange(len(p.returns)) % (len(p.returns) // agents)) + i * BATCH for i, p in enumerate(parts)]
    )
    return Episodes(
        whole("returns"),
        whole("lengths"),
        whole("success"),
        metrics,
        parts[0].shares,
        parts[0].distance,
        group if agents > 1 else np.zeros(0, np.int64),
        parts[0].path,
    )


def _run_batch(
    env: Any, act: Law, track: Callable[[Any], Tensor] | None, progress: Callable[[float], None]
) -> Episodes:
    """One episode in each environment of a batch; rows that have ended run on, unrecorded."""
    n, limit = env.num_envs, round(env.spec.episode_s * env.spec.rate_hz)
    obs = env.reset()
    total, length = torch.zeros(n, dtype=torch.float64), torch.zeros(n)
    running = torch.ones(n, dtype=torch.bool)
    ends: dict[str, Tensor] = {}
    shares: set[str] = set()
    distance, path = [], []
    with torch.no_grad():
        for t in range(limit):
            if track:
                path.append(_hidden_after_end(track(env)[:TRACKED].cpu(), running))
            step = env.step(act(obs).to(env.device))
            obs = step.obs
            total += torch.where(running, step.reward.cpu().double(), 0.0)
            length += running
            over = (step.terminated | step.truncated).cpu() & running
            for name, values in step.metrics.items():
                if values.dtype == torch.bool:
                    shares.add(name)
                values = values.cpu().double()
                ends[name] = torch.where(over, values, ends.get(name, torch.full_like(values, math.nan)))
            if "distance" in step.metrics:
                distance.append(_hidden_after_end(step.metrics["distance"][:TRACKED].cpu(), running))
            running &= ~over
            progress((t + 1) / limit)
            if not running.any():
                break
    metrics = {k: v.numpy() for k, v in ends.items()}
    success = np.nan_to_num(metrics.pop("success", np.zeros(n))) > 0.5
    as_array = lambda rows: torch.stack(rows).float().numpy() if rows else np.zeros((0, 0), np.float32)  # noqa: E731
    return Episodes(
        total.numpy(),
        length.double().numpy(),
        success,
        metrics,
        frozenset(shares - {"success"}),
        as_array(distance),
        path=as_array(path) if path else np.zeros((0, 0, 3), np.float32),
    )


def _hidden_after_end(rows: Tensor, running: Tensor) -> Tensor:
    shown = running[: rows.shape[0]]
    return torch.where(shown if rows.ndim == 1 else shown[:, None], rows, math.nan)


def summarise(episodes: Episodes, seed: int) -> dict[str, Any]:
    """Success with its interval, return in the mean, the middle and the worst tenth, and the scene's metrics."""
    n, rng = len(episodes.returns), np.random.default_rng(child_seed(seed, "bootstrap"))
    group = episodes.group if len(episodes.group) else np.arange(n)
    result: dict[str, Any] = {
        "episodes": n,
        "success_rate": int(episodes.success.sum()) / n,
        "success_ci95": list(wilson_clustered(episodes.success, group)),
        "return_mean": float(episodes.returns.mean()),
        "return_iqm": iqm(episodes.returns),
        "return_iqm_ci95": list(bootstrap(episodes.returns, iqm, rng=rng)),
        "return_cvar10": cvar(episodes.returns),
        "length_mean_steps": float(episodes.lengths.mean()),
    }
    for name, values in episodes.metrics.items():
        known = values[np.isfinite(values)]
        result[name] = float(known.mean()) if len(known) else None
        if name in episodes.shares and len(known) == n:
            result[f"{name}_ci95"] = list(wilson_clustered(known, group))
    return result
