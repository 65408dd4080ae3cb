"""The training loop: repeatable, resumable bit for bit, divisible among processes, silent towards the host."""

import dataclasses
import hashlib
import multiprocessing
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hardware.errors import BadInput, RoboError
from robo_rl import checkpoint
from robo_rl.config import PPOConfig, RunConfig
from robo_rl.distributed import Group, join, leave
from robo_rl.pendulum import PendulumEnv
from robo_rl.recipe import check
from robo_rl.recipes.ppo import OnPolicy, prepare
from robo_rl.runs import RunDir
from robo_rl.training import Budget, restore, train

ALGO = PPOConfig(rollout_steps=8, minibatches=2, epochs=2, hidden=(8,), anneal_steps=2000)
CONFIG = RunConfig("pendulum", seed=3, num_envs=16, linear="torch", algo=ALGO, checkpoint_every=3)


def fresh(config: RunConfig = CONFIG, group: Group = Group()) -> OnPolicy:  # noqa: B008
    return prepare(config, PendulumEnv(config.num_envs // group.size, pendula=2, episode=20), group)


def run_dir(path: Path) -> RunDir:
    (path / "checkpoints").mkdir(parents=True)
    return RunDir(path)


def leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
    return [tree]


def same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


def test_same_seed_gives_the_same_metrics_file(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b", "other seed"):
        config = dataclasses.replace(CONFIG, seed=4) if name == "other seed" else CONFIG
        run = run_dir(tmp_path / name)
        train(fresh(config), config, run, Budget(5 * 128))
        digests.append(hashlib.sha256(run.metrics.read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]


def test_two_halves_equal_the_whole_bit_for_bit(tmp_path: Path) -> None:
    """Everything that evolves, the environment's and every generator's state included, and the metrics file."""
    whole, parts = run_dir(tmp_path / "whole"), run_dir(tmp_path / "parts")
    train(fresh(), CONFIG, whole, Budget(10 * 128))
    train(fresh(), CONFIG, parts, Budget(5 * 128))
    second = fresh()
    at = checkpoint.newest(parts.checkpoints)
    assert at == 5 * 128
    restore(second, CONFIG, checkpoint.load(parts.checkpoints, at, 0))
    result = train(second, CONFIG, parts, Budget(10 * 128), resumed_at=at)
    assert (result.env_steps, result.steps_now) == (10 * 128, 5 * 128)
    assert whole.metrics.read_bytes() == parts.metrics.read_bytes()
    states = [leaves(checkpoint.load(r.checkpoints, 10 * 128, 0)) for r in (whole, parts)]
    assert len(states[0]) > 20
    assert all(same(a, b) for a, b in zip(*states, strict=True))


def test_rows_written_after_the_last_checkpoint_are_replaced_on_resume(tmp_path: Path) -> None:
    """A process killed between checkpoints has written rows of a future that is run again."""
    run = run_dir(tmp_path / "run")
    train(fresh(), CONFIG, run, Budget(7 * 128))
    first = run.metrics.read_text()
    for later in run.checkpoints.glob(f"{7 * 128:012d}*"):
        later.unlink()
    training = fresh()
    at = checkpoint.newest(run.checkpoints)
    assert at == 6 * 128
    restore(training, CONFIG, checkpoint.load(run.checkpoints, at, 0))
    train(training, CONFIG, run, Budget(7 * 128), resumed_at=at)
    assert run.metrics.read_text() == first


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    run = run_dir(tmp_path / "run")
    train(fresh(), CONFIG, run, Budget(128))
    other = dataclasses.replace(CONFIG, seed=9)
    with pytest.raises(BadInput, match="another seed"):
        restore(fresh(other), other, checkpoint.load(run.checkpoints, 128, 0))


def test_interrupt_leaves_a_checkpoint_of_the_last_update(tmp_path: Path) -> None:
    run = run_dir(tmp_path / "run")

    class Impatient:
        def scalars(self, step: int, values: object) -> None:
            if step == 4 * 128:
                os.kill(os.getpid(), signal.SIGINT)

        def close(self) -> None: ...

    result = train(fresh(), CONFIG, run, Budget(10**9), sinks=(Impatient(),))
    assert result.interrupted
    assert checkpoint.newest(run.checkpoints) == result.env_steps == 4 * 128


def test_a_world_that_pays_nan_stops_the_run_before_it_spoils_the_checkpoint(tmp_path: Path) -> None:
    run = run_dir(tmp_path / "run")
    training = fresh()
    train(training, CONFIG, run, Budget(3 * 128))
    training.env.angle.fill_(torch.nan)
    with pytest.raises(RoboError, match="became nan in update 4 at 512 steps"):
        train(training, CONFIG, run, Budget(6 * 128), resumed_at=3 * 128)
    state = checkpoint.load(run.checkpoints, checkpoint.newest(run.checkpoints), 0)
    assert state["learner"]["parameters"].isfinite().all()


class HostReads(TorchDispatchMode):
    """Counts numbers that leave the device one by one, as `.item()`, `float()` and `if tensor` do."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_no_number_leaves_the_device_inside_an_update() -> None:
    training = fresh()
    training.iterate()
    with HostReads() as reads:
        bool(torch.ones(()) > 0)
        assert reads.count == 1  # the counter works
        training.iterate()
    assert reads.count == 1


def test_pendulum_is_learnt() -> None:
    """Swinging up 64 pendula: the mean reward rises from -6 (hanging, turning) to better than -2.5 in 80,000 steps."""
    algo = PPOConfig(
        rollout_steps=32,
        epochs=10,
        minibatches=8,
        hidden=(32, 32),
        init_std=1.0,
        learning_rate_max=1e-2,
        target_kl=0.01,
    )
    training = prepare(dataclasses.replace(CONFIG, num_envs=64, algo=algo), PendulumEnv(64))
    for _ in range(40):
        training.iterate()
    assert training.rollout.reward.mean() > -2.5


def _rank(rank: int, port: int, folder: str) -> None:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo"
    )
    torch.set_num_threads(1)
    group = join("cpu")
    training = fresh(CONFIG, group)
    for _ in range(3):
        values = training.iterate()
    torch.save({"state": training.learner.state(), "values": values}, Path(folder) / f"{rank}.pt")
    leave(group)


@pytest.mark.slow
def test_two_processes_stay_one_learner(tmp_path: Path) -> None:
    """Parameters, averaged policy, learning rate and normalisers are the same bits on both ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_rank, args=(r, port, str(tmp_path))) for r in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0
    a, b = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in range(2))
    for name in ("parameters", "average", "learning_rate", "norms", "adam"):
        assert all(same(x, y) for x, y in zip(leaves(a["state"][name]), leaves(b["state"][name]), strict=True)), name
    assert a["values"]["episodes"] == b["values"]["episodes"]


def test_gradient_of_two_halves_equals_that_of_the_whole() -> None:
    """One epoch, one minibatch: the summed gradient of both halves of a rollout against the whole rollout's."""
    algo = dataclasses.replace(ALGO, epochs=1, minibatches=1, target_kl=0.0, max_grad_norm=1e9)
    config = dataclasses.replace(CONFIG, algo=algo)
    whole = fresh(config)
    whole.iterate()
    rollout = whole.rollout
    batch = whole.learner._batch(rollout)
    old = whole.learner.log_std.clone()

    def gradient(rows: slice) -> Tensor:
        whole.learner.flat.grad_and_extra.zero_()
        part = {k: v[rows].clone() for k, v in batch.items()}
        whole.learner._losses(part, old).total.backward()
        return whole.learner.flat.grad.clone()

    n = rollout.reward.numel()
    full = gradient(slice(0, n))
    halves = 0.5 * (gradient(slice(0, n // 2)) + gradient(slice(n // 2, n)))
    assert (full - halves).norm() / full.norm() < 1e-6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"algorithm": "magic"}, "algorithm 'magic' not found; known: "),
        ({"num_envs": 0}, "num_envs = 0; expected at least 1"),
        ({"num_envs": 15, "processes": 2}, "not divisible by processes = 2"),
        ({"algo": dataclasses.replace(ALGO, minibatches=3)}, "not divisible by algo.minibatches = 3"),
        ({"linear": "fast"}, "expected auto, torch or onednn"),
        ({"algo": dataclasses.replace(ALGO, gamma=1.5)}, "lie in 0..1"),
        ({"algo": dataclasses.replace(ALGO, std_floor=0.9)}, "below algo.std_floor"),
    ],
)
def test_values_that_cannot_work_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(RoboError, match=words.replace(".", r"\.")):
        check(dataclasses.replace(CONFIG, **change))
