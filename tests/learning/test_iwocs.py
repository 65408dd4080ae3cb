"""Worst-case search: a windy walk against exact robust value iteration; the deep variant on rods of unknown length."""

import dataclasses
import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from hardware.errors import BadInput, NotFoundError
from robo_rl.algorithms.iwocs import search, settled
from robo_rl.config import RunConfig
from robo_rl.contexts import drawn, grid, present, returns_in, set_contexts
from robo_rl.pendulum import PendulumEnv, PendulumFamily
from robo_rl.recipes import iwocs
from sim.registry import make_env

Array = NDArray[Any]
WIDTH, ROWS, GAMMA = 6, 3, 0.95
GOAL = (1, WIDTH - 1)
MOVES = ((0, 1), (0, -1), (1, 0), (-1, 0))
WINDS = (0.0, 0.4, 0.8)


class Walk(NamedTuple):
    """Transitions (S, A, S) of one world: in row r a step is followed, with probability wind[r], by one to the left."""

    transition: Array
    reward: Array
    """(S): -1 per step until the goal."""


def state(row: int, column: int) -> int:
    return row * WIDTH + column


def walk(wind: tuple[float, ...]) -> Walk:
    size = ROWS * WIDTH
    transition, reward = np.zeros((size, len(MOVES), size)), -np.ones(size)
    for row, column in itertools.product(range(ROWS), range(WIDTH)):
        s = state(row, column)
        if (row, column) == GOAL:
            transition[s, :, s], reward[s] = 1.0, 0.0
            continue
        for a, (down, right) in enumerate(MOVES):
            r, c = min(max(row + down, 0), ROWS - 1), min(max(column + right, 0), WIDTH - 1)
            blown = c if (r, c) == GOAL else max(c - 1, 0)
            transition[s, a, state(r, c)] += 1.0 - wind[row]
            transition[s, a, state(r, blown)] += wind[row]
    return Walk(transition, reward)


def values(world: Walk) -> Array:
    """Q* (S, A) by value iteration."""
    q = np.zeros(world.transition.shape[:2])
    for _ in range(2000):
        q = world.reward[:, None] + GAMMA * world.transition @ q.max(1)
    return q


def robust_values(worlds: list[Walk]) -> Array:
    """Robust Q (S, A) by value iteration against nature, which picks a world anew at every state and action.

    Iyengar 2005, sec. 3: this is exact for rectangular sets, and here the wind of a row only matters in that row.
    """
    q = np.zeros(worlds[0].transition.shape[:2])
    for _ in range(2000):
        v = q.max(1)
        q = np.stack([w.reward[:, None] + GAMMA * w.transition @ v for w in worlds]).min(0)
    return q


def worth(world: Walk, policy: Any) -> Array:
    """Exact values (S) of a deterministic policy (S)."""
    rows = np.arange(len(policy))
    return np.linalg.solve(np.eye(len(policy)) - GAMMA * world.transition[rows, policy], world.reward)


def test_windy_walk_equals_robust_value_iteration() -> None:
    """Walks start anywhere, so that the worst world is the worst for every state."""
    winds = list(itertools.product(WINDS, repeat=ROWS))
    worlds = {wind: walk(wind) for wind in winds}

    def solve(wind: Any) -> tuple[Array, float]:
        q = values(worlds[wind])
        return q, float(q.max(1).mean())

    def worst(policy: Array) -> tuple[Any, float]:
        found = {wind: float(worth(world, policy).mean()) for wind, world in worlds.items()}
        wind = min(found, key=lambda w: found[w])
        return wind, found[wind]

    outcome = search(
        solve,
        lambda tables: np.stack(tables).min(0).argmax(1),
        worst,
        (0.0, 0.0, 0.0),
        rounds=20,
        tolerance=1e-9,
    )
    robust = robust_values(list(worlds.values())).max(1)
    assert outcome.settled
    worst_wind = outcome.worst[-1][0]
    np.testing.assert_allclose(worth(worlds[worst_wind], outcome.policy), robust, atol=1e-6)
    # The search solved a few of the 27 worlds, and its first answer was not yet robust.
    assert 2 <= len(outcome.solutions) < 10
    assert outcome.worst[0][1] < robust.mean() - 0.1


def test_stop_rule() -> None:
    assert settled(-3.0, [-1.0, -3.0], 0.0)
    assert not settled(-3.5, [-1.0, -3.0], 0.4)
    assert settled(-3.5, [-1.0, -3.0], 0.6)


def test_rounds_are_bounded() -> None:
    outcome = search(lambda c: (c, 0.0), lambda qs: qs[-1], lambda p: (p + 1, -1.0), 0, rounds=3, tolerance=0.0)
    assert not outcome.settled
    assert [s.context for s in outcome.solutions] == [0, 1, 2]


def test_a_grid_spans_the_ranges_of_the_named_parameters() -> None:
    spec = PendulumFamily(1).spec
    contexts, places = grid(spec, torch.ones(2, 1), ("mass",), 3)
    assert contexts.tolist() == [[1.0, 1.0, 1.0], pytest.approx([0.6, 1.0, 1.4])]
    assert places.tolist() == [[0.0], [0.5], [1.0]]
    both, places = grid(spec, torch.ones(2, 1), ("length", "mass"), 2)
    assert both.T.tolist() == [pytest.approx(v) for v in ([0.6, 0.6], [0.6, 1.4], [1.4, 0.6], [1.4, 1.4])]
    with pytest.raises(NotFoundError, match="parameter 'colour' not found; known: length, mass"):
        grid(spec, torch.ones(2, 1), ("colour",), 3)


def test_returns_in_given_contexts_by_hand() -> None:
    """At the start the reward is that of the first state; equal seeds give equal starts, so only the rods differ."""
    contexts = torch.tensor([[0.6, 1.0, 0.6], [1.0, 1.0, 1.0]])
    make = lambda n, seed: PendulumFamily(n, episode=50, seed=seed)  # noqa: E731
    earned = returns_in(make, lambda obs: torch.zeros(len(obs), 1), contexts, repeats=40, seed=3)
    assert earned.shape == (3,)
    env = make(120, 3)
    set_contexts(env, contexts)
    env.reset(3)
    assert torch.equal(env.state["params"][0, :4], torch.tensor([0.6, 1.0, 0.6, 0.6]))
    total = torch.zeros(120)
    for _ in range(50):
        total += env.step(torch.zeros(120, 1)).reward
    torch.testing.assert_close(earned, total.view(40, 3).mean(0))


@pytest.mark.parametrize("scene", ["greenhouse/lettuce", "quadrotor/hover"])
def test_scenes_take_their_parameters(scene: str) -> None:
    """At the reset, at every restart of single environments, and as drawn again once they are free."""
    env = make_env(scene, 6, family="train", seed=1)
    ours = drawn(lambda n, seed: make_env(scene, n, seed=seed), 3, 7)
    set_contexts(env, ours)
    env.reset(2)
    assert torch.equal(present(env.task), ours[:, [0, 1, 2, 0, 1, 2]])
    env.task.restart(torch.tensor([4]), torch.Generator().manual_seed(0))
    assert torch.equal(present(env.task), ours[:, [0, 1, 2, 0, 1, 2]])
    env.task.contexts = None
    env.reset(2)
    assert not torch.equal(present(env.task), ours[:, [0, 1, 2, 0, 1, 2]])
    assert not torch.equal(ours[:, 0], ours[:, 1])


def test_worlds_without_contexts_are_refused() -> None:
    with pytest.raises(BadInput, match="scene pendulum draws its own parameters: its task takes no contexts"):
        set_contexts(PendulumEnv(1), torch.ones(2, 1))


SAC = dataclasses.replace(
    iwocs.CONFIG.sac, hidden=(16,), batch=16, warmup_steps=32, rollout_steps=4, buffer=500, utd=0.5
)
SMALL = dataclasses.replace(
    iwocs.CONFIG, round_steps=80, actor_steps=5, memory=40, candidates=6, repeats=2, tolerance=1e-3, sac=SAC
)


def make(count: int, seed: int) -> PendulumFamily:
    return PendulumFamily(count, episode=20, seed=seed)


def fresh(seed: int = 0, steps: int = 400) -> iwocs.Rounds:
    config = RunConfig("pendulum", seed=seed, num_envs=4, algorithm="iwocs", algo=SMALL, linear="torch", steps=steps)
    contexts = torch.cat([torch.ones(2, 1), drawn(make, 6, 0)], 1)
    return iwocs.Rounds(config, make(4, 0), make, contexts)


def leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
    return [leaf for part in tree for leaf in leaves(part)] if isinstance(tree, list) else [tree]


@pytest.mark.parametrize("cut", [3, 10], ids=["first round", "second round"])
def test_two_halves_equal_the_whole_bit_for_bit(cut: int) -> None:
    whole, first, second = fresh(), fresh(), fresh(seed=0)
    for _ in range(12):
        keys = list(whole.iterate())
    for _ in range(cut):
        assert list(first.iterate()) == keys
    second.load(first.state())
    for _ in range(12 - cut):
        second.iterate()
    for a, b in zip(leaves(whole.state()), leaves(second.state()), strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b or a != a


def test_the_joint_actor_is_judged_by_the_least_of_all_critics() -> None:
    search_ = fresh(steps=10_000)
    while len(search_.specialists) < 2 and not search_.done:
        search_.iterate()
    obs, action = torch.randn(5, 3), torch.rand(5, 1)
    each = [s.learner.judge(s.norm.apply(obs), action) for s in search_.specialists]
    assert len(each) == 2
    assert torch.equal(search_.least(obs, action), torch.minimum(*each))


def test_a_settled_search_has_spent_its_budget() -> None:
    search_ = fresh(steps=10_000)
    while not search_.done:
        search_.iterate()
    assert search_.env_steps == 10_000
    net, norm = search_.policy()
    assert net(norm.apply(torch.randn(7, 3))).abs().max() <= 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": 0}, "algo.candidates = 0; expected at least 1"),
        ({"tolerance": -1.0}, "algo.tolerance = -1.0"),
        ({"sac": dataclasses.replace(SAC, gamma=2.0)}, "algo.gamma = 2.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        iwocs.check(RunConfig("x", num_envs=4, algorithm="iwocs", algo=dataclasses.replace(SMALL, **change)))
