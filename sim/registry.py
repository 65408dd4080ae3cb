"""The scenes there are: folders of `sim/scenes` with a `ranges.toml`; found without importing torch or a scene."""

import importlib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hardware.errors import BadInput, NotFoundError

_ROOT = Path(__file__).parent / "scenes"
OWN_BACKEND = "torch"
"""The physics that every scene has of its own: its equations in torch."""


@dataclass(frozen=True)
class SceneEntry:
    """What a scene's `scene.py` registers for one task, as a constant in its `TASKS`."""

    config: Any
    """Default configuration: a frozen dataclass instance, shown on the command line as `--scene.*`."""
    spec: Callable[[Any], Any]
    """spec(config) -> SceneSpec."""
    make: Callable[..., Any]
    """make(num_envs, *, family, seed, device, config) -> VecEnv."""
    baseline: Callable[[Any], Callable[[], Any]]
    """baseline(env) -> a function that returns the classical controller's actions (N, A) for the env's present state,
    from the same noisy signals that the policy sees."""
    training: dict[str, dict[str, dict[str, Any]]]
    """Command mode -> algorithm -> hyper-parameters that differ from its own, as plain data, and under `scene` settings
    of the scene that do; the first algorithm is the default."""
    judged: Callable[[Any], Any] | None = None
    """judged(config) -> the settings under which a policy trained with `config` is evaluated, without mere aids."""
    baselines: Mapping[str, Callable[[Any], Callable[[], Any]]] = field(default_factory=dict)
    """Classical controllers by name, where there are several; `baseline` is one of them."""
    alone: Mapping[str, Any] = field(default_factory=dict)
    """Settings under which a row is an environment of its own, for interfaces that know one robot only."""
    track: Callable[[Any], Any] | None = None
    """track(env) -> true positions (N, 3) relative to the goal, m, for pictures of paths."""
    picture: Callable[..., None] | None = None
    """picture(out, make, laws, title): draws an episode under each law (name -> law(env) -> act(obs)), where paths
    and distances say little, as PNG or what else it knows; `make()` gives a fresh environment of one world, always the
    same one."""
    speed: Callable[..., Any] | None = None
    """speed(num_envs, compiled) -> (what, environment steps, function) for each further figure of `robo-rl bench`."""
    open_loop: Callable[..., Any] | None = None
    """open_loop(num, *, mode, config) -> sim.replay.OpenLoop: nominal worlds driven by a log's commands."""
    rollout: Callable[..., Any] | None = None
    """rollout(*, mode, config) -> sim.identify.rollout.Rollout: the simulator as a function of its parameters."""
    plant: Callable[..., Any] | None = None
    """plant(num_robots, *, family, seed, config) -> hardware.plant.Plant, for an emulator."""
    backends: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """Other physics engines under the same task: name -> make, called as `make` above."""
    logged_reward: Callable[..., Any] | None = None
    """logged_reward(before, after, goal, *, action, last_action, config) -> (T,): what the scene pays for recorded
    steps; signals and goals by name as (T, k) arrays, actions (T, A) as sent."""


def scene_ids() -> list[str]:
    """Ids `folder/task` of all tasks of all scenes."""
    return sorted(summaries())


def summaries() -> dict[str, dict[str, str]]:
    """Scene id -> its table in ranges.toml: `summary` and `robot`."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(_ROOT.glob("*/ranges.toml")):
        try:
            tasks = tomllib.loads(path.read_text()).get("scene", {})
        except tomllib.TOMLDecodeError as e:
            raise BadInput(f"{path}: cannot be read as TOML: {e}") from e
        found |= {f"{path.parent.name}/{task}": table for task, table in tasks.items()}
    return found


def ranges_path(scene_id: str) -> Path:
    """The scene's ranges.toml; raises NotFoundError listing the scenes there are."""
    if scene_id not in summaries():
        raise NotFoundError("scene", scene_id, scene_ids())
    return _ROOT / scene_id.split("/", 1)[0] / "ranges.toml"


def scene_entry(scene_id: str) -> SceneEntry:
    """The task's entry; imports the scene and with it torch. Raises NotFoundError listing the scenes there are."""
    folder, task = ranges_path(scene_id).parent.name, scene_id.split("/", 1)[1]
    tasks = importlib.import_module(f"sim.scenes.{folder}.scene").TASKS
    if task not in tasks:
        raise BadInput(f"scene {scene_id} is in {folder}/ranges.toml, but {folder}/scene.py has only {sorted(tasks)}")
    return tasks[task]


def make_env(
    scene_id: str,
    num_envs: int,
    *,
    family: str = "train",
    seed: int = 0,
    device: Any = "cpu",
    config: Any = None,
    backend: str = OWN_BACKEND,
) -> Any:
    """N environments of a scene (a VecEnv), with worlds of a family (nominal, train, wide) in a physics engine."""
    entry = scene_entry(scene_id)
    makers = {OWN_BACKEND: entry.make, **entry.backends}
    if backend not in makers:
        raise BadInput(f"scene {scene_id} has no back end '{backend}'; its back ends: {', '.join(makers)}")
    if num_envs < 1:
        raise BadInput(f"{num_envs} environments; expected at least 1")
    config = entry.config if config is None else config
    if type(config) is not type(entry.config):
        raise BadInput(f"scene {scene_id} takes a {type(entry.config).__name__}, not a {type(config).__name__}")
    return makers[backend](num_envs, family=family, seed=seed, device=device, config=config)
