"""The emulated PLC's own world against the scene's model, which was written independently, and against balances."""

import numpy as np
import pytest
import torch

from hardware.errors import BadInput
from hardware.robots.greenhouse_plc import plant as own
from sim.dynamics import greenhouse as model

RNG = np.random.default_rng(11)
N = 200


def states() -> np.ndarray:
    low = np.array([0.003, 2e-4, 4.0, 2e-3])
    high = np.array([0.4, 3e-3, 38.0, 2e-2])
    return RNG.uniform(low[:, None], high[:, None], (4, N))


def test_rates_are_those_of_the_scene() -> None:
    x = states()
    u = RNG.uniform(0.0, 1.0, (3, N)) * np.array([[1.2], [7.5], [150.0]])
    d = np.stack(
        [RNG.uniform(0, 900, N), RNG.uniform(6e-4, 9e-4, N), RNG.uniform(-15, 30, N), RNG.uniform(2e-3, 2e-2, N)]
    )
    mine = own.derivative(x, u, d, own.Parameters())
    t = lambda a: torch.tensor(a, dtype=torch.float64)  # noqa: E731
    c = model.Coefficients(*(t(v) for v in NOMINAL))
    scene = model.rate(t(x), model.hold(t(u), t(d), c), c=c).numpy()
    np.testing.assert_allclose(mine, scene, rtol=1e-7, atol=1e-18)


p = own.Parameters()
NOMINAL = (
    p.yield_factor,
    p.respiration_dry,
    p.respiration_co2,
    p.canopy_surface,
    p.light_use,
    *p.diffusion,
    p.compensation,
    p.volume_co2,
    p.volume_vapour,
    p.heat_capacity,
    p.heat_capacity_air,
    p.heat_transfer,
    p.solar_gain,
    p.leak,
    p.transpiration,
    9348.0,
    17.4,
    239.0,
    8314.0,
    273.15,
)


def test_the_steps_converge() -> None:
    """Six hours with open vents, in steps of at most 150 s, against a tenth of that."""
    coarse, fine = own.GreenhousePlant(), own.GreenhousePlant()
    u = np.array([[0.4, 7.5, 100.0]])
    for _ in range(72):
        coarse.step(u, 300.0)
    for _ in range(1440):
        fine.step(u, 15.0)
    np.testing.assert_allclose(coarse.state, fine.state, rtol=1e-3)


def test_a_dark_closed_empty_house_keeps_its_co2_but_for_the_leak() -> None:
    """Without a crop, CO2 relaxes to the outdoor value at the rate leak / volume."""
    x = np.array([[0.0], [2e-3], [10.0], [6e-3]])
    d = np.array([[0.0], [7e-4], [10.0], [6e-3]])
    rate = own.derivative(x, np.zeros((3, 1)), d, own.Parameters())[1, 0]
    assert rate == pytest.approx(-7.5e-6 * (2e-3 - 7e-4) / 4.1)


def test_signals_have_the_robots_shapes_and_the_weather_its_bounds() -> None:
    world = own.GreenhousePlant(3, seed=2)
    world.step(np.zeros((3, 3)), 600.0)
    signals = world.signals()
    assert signals["forecast"].shape == (3, 52)
    assert signals["season"].shape == (3, 3)
    np.testing.assert_allclose(signals["forecast"][0, :4], signals["outdoor"][0, :4])
    week = np.array([own.weather(t, 2) for t in np.arange(0, 7 * 86400, 600.0)])
    assert week[:, 0].min() == 0.0
    assert 100 < week[:, 0].max() < 400
    assert np.all((week[:, 2] > 0) & (week[:, 2] <= 1))
    assert np.abs(np.diff(week[:, 1])).max() < 0.5
    with pytest.raises(BadInput, match=r"shape \(1, 3\); expected \(3, 3\)"):
        world.step(np.zeros((1, 3)), 1.0)
