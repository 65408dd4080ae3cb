"""Choosing contexts with a Gaussian process: formulas by hand, choices against brute force, rods of many lengths."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hardware.errors import BadInput
from robo_rl import recipe
from robo_rl.algorithms.mbtl import choose, distances, expected_gain, gap_slope, gaussian_process
from robo_rl.config import RunConfig
from robo_rl.contexts import grid
from robo_rl.pendulum import PendulumFamily
from robo_rl.recipes import mbtl, sac

LINE = np.linspace(0.0, 1.0, 11)[:, None]


def test_gaussian_process_by_hand() -> None:
    """Two points at distance 1 with kernel k = exp(-1/2), values 0 and 2: standardised -1 and 1, prior 1 +- 1.

    At the first point without noise: its own value, no variance. Halfway the mean is 1 by symmetry, and the variance is
    1 - 2 q^2 / (1 + k) with q = exp(-1/8).
    """
    distance = distances(np.array([[0.0], [1.0], [0.5]]))
    mean, std = gaussian_process(distance, [0, 1], np.array([0.0, 2.0]), length=1.0, noise=1e-12)
    assert mean == pytest.approx([0.0, 2.0, 1.0], abs=1e-9)
    q, k = np.exp(-0.125), np.exp(-0.5)
    assert std == pytest.approx([0.0, 0.0, np.sqrt(1.0 - 2.0 * q * q / (1.0 + k))], abs=1e-5)


def test_gaussian_process_agrees_with_conditioning_a_joint_normal() -> None:
    """The same numbers from the joint covariance of all points, by the Schur complement."""
    rng = np.random.default_rng(0)
    points, values = rng.uniform(size=(7, 2)), rng.normal(size=4)
    distance = distances(points)
    mean, std = gaussian_process(distance, [0, 1, 2, 3], values, length=0.5, noise=0.1)
    joint = np.exp(-2.0 * distance**2) + 0.1 * np.diag([1.0] * 4 + [0.0] * 3)
    inverse = np.linalg.inv(joint)
    own = np.linalg.inv(inverse[4:, 4:])  # covariance of the last three given the first four
    scaled = (values - values.mean()) / values.std()
    given = -own @ inverse[4:, :4] @ scaled
    assert mean[4:] == pytest.approx(values.mean() + values.std() * given)
    assert std[4:] == pytest.approx(values.std() * np.sqrt(np.diag(own)))


def test_slope_by_hand() -> None:
    # Trained at 0 and 1 of a line: losses (0, 1, 2) at distances (0, .5, 1), and (3, 1.5, 0) at (1, .5, 0).
    distance = distances(np.array([[0.0], [0.5], [1.0]]))
    transfer = np.array([[5.0, 4.0, 3.0], [1.0, 2.5, 4.0]])
    # Least squares through 0: sum(d loss) / sum(d^2) = (.5 + 2 + 3 + .75) / (.25 + 1 + 1 + .25).
    assert gap_slope(distance, [0, 2], transfer) == pytest.approx(6.25 / 2.5)
    assert gap_slope(distance, [0], np.array([[1.0, 2.0, 3.0]])) == 0.0


def test_expected_gain_by_hand() -> None:
    distance = distances(np.array([[0.0], [1.0]]))
    gain = expected_gain(
        distance, np.array([2.0, 3.0]), np.array([0.5, 0.0]), np.array([2.0, 2.5]), slope=1.0, beta=4.0
    )
    # From 0: 2 + 2 * 0.5 = 3 at home, 2 away: gains 1 and 0. From 1: 3 at home, 2 away: gains 0 and 0.5.
    assert gain == pytest.approx([0.5, 0.25])


def transfer_of(peak: np.ndarray[Any, Any], slope: float) -> np.ndarray[Any, Any]:
    """J(x -> y) (C, C) of a world that is as the model believes."""
    return peak[:, None] - slope * distances(LINE)


def run(table: np.ndarray[Any, Any], count: int) -> list[int]:
    trained: list[int] = []
    for _ in range(count):
        index, _ = choose(LINE, trained, table[trained], length=0.3, noise=1e-6, beta=1.0)
        trained.append(index)
    return trained


def best_pair(table: np.ndarray[Any, Any]) -> float:
    return max(table[list(pair)].max(0).mean() for pair in itertools.combinations(range(len(LINE)), 2))


@pytest.mark.parametrize("slope", [1.0, 5.0])
def test_choices_come_close_to_brute_force(slope: float) -> None:
    """J is the same everywhere: three greedy choices serve the line at least as well as the best two of all pairs."""
    table = transfer_of(np.full(11, 10.0), slope)
    trained = run(table, 3)
    assert trained[0] == 5  # the middle
    assert len(set(trained)) == 3
    # The middle and two places on either side; by symmetry the second choice may fall on either.
    assert min(trained[1:]) < 5 < max(trained[1:])
    assert table[trained].max(0).mean() >= best_pair(table)


def test_submodular_greedy_bound_where_the_peaks_are_known() -> None:
    """With a known peak the choice is greedy on a submodular gain: at least 1 - 1/e of the best (Nemhauser 1978)."""
    peak = 10.0 + 3.0 * np.sin(7.0 * LINE[:, 0])
    table = transfer_of(peak, 8.0)
    first = 5
    gain = expected_gain(distances(LINE), peak, np.zeros(11), table[first], slope=8.0, beta=1.0)
    exact = [table[[first, i]].max(0).mean() - table[first].mean() for i in range(11)]
    assert gain == pytest.approx(exact)
    greedy = table[[first, int(gain.argmax())]].max(0).mean()
    base = table.min()
    assert greedy - base >= (1.0 - 1.0 / np.e) * (best_pair(table) - base)


SAC = dataclasses.replace(sac.CONFIG, hidden=(8,), batch=16, warmup_steps=32, rollout_steps=4, buffer=300, utd=0.5)
SMALL = dataclasses.replace(mbtl.CONFIG, inner="sac", params=("length",), points=5, source_steps=80, repeats=2)


def make(count: int, seed: int) -> PendulumFamily:
    return PendulumFamily(count, episode=20, seed=seed)


def fresh(strategy: Any = "mbtl") -> mbtl.Sources:
    env = make(4, 0)
    contexts, places = grid(env.spec, torch.ones(2, 1), ("length",), 5)

    def start(number: int) -> recipe.Trainee:
        return sac.prepare(RunConfig("pendulum", seed=number, num_envs=4, algorithm="sac", algo=SAC), env)

    return mbtl.Sources(dataclasses.replace(SMALL, strategy=strategy), env, start, make, contexts, places, 0)


def leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
    return [leaf for part in tree for leaf in leaves(part)] if isinstance(tree, list) else [tree]


@pytest.mark.parametrize("cut", [2, 5], ids=["first source", "second source"])
def test_two_halves_equal_the_whole_bit_for_bit(cut: int) -> None:
    whole, first, second = fresh(), fresh(), fresh()
    for _ in range(8):
        keys = list(whole.iterate())
    for _ in range(cut):
        assert list(first.iterate()) == keys
    second.load(first.state())
    for _ in range(8 - cut):
        second.iterate()
    assert len(whole.trained) >= 2
    for a, b in zip(leaves(whole.state()), leaves(second.state()), strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b or a != a


def test_each_source_trains_in_its_own_context_and_is_tried_in_all() -> None:
    sources = fresh()
    while len(sources.finished) < 2:
        sources.iterate()
        if sources.inner:
            rods = sources.env.state["params"][0]
            assert torch.equal(rods, sources.contexts[0, sources.trained[-1]].expand(4))
    assert sources.trained[0] == 2
    assert [len(row) for row in sources.transfer] == [5, 5]
    table = np.array(sources.transfer)
    for context in range(5):
        net, _ = sources.policy_for(context)
        kept = sources.finished[int(table[:, context].argmax())]["net"]
        assert all(torch.equal(v, kept[k]) for k, v in net.state_dict().items())


def test_multitask_trains_one_policy_in_all_contexts() -> None:
    sources = fresh("multitask")
    for _ in range(30):
        sources.iterate()
    assert len(sources.trained) == 1
    assert torch.equal(sources.env.state["params"][0], sources.contexts[0, :4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inner": "mbtl"}, "algo.inner = 'mbtl'; expected an algorithm that trains in an environment"),
        ({"inner": "iql"}, "algo.inner = 'iql'"),
        ({"params": ()}, "algo.params is empty"),
        ({"points": 1}, "algo.points = 1"),
        ({"source_steps": 0}, "algo.source_steps = 0; expected at least 1"),
        ({"length": 0.0}, "algo.length = 0.0"),
        ({"strategy": "multitask", "points": 9}, "8 environments for 9 contexts; expected one each"),
        ({"source_steps": 900_000}, "pay for 6 policies of algo.source_steps = 900000; there are 5 contexts"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        mbtl.check(RunConfig("x", num_envs=8, algorithm="mbtl", algo=dataclasses.replace(SMALL, **change)))
