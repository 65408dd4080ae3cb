"""`train --init RUN`: networks and normalisers of another run, and nothing else of it."""

import dataclasses
from pathlib import Path

import pytest
import torch

from hardware.errors import BadInput
from robo_rl import job
from robo_rl.config import RunConfig, from_plain
from robo_rl.runs import RunDir, create
from robo_rl.training import Budget, train


def small(**changes: object) -> RunConfig:
    config = job.default_config("quadrotor/hover")
    algo = {"rollout_steps": 8, "minibatches": 2, "epochs": 1, "hidden": (8,)}
    plain = {"num_envs": 16, "processes": 1, "linear": "torch", "family": "nominal", "algo": algo}
    return from_plain(config, plain | changes)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A short run."""
    config = small(seed=1)
    run = create(config, tmp_path_factory.mktemp("runs") / "first", "ppo", ["train"])
    trainee, _ = job.start(config)
    train(trainee, config, run, Budget(4 * 128))
    return run


def test_networks_and_normalisers_are_taken_and_all_else_begins_anew(first: RunDir) -> None:
    config = small(seed=2, init=str(first.path))
    trainee, at = job.start(config)
    plain, _ = job.start(dataclasses.replace(config, init=""))
    taken, fresh = trainee.state(), plain.state()
    steps = job.checkpoint.newest(first.checkpoints)
    saved = job.checkpoint.load(first.checkpoints, steps, 0)
    assert at is None
    assert trainee.env_steps == trainee.updates == 0
    assert torch.equal(taken["learner"]["parameters"], saved["learner"]["parameters"])
    assert not torch.equal(taken["learner"]["parameters"], fresh["learner"]["parameters"])
    for group, norm in saved["learner"]["norms"].items():
        assert torch.equal(taken["learner"]["norms"][group]["mean"], norm["mean"])
    assert torch.equal(taken["obs"]["policy"], fresh["obs"]["policy"]), "the worlds are those of the new seed"
    assert taken["learner"]["adam"] == {}
    assert torch.equal(taken["learner"]["learning_rate"], fresh["learner"]["learning_rate"])


def test_networks_of_another_shape_are_refused(first: RunDir) -> None:
    config = small(init=str(first.path))
    config = dataclasses.replace(config, algo=dataclasses.replace(config.algo, hidden=(9,)))
    with pytest.raises(BadInput, match=r"networks of observations .* do not fit"):
        job.start(config)


def test_an_algorithm_without_it_says_so(first: RunDir) -> None:
    config = job.default_config("quadrotor/hover", algorithm="sac")
    config = dataclasses.replace(config, init=str(first.path), num_envs=4, linear="torch")
    with pytest.raises(BadInput, match="algorithm sac always begins with fresh networks"):
        job.start(config)


def test_a_run_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="absent"):
        job.start(small(init=str(tmp_path / "absent")))
