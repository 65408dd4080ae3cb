"""Double dropout on learned models: CVaR against closed forms, models against a known system, pendula from a record."""

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from controllers.interface import Field
from hardware.errors import BadInput
from hardware.guard import limit_command
from hardware.spec import LimitArrays
from robo_rl.algorithms.mbdp import (
    Prediction,
    Units,
    Windows,
    frozen,
    imagine,
    make_models,
    nll,
    predicted,
    slew,
    survivors,
    tail_mean,
)
from robo_rl.config import RunConfig
from robo_rl.pendulum import PendulumEnv
from robo_rl.recipes import mbdp
from sim.registry import make_env
from sim.scenes.greenhouse.config import LettuceConfig

FREE = torch.tensor([math.inf])
PENDULUM = mbdp.Layout([0, 1, 2], [])
SMALL = dataclasses.replace(
    mbdp.CONFIG, models=3, model_hidden=(16,), hidden=(8,), model_steps=20, model_batch=32, starts=4, horizon=5,
    report_every=10, beta=0.3,
)  # fmt: skip


def two_worlds(x: Tensor) -> Prediction:
    """Models with known reward theta a - a^2 / 2, theta 0.2 in the first and 0.6 in the second; no spread."""
    theta, action = torch.tensor([0.2, 0.6])[:, None], x[..., -1]
    reward = theta * action - 0.5 * action**2
    mean = torch.stack([torch.zeros_like(reward), reward], -1)
    return Prediction(mean, torch.full_like(mean, -100.0))


class Constant(nn.Module):
    """The same action everywhere: its best value is known in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.action = nn.Parameter(torch.zeros(1))

    def forward(self, obs: Tensor) -> Tensor:
        return self.action.expand(obs.shape[0], 1)


@pytest.mark.parametrize(("alpha", "best"), [(1.0, 0.4), (0.8, 0.35), (0.5, 0.2), (0.2, 0.2)])
def test_the_policy_climbs_cvar_to_its_closed_form(alpha: float, best: float) -> None:
    """For a > 0 the world of 0.2 is the worse: the worst alpha holds all of its half, and alpha - 1/2 of the other.

    The optimum is the mean of theta under these weights: (0.5 * 0.2 + (alpha - 0.5) * 0.6) / alpha for alpha >= 1/2.
    """
    policy = Constant()
    optimiser = torch.optim.SGD(policy.parameters(), lr=0.2)
    windows = Windows(torch.zeros(1, 3, 1), torch.zeros(3, 1))
    units = Units(torch.tensor([0]), torch.ones(2), torch.zeros(2))
    for _ in range(100):
        optimiser.zero_grad()
        returns = imagine(two_worlds, policy, windows, units, FREE, torch.zeros(1, 2, 15, 2), gamma=1.0, obs_clip=9.0)
        assert returns.shape == (3, 10)
        (-tail_mean(returns, alpha).mean()).backward()
        optimiser.step()
    assert policy.action.item() == pytest.approx(best, abs=1e-5)


def test_tail_mean_by_hand() -> None:
    returns = torch.tensor([[4.0, 1.0, 3.0, 2.0], [0.0, 0.0, 0.0, -4.0]])
    assert tail_mean(returns, 0.5).tolist() == [1.5, -2.0]
    assert tail_mean(returns, 0.51).tolist() == pytest.approx([2.0, -4.0 / 3.0])  # ceil(2.04) = 3 of them
    assert tail_mean(returns, 1.0).tolist() == [2.5, -1.0]
    with pytest.raises(BadInput, match="alpha = 0"):
        tail_mean(returns, 0.0)


@pytest.mark.parametrize(
    ("beta", "expected"),
    [(0.0, [0, 1, 2, 3, 4]), (0.2, [0, 1, 2, 4]), (0.4, [0, 1, 4]), (0.21, [0, 1, 4]), (0.99, [1])],
)
def test_the_worst_models_go(beta: float, expected: list[int]) -> None:
    assert survivors(torch.tensor([0.5, 0.1, 0.7, 0.9, 0.3]), beta).tolist() == expected


def test_two_steps_by_hand() -> None:
    """Column 0 moves by the action, column 1 is weather: replayed, though the model claims to know better."""

    def model(x: Tensor) -> Prediction:
        state, weather, action = x.unbind(-1)
        return Prediction(torch.stack([action, state + 10 * weather], -1), torch.full((*state.shape, 2), -100.0))

    seen = []

    def policy(obs: Tensor) -> Tensor:
        seen.append(obs.clone())
        return torch.full((obs.shape[0], 1), 0.5)

    recorded = torch.tensor([[[1.0, 0.1]], [[-7.0, 0.2]]])  # the recorded -7 is not where this policy gets
    windows = Windows(recorded, torch.zeros(1, 1))
    units = Units(torch.tensor([0]), torch.tensor([2.0, 1.0]), torch.tensor([0.0, 3.0]))
    returns = imagine(model, policy, windows, units, FREE, torch.zeros(2, 1, 1, 2), gamma=0.5, obs_clip=9.0)
    assert torch.cat(seen).tolist() == [[1.0, pytest.approx(0.1)], [2.0, pytest.approx(0.2)]]
    # (1 + 1 + 3) + 0.5 (2 + 2 + 3).
    assert returns.tolist() == [[pytest.approx(8.5)]]


def test_slew_is_the_guard_and_keeps_a_direction() -> None:
    torch.manual_seed(0)
    wish, last, step = torch.randn(50, 2) * 2, torch.rand(50, 2) * 2 - 1, torch.tensor([0.1, math.inf])
    wish.requires_grad_()
    guarded = slew(wish, last, step)
    limits = LimitArrays(torch.full((2,), -1.0), torch.ones(2), step)
    torch.testing.assert_close(guarded, limit_command(wish, last, limits, 1.0))
    guarded.sum().backward()
    assert wish.grad is not None
    inside = wish.detach().abs() < 1.0
    assert bool((wish.grad[inside] > 0.0).all())
    assert bool((wish.grad[:, 1][inside[:, 1]] == 1.0).all())


def test_models_recover_a_noisy_linear_system() -> None:
    """y = 0.5 x - 0.3 a + 0.1 noise: prediction error and predicted deviation agree with it."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 2, generator=draw)
    y = x @ torch.tensor([[0.5], [-0.3]]) + 0.1 * torch.randn(2000, 1, generator=draw)
    models = make_models(2, 2, 1, (16,), draw)
    optimiser = torch.optim.Adam(models.parameters(), lr=1e-2)
    for _ in range(400):
        rows = torch.randint(0, 2000, (2, 128), generator=draw)
        optimiser.zero_grad()
        nll(predicted(models(x[rows])), y[rows]).sum().backward()
        optimiser.step()
    test = torch.randn(500, 2, generator=draw)
    mean, log_var = predicted(models(test))
    error = mean - test @ torch.tensor([[0.5], [-0.3]])
    assert error.square().mean().sqrt().item() < 0.03
    assert torch.exp(0.5 * log_var).mean().item() == pytest.approx(0.1, abs=0.02)
    stacked = frozen(models, torch.tensor([1]))(test[None])
    torch.testing.assert_close(stacked.mean[0], mean[1], rtol=1e-4, atol=1e-5)


def test_nll_is_least_at_the_true_variance() -> None:
    """0.5 (e^2 exp(-v) + v) with e = 2: least at v = log 4, where it is 0.5 (1 + log 4)."""
    target = torch.full((1, 3, 1), 2.0)
    at = lambda v: nll(Prediction(torch.zeros(1, 3, 1), torch.full((1, 3, 1), v)), target).item()  # noqa: E731
    assert at(math.log(4.0)) == pytest.approx(0.5 * (1.0 + math.log(4.0)))
    assert at(math.log(4.0)) < min(at(1.2), at(1.6))


def pendulum_record(episodes: int = 60, seed: int = 0) -> Any:
    """Pendula under random torques that are held for a random while, as arrays of a data set."""
    env = PendulumEnv(episodes, episode=100)
    obs = env.reset(seed)["policy"].clone()
    draw = torch.Generator().manual_seed(seed)
    action, rows = torch.zeros(episodes, 1), []
    for _ in range(100):
        fresh = torch.rand(episodes, 1, generator=draw) * 2 - 1
        action = torch.where(torch.rand(episodes, 1, generator=draw) < 0.2, fresh, action)
        step = env.step(action)
        rows.append((obs, action, step.reward, step.final_obs["policy"].clone()))
        obs = step.obs["policy"].clone()
    names = ("obs", "action", "reward", "next_obs")
    columns = [torch.stack([row[i] for row in rows]).movedim(0, 1).flatten(0, 1).numpy() for i in range(4)]
    arrays = dict(zip(names, columns, strict=True))
    return SimpleNamespace(**arrays, episode=np.repeat(np.arange(episodes), 100))


def offline(config: Any, seed: int = 0, episodes: int = 60) -> mbdp.Offline:
    return mbdp.Offline(config, mbdp.Record(pendulum_record(episodes), PENDULUM, config, seed), PendulumEnv(1), seed)


def leaves(tree: Any) -> list[Any]:
    return [leaf for key in sorted(tree) for leaf in leaves(tree[key])] if isinstance(tree, dict) else [tree]


@pytest.mark.parametrize("cut", [1, 3], ids=["among the models", "among the policy"])
def test_two_halves_equal_the_whole_bit_for_bit(cut: int) -> None:
    whole, first, second = (offline(SMALL, seed, episodes=12) for seed in (0, 0, 0))
    for _ in range(5):
        values = whole.iterate()
    assert values["update"] == 5.0
    assert math.isfinite(values["imagined_return"])
    for _ in range(cut):
        first.iterate()
    second.load(first.state())
    for _ in range(5 - cut):
        second.iterate()
    assert whole.env_steps == 50
    for a, b in zip(leaves(whole.state()), leaves(second.state()), strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b


def test_rollouts_start_only_where_the_record_goes_on() -> None:
    record = mbdp.Record(pendulum_record(3), PENDULUM, dataclasses.replace(SMALL, horizon=98), 0)
    # Episodes of 100 rows: the first row has no action before it, and 98 rows must follow: rows 1 and 2 of each.
    assert record.starts.tolist() == [1, 2, 101, 102, 201, 202]
    window = record.windows(torch.tensor([2]), 98)
    assert torch.equal(window.obs[:, 0], record.seen[2:100])
    assert torch.equal(window.last_action[0], record.action[1])
    with pytest.raises(BadInput, match=r"no episode is longer than algo.horizon = 100"):
        mbdp.Record(pendulum_record(3), PENDULUM, dataclasses.replace(SMALL, horizon=100), 0)


def test_held_out_episodes_train_no_model() -> None:
    record = mbdp.Record(pendulum_record(20), PENDULUM, SMALL, 0)
    assert len(record.held) == 200
    assert not set(record.held.tolist()) & set(record.bootstrap.flatten().tolist())
    assert not torch.equal(record.bootstrap[0], record.bootstrap[1])


def test_exogenous_signals_by_name() -> None:
    fields = (Field("a", "temperature", 1, "1"), Field("b", "weather", 2, "1", history=2), Field("c", "crop", 1, "1"))
    spec = SimpleNamespace(observation=fields)
    assert mbdp.layout_of(spec, ("weather",)).columns == [0, 5]
    assert mbdp.layout_of(spec, ("weather", "wind"), {"wind"}).columns == [0, 5]
    fields = (Field("a_low", "temperature", 1, "1", clip=1.0), Field("last", "command", 1, "1"), *fields)
    layout = mbdp.layout_of(SimpleNamespace(observation=fields), ("weather",))
    assert layout.columns == [2, 7]
    assert [(r.column, r.of) for r in layout.repeats] == [(0, 0), (1, 2)]
    with pytest.raises(
        BadInput, match=r"algo.exogenous: wind not observed; observed signals: crop, temperature, weather"
    ):
        mbdp.layout_of(spec, ("wind",))


def test_imagined_greenhouses_do_not_contradict_themselves() -> None:
    """What repeats a signal or the command, and the reward: as in the simulator, though the models know nothing."""
    env = make_env("greenhouse/lettuce", 8, seed=0, config=LettuceConfig(engine="eager"))
    draw = torch.Generator().manual_seed(0)
    obs, rows = env.reset(0)["policy"].clone(), []
    for _ in range(60):
        step = env.step(2.0 * torch.rand(8, 3, generator=draw) - 1.0)
        after = step.obs["policy"].clone()
        rows.append((obs, after[:, 12:15], step.reward.clone(), after))
        obs = after
    names = ("obs", "action", "reward", "next_obs")
    columns = [torch.stack([row[i] for row in rows]).movedim(0, 1).flatten(0, 1).numpy() for i in range(4)]
    data = SimpleNamespace(**dict(zip(names, columns, strict=True)), episode=np.repeat(np.arange(8), 60))
    layout = mbdp.layout_of(env.spec, ("season", "forecast"))
    assert layout.columns == [0, 1, 2, 3]
    trainee = mbdp.Offline(SMALL, mbdp.Record(data, layout, SMALL, 0), env, 0)
    record, seen = trainee.record, []

    def model(x: Tensor) -> Prediction:
        """The recorded change, and a reward that is wrong."""
        at = len(seen) - 1
        change = record.seen[3 + at + 1, :4] - record.seen[3 + at, :4]
        mean = (torch.cat([change, torch.tensor([9.0])]) - record.units.shift) / record.units.scale
        return Prediction(mean.expand(1, 1, -1), torch.full((1, 1, 5), -100.0))

    def policy(obs: Tensor) -> Tensor:
        seen.append(obs.clone())
        return record.action[3 + len(seen) - 1][None]

    returns = imagine(
        model, policy, record.windows(torch.tensor([3]), 20), record.units, trainee.step, torch.zeros(20, 1, 1, 5),
        gamma=1.0, obs_clip=10.0, pay=trainee.pay,
    )  # fmt: skip
    torch.testing.assert_close(torch.cat(seen), record.seen[3:23], rtol=1e-3, atol=1e-3)
    assert returns.item() == pytest.approx(data.reward[3:23].sum(), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.0}, "algo.alpha = 0.0"),
        ({"beta": 1.0}, "beta below 1"),
        ({"horizon": 0}, "algo.horizon = 0; expected at least 1"),
        ({"learning_rate": math.nan}, "algo.learning_rate = nan; expected a finite number"),
        ({"activation": "sin"}, "algo.activation = 'sin'"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        mbdp.check(RunConfig("x", algorithm="mbdp", algo=dataclasses.replace(SMALL, **change)))


def test_without_data_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="algorithm mbdp learns from recorded transitions: give --data DIR"):
        mbdp.prepare(RunConfig("x", algorithm="mbdp", algo=SMALL), PendulumEnv(1))


@pytest.mark.slow
def test_learns_to_swing_up_from_a_record_of_random_torques() -> None:
    """6,000 recorded steps in which no pendulum stays up; SAC needs 20,000 of its own for -157 (rl-baselines3-zoo)."""
    config = dataclasses.replace(
        mbdp.CONFIG,
        models=4,
        beta=0.25,
        horizon=40,
        rollouts=1,
        starts=16,
        gamma=1.0,
        model_hidden=(64, 64),
        hidden=(32, 32),
        model_steps=800,
        learning_rate=5e-3,
        anneal_steps=300,
        report_every=50,
        ema=0.9,
    )
    trainee = offline(config)
    recorded = trainee.record.target[:, -1] * trainee.record.units.scale[-1] + trainee.record.units.shift[-1]
    assert recorded.mean().item() * 200 < -1000.0
    while trainee.env_steps < 1150:
        trainee.iterate()
    net, norm = trainee.policy()
    env = PendulumEnv(200)
    obs, total = env.reset(5)["policy"], torch.zeros(200)
    with torch.no_grad():
        for _ in range(200):
            step = env.step(net(norm.apply(obs)))
            obs, total = step.obs["policy"], total + step.reward
    assert total.mean().item() > -300.0
