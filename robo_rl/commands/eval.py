"""Evaluate a policy over a family of worlds, through the policy file itself.

POLICY is a .onnx file, a run directory, or `zoo:NAME`. `--scene.*` changes the scene's settings. Episodes of one seed
are the same worlds for every policy and for the baseline; they never occur in training.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from hardware.errors import BadInput, NotFoundError
from robo_rl.cli import Outcome

NESTED = True
"""Options of nested configurations keep their prefix: `--scene.mode`."""
STANDARD = "standard"
"""Name of the classical controller that a scene is evaluated beside if none is asked for."""


@dataclass(frozen=True)
class Args:
    """Arguments of `robo-rl eval`."""

    policy: Positional[str]
    """A .onnx file, a run directory, or zoo:NAME."""
    episodes: int = 1000
    """How many episodes."""
    seed: int = 0
    """Which worlds and starts; the seeds of training do not matter here."""
    family: Literal["nominal", "train", "wide"] = "train"
    """nominal: no randomization; train: the ranges; wide: the ranges stretched by half."""
    backend: str = "torch"
    """Physics engine: torch, the scene's own equations, or another one that the scene offers, such as pybullet."""
    baseline: str | None = None
    """Evaluate the scene's classical controller beside it, in the same worlds: `--baseline`, or `--baseline NAME` in a
    scene that has several."""
    render: Path | None = None
    """Picture of paths and distances, .png or .gif; of one season, .png, for greenhouses; of one room, .png, .gif or
    .mp4, for swarms."""
    world: Annotated[Any, arg(name="scene")] = None
    """The scene's own settings."""


def prepare(argv: list[str]) -> Args | Any:
    """The scene's settings in the policy's command mode, as defaults; a bare `--baseline` gets its name."""
    import dataclasses

    from robo_rl.zoo import PREFIX, resolve

    if "--baseline" in argv:
        at = argv.index("--baseline") + 1
        if at == len(argv) or not re.fullmatch("[a-z_]+", argv[at]) or Path(argv[at]).is_dir():
            argv.insert(at, STANDARD)
    # Behind options the policy is told from their values (pictures, numbers) by its looks.
    words = [w for w in argv if w.startswith(PREFIX) or w.endswith(".onnx") or Path(w).is_dir()]
    named = argv[0] if argv and not argv[0].startswith("-") else (words[0] if words else None)
    if named is None:
        return dataclasses.MISSING
    from controllers.artifact import PolicyArtifact
    from robo_rl.evaluate import scene_config
    from sim.registry import scene_entry

    artifact = PolicyArtifact.load(resolve(named))
    return Args(policy=named, world=scene_config(artifact, scene_entry(artifact.card.scene).config))


def run(args: Args) -> Outcome:
    """Success with interval, return in the mean, the middle and the worst tenth, and the scene's metrics."""
    from robo_rl import launcher

    _refuse(args)
    launcher.relaunch()
    import torch

    from controllers.artifact import PolicyArtifact
    from robo_rl.evaluate import check_fits, law_of, run_episodes, scene_config, summarise
    from robo_rl.job import interface_of
    from robo_rl.pictures import draw_episodes
    from robo_rl.zoo import resolve
    from sim.registry import make_env, scene_entry

    torch.set_num_threads(1)
    artifact = PolicyArtifact.load(resolve(args.policy))
    scene = artifact.card.scene
    entry = scene_entry(scene)
    baseline = _named(entry, args.baseline) if args.baseline else None
    world = scene_config(artifact, entry.config) if args.world is None else args.world
    check_fits(interface_of(scene, world), artifact)
    if args.render and args.render.suffix.lower() == ".mp4" and entry.picture is None:
        raise BadInput(f"--render {args.render}: {scene} is drawn as .png or .gif")
    make = lambda count, seed: make_env(  # noqa: E731
        scene, count, family=args.family, seed=seed, config=world, backend=args.backend
    )
    agents = entry.spec(world).agents
    track = entry.track if args.render else None
    with _bar("policy") as progress:
        found = run_episodes(
            make, lambda env: law_of(artifact), args.episodes, args.seed, agents=agents, track=track, progress=progress
        )
    result = {"policy": args.policy, "scene": scene, "family": args.family, "backend": args.backend, "seed": args.seed}
    result |= summarise(found, args.seed)
    _say("policy", result)
    other = None
    if baseline:
        with _bar("baseline") as progress:
            other = run_episodes(
                make, baseline_law(baseline), args.episodes, args.seed, agents=agents, progress=progress
            )
        result["baseline"] = {"name": args.baseline} | summarise(other, args.seed)
        _say("baseline", result["baseline"])
    if args.render:
        title = f"{scene}, family {args.family}: success {result['success_rate']:.1%} of {result['episodes']} episodes"
        args.render.parent.mkdir(parents=True, exist_ok=True)
        if entry.picture:
            laws = {"policy": lambda env: law_of(artifact)} | ({"baseline": baseline_law(baseline)} if baseline else {})
            entry.picture(args.render, lambda: make(agents, args.seed), laws, title)
        else:
            draw_episodes(args.render, found, other, title, artifact.card.rate_hz)
        result["render"] = str(args.render)
        print(f"picture: {args.render}")
    return Outcome(result)


def baseline_law(baseline: Callable[[Any], Callable[[], Any]]) -> Callable[[Any], Callable[[Any], Any]]:
    """A scene's classical controller in the shape of a policy: it reads the environment, not the observation."""

    def bind(env: Any) -> Callable[[Any], Any]:
        act = baseline(env)
        return lambda obs: act()

    return bind


def _named(entry: Any, name: str) -> Callable[[Any], Callable[[], Any]]:
    known = {STANDARD: entry.baseline, **entry.baselines}
    if name not in known:
        raise NotFoundError("baseline", name, list(known))
    return known[name]


def _refuse(args: Args) -> None:
    if args.episodes < 1:
        raise BadInput(f"--episodes {args.episodes}: expected at least 1")
    if args.seed < 0:
        raise BadInput(f"--seed {args.seed}: expected at least 0")
    if args.render and args.render.suffix.lower() not in (".png", ".gif", ".mp4"):
        raise BadInput(f"--render {args.render}: expected a name that ends in .png, .gif or .mp4")


def _say(who: str, r: dict[str, Any]) -> None:
    low, high = r["success_ci95"]
    print(
        f"{who}: success {r['success_rate']:.1%} (95 % interval {low:.1%} to {high:.1%}) of {r['episodes']} episodes; "
        f"return mean {r['return_mean']:.2f}, IQM {r['return_iqm']:.2f}, worst tenth {r['return_cvar10']:.2f}"
    )


class _bar:  # noqa: N801 - used as a context manager
    """A live bar on a terminal, nothing elsewhere."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(), transient=True, disable=not Console().is_terminal)
        self._task = self._progress.add_task(title, total=1.0)

    def __enter__(self) -> Callable[[float], None]:
        self._progress.start()
        return lambda share: self._progress.update(self._task, completed=share)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
