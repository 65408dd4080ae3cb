"""The training loop: collect, evaluate, learn, record; stop at a budget or a wish, and go on as if never stopped."""

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from hardware.errors import BadInput, RoboError
from robo_rl import checkpoint, fast_linear
from robo_rl.config import RunConfig, check, to_plain
from robo_rl.distributed import Group
from robo_rl.learner import Learner
from robo_rl.rollout import Episodes, Rollout, allocate, collect_, count_episodes, evaluate_
from robo_rl.runs import RunDir
from robo_rl.seeds import child_seed
from robo_rl.sinks import CsvSink, Sink


class Budget(NamedTuple):
    """When to stop, whichever comes first."""

    env_steps: int
    """Environment steps of the whole run."""
    seconds: float = math.inf
    """Wall time of this invocation."""


class Result(NamedTuple):
    """What one invocation did."""

    env_steps: int
    """Of the whole run, earlier invocations included."""
    steps_now: int
    """Of this invocation."""
    wall_s: float
    cpu_s: float
    interrupted: bool
    return_mean: float
    """Mean return of the training episodes that ended in the last tenth of the updates."""


@dataclass
class Training:
    """Everything that evolves during training."""

    config: RunConfig
    env: Any
    learner: Learner
    rollout: Rollout
    episodes: Episodes
    noise: torch.Generator
    env_steps: int = 0


def resolve_linear(config: RunConfig) -> tuple[str, float]:
    """Which matrix product this machine should use for such a run, and its measured gain over the default."""
    rows = config.num_envs // config.processes * config.algo.rollout_steps // config.algo.minibatches
    name, _, gain = fast_linear.choose(config.linear, rows, config.algo.hidden, config.device)
    return name, gain


def prepare(config: RunConfig, env: Any, group: Group = Group()) -> Training:  # noqa: B008 - frozen
    """Networks, buffers and the first observations; `env` holds this process's share of the environments."""
    check(config)
    device = torch.device(config.device)
    obs = env.reset(child_seed(config.seed, "env", group.rank))
    sizes = {name: values.shape[-1] for name, values in obs.items()}
    if "policy" not in sizes:
        raise BadInput(f"scene {config.scene} has no observation group 'policy'; groups: {', '.join(sizes)}")
    _, linear, _ = fast_linear.choose(config.linear, 1, config.algo.hidden, config.device)
    actions = len(env.spec.action)
    learner = Learner(
        config.algo,
        sizes,
        actions,
        seed=config.seed,
        device=device,
        linear=linear,
        compiled=config.compile,
        group=group,
    )
    rollout = allocate(
        sizes, set(learner.norms), learner.critic_group, config.algo.rollout_steps, env.num_envs, actions, device
    )
    if hasattr(env, "stagger"):
        env.stagger()
    for name, values in rollout.obs.items():
        values[-1] = obs[name]
    noise = torch.Generator(device=device).manual_seed(child_seed(config.seed, "policy", group.rank))
    counters = Episodes(torch.zeros(env.num_envs, device=device), torch.zeros(env.num_envs, device=device))
    return Training(config, env, learner, rollout, counters, noise)


def train(
    training: Training,
    run: RunDir,
    budget: Budget,
    *,
    sinks: tuple[Sink, ...] = (),
    resumed_at: int | None = None,
    group: Group = Group(),  # noqa: B008 - frozen
) -> Result:
    """Trains until the budget is spent or somebody interrupts; always leaves a checkpoint to resume from."""
    first = training.env_steps
    start, cpu = time.monotonic(), time.process_time()
    recent: list[float] = []
    saved = -1
    with contextlib.ExitStack() as open_files, _interruption() as wish:
        files = open_files.enter_context(contextlib.closing(_Files(run, resumed_at))) if group.rank == 0 else None
        for sink in sinks:
            open_files.enter_context(contextlib.closing(sink))
        while True:
            spent = time.monotonic() - start > budget.seconds
            if training.env_steps >= budget.env_steps or group.agree(spent or wish.stop):
                break
            before = time.monotonic()
            values = iterate(training, group)
            _refuse_nonsense(training, values, run)
            if files:
                files.write(training, values, start, cpu, before)
            for sink in sinks:
                sink.scalars(training.env_steps, values)
            recent = [*recent[-99:], values["return_mean"]]
            if training.learner.updates % training.config.checkpoint_every == 0:
                saved = _save(training, run, group.rank)
                if files:
                    files.flush()
    if saved != training.env_steps and training.env_steps > 0:
        _save(training, run, group.rank)
    last = [v for v in recent[-max(1, training.learner.updates // 10) :] if not math.isnan(v)]
    mean = sum(last) / len(last) if last else math.nan
    taken = time.monotonic() - start
    return Result(training.env_steps, training.env_steps - first, taken, time.process_time() - cpu, wish.stop, mean)


def iterate(training: Training, group: Group = Group()) -> dict[str, float]:  # noqa: B008 - frozen
    """One rollout and the update it makes; numbers leave the device once, at the end."""
    rollout, learner, algo = training.rollout, training.learner, training.config.algo
    group_name = learner.critic_group
    with torch.no_grad():
        for values in rollout.obs.values():
            values[0] = values[-1]
        collect_(rollout, training.env, learner, training.noise)
        evaluate_(rollout, learner.critic, learner.norms[group_name], group_name, algo.gamma, algo.gae_lambda)
        counts = group.sum_(count_episodes(rollout, training.episodes))
    scalars = learner.update(rollout, training.env_steps) | rollout.metrics
    training.env_steps += rollout.reward.numel() * group.size
    count, total, length, died, *rest = torch.cat([counts, torch.stack(list(scalars.values()))]).tolist()
    values = {
        "update": float(learner.updates),
        "episodes": count,
        "return_mean": total / count if count else math.nan,
        "length_mean": length / count if count else math.nan,
        "terminated_share": died / count if count else math.nan,
    }
    return values | dict(zip(scalars, rest, strict=True))


def restore(training: Training, state: dict[str, Any]) -> None:
    """Puts a checkpoint back; raises BadInput where it belongs to another configuration."""
    ours = _fixed(training.config)
    theirs = state["config"]
    different = [k for k in ours if ours[k] != theirs.get(k)]
    if different:
        raise BadInput(f"the checkpoint was made with another {', '.join(different)}; resume without changing them")
    training.env.set_state(None, state["env"])
    training.learner.load(state["learner"])
    for name, values in training.rollout.obs.items():
        values[-1] = state["obs"][name]
    training.episodes.total.copy_(state["episode_total"])
    training.episodes.length.copy_(state["episode_length"])
    training.noise.set_state(state["noise"])
    training.env_steps = state["env_steps"]


def _refuse_nonsense(training: Training, values: dict[str, float], run: RunDir) -> None:
    """Raises RoboError where learning has produced a number that is none; the last checkpoint is from before that."""
    for name in ("surrogate_loss", "value_loss", "kl"):
        if not math.isfinite(values.get(name, 0.0)):
            raise RoboError(
                f"{name} became {values[name]} in update {training.learner.updates} at {training.env_steps:,} steps; "
                f"the newest checkpoint in {run.checkpoints} is from before"
            )


def _save(training: Training, run: RunDir, rank: int) -> int:
    state = {
        "config": _fixed(training.config),
        "env": dict(training.env.get_state()),
        "learner": training.learner.state(),
        "obs": {name: values[-1].clone() for name, values in training.rollout.obs.items()},
        "episode_total": training.episodes.total.clone(),
        "episode_length": training.episodes.length.clone(),
        "noise": training.noise.get_state(),
        "env_steps": training.env_steps,
    }
    checkpoint.save(run.checkpoints, training.env_steps, rank, state)
    return training.env_steps


def _fixed(config: RunConfig) -> dict[str, Any]:
    """The part of a configuration that a resumed run must share; the budget may grow."""
    free = ("steps", "checkpoint_every", "compile")
    return {k: v for k, v in to_plain(config).items() if k not in free}


class _Files:
    """metrics.csv, which is the same for the same seed, and timing.csv, which is not."""

    def __init__(self, run: RunDir, resumed_at: int | None) -> None:
        self._metrics, self._timing = CsvSink(run.metrics, resumed_at), CsvSink(run.timing, resumed_at)

    def write(self, training: Training, values: dict[str, float], start: float, cpu: float, before: float) -> None:
        now = time.monotonic()
        self._metrics.scalars(training.env_steps, values)
        times = {"wall_s": now - start, "cpu_s": time.process_time() - cpu, "update_s": now - before}
        self._timing.scalars(training.env_steps, times)

    def flush(self) -> None:
        self._metrics.flush()
        self._timing.flush()

    def close(self) -> None:
        self._metrics.close()
        self._timing.close()


@dataclass
class _Wish:
    stop: bool = False


@contextlib.contextmanager
def _interruption() -> Iterator[_Wish]:
    """The first SIGINT or SIGTERM asks the loop to stop after its update, the second interrupts at once."""
    wish = _Wish()

    def ask(number: int, frame: Any) -> None:
        if wish.stop:
            raise KeyboardInterrupt
        wish.stop = True

    try:
        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: nobody can press Ctrl-C here
        before = {}
    try:
        yield wish
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
