"""Train a policy in a scene: checkpoints, metrics and the exported policy go into a run directory.

`--algo.*` sets hyper-parameters and `--scene.*` the scene's own settings; their defaults are the scene's. A run that
was stopped (Ctrl-C, --minutes) goes on with --resume DIR, bit for bit as if it had never stopped.
"""

import dataclasses
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, Suppress, arg

from hardware.errors import BadInput, NotFoundError
from robo_rl.cli import Outcome
from robo_rl.config import PPOConfig, RunConfig, fixed_part, read_yaml, to_plain, write_yaml
from robo_rl.recipe import check

NESTED = True
"""Options of nested configurations keep their prefix: `--algo.learning-rate`."""


@dataclass(frozen=True)
class Args:
    """Arguments of `robo-rl train`."""

    scene: Positional[str] = ""
    """Scene id, `folder/task`; see robo-rl scenes."""
    algorithm: Annotated[str, arg(name="algo")] = "ppo"
    """Learning algorithm (default: the scene's first)."""
    seed: int = 0
    """Root of all random streams; equal seeds give equal metrics.csv."""
    steps: int | None = None
    """Budget in environment steps (default: the scene's). With --resume: so many steps more."""
    minutes: float | None = None
    """Budget in minutes of wall time; the run can be resumed."""
    num_envs: int = 1024
    """Environments stepped as one batch."""
    out: Path | None = None
    """Run directory (default: runs/<scene>/<utc>-<algo>-s<seed>)."""
    resume: Path | None = None
    """Run directory to go on with, up to its budget, or by --steps."""
    config: Path | None = None
    """A run's config.yaml to take all defaults from."""
    init: str = ""
    """Run directory whose networks to begin with, for instance after training in an easier world."""
    data: str = ""
    """Folder of recorded transitions (robo-rl dataset), for algorithms that learn from data."""
    family: Literal["nominal", "train", "wide"] = "train"
    """Family of worlds to train in."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:0, ..."""
    processes: int = 1
    """Training processes, one core each; the environments are divided among them."""
    compile: bool = False
    """Compile losses and policy with torch.compile: faster after 10 to 20 s."""
    linear: Literal["auto", "torch", "onednn"] = "auto"
    """Matrix products; auto times torch's default against oneDNN at the start."""
    checkpoint_every: int = 50
    """Updates between two checkpoints."""
    eval_episodes: int = 200
    """Episodes of the evaluation after training, in the training family; 0 skips it."""
    tensorboard: bool = False
    """Write TensorBoard event files too."""
    relaunch: bool = True
    """Restart the process once with a faster allocator and quiet threads (also: ROBO_RL_LAUNCHED=1)."""
    algo: Any = PPOConfig()  # noqa: RUF009 - frozen
    """Hyper-parameters."""
    world: Annotated[Any, arg(name="scene")] = None
    """The scene's own settings."""
    steps_default: Suppress[int] = 5_000_000


def prepare(argv: list[str]) -> Args:
    """Defaults for this command line: a run's configuration, or the scene's own."""
    from robo_rl.job import config_of, default_config
    from sim.registry import scene_ids

    resume, source = _option(argv, "--resume"), _option(argv, "--config")
    if resume is not None:
        from robo_rl.runs import open_run

        return _args_of(config_of(read_yaml(open_run(Path(resume)).config)))
    if source is not None:
        return _args_of(config_of(read_yaml(Path(source))))
    known = scene_ids()
    scene = next((word for word in argv if word in known), None)
    if scene is None:
        if argv and not argv[0].startswith("-"):
            raise NotFoundError("scene", argv[0], known)
        return Args()
    return _args_of(default_config(scene, _option(argv, "--scene.mode"), _option(argv, "--algo")))


def run(args: Args) -> Outcome:
    """Trains, exports, evaluates; the result says how fast and how good."""
    from robo_rl import launcher

    if args.relaunch:
        launcher.relaunch()
    config = _config_of(args)
    from robo_rl import job, runs

    _refuse(args)
    config, gain = job.resolved(config)
    job.rehearse(config)
    rank = int(os.environ.get("RANK", "0"))
    if args.resume is not None:
        run_dir, config = _reopen(args, config)
    elif rank == 0:
        run_dir = runs.create(config, args.out, config.algorithm, runs.command_line())
    elif args.out is None:
        raise BadInput("several processes started from outside need a common --out")
    else:
        run_dir = runs.RunDir(args.out)
    seconds = math.inf if args.minutes is None else 60.0 * args.minutes
    if rank == 0:
        gained = f", {gain:.1f} x torch's own" if gain > 1.0 else ""
        print(f"run {run_dir.path}: {launcher.allocator()} allocator, products by {config.linear}{gained}", flush=True)
    from robo_rl.supervise import train_in_processes

    result, trainee = train_in_processes(
        config, run_dir, seconds, resume=args.resume is not None, tensorboard=args.tensorboard
    )
    if rank > 0:
        return Outcome({})
    if result.interrupted:
        print(
            f"interrupted at {result.env_steps:,} steps; go on with: robo-rl train --resume {run_dir.path}",
            file=sys.stderr,
        )
        raise KeyboardInterrupt
    return Outcome(_finish(args, config, run_dir, result, trainee))


def _finish(args: Args, config: RunConfig, run_dir: Any, result: Any, trainee: Any) -> dict[str, Any]:
    """Export, evaluation, curves, DONE."""
    from robo_rl import job, runs
    from robo_rl.pictures import draw_curves

    difference = job.export(config, trainee, run_dir.policy, runs.command_line())
    outcome: dict[str, Any] = {
        "run": str(run_dir.path),
        "policy": str(run_dir.policy),
        "env_steps": result.env_steps,
        "wall_s": round(result.wall_s, 3),
        "cpu_s": round(result.cpu_s, 3),
        "env_steps_per_s": round(result.steps_now / max(result.wall_s, 1e-9), 1),
        "return_mean": None if math.isnan(result.return_mean) else result.return_mean,
        "success_rate": None,
        "export_difference": difference,
        "linear": config.linear,
        "seed": config.seed,
    }
    if args.eval_episodes > 0:
        world = job.judged(config.scene, config.scene_config)
        evaluation = job.evaluate_policy(
            run_dir.policy, episodes=args.eval_episodes, seed=0, family=config.family, world=world
        )
        runs.write_json(run_dir.evaluation, evaluation)
        job.write_evaluation_into(run_dir.policy, evaluation)
        outcome |= {k: evaluation[k] for k in ("return_mean", "success_rate", "success_ci95")}
        outcome["evaluation"] = evaluation
        _draw_episode(config, run_dir)
    draw_curves(run_dir.metrics, run_dir.path / "curves.png", f"{config.scene}, seed {config.seed}")
    runs.write_json(run_dir.done, outcome)
    rate = outcome["env_steps_per_s"]
    said = "" if outcome["success_rate"] is None else f", success {outcome['success_rate']:.1%}"
    print(f"{result.env_steps:,} steps in {result.wall_s:.1f} s ({rate:,.0f}/s){said}; policy {run_dir.policy}")
    return outcome


def _draw_episode(config: RunConfig, run_dir: Any) -> None:
    """One episode under the policy and the classical controller, as `episode.png`, of scenes that draw theirs."""
    from controllers.artifact import PolicyArtifact
    from robo_rl import job
    from robo_rl.commands.eval import baseline_law
    from robo_rl.evaluate import law_of
    from sim.registry import make_env, scene_entry

    entry = scene_entry(config.scene)
    if entry.picture is None:
        return
    spec = entry.spec(config.scene_config)
    artifact = PolicyArtifact.load(run_dir.policy)
    world = job.judged(config.scene, config.scene_config)
    make = lambda: make_env(config.scene, spec.agents, family="nominal", seed=0, config=world)  # noqa: E731
    laws = {"policy": lambda env: law_of(artifact), "baseline": baseline_law(entry.baseline)}
    entry.picture(run_dir.path / "episode.png", make, laws, f"{config.scene}, seed {config.seed}, nominal")


def _config_of(args: Args) -> RunConfig:
    """The run's configuration as the command line gives it."""
    from sim.registry import scene_ids

    if not args.scene:
        raise BadInput(f"no scene given; scenes: {', '.join(scene_ids())}")
    if args.scene not in scene_ids():
        raise NotFoundError("scene", args.scene, scene_ids())
    names = {f.name for f in dataclasses.fields(RunConfig)} & {f.name for f in dataclasses.fields(Args)}
    same = {name: getattr(args, name) for name in names - {"steps"}}
    steps = args.steps if args.steps is not None and args.resume is None else args.steps_default
    config = RunConfig(**same, steps=steps, scene_config=args.world)
    check(config)
    return config


def _args_of(config: RunConfig) -> Args:
    names = {f.name for f in dataclasses.fields(RunConfig)} & {f.name for f in dataclasses.fields(Args)}
    same = {name: getattr(config, name) for name in names - {"steps"}}
    return Args(**same, steps_default=config.steps, world=config.scene_config)


def _refuse(args: Args) -> None:
    """Raises BadInput for arguments that do not go together."""
    if args.resume is not None and args.out is not None:
        raise BadInput("--resume goes on in its own directory; --out starts a new one: give one of them")
    if args.minutes is not None and not args.minutes > 0:
        raise BadInput(f"--minutes {args.minutes:g}: expected more than 0")
    if args.eval_episodes < 0:
        raise BadInput(f"--eval-episodes {args.eval_episodes}: expected at least 0")


def _reopen(args: Args, config: RunConfig) -> tuple[Any, RunConfig]:
    """The run to go on with, and its configuration with the budget of this invocation."""
    from robo_rl import checkpoint, job, runs

    run_dir = runs.open_run(Path(str(args.resume)))
    at = checkpoint.newest(run_dir.checkpoints, config.processes)
    if args.steps is not None:
        config = dataclasses.replace(config, steps=at + args.steps)
    if config.steps <= at:
        raise BadInput(f"{run_dir.path} has reached its budget of {config.steps:,} steps; give --steps for more")
    earlier, now = (fixed_part(to_plain(c)) for c in (job.config_of(read_yaml(run_dir.config)), config))
    different = [name for name in now if now[name] != earlier[name]]
    if different == ["linear"]:
        raise BadInput(f"{run_dir.path} used products by {earlier['linear']}; this machine or --linear offers others")
    if different:
        raise BadInput(f"{run_dir.path} was made with another {', '.join(different)}; resume without changing them")
    run_dir.done.unlink(missing_ok=True)
    write_yaml(config, run_dir.config)
    return run_dir, config


def _option(argv: list[str], name: str) -> str | None:
    """The value of an option in a raw command line, `--x v` or `--x=v`."""
    for i, word in enumerate(argv):
        if word == name and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(name + "="):
            return word.split("=", 1)[1]
    return None
