"""Weights on the worst worlds by hand, kept worlds, exact resume."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from hardware.errors import BadInput
from robo_rl.config import RunConfig
from robo_rl.recipes import robust_apg
from robo_rl.recipes.robust_apg import tail_weights
from robo_rl.stats import cvar
from sim.registry import make_env

ALGO = dataclasses.replace(robust_apg.CONFIG, memory=4)
ALGO = dataclasses.replace(ALGO, apg=dataclasses.replace(ALGO.apg, window=3, hidden=(8,)))


def test_weights_make_the_mean_of_scores_a_mean_and_a_tail() -> None:
    score = torch.tensor([3.0, -1.0, 2.0, 0.0, 5.0, 4.0, 1.0, 6.0])
    weights = tail_weights(score, 0.25, 0.4)
    assert weights.tolist() == pytest.approx([0.6, 2.2, 0.6, 2.2, 0.6, 0.6, 0.6, 0.6])
    blend = 0.6 * score.mean().item() + 0.4 * cvar(score.numpy(), 0.25)
    assert (weights * score).mean().item() == pytest.approx(blend)
    assert tail_weights(score, 0.25, 0.0).tolist() == [1.0] * 8
    assert tail_weights(score, 1.0, 1.0).tolist() == [1.0] * 8


def fresh(seed: int = 0) -> robust_apg.Robust:
    config = RunConfig("greenhouse/lettuce", seed=seed, num_envs=6, algorithm="robust-apg", algo=ALGO, linear="torch")
    return robust_apg.prepare(config, make_env("greenhouse/lettuce", 6, seed=seed))


def leaves(tree: Any) -> list[Any]:
    return [leaf for key in sorted(tree) for leaf in leaves(tree[key])] if isinstance(tree, dict) else [tree]


def test_two_halves_equal_the_whole_bit_for_bit_and_worlds_are_kept() -> None:
    whole, first, second = fresh(), fresh(), fresh()
    params, begun = (whole.env.task.state[name].clone() for name in ("params", "begun"))
    for _ in range(6):
        values = whole.iterate()
    for _ in range(3):
        first.iterate()
    second.load(first.state())
    for _ in range(3):
        second.iterate()
    for a, b in zip(leaves(whole.state()), leaves(second.state()), strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
    assert values["score_tail"] <= values["score_mean"]
    assert whole.weights.mean().item() == pytest.approx(1.0)
    whole.env.reset(99)
    assert torch.equal(whole.env.task.state["params"], params)
    assert torch.equal(whole.env.task.state["begun"], begun)


def test_score_is_the_mean_reward_of_each_world() -> None:
    trainee = fresh()
    seen = []
    step = trainee.env.step
    trainee.env.step = lambda action: seen.append(step(action)) or seen[-1]
    trainee.iterate()
    torch.testing.assert_close(trainee.score, torch.stack([s.reward.detach() for s in seen]).mean(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.0}, "algo.alpha = 0.0"),
        ({"share": 2.0}, "algo.share = 2.0"),
        ({"memory": 0}, "algo.memory = 0; expected at least 1"),
        ({"apg": dataclasses.replace(ALGO.apg, window=0)}, "algo.window = 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        robust_apg.check(RunConfig("x", algorithm="robust-apg", algo=dataclasses.replace(ALGO, **change)))
