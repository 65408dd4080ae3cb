"""Analytic policy gradient against a linear-quadratic problem that can be worked out by hand, and its parts."""

import dataclasses
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_are
from torch import Tensor

from hardware.errors import BadInput
from robo_rl.algorithms.apg import ApgConfig, TanhPolicy, TrackingPolicy, bounded, clip_gradient_, learning_rate
from robo_rl.config import RunConfig
from robo_rl.nets import MLP
from robo_rl.recipes import apg
from sim.spec import Step

A, B = torch.tensor([[1.0, 0.1], [0.0, 1.0]]), torch.tensor([[0.005], [0.1]])
Q, R = 1e4 * torch.diag(torch.tensor([1.0, 0.1])), 500.0  # large, as the states are small
STEPS = 50


class Cart:
    """A cart that must come to rest at the origin: x' = A x + B u, cost x Q x + R u^2; N starts, drawn anew in step."""

    differentiable = True
    spec = SimpleNamespace(id="tiny/cart", action=("force",), rate_hz=10.0)

    def __init__(self, num_envs: int, steps: int = STEPS) -> None:
        self.num_envs, self.steps, self.age = num_envs, steps, 0
        self.boundary: Callable[..., tuple[Tensor, ...]] | None = None
        self.generator = torch.Generator()

    def reset(self, seed: int) -> dict[str, Tensor]:
        """New starts near the origin, where tanh is its argument to 1e-4."""
        self.generator.manual_seed(seed)
        self.x = self._starts()
        return {"policy": self.x}

    def step(self, action: Tensor) -> Step:
        """One step of all carts."""
        cost = ((self.x @ Q) * self.x).sum(1) + R * action[:, 0].square()
        self.x = self.x @ A.T + action @ B.T
        if self.boundary is not None:
            (self.x,) = self.boundary(self.x)
        self.age += 1
        over = torch.full((self.num_envs,), self.age == self.steps)
        if self.age == self.steps:
            self.x, self.age = self._starts(), 0
        obs = {"policy": self.x}
        return Step(obs, -cost, torch.zeros_like(cost), torch.zeros_like(over), over, obs, {})

    def detach(self) -> None:
        """Forgets the past."""
        self.x = self.x.detach()

    def get_state(self) -> dict[str, Tensor]:
        """Everything that evolves."""
        return {"x": self.x.clone(), "age": torch.tensor(self.age), "generator": self.generator.get_state()}

    def set_state(self, ids: Tensor | None, state: dict[str, Tensor]) -> None:
        """Exact resume."""
        self.x, self.age = state["x"], int(state["age"])
        self.generator.set_state(state["generator"])

    def _starts(self) -> Tensor:
        return 0.02 * (2.0 * torch.rand(self.num_envs, 2, generator=self.generator) - 1.0)


def config(**algo: Any) -> RunConfig:
    """A run with a linear policy on the cart."""
    settings = {"hidden": (), "track": False, "norm_updates": 0, "max_adjoint": 0.0, "window": STEPS} | algo
    return RunConfig(
        scene="tiny/cart", algorithm="apg", linear="torch", algo=dataclasses.replace(ApgConfig(), **settings)
    )


def gain_of(trainee: apg.Unrolled) -> Tensor:
    """The averaged policy's gain (2)."""
    policy, _ = trainee.policy()
    return next(policy.parameters()).detach()[0]


def test_the_gradient_is_the_one_worked_out_by_hand() -> None:
    """The adjoint recursion of x' = A x + B u, u = tanh(k x), written in numpy in double precision."""
    trainee = apg.prepare(config(window=7, max_grad_norm=1e9), Cart(3))
    k = next(iter(trainee.actor.net.weights)).detach().double().numpy()
    x, a, b, q = (t.double().numpy() for t in (trainee.obs, A, B, Q))
    states, actions = [x], []
    for _ in range(7):
        actions.append(np.tanh(states[-1] @ k.T))
        states.append(states[-1] @ a.T + actions[-1] @ b.T)
    adjoint, gradient = np.zeros_like(x), np.zeros_like(k)
    for state, action in zip(reversed(states[:-1]), reversed(actions), strict=True):
        pull = (2.0 * R * action / 3 + adjoint @ b) * (1.0 - action**2)
        gradient += pull.T @ state
        adjoint = 2.0 * (state @ q) / 3 + adjoint @ a + pull @ k
    trainee.iterate()
    found = next(iter(trainee.actor.net.weights)).grad
    assert found is not None
    np.testing.assert_allclose(found.numpy(), gradient, rtol=1e-4)


def test_converges_to_the_gain_of_the_riccati_equation() -> None:
    schedule = {"learning_rate": 0.2, "learning_rate_end": 0.002, "anneal_steps": 64 * STEPS * 400, "ema": 0.9}
    trainee = apg.prepare(config(**schedule), Cart(64))
    for _ in range(450):
        trainee.iterate()
    a, b, q = (t.double().numpy() for t in (A, B, Q))
    p = solve_discrete_are(a, b, q, np.array([[R]]))
    riccati = np.linalg.solve(np.array([[R]]) + b.T @ p @ b, b.T @ p @ a)[0]
    np.testing.assert_allclose(gain_of(trainee).numpy(), -riccati, rtol=0.03)


def test_resumed_run_is_the_same_bit_for_bit() -> None:
    whole, first, second = (apg.prepare(config(window=5, norm_updates=3), Cart(4)) for _ in range(3))
    for run in (whole, whole, first):
        run.iterate()
    second.load(first.state())
    second.iterate()
    assert torch.equal(whole.flat.value, second.flat.value)
    assert torch.equal(whole.average, second.average)
    assert torch.equal(whole.norm.mean, second.norm.mean)


def test_adjoints_are_bounded_per_row_in_units_of_the_root_mean_square() -> None:
    """Columns of root mean square 2 and 0.5, adjoints (3, 4) and (0.3, 0.4): norms sqrt(40) and sqrt(0.4)."""
    x = torch.tensor([[2.0, 0.5], [-2.0, 0.5]], requires_grad=True)
    (y,) = bounded(1.0, x)
    y.backward(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
    assert torch.equal(y, x)
    torch.testing.assert_close(
        x.grad, torch.tensor([[3.0, 4.0], [0.3, 0.4]]) / torch.tensor([[math.sqrt(40.0)], [1.0]])
    )


def test_a_bound_joins_all_tensors_of_a_row() -> None:
    a, b = torch.ones(1, 1, requires_grad=True), torch.ones(1, 2, requires_grad=True)
    x, y = bounded(0.3, a, b)
    (2.0 * x.sum() + 1.0 * y[0, 0] + 2.0 * y[0, 1]).backward()
    assert a.grad is not None
    assert b.grad is not None
    torch.testing.assert_close(torch.cat([a.grad, b.grad], 1), torch.tensor([[0.2, 0.1, 0.2]]))


def test_a_long_window_stays_bounded_where_the_dynamics_explode() -> None:
    """x' = 3 x over 40 steps: 3^40 overflows nothing only because each step's adjoint is bounded."""
    x = first = torch.ones(5, 1, requires_grad=True)
    for _ in range(40):
        (x,) = bounded(0.1, 3.0 * x)
    x.sum().backward()
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()
    assert float(first.grad.abs().max()) <= 0.3 + 1e-6


def constant_net(outputs: tuple[float, ...], inputs: int) -> MLP:
    """A network that gives the same whatever it sees."""
    net = MLP((inputs, len(outputs)))
    with torch.no_grad():
        net.weights[0].zero_()
        net.biases[0].copy_(torch.tensor(outputs))
    return net


@torch.no_grad()
def test_tracking_goes_to_the_target_within_the_rate_limit() -> None:
    """Target tanh(1) = 0.7616; far away a step is the rate, close by 80 % of the way, and it ends there."""
    policy = TrackingPolicy(constant_net((2.0,), 3), range(1, 2), (0.2,), 0.8)
    seen = lambda last: torch.tensor([[9.0, last, -4.0]])  # noqa: E731
    assert float(policy(seen(-1.0))) == pytest.approx(-0.8, abs=1e-4)
    target = math.tanh(1.0)
    assert float(policy(seen(target - 0.01))) == pytest.approx(target - 0.002, abs=1e-5)
    last = -1.0
    for _ in range(30):
        last = float(policy(seen(last)))
    assert last == pytest.approx(target, abs=1e-6)


def test_tracking_reads_the_last_command_through_the_normaliser() -> None:
    plain = TrackingPolicy(constant_net((0.3, -1.0), 4), range(2, 4), (0.1, 0.2), 0.8)
    scaled = TrackingPolicy(constant_net((0.3, -1.0), 4), range(2, 4), (0.1, 0.2), 0.8)
    scale, shift = torch.tensor([1.0, 2.0, 4.0, 0.5]), torch.tensor([0.0, 1.0, -3.0, 0.2])
    scaled.use_norm(scale, shift)
    obs = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(scaled(obs * scale + shift), plain(obs))


def test_tracking_keeps_a_gradient_where_a_clipped_step_has_none() -> None:
    net = constant_net((2.0,), 1)
    TrackingPolicy(net, range(1), (0.2,), 0.8)(torch.tensor([[0.0]])).sum().backward()
    assert net.biases[0].grad is not None
    assert float(net.biases[0].grad) > 1e-4


def test_learning_rate_falls_exponentially_and_then_stays() -> None:
    c = ApgConfig(learning_rate=1e-2, learning_rate_end=1e-4, anneal_steps=1000)
    assert [learning_rate(c, s) for s in (0, 500, 1000, 5000)] == pytest.approx([1e-2, 1e-3, 1e-4, 1e-4])
    assert learning_rate(dataclasses.replace(c, anneal_steps=0), 10**9) == 1e-2


def test_gradient_is_scaled_down_never_up() -> None:
    long, short = torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4])
    assert float(clip_gradient_(long, 1.0)) == pytest.approx(5.0)
    torch.testing.assert_close(long, torch.tensor([0.6, 0.8]))
    clip_gradient_(short, 1.0)
    torch.testing.assert_close(short, torch.tensor([0.3, 0.4]))


def test_a_scene_without_gradients_is_refused() -> None:
    from sim.registry import make_env

    env = make_env("quadrotor/hover", 2)
    run = dataclasses.replace(config(), scene="quadrotor/hover")
    with pytest.raises(BadInput, match="algorithm apg needs a simulator with gradients, which scene quadrotor/hover"):
        apg.prepare(run, env)


def test_a_reward_that_no_action_moves_is_refused() -> None:
    class Blind(Cart):
        def step(self, action: Tensor) -> Step:
            return super().step(action.detach())

    trainee = apg.prepare(config(window=2), Blind(2))
    with pytest.raises(BadInput, match="the reward of scene tiny/cart has no gradient; train with --algo ppo or sac"):
        trainee.iterate()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"window": 0}, "algo.window = 0"),
        ({"max_adjoint": math.nan}, "algo.max_adjoint = nan"),
        ({"learning_rate": 0.0}, "must be positive"),
        ({"ema": 1.0}, "algo.ema = 1.0"),
        ({"hidden": (0,)}, "widths of at least 1"),
        ({"activation": "gelu"}, "expected one of elu, relu, tanh"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        apg.check(config(**changes))


def test_the_head_follows_the_mode() -> None:
    """Unlimited rates or a hidden command leave the plain head."""
    from controllers.interface import Interface
    from robo_rl.job import interface_of
    from sim.registry import scene_entry

    net = MLP((3, 3))
    greenhouse = interface_of("greenhouse/lettuce", scene_entry("greenhouse/lettuce").config)
    tracking = apg.policy_over(net, greenhouse, 1.0 / 1800.0, ApgConfig())
    assert isinstance(tracking, TrackingPolicy)
    torch.testing.assert_close(tracking.rate, torch.full((3,), 0.2))  # 10 % of a range that is 2 wide
    unseen = tuple(f for f in greenhouse.observation if f.source != "command")
    blind = Interface(greenhouse.robot, greenhouse.mode.name, unseen, greenhouse.action)
    assert isinstance(apg.policy_over(net, blind, 1.0 / 1800.0, ApgConfig()), TanhPolicy)
    assert isinstance(apg.policy_over(net, greenhouse, 1.0 / 1800.0, ApgConfig(track=False)), TanhPolicy)
