"""Van Henten's model: two other codes, an adaptive integrator, the order of convergence, balances, bounds."""

import importlib.util
from itertools import pairwise

import numpy as np
import pytest
import torch
from greenhouse_case import (
    PACKAGE_NAMES,
    PACKAGE_SUBSTEPS,
    STEP_S,
    SUPPORT,
    controls,
    nominal,
    planes,
    reference,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch import Tensor

from sim.dynamics import greenhouse as model
from sim.engine import prepared
from sim.scenes.greenhouse.config import Bounds, Prices
from sim.scenes.greenhouse.economy import account

SUNNY = planes([400.0, 7.5e-4, 8.0, 6.0e-3])
START = planes([0.05, 0.001, 15.0, 0.008])


def run(state: Tensor, control: Tensor, weather: Tensor, duration_s: float, h_s: float, c: Tensor) -> Tensor:
    steps = round(duration_s / h_s)
    return model.advance(state, control, weather, coefficients=c, duration_s=duration_s, substeps=steps)


def test_every_step_of_a_season_agrees_with_the_reference_package() -> None:
    r = reference()
    control, x = controls(r["action"]), r["state"]
    before, weather = torch.tensor(x[:-1].T), torch.tensor(r["weather"].T)
    used = torch.tensor(control.T)
    after = model.advance(before, used, weather, coefficients=nominal(), duration_s=STEP_S, substeps=PACKAGE_SUBSTEPS)
    error = (after - torch.tensor(x[1:].T)).abs().amax(1)
    assert (error < 1e-12).all(), error
    full = torch.cat([used, torch.zeros_like(used[:1])])
    got = account(before, torch.tensor(x[1:].T), full, duration_s=STEP_S, prices=Prices(), bounds=Bounds())
    assert (got.reward - torch.tensor(r["reward"])).abs().max() < 1e-12


def test_a_whole_season_in_one_go_agrees_with_the_reference_package() -> None:
    r = reference()
    control, x = controls(r["action"]), r["state"]
    state, total, worst = planes(x[0]), 0.0, torch.zeros(4, dtype=torch.float64)
    c, none = nominal(), torch.zeros(1, 1, dtype=torch.float64)

    def one_step(state: Tensor, u: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        after = model.advance(state, u, d, coefficients=c, duration_s=STEP_S, substeps=PACKAGE_SUBSTEPS)
        booked = account(state, after, torch.cat([u, none]), duration_s=STEP_S, prices=Prices(), bounds=Bounds())
        return after, booked.reward

    fast = prepared(one_step, "traced")
    for u, d, wanted in zip(control, r["weather"], x[1:], strict=True):
        state, reward = fast(state, planes(u), planes(d))
        total = total + reward.item()
        worst = torch.maximum(worst, (state - planes(wanted)).abs()[:, 0])
    assert (worst < 1e-9).all(), worst
    assert total == pytest.approx(r["reward"].sum(), abs=1e-8)


def test_the_installed_package_takes_the_same_steps() -> None:
    if importlib.util.find_spec("lettuce_greenhouse_gym") is None:
        pytest.skip("lettuce_greenhouse_gym is not installed")
    from lettuce_greenhouse_gym import VanHentenLettuce

    package = VanHentenLettuce()
    step, names = package.build_integrator(STEP_S), list(package.constants.names)
    rng, c = np.random.default_rng(5), nominal()
    for _ in range(50):
        x = rng.uniform([0.002, 5e-4, 8.0, 0.004], [0.4, 3e-3, 28.0, 0.015])
        u, d = rng.uniform(0.0, 1.0, 3) * [1.2, 7.5, 60.0], rng.uniform([0, 7e-4, -5, 3e-3], [800, 9e-4, 20, 0.01])
        values = package.constants.to_array().copy()
        scale = rng.uniform(0.95, 1.05, len(names))
        wanted = np.asarray(step(x, u, d, values * scale)).ravel()
        ours = torch.tensor([scale[names.index(PACKAGE_NAMES[name])] for name in model.COEFFICIENTS])[:, None]
        got = model.advance(
            planes(x), planes(u), planes(d), coefficients=c * ours, duration_s=STEP_S, substeps=PACKAGE_SUBSTEPS
        )
        assert np.allclose(got[:, 0].numpy(), wanted, rtol=1e-12, atol=1e-14)


def test_steps_under_the_packages_noise_on_all_coefficients_agree() -> None:
    r = reference()
    names = list(r["coefficient_names"])
    order = [names.index(PACKAGE_NAMES[name]) for name in model.COEFFICIENTS]
    coefficients = torch.tensor(r["noisy_coefficients"][:, order].T)
    used = torch.tensor(controls(r["noisy_action"]).T)
    weather = torch.tensor(r["weather"][: used.shape[1]].T)
    after = model.advance(
        torch.tensor(r["noisy_state"][:-1].T),
        used,
        weather,
        coefficients=coefficients,
        duration_s=STEP_S,
        substeps=PACKAGE_SUBSTEPS,
    )
    assert (after - torch.tensor(r["noisy_state"][1:].T)).abs().max() < 1e-12
    spread = coefficients / nominal()
    assert spread.min() >= 0.95
    assert spread.max() <= 1.05
    assert (spread.std(1) > 0.02).all(), "the package perturbs every coefficient, Rg and T0 too"


@pytest.mark.parametrize("case", [0, 1, 2])
def test_trajectories_agree_with_greenlight(case: int) -> None:
    with np.load(SUPPORT / "greenhouse_greenlight.npz") as stored:
        names, values, wanted = list(stored["input_names"]), stored["inputs"][case], stored["states"][case]
    given_inputs = dict(zip(names, values, strict=True))
    control = planes([1e6 * given_inputs["U_c"], 1e3 * given_inputs["U_v"], given_inputs["U_q"]])
    weather = planes([given_inputs[k] for k in ("V_rad", "V_c", "V_T", "V_h")])
    state, worst = planes(wanted[0]), np.zeros(4)
    for row in wanted[1:]:
        state = run(state, control, weather, 300.0, 30.0, nominal(leak=7.5e-5))
        worst = np.maximum(worst, np.abs(state[:, 0].numpy() - row))
    assert (worst < [1e-8, 1e-8, 1e-5, 1e-7]).all(), worst


def test_default_step_in_float32_is_close_to_an_adaptive_integrator() -> None:
    r = reference()
    control, steps = controls(r["action"]), 2 * 48
    c64, c32 = nominal(), nominal(torch.float32)
    exact, state = r["state"][0], planes(r["state"][0]).float()
    coefficients = model.Coefficients(*c64.unbind(0))
    worst = np.zeros(4)
    for u, d in zip(control[:steps], r["weather"][:steps], strict=True):
        held = model.hold(planes(u), planes(d), coefficients)
        slope = lambda t, x, held=held: model.rate(planes(x), held, c=coefficients)[:, 0].numpy()  # noqa: E731
        exact = solve_ivp(slope, (0.0, STEP_S), exact, method="LSODA", rtol=1e-10, atol=1e-13).y[:, -1]
        exact = np.clip(exact, model.LOWEST, model.HIGHEST)
        state = run(state, planes(u).float(), planes(d).float(), STEP_S, 300.0, c32)
        worst = np.maximum(worst, np.abs(state[:, 0].numpy() - exact) / [exact[0], 1.0, 1.0, 1.0])
    assert (worst < [5e-5, 1e-5, 1e-3, 1e-4]).all(), worst


def test_order_of_convergence_is_four() -> None:
    control, steps = planes([0.8, 2.0, 40.0]), [450.0, 225.0, 112.5]
    fine = run(START, control, SUNNY, 14400.0, 5.0, nominal())
    errors = [(run(START, control, SUNNY, 14400.0, h, nominal()) - fine).abs()[:, 0] for h in steps]
    for coarse, half in pairwise(errors):
        order = torch.log2(coarse / half)
        assert ((order > 3.6) & (order < 4.6)).all(), order


def test_carbon_balance_closes() -> None:
    """Carbon dioxide that comes in through the valve and the vents is found in the air and in the crop."""
    c = model.Coefficients(*nominal().unbind(0))
    held = model.hold(planes([1.0, 1.0, 30.0]), SUNNY, c)
    slope = model.rate(START, held, c=c)
    crop, co2, temperature, _ = START
    respiration = crop * torch.exp2(0.1 * temperature - 2.5)
    assimilated = (slope[0] + c.respiration_dry * respiration) / c.yield_factor
    inflow = 1e-6 * 1.0 - (1e-3 * 1.0 + c.leak) * (co2 - SUNNY[1])
    stored = slope[1] * c.volume_co2
    assert torch.allclose(stored + assimilated - c.respiration_co2 * respiration, inflow, rtol=1e-12)


def test_vapour_balance_closes_over_a_day() -> None:
    """What transpires and does not leave through vents and leaks stays in the air; ventilation takes vapour along."""
    c, state = model.Coefficients(*nominal().unbind(0)), START
    control, h = planes([0.0, 1.5, 50.0]), 30.0
    held = model.hold(control, SUNNY, c)
    air = 1.5e-3 + c.leak
    transpired, left = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for _ in range(round(86400 / h)):
        before = state
        state = model.step(state, held, c=c, dt_s=h)
        for weight, x in ((0.5, before), (0.5, state)):
            leaf = (
                c.saturation_1
                / (c.gas_constant * (x[2] + c.kelvin))
                * torch.exp(c.saturation_2 * x[2] / (x[2] + c.saturation_3))
            )
            cover = 1 - torch.exp(-c.canopy_surface * x[0])
            transpired = transpired + weight * h * c.transpiration * cover * (leaf - x[3])
            left = left + weight * h * air * (x[3] - SUNNY[3])
    gained = c.volume_vapour * (state[3] - START[3])
    assert transpired > 0.1
    assert torch.allclose(gained, transpired - left, atol=2e-5 * float(transpired))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    state=st.tuples(*(st.floats(low, high) for low, high in zip(model.LOWEST, model.HIGHEST, strict=True))),
    control=st.tuples(st.floats(0, 1.2), st.floats(0, 7.5), st.floats(0, 150)),
    weather=st.tuples(st.floats(0, 1100), st.floats(6e-4, 1e-3), st.floats(-18, 34), st.floats(1e-3, 0.02)),
)
def test_whatever_happens_the_state_stays_finite_and_within_its_bounds(
    state: tuple[float, ...], control: tuple[float, ...], weather: tuple[float, ...]
) -> None:
    x = planes(list(state)).float()
    for _ in range(4):
        x = run(x, planes(list(control)).float(), planes(list(weather)).float(), 1800.0, 300.0, nominal(torch.float32))
        for plane, low, high in zip(x, model.LOWEST, model.HIGHEST, strict=True):
            assert torch.isfinite(plane).all()
            assert low - 1e-6 <= plane.item() <= high * (1 + 1e-6)


def test_the_guard_changes_nothing_in_the_normal_range_and_stops_growth_outside_it() -> None:
    c = model.Coefficients(*nominal().unbind(0))
    t = torch.linspace(3.0, 42.0, 40, dtype=torch.float64)[:, None, None]
    co2 = torch.linspace(6e-5, 4e-3, 40, dtype=torch.float64)[None, :, None]
    light = c.light_use * torch.tensor([0.1, 5.0, 1000.0], dtype=torch.float64)
    uptake = (-c.diffusion_2 * t**2 + c.diffusion_1 * t - c.diffusion_0) * (co2 - c.compensation)
    published = light * uptake / (light + uptake)
    assert torch.allclose(model.photosynthesis(co2, t, light, c=c), published, rtol=1e-13, atol=0.0)
    for cold, thin in ((1.0, 1e-3), (43.0, 1e-3), (15.0, 4e-5)):
        assert model.photosynthesis(planes([thin]), planes([cold]), light[:1, None], c=c).item() == 0.0
    dark = model.photosynthesis(planes([4e-5]), planes([15.0]), torch.zeros(1, 1, dtype=torch.float64), c=c)
    assert dark.item() == 0.0, "the published form is 0/0 here"


def test_the_guard_was_never_needed_in_the_reference_season() -> None:
    x = torch.tensor(reference()["state"].T)
    assert x[model.TEMPERATURE].min() > 2.9
    assert x[model.TEMPERATURE].max() < 42.1
    assert x[model.CO2].min() > 5.2e-5


def test_conversions_are_inverse_and_agree_with_known_values() -> None:
    t, h = planes([20.0]), planes([0.5])
    assert model.saturation_pressure(t).item() == pytest.approx(2339.0, rel=1e-2)  # steam tables at 20 degC
    assert model.vapour_density(planes([1.0]), t).item() == pytest.approx(0.0173, rel=1e-2)  # kg/m3, the same
    assert model.relative_humidity(model.vapour_density(h, t), t).item() == pytest.approx(0.5, rel=1e-12)
    assert model.co2_density(planes([1000.0]), t).item() == pytest.approx(1.83e-3, rel=2e-3)  # 1000 ppm at 20 degC
    assert model.co2_ppm(model.co2_density(planes([1000.0]), t), t).item() == pytest.approx(1000.0, rel=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    control = planes([0.5, 1.0, 40.0]).requires_grad_()
    grown = lambda u: model.advance(  # noqa: E731
        START, u, SUNNY, coefficients=nominal(), duration_s=1800.0, substeps=6
    )
    assert torch.autograd.gradcheck(grown, (control,), eps=1e-5, rtol=1e-5, atol=1e-10)
