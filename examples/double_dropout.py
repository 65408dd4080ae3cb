"""Sample dropout and model dropout in the greenhouse: policies from logged seasons alone, judged in the simulator.

    python examples/double_dropout.py [--data FOLDER] [--full] [--alphas A ...] [--betas B ...] [--table FILE]

One ensemble is learnt from the log; from it one policy for each pair (alpha, beta), and each is judged in the same
seasons of test weather: mean return, mean of the worst tenth, least. Without `--data`, seasons of a grower's set points
with noise are logged first. By default all is tiny, to show that it works; `--full` is the study of the docs.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from robo_rl.commands.eval import baseline_law
from robo_rl.datasets.collect import collect
from robo_rl.datasets.transitions import DataSet, read
from robo_rl.evaluate import Law, run_episodes
from robo_rl.recipes import mbdp
from robo_rl.stats import bootstrap, cvar
from sim.registry import make_env, scene_entry
from sim.scenes.greenhouse.baseline import GROWER, lettuce_baseline

SCENE = "greenhouse/lettuce"
WORLDS_SEED = 2026
"""Of the evaluation's seasons; fixed before any training."""
START_DAYS = (40.0, 75.0)
"""Seasons start from 9 February to 16 March, as in examples/offline_greenhouse.py."""
EXOGENOUS = ("season", "forecast")


class Size(NamedTuple):
    """How big the study is."""

    days: float
    seasons: int
    worlds: int
    model_steps: int
    policy_steps: int
    starts: int


SHORT, FULL = Size(2.0, 2, 4, 40, 10, 4), Size(40.0, 52, 64, 3_000, 400, 32)


def world(size: Size, split: str) -> Any:
    """The scene's settings."""
    return dataclasses.replace(scene_entry(SCENE).config, season_days=size.days, split=split, start_days=START_DAYS)


def log(folder: Path | None, size: Size) -> DataSet:
    """Recorded transitions: from a folder, or made by a grower's set points with noise."""
    if folder is not None:
        return read(folder)
    law = baseline_law(lambda env: lettuce_baseline(env, GROWER))
    return collect(SCENE, law, episodes=size.seasons, noise=0.3, seed=10, config=world(size, "train"), name="grower")


def judged(law: Any, size: Size) -> np.ndarray:
    """Returns of the evaluation's seasons."""
    make = lambda count, seed: make_env(SCENE, count, family="train", seed=seed, config=world(size, "test"))  # noqa: E731
    return run_episodes(make, law, size.worlds, WORLDS_SEED).returns


def acting(net: Any, norm: Any) -> Any:
    """A learnt policy as `run_episodes` takes it."""
    law: Law = lambda obs: net(norm.apply(obs["policy"]))  # noqa: E731
    return lambda env: law


def row(name: str, returns: np.ndarray) -> dict[str, Any]:
    """Figures with 95 % bootstrap intervals over seasons."""
    rng = np.random.default_rng(0)
    figures = {"mean": lambda x: float(np.mean(x)), "cvar10": cvar}
    found: dict[str, Any] = {"name": name, "least": float(returns.min()), "returns": returns.tolist()}
    for key, statistic in figures.items():
        found |= {key: statistic(returns), f"{key}_ci95": list(bootstrap(returns, statistic, rng=rng))}
    spans = [f"{k} {found[k]:7.2f} ({found[f'{k}_ci95'][0]:.2f} to {found[f'{k}_ci95'][1]:.2f})" for k in figures]
    print(f"{name:24s} {', '.join(spans)}, least {found['least']:.2f}", flush=True)
    return found


def main() -> None:
    """Prints a row per policy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of recorded transitions of greenhouse/lettuce")
    parser.add_argument("--full", action="store_true", help="the study of the docs")
    parser.add_argument("--alphas", type=float, nargs="+", default=[1.0, 0.5], help="shares of the worst rollouts kept")
    parser.add_argument("--betas", type=float, nargs="+", default=[0.2], help="shares of the models set aside")
    parser.add_argument("--seed", type=int, default=0, help="of models and policies")
    parser.add_argument("--table", type=Path, help="JSON file of all figures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = FULL if args.full else SHORT
    env = make_env(SCENE, 1, config=world(size, "train"))
    base = dataclasses.replace(
        mbdp.CONFIG,
        gamma=1.0,
        exogenous=EXOGENOUS,
        model_steps=size.model_steps,
        anneal_steps=size.policy_steps,
        starts=size.starts,
        report_every=10,
    )
    record = mbdp.Record(log(args.data, size), mbdp.layout_of(env.spec, EXOGENOUS), base, args.seed)
    models = mbdp.Offline(base, record, env, args.seed)
    while models.env_steps < size.model_steps:
        models.iterate()
    print(f"{len(record.obs)} steps logged; held-out loss {models.errors.min():.3f} to {models.errors.max():.3f}")
    rows = [row("grower", judged(baseline_law(lambda env: lettuce_baseline(env, GROWER)), size))]
    for beta in args.betas:
        for alpha in args.alphas:
            trainee = mbdp.Offline(dataclasses.replace(base, alpha=alpha, beta=beta), record, env, args.seed)
            trainee.load(models.state())
            while trainee.env_steps < size.model_steps + size.policy_steps:
                trainee.iterate()
            net, norm = trainee.policy()
            rows.append(row(f"alpha {alpha:g}, beta {beta:g}", judged(acting(net, norm), size)))
    if args.table:
        args.table.write_text(
            json.dumps({"settings": vars(args) | {"data": str(args.data)}, "rows": rows}, default=str)
        )


if __name__ == "__main__":
    main()
