"""One training run from its configuration to an evaluated policy file: scene, loop, export, evaluation, pictures."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from controllers.artifact import Card, PolicyArtifact, write_artifact
from controllers.interface import Interface
from hardware.errors import BadInput
from hardware.spec import load_spec
from robo_rl import checkpoint, runs
from robo_rl.config import RunConfig, from_plain
from robo_rl.distributed import Group
from robo_rl.evaluate import check_fits, law_of, run_episodes, summarise
from robo_rl.export_policy import export_policy
from robo_rl.offline import open_data
from robo_rl.recipe import Trainee, check, recipe, resolve
from robo_rl.training import restore
from sim.registry import make_env, ranges_path, scene_entry


def default_config(scene: str, mode: str | None = None, algorithm: str | None = None) -> RunConfig:
    """The scene's own configuration and hyper-parameters, in one of its command modes; its first algorithm if none."""
    entry = scene_entry(scene)
    world = entry.config if mode is None else from_plain(entry.config, {"mode": mode}, "scene")
    by_algorithm = entry.training.get(getattr(world, "mode", ""), {})
    algorithm = algorithm or next(iter(by_algorithm), "ppo")
    module, hints = recipe(algorithm), by_algorithm.get(algorithm, {})
    default, steps = module.CONFIG, getattr(module, "STEPS", RunConfig.steps)
    algo = {k: v for k, v in hints.items() if k in {f.name for f in dataclasses.fields(default)}}
    rest = {k: v for k, v in hints.items() if k not in algo and k != "scene"}
    world = from_plain(world, hints.get("scene", {}), "scene")
    algo = from_plain(default, algo, "algo")
    config = RunConfig(scene=scene, algorithm=algorithm, steps=steps, algo=algo, scene_config=world)
    return from_plain(config, rest, f"hyper-parameters of {scene}")


def config_of(raw: Mapping[str, Any]) -> RunConfig:
    """The configuration of a dumped run."""
    world = raw.get("scene_config")
    mode = world.get("mode") if isinstance(world, Mapping) else None
    return from_plain(default_config(str(raw["scene"]), mode, raw.get("algorithm")), raw)


def resolved(config: RunConfig) -> tuple[RunConfig, float]:
    """The configuration with every automatic choice made, so that its dump repeats the run; and oneDNN's gain."""
    linear, gain = resolve(config)
    return dataclasses.replace(config, linear=linear), gain


def rehearse(config: RunConfig) -> None:
    """Raises RoboError for a scene, settings, data or a device that cannot work, before a run directory is made."""
    device = _checked_device(config.device)
    agents = scene_entry(config.scene).spec(config.scene_config).agents
    env = make_env(config.scene, agents, family=config.family, device=device, config=config.scene_config)
    if config.data:
        open_data(config, env, None)


def _checked_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise BadInput(f"device '{name}' not known; expected cpu, cuda, cuda:0, ...") from e
    if device.type not in ("cpu", "cuda"):
        raise BadInput(f"device '{name}' is not supported; expected cpu, cuda, cuda:0, ...")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(f"device '{name}': torch finds {torch.cuda.device_count()} CUDA devices here")
    return device


def start(config: RunConfig, group: Group = Group(), resume: Path | None = None) -> tuple[Trainee, int | None]:  # noqa: B008
    """Training made ready in this process, from a checkpoint folder where one is given (and at how many steps)."""
    torch.set_num_threads(1)
    device = config.device
    if device == "cuda" and group.size > 1:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    _checked_device(device)
    env = make_env(
        config.scene,
        config.num_envs // group.size,
        family=config.family,
        device=device,
        config=config.scene_config,
    )
    check(config)
    data = Path(config.data) if config.data else None
    trainee = recipe(config.algorithm).prepare(dataclasses.replace(config, device=device), env, group, data)
    if resume is None:
        if config.init:
            _begin_from(trainee, config)
        return trainee, None
    steps = checkpoint.newest(resume, group.size)
    restore(trainee, config, checkpoint.load(resume, steps, group.rank))
    return trainee, steps


def _begin_from(trainee: Trainee, config: RunConfig) -> None:
    """Gives a trainee the networks of the run `config.init`; raises BadInput where they do not fit."""
    take = getattr(trainee, "begin_from", None)
    if take is None:
        raise BadInput(f"--init {config.init}: algorithm {config.algorithm} always begins with fresh networks")
    folder = runs.open_run(Path(config.init)).checkpoints
    take(checkpoint.load(folder, checkpoint.newest(folder, 1), 0))


def interface_of(scene: str, world: Any) -> Interface:
    """The interpreter that a scene under these settings and its policies share."""
    spec = scene_entry(scene).spec(world)
    return Interface(load_spec(spec.robot), spec.mode, spec.observation, spec.action)


def export(config: RunConfig, trainee: Trainee, path: Path, command_line: list[str]) -> float:
    """Writes the trainee's policy with its card; returns the largest difference from torch over 1,000 observations."""
    spec = scene_entry(config.scene).spec(config.scene_config)
    robot = load_spec(spec.robot)
    commit, dirty = runs.commit_of_source()
    card = Card(
        robot=spec.robot,
        robot_digest=robot.digest(),
        mode=spec.mode,
        rate_hz=spec.rate_hz,
        observation=tuple(f for f in spec.observation if f.group == "policy"),
        action=spec.action,
        scene=config.scene,
        ranges_digest=hashlib.sha256(ranges_path(config.scene).read_bytes()).hexdigest(),
        commit=commit + ("+changes" if dirty else ""),
        seed=config.seed,
        algorithm=config.algorithm,
        env_steps=trainee.env_steps,
        command_line=" ".join(command_line),
        made_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return export_policy(path, *trainee.policy(), interface_of(config.scene, config.scene_config), card)


def judged(scene: str, world: Any) -> Any:
    """The scene's settings without what only helps training."""
    settle = scene_entry(scene).judged
    return world if settle is None else settle(world)


def evaluate_policy(
    policy: Path,
    *,
    episodes: int,
    seed: int,
    family: str,
    world: Any,
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Any]:
    """Success, returns and the scene's metrics of a policy file, run through onnxruntime."""
    artifact = PolicyArtifact.load(policy)
    scene = artifact.card.scene
    check_fits(interface_of(scene, world), artifact)
    found = run_episodes(
        lambda count, s: make_env(scene, count, family=family, seed=s, config=world),
        lambda env: law_of(artifact),
        episodes,
        seed,
        agents=scene_entry(scene).spec(world).agents,
        progress=progress,
    )
    return {"family": family, "seed": seed} | summarise(found, seed)


def write_evaluation_into(policy: Path, evaluation: dict[str, Any]) -> None:
    """The same policy with the evaluation in its card."""
    artifact = PolicyArtifact.load(policy)
    card = dataclasses.replace(artifact.card, evaluation=evaluation)
    write_artifact(policy, policy.read_bytes(), card, artifact.probes)
