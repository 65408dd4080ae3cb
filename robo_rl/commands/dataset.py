"""Make a data set of transitions for `robo-rl train --data`, from annotated logs or in a simulator.

From logs: control steps become transitions by what their marks say (robo-rl annotate), for one consumer (`--for`).
What was kept and dropped, and why, is printed and kept in dataset.json. From a simulator (`--collect SCENE`): whole
episodes of a policy or of the scene's classical controller, with noise on the actions where wanted.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from hardware.errors import BadInput
from robo_rl.cli import Outcome
from robo_rl.datasets.purposes import Options
from robo_rl.datasets.transitions import DataSet, write

NESTED = True
"""Options of nested configurations keep their prefix: `--world.mode`."""
BASELINE = "baseline"
_DEFAULTS = Options()


@dataclass(frozen=True)
class Args:
    """Arguments of `robo-rl dataset`."""

    logs: Annotated[Positional[tuple[Path, ...]], arg(metavar="LOG...")] = ()
    """Annotated recordings."""
    out: Path | None = None
    """New folder for the data set."""
    purpose: Annotated[Literal["bc", "hg-dagger", "iql", "rlpd", "rlif", "h2o", "reward"], arg(name="for")] = "iql"
    """Consumer: bc, hg-dagger (the human's actions), iql, rlpd (with buffers demo and online), rlif (-1 on the step
    that made somebody take over), h2o (dense rewards), reward (positives, negatives, progress)."""
    reward: tuple[Literal["auto", "sparse", "marks", "progress", "scene"], ...] = ("auto",)
    """Where rewards come from, added up: sparse (outcomes, on the last step), marks, progress through subtasks, the
    scene's own; auto: outcomes and reward marks where there are any, else the scene's own."""
    success: float = _DEFAULTS.success
    """Reward of the last step of an episode that succeeded."""
    failure: float = _DEFAULTS.failure
    """Reward of the last step of one that failed, and of a crash or e-stop."""
    failure_weight: float = _DEFAULTS.failure_weight
    """bc: weight of rows of episodes that did not succeed; 0 leaves them out."""
    frames: int = _DEFAULTS.frames
    """reward: steps at the end of a success that are positive, and before an intervention that are negative."""
    drafts: bool = False
    """Count marks that nobody has reviewed too."""
    scene: str | None = None
    """Build observations and actions of this scene; by default those of the policy that flew."""
    name: str | None = None
    """Namespace of the robot in the logs, where there are several."""
    collect: str | None = None
    """Simulate this scene instead of reading logs."""
    actor: Annotated[str, arg(name="with")] = BASELINE
    """What acts in the simulator: `baseline` (the scene's classical controller), a .onnx file, a run directory, or
    zoo:NAME."""
    episodes: int = 100
    """Episodes to simulate."""
    noise: float = 0.0
    """Standard deviation of the noise on the simulated actions, in action units."""
    seed: int = 0
    """Which worlds and which noise."""
    family: Literal["nominal", "train", "wide"] = "train"
    """Family of worlds to simulate."""
    world: Any = None
    """Settings of the scene."""


def prepare(argv: list[str]) -> Args:
    """The settings of the scene that is named, as defaults."""
    for option in ("--collect", "--scene"):
        for i, word in enumerate(argv):
            value = word.partition("=")[2] if word.startswith(option + "=") else ""
            if word == option and i + 1 < len(argv):
                value = argv[i + 1]
            if value:
                from sim.registry import scene_entry

                return Args(world=scene_entry(value).config)
    return Args()


def run(args: Args) -> Outcome:
    """Makes and writes the data set; the result is what was kept and dropped."""
    if args.out is None:
        raise BadInput("no folder for the data set given: --out DIR")
    if bool(args.logs) == bool(args.collect):
        raise BadInput("give LOG... to read, or --collect SCENE to simulate")
    data = _collected(args) if args.collect else _from_logs(args)
    write(args.out, data)
    card, returns = data.card, data.returns()
    print(f"{args.out}: {_listed(card.kept)}; return per episode {returns.mean():.3g} (+- {returns.std():.2g})")
    for reason, count in card.dropped.items():
        print(f"  dropped {count}: {reason}")
    found = {"out": str(args.out), "scene": card.scene, "for": card.purpose, "kept": card.kept, "dropped": card.dropped}
    return Outcome(found | {"return_mean": float(returns.mean()), "rewards": card.settings.get("rewards", ["scene"])})


def _from_logs(args: Args) -> DataSet:
    from robo_rl.datasets.fromlogs import from_logs

    options = Options(
        args.purpose,
        success=args.success,
        failure=args.failure,
        failure_weight=args.failure_weight,
        frames=args.frames,
    )
    if args.failure_weight < 0.0 or args.frames < 1:
        raise BadInput(f"--failure-weight {args.failure_weight:g}, --frames {args.frames}: expected at least 0 and 1")
    return from_logs(
        args.logs,
        options,
        rewards=args.reward,
        scene=args.scene,
        scene_config=args.world if args.scene else None,
        namespace=args.name,
        drafts=args.drafts,
    )


def _collected(args: Args) -> DataSet:
    import torch

    from robo_rl.commands.eval import baseline_law
    from robo_rl.datasets.collect import collect
    from sim.registry import scene_entry

    torch.set_num_threads(1)
    scene = str(args.collect)
    entry, law = scene_entry(scene), None
    if args.actor == BASELINE:
        law = baseline_law(entry.baseline)
    else:
        from controllers.artifact import PolicyArtifact
        from robo_rl.evaluate import check_fits, law_of
        from robo_rl.job import interface_of
        from robo_rl.zoo import resolve

        artifact = PolicyArtifact.load(resolve(args.actor))
        check_fits(interface_of(scene, args.world), artifact)
        law = lambda env: law_of(artifact)  # noqa: E731
    print(f"{args.episodes} episodes of {scene} with {args.actor}", file=sys.stderr, flush=True)
    data = collect(
        scene,
        law,
        episodes=args.episodes,
        noise=args.noise,
        seed=args.seed,
        family=args.family,
        config=args.world,
        name=args.actor,
    )
    return dataclasses.replace(data, card=dataclasses.replace(data.card, purpose=args.purpose))


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
