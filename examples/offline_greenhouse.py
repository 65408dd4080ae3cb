"""Learning from logged seasons alone: five data sets of a greenhouse, and learners against the policy that made them.

    python examples/offline_greenhouse.py [FOLDER] [--full] [--sets S ...] [--algos A ...] [--corrupt KIND ...]

Every learner is judged in the same seasons of test weather as the behaviour policy, season by season. By default all
seasons are two days long and learners take a few steps, to show that it works; `--full` is the study of the docs. What
is already in FOLDER is not made again, so parts can run side by side; the table shows all that is there.
"""

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from controllers.artifact import PolicyArtifact
from robo_rl import job
from robo_rl.commands import train
from robo_rl.commands.eval import baseline_law
from robo_rl.datasets.collect import collect
from robo_rl.datasets.corrupt import KINDS, corrupted
from robo_rl.datasets.transitions import DataSet, joined, read, write
from robo_rl.evaluate import Law, law_of, run_episodes
from robo_rl.seeds import child_seed
from robo_rl.stats import bootstrap
from robo_rl.zoo import resolve
from sim.registry import make_env, scene_entry
from sim.scenes.greenhouse.baseline import GROWER, SetPoints, lettuce_baseline
from sim.scenes.greenhouse.tune import tune

SCENE = "greenhouse/lettuce"
SETS = ("rule", "noisy", "medium", "mixed", "small")
ALGOS = ("bc", "iql", "riql", "mbdp")
START_DAYS = (40.0, 75.0)
"""Seasons start from 9 February to 16 March, when a rule earns something."""
WORLDS_SEED = 2026
"""Of the evaluation's seasons; fixed before any training."""


class Size(NamedTuple):
    """How big the study is."""

    days: float
    seasons: int
    """Per data set; `small` has a tenth."""
    teacher_steps: int
    steps: int
    """Gradient steps."""
    worlds: int
    """Seasons of the evaluation."""


SHORT, FULL = Size(2.0, 2, 5_000, 100, 4), Size(40.0, 52, 150_000, 15_000, 64)
SMALL_ROWS = 10_000
NOISE = 0.3
"""Standard deviation of the noise on the rule's actions, in action units."""
_IQL = {"hidden": (128, 128), "gamma": 0.97, "tau": 0.05, "learning_rate": 1e-3}
SETTINGS: dict[str, dict[str, Any]] = {
    "bc": {"hidden": (128, 128)},
    "iql": _IQL,
    "riql": _IQL,
    "mbdp": {"anneal_steps": 400},
}
"""A season's climate answers within a day, so values look 17 hours ahead and settle within few gradient steps."""
MOST_STEPS = {"iql": 6_000, "riql": 6_000, "mbdp": 3_400}
"""Of learners whose steps are expensive; mbdp's are 3,000 of its models and 400 of its policy."""


def set_points(folder: Path, size: Size) -> SetPoints:
    """The rule's set points: a grower's, tuned by cross-entropy on training weather where the study is whole."""
    if size is SHORT:
        return GROWER
    found = kept(
        folder / "points.json",
        lambda: dataclasses.asdict(
            tune(weather="synthetic", candidates=48, seasons=8, generations=12, seed=0).points,
            dict_factory=lambda pairs: {name: float(value) for name, value in pairs},
        ),
    )
    return SetPoints(**found)


class Behaviour(NamedTuple):
    """A policy that made data: a law and the noise on its actions."""

    law: Any
    noise: float


def behaviours(name: str, folder: Path, size: Size) -> list[Behaviour]:
    """What made a data set; `mixed` was made by two."""
    points = set_points(folder, size)
    rule = baseline_law(lambda env: lettuce_baseline(env, points))
    noisy = Behaviour(rule, NOISE)
    if name in ("medium", "mixed"):
        artifact = teacher(folder, size)
        medium = Behaviour(lambda env: law_of(artifact), 0.1)
        return [medium] if name == "medium" else [noisy, medium]
    return [Behaviour(rule, 0.0)] if name == "rule" else [noisy]


def world(size: Size, split: str) -> Any:
    """The scene's settings."""
    return dataclasses.replace(scene_entry(SCENE).config, season_days=size.days, split=split, start_days=START_DAYS)


def teacher(folder: Path, size: Size) -> PolicyArtifact:
    """A policy trained through the simulator, stopped early."""
    out = folder / "teacher"
    if not (out / "DONE").exists():
        defaults = train.prepare([SCENE, "--algo", "apg"])
        train.run(
            dataclasses.replace(
                defaults,
                steps=size.teacher_steps,
                num_envs=64,
                eval_episodes=0,
                relaunch=False,
                world=world(size, "train"),
                out=out,
            )
        )
    return PolicyArtifact.load(out / "policy.onnx")


def data_set(name: str, folder: Path, size: Size) -> DataSet:
    """The data set, from FOLDER or made anew."""
    path = folder / "sets" / name
    if not path.exists():
        made = behaviours(name, folder, size)
        count = max(1, size.seasons // len(made))
        parts = [
            collect(
                SCENE,
                b.law,
                episodes=6 if name == "small" else count,
                noise=b.noise,
                seed=SETS.index(name) * 10 + i,
                config=world(size, "train"),
                name=f"{name} {i}",
            )
            for i, b in enumerate(made)
        ]
        whole = joined(parts)
        write(path, first_rows(whole, SMALL_ROWS) if name == "small" else whole)
    return read(path)


def first_rows(data: DataSet, count: int) -> DataSet:
    """The first rows; the last of them ends its episode, which is bootstrapped."""
    count = min(count, len(data))
    arrays = {f.name: getattr(data, f.name) for f in dataclasses.fields(data) if f.name not in ("card", "extra")}
    cut = {name: values[:count].copy() for name, values in arrays.items()}
    cut["truncated"][-1] = not cut["terminated"][-1]
    return dataclasses.replace(data, **cut, extra={k: v[:count] for k, v in data.extra.items()})


def returns_of(law: Any, noise: float, size: Size, split: str = "test") -> np.ndarray:
    """Return of every evaluation season under a law with noise on its actions."""
    wobble = torch.Generator().manual_seed(child_seed(WORLDS_SEED, "noise"))

    def noisy(env: Any) -> Law:
        act = law(env)
        if noise == 0.0:
            return act

        def shaken(obs: Any) -> Any:
            wish = act(obs)
            return wish + noise * torch.randn(wish.shape, generator=wobble)

        return shaken

    make = lambda count, seed: make_env(SCENE, count, family="train", seed=seed, config=world(size, split))  # noqa: E731
    return run_episodes(make, noisy, size.worlds, WORLDS_SEED).returns


def learnt(data: Path, algorithm: str, seed: int, size: Size, **changes: Any) -> Any:
    """A law learnt from a data set, with the scene's hyper-parameters for the algorithm and those of the study."""
    default = job.default_config(SCENE, algorithm=algorithm)
    steps = min(size.steps, MOST_STEPS.get(algorithm, size.steps))
    settings = {"anneal_steps": steps} | SETTINGS[algorithm] | changes
    config = dataclasses.replace(
        default,
        seed=seed,
        num_envs=1,
        steps=steps,
        data=str(data),
        algo=dataclasses.replace(default.algo, **settings),
        scene_config=world(size, "train"),
    )
    trainee, _ = job.start(config)
    while trainee.env_steps < steps:
        trainee.iterate()
    net, norm = trainee.policy()
    net = net.eval()
    return lambda env: lambda obs: net(norm.apply(obs["policy"].clone()))


def kept(file: Path, make: Any) -> Any:
    """A result from its file, or made and written."""
    if not file.exists():
        found = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))
    return json.loads(file.read_text())


def study(
    folder: Path, size: Size, sets: Sequence[str], algos: Sequence[str], corrupt: Sequence[str], seeds: int
) -> None:
    """Makes what is missing."""
    for name in sets:
        data_set(name, folder, size)
        for i, b in enumerate(behaviours(name, folder, size)):
            for kind, noise in (("behaviour", b.noise), ("quiet", 0.0)):
                law = lambda b=b, noise=noise: returns_of(b.law, noise, size).tolist()  # noqa: E731
                kept(folder / kind / f"{name}-{i}.json", law)
        for kind in corrupt or ["clean"]:
            path = folder / "sets" / (name if kind == "clean" else f"{name}-{kind}")
            if not path.exists():
                write(path, corrupted(data_set(name, folder, size), kind))
            for algorithm in algos:
                for seed in range(seeds):
                    file = folder / "learnt" / f"{name}-{kind}-{algorithm}-{seed}.json"
                    law = lambda path=path, a=algorithm, s=seed: learnt(path, a, s, size)  # noqa: E731
                    kept(file, lambda law=law: returns_of(law(), 0.0, size).tolist())


def random_law(env: Any) -> Law:
    """Uniformly random actions."""
    draw = torch.Generator().manual_seed(child_seed(WORLDS_SEED, "random"))
    return lambda obs: 2.0 * torch.rand((env.num_envs, len(env.spec.action)), generator=draw) - 1.0


def references(folder: Path, size: Size, expert: str) -> str:
    """What random actions and an expert earn in the same seasons."""
    kept(folder / "references" / "random.json", lambda: returns_of(random_law, 0.0, size).tolist())
    if expert:
        artifact = PolicyArtifact.load(resolve(expert))
        kept(
            folder / "references" / "expert.json", lambda: returns_of(lambda env: law_of(artifact), 0.0, size).tolist()
        )
    means = {f.stem: np.mean(json.loads(f.read_text())) for f in sorted((folder / "references").glob("*.json"))}
    return ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())


def table(folder: Path) -> str:
    """Mean return of behaviour and learners with the interval of their difference, over seasons.

    `quiet` is the behaviour without the noise that it explored with: what imitating it perfectly would earn.
    """
    lines = [
        "| data | behaviour | quiet | learner | return | above behaviour, 95 % interval | above quiet |",
        "|---|---|---|---|---|---|---|",
    ]
    mean = lambda files: np.mean([json.loads(f.read_text()) for f in files], axis=0)  # noqa: E731
    for file in sorted((folder / "learnt").glob("*-0.json")):
        name, kind, algorithm, _ = file.stem.split("-")
        ours = mean(file.parent.glob(f"{name}-{kind}-{algorithm}-*.json"))
        theirs, quiet = (mean((folder / who).glob(f"{name}-*.json")) for who in ("behaviour", "quiet"))
        first, second = (
            f"{(ours - x).mean():+.2f} ({low:+.2f} to {high:+.2f})"
            for x in (theirs, quiet)
            for low, high in [bootstrap(ours - x, lambda v: float(np.mean(v)), rng=np.random.default_rng(0))]
        )
        data = name if kind == "clean" else f"{name}, {kind} spoilt"
        lines.append(
            f"| {data} | {theirs.mean():.2f} | {quiet.mean():.2f} "
            f"| {algorithm} | {ours.mean():.2f} | {first} | {second} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=None)
    parser.add_argument("--algos", nargs="+", choices=ALGOS, default=None)
    parser.add_argument("--corrupt", nargs="+", choices=KINDS, default=[])
    parser.add_argument("--expert", default="", help="policy to compare with, such as zoo:NAME")
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = FULL if args.full else SHORT
    with tempfile.TemporaryDirectory() as aside:
        folder = args.folder or Path(aside)
        sets = args.sets or (SETS if args.full else ("noisy",))
        study(folder, size, sets, args.algos or ALGOS[:3], args.corrupt, args.seeds)
        print(references(folder, size, args.expert))
        print(table(folder))


if __name__ == "__main__":
    main()
