"""Integrators against exact solutions, with their order measured."""

import math
from itertools import pairwise

import pytest
import torch

from hardware.errors import BadInput
from sim.ode import ORDERS, integrate, step_semi_implicit


@pytest.mark.parametrize("method", sorted(ORDERS))
def test_measured_order_is_the_declared_one(method: str) -> None:
    """x' = -x cos t from 1: x = exp(-sin t)."""
    start = torch.ones(3, dtype=torch.float64)
    exact = math.exp(-math.sin(2.0))

    def error(steps: int) -> float:
        end = integrate(lambda t, x: -x * math.cos(t), start, duration_s=2.0, steps=steps, method=method)  # type: ignore[arg-type]
        return abs(end[0].item() - exact)

    errors = [error(n) for n in (40, 80, 160)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(ORDERS[method], abs=0.15)


def test_semi_implicit_euler_bounds_the_energy_of_an_oscillator() -> None:
    """Symplectic: x^2 + v^2 oscillates within a band of width dt, where explicit Euler multiplies it by e^(t dt)."""
    x, v, dt = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64), 0.05
    for i in range(20_000):
        x, v = step_semi_implicit(lambda t, x, v: -x, i * dt, x, v, dt)
    assert abs((x * x + v * v).item() - 1.0) < 1.1 * dt


def test_gradient_of_the_end_with_respect_to_the_start() -> None:
    """d/dx0 of x0 exp(-t)."""
    start = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    integrate(lambda t, x: -x, start, duration_s=1.0, steps=100).backward()
    assert start.grad is not None
    assert start.grad.item() == pytest.approx(math.exp(-1.0), abs=1e-9)


def test_refuses_an_unknown_method_and_no_steps() -> None:
    with pytest.raises(BadInput, match=r"integrator 'rk5' not found; integrators: euler, midpoint, rk4"):
        integrate(lambda t, x: x, torch.ones(1), duration_s=1.0, steps=1, method="rk5")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="0 integration steps"):
        integrate(lambda t, x: x, torch.ones(1), duration_s=1.0, steps=0)
