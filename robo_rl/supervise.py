"""Training in one process or in several on this machine, behind one call."""

import os
import subprocess
import sys
from pathlib import Path

from hardware.errors import RoboError
from robo_rl import job
from robo_rl.config import RunConfig, read_yaml
from robo_rl.distributed import forget_group, join, leave, start_peers
from robo_rl.recipe import Trainee
from robo_rl.runs import RunDir
from robo_rl.sinks import Progress, Sink, TensorBoardSink
from robo_rl.training import Budget, Result, train

LAST_WORDS_S = 60.0
"""A peer that has not ended this long after rank 0 is stopped."""


def train_in_processes(
    config: RunConfig, run: RunDir, seconds: float, *, resume: bool, tensorboard: bool = False
) -> tuple[Result, Trainee]:
    """Trains with `config.processes` processes, of which this one is rank 0 unless the environment says otherwise."""
    peers = start_peers(config.processes, run.path, resume) if config.processes > 1 else []
    try:
        result, trainee = _train_here(config, run, seconds, resume=resume, tensorboard=tensorboard)
        for peer in peers:
            if peer.wait(LAST_WORDS_S) != 0:
                raise RoboError(f"a training process ended with status {peer.returncode}")
    except subprocess.TimeoutExpired as e:
        raise RoboError("a training process did not end") from e
    finally:
        for peer in peers:
            if peer.poll() is None:
                peer.terminate()
        if peers:
            forget_group()
    return result, trainee


def _train_here(
    config: RunConfig, run: RunDir, seconds: float, *, resume: bool, tensorboard: bool
) -> tuple[Result, Trainee]:
    group = join(config.device)
    try:
        trainee, at = job.start(config, group, run.checkpoints if resume else None)
        sinks: tuple[Sink, ...] = ()
        if group.rank == 0:
            sinks = (Progress(config.steps, trainee.env_steps, title=f"training {config.scene}"),)
            if tensorboard:
                sinks = (*sinks, TensorBoardSink(run.path / "tb"))
        result = train(trainee, config, run, Budget(config.steps, seconds), sinks=sinks, resumed_at=at, group=group)
    finally:
        leave(group)
    return result, trainee


def main() -> int:
    """A peer's whole life: `python -m robo_rl.supervise RUN_DIR [resume]`, with RANK and WORLD_SIZE set."""
    run = RunDir(Path(sys.argv[1]))
    try:
        config = job.config_of(read_yaml(run.config))
        _train_here(config, run, float("inf"), resume=sys.argv[2:] == ["resume"], tensorboard=False)
    except RoboError as e:
        print(f"robo-rl: train: process {os.environ.get('RANK')}: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
