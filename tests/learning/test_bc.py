"""Behaviour cloning: losses against numbers worked out by hand, weights, exact resume, a law found again."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hardware.errors import BadInput
from robo_rl import recipe
from robo_rl.algorithms.bc import gaussian_log_likelihood, gaussian_loss, mse_loss
from robo_rl.commands.eval import baseline_law
from robo_rl.config import RunConfig
from robo_rl.datasets.collect import collect
from robo_rl.datasets.transitions import DataSet, write
from robo_rl.recipes import bc
from sim.registry import make_env, scene_entry

SCENE = "quadrotor/hover"
SMALL = dataclasses.replace(bc.CONFIG, hidden=(32,), batch=64, report_every=20)


def test_the_losses_are_those_worked_out_by_hand() -> None:
    mean, action = torch.tensor([[0.0, 1.0], [0.5, 0.5]]), torch.tensor([[1.0, 1.0], [0.5, -0.5]])
    assert mse_loss(mean, action, torch.tensor([1.0, 1.0])).item() == 1.0
    # Squared distances 1 and 1; with weights 3 and 1 they stay, with 0 and 1 the first does not count.
    assert mse_loss(mean, torch.tensor([[2.0, 1.0], [0.5, -0.5]]), torch.tensor([3.0, 1.0])).item() == 13.0 / 4.0
    assert mse_loss(mean, action, torch.zeros(2)).item() == 0.0
    log_std = torch.tensor([math.log(0.5), 0.0])
    # Row 0: z = (2, 0), log-density -2 + log 2; row 1: z = (0, -1), -1/2 + log 2.
    got = gaussian_log_likelihood(mean, log_std, action)
    torch.testing.assert_close(got, torch.tensor([-2.0 + math.log(2.0), -0.5 + math.log(2.0)]))
    loss = gaussian_loss(mean, log_std, action, torch.tensor([1.0, 3.0]))
    assert loss.item() == pytest.approx(-(got[0].item() + 3 * got[1].item()) / 4)
    normal = torch.distributions.Normal(mean, log_std.exp()).log_prob(action).sum(-1) + math.log(2 * math.pi)
    torch.testing.assert_close(got, normal)


@pytest.fixture(scope="module")
def hover() -> DataSet:
    config = dataclasses.replace(scene_entry(SCENE).config, episode_s=1.0, hold_from_s=0.0)
    return collect(SCENE, baseline_law(scene_entry(SCENE).baseline), episodes=8, noise=0.1, config=config)


def _config(folder: Path, **algo: object) -> RunConfig:
    config = RunConfig(SCENE, num_envs=1, algorithm="bc", data=str(folder), algo=dataclasses.replace(SMALL, **algo))
    return dataclasses.replace(config, linear="torch", scene_config=scene_entry(SCENE).config)


def test_it_finds_a_linear_law_again(hover: DataSet, tmp_path: Path) -> None:
    law = np.random.default_rng(0).normal(size=(hover.obs.shape[1], 4)).astype(np.float32) / 20
    data = dataclasses.replace(hover, action=np.tanh(hover.obs @ law))
    config = _config(write(tmp_path / "set", data))
    trainee = bc.prepare(config, make_env(SCENE, 1))
    errors = [trainee.iterate()["action_error"] for _ in range(60)]
    assert errors[-1] < 0.2 * errors[0]
    net, norm = trainee.policy()
    with torch.no_grad():
        answers = net(norm.apply(torch.from_numpy(hover.obs))).numpy()
    assert np.sqrt(np.mean((answers - data.action) ** 2)) < 0.2 * data.action.std()


def test_rows_of_weight_nothing_teach_nothing_and_corrections_count_more(hover: DataSet, tmp_path: Path) -> None:
    """Half of the rows say +0.5, half -0.5, in no relation to what was seen: the answer is their weighted mean."""
    half = np.arange(len(hover)) % 2 == 0
    action = np.where(half[:, None], 0.5, -0.5).astype(np.float32).repeat(4, axis=1)
    data = dataclasses.replace(hover, action=action, intervention=half, obs=np.zeros_like(hover.obs))
    folder = write(tmp_path / "set", data)

    def answer(data_folder: Path, **algo: float) -> float:
        trainee = bc.prepare(_config(data_folder, ema=0.0, learning_rate=0.01, **algo), make_env(SCENE, 1))
        for _ in range(10):
            trainee.iterate()
        net, norm = trainee.policy()
        with torch.no_grad():
            return float(net(norm.apply(torch.zeros(1, hover.obs.shape[1]))).mean())

    assert answer(folder) == pytest.approx(0.0, abs=0.15)
    assert answer(folder, intervention_weight=4.0) == pytest.approx(0.3, abs=0.15)  # (4 - 1) / (4 + 1) / 2
    muted = dataclasses.replace(data, weight=half.astype(np.float32))
    assert answer(write(tmp_path / "muted", muted)) == pytest.approx(0.5, abs=0.02)
    nothing = dataclasses.replace(data, weight=np.zeros(len(data), np.float32))
    with pytest.raises(BadInput, match="every row has weight 0"):
        bc.prepare(_config(write(tmp_path / "nothing", nothing)), make_env(SCENE, 1))


@pytest.mark.parametrize("loss", ["mse", "gaussian"])
def test_going_on_from_a_checkpoint_is_the_same_run_to_the_bit(hover: DataSet, tmp_path: Path, loss: str) -> None:
    config = _config(write(tmp_path / "set", hover), loss=loss, anneal_steps=100)
    env = make_env(SCENE, 1)
    straight, first, second = (bc.prepare(config, env) for _ in range(3))
    rows = [straight.iterate() for _ in range(4)]
    for _ in range(2):
        first.iterate()
    torch.save(first.state(), tmp_path / "state.pt")
    second.load(torch.load(tmp_path / "state.pt"))
    again = [second.iterate() for _ in range(2)]
    assert repr(again) == repr(rows[2:])
    assert second.env_steps == straight.env_steps == 80
    for a, b in zip(straight.policy()[0].parameters(), second.policy()[0].parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("algo", "message"),
    [
        ({"loss": "l1"}, "algo.loss 'l1' not found; known: gaussian, mse"),
        ({"batch": 0}, "algo.batch = 0; expected at least 1"),
        ({"learning_rate": math.nan}, "algo.learning_rate = nan"),
        ({"ema": 1.0}, "algo.ema below 1"),
        ({"activation": "gelu"}, "algo.activation = 'gelu'"),
    ],
)
def test_settings_that_cannot_work_are_refused(algo: dict[str, object], message: str) -> None:
    from hardware.errors import RoboError

    config = RunConfig(SCENE, algorithm="bc", data="x", algo=dataclasses.replace(SMALL, **algo))
    with pytest.raises(RoboError, match=message):
        recipe.check(config)


def test_it_wants_data_of_its_scene(hover: DataSet, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="learns from recorded transitions: give --data DIR"):
        recipe.check(RunConfig(SCENE, algorithm="bc", algo=SMALL))
    other = dataclasses.replace(hover, card=dataclasses.replace(hover.card, scene="quadrotor/race"))
    with pytest.raises(BadInput, match="holds transitions of quadrotor/race, not of quadrotor/hover"):
        bc.prepare(_config(write(tmp_path / "set", other)), make_env(SCENE, 1))
