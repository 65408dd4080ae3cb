"""The training loop of every algorithm: learn, record; stop at a budget or a wish, and go on as if never stopped."""

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from hardware.errors import BadInput, RoboError
from robo_rl import checkpoint
from robo_rl.config import RunConfig, fixed_part, to_plain
from robo_rl.distributed import Group
from robo_rl.recipe import Trainee
from robo_rl.runs import RunDir
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


def train(
    trainee: Trainee,
    config: RunConfig,
    run: RunDir,
    budget: Budget,
    *,
    sinks: tuple[Sink, ...] = (),
    resumed_at: int | None = None,
    group: Group = Group(),  # noqa: B008 - frozen
) -> Result:
    """Trains until the budget is spent or somebody interrupts; always leaves a checkpoint to resume from."""
    first = trainee.env_steps
    start, cpu = time.monotonic(), time.process_time()
    recent: list[float] = []
    saved = -1
    with contextlib.ExitStack() as open_files, _interruption() as wish:
        files = open_files.enter_context(contextlib.closing(_Files(run, resumed_at))) if group.rank == 0 else None
        for sink in sinks:
            open_files.enter_context(contextlib.closing(sink))
        while True:
            spent = time.monotonic() - start > budget.seconds
            if trainee.env_steps >= budget.env_steps or group.agree(spent or wish.stop):
                break
            before = time.monotonic()
            values = trainee.iterate()
            _refuse_nonsense(trainee, values, run)
            if files:
                files.write(trainee.env_steps, values, start, cpu, before)
            for sink in sinks:
                sink.scalars(trainee.env_steps, values)
            recent = [*recent[-99:], values["return_mean"]]
            if trainee.updates % config.checkpoint_every == 0:
                saved = _save(trainee, config, run, group.rank)
                if files:
                    files.flush()
    if saved != trainee.env_steps and trainee.env_steps > 0:
        _save(trainee, config, run, group.rank)
    last = [v for v in recent[-max(1, trainee.updates // 10) :] if not math.isnan(v)]
    mean = sum(last) / len(last) if last else math.nan
    taken = time.monotonic() - start
    return Result(trainee.env_steps, trainee.env_steps - first, taken, time.process_time() - cpu, wish.stop, mean)


def restore(trainee: Trainee, config: RunConfig, state: dict[str, Any]) -> None:
    """Puts a checkpoint back; raises BadInput where it belongs to another configuration."""
    ours, theirs = fixed_part(to_plain(config)), state["config"]
    different = [k for k in ours if ours[k] != theirs.get(k)]
    if different:
        raise BadInput(f"the checkpoint was made with another {', '.join(different)}; resume without changing them")
    trainee.load(state)


def _refuse_nonsense(trainee: Trainee, values: dict[str, float], run: RunDir) -> None:
    """Raises RoboError where learning has produced a number that is none; the last checkpoint is from before that."""
    for name, value in values.items():
        if (name.endswith("loss") or name == "kl") and not math.isfinite(value):
            raise RoboError(
                f"{name} became {value} in update {trainee.updates} at {trainee.env_steps:,} steps; "
                f"the newest checkpoint in {run.checkpoints} is from before"
            )


def _save(trainee: Trainee, config: RunConfig, run: RunDir, rank: int) -> int:
    state = {"config": fixed_part(to_plain(config))} | trainee.state()
    checkpoint.save(run.checkpoints, trainee.env_steps, rank, state)
    return trainee.env_steps


class _Files:
    """metrics.csv, which is the same for the same seed, and timing.csv, which is not."""

    def __init__(self, run: RunDir, resumed_at: int | None) -> None:
        self._metrics, self._timing = CsvSink(run.metrics, resumed_at), CsvSink(run.timing, resumed_at)

    def write(self, env_steps: int, values: dict[str, float], start: float, cpu: float, before: float) -> None:
        now = time.monotonic()
        self._metrics.scalars(env_steps, values)
        times = {"wall_s": now - start, "cpu_s": time.process_time() - cpu, "update_s": now - before}
        self._timing.scalars(env_steps, times)

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
