"""Model predictive control of the greenhouse: its model against the simulator's, its plans, and its failures."""

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest
import torch

from hardware.errors import RoboError
from sim.dynamics import greenhouse as model
from sim.registry import make_env, scene_entry
from sim.scenes.greenhouse import mpc as planning
from sim.scenes.greenhouse.baseline import LAWS
from sim.scenes.greenhouse.config import LettuceConfig
from sim.scenes.greenhouse.economy import account

pytest.importorskip("casadi")
SCENE = "greenhouse/lettuce"
CONFIG: LettuceConfig = dataclasses.replace(scene_entry(SCENE).config, substep_s=450.0, season_days=1.0)


def samples(count: int) -> tuple[torch.Tensor, ...]:
    """States, controls, weather (rows last) and coefficients of a nominal greenhouse, within the benchmark's bounds."""
    rng = torch.Generator().manual_seed(3)
    unit = lambda low, high: (  # noqa: E731
        torch.tensor(low, dtype=torch.float64)[:, None]
        + torch.rand(len(low), count, generator=rng, dtype=torch.float64)
        * (torch.tensor(high, dtype=torch.float64) - torch.tensor(low, dtype=torch.float64))[:, None]
    )
    nominal = [scene_entry(SCENE).spec(CONFIG).params[name].nominal for name in model.COEFFICIENTS]
    coefficients = torch.tensor(nominal, dtype=torch.float64)[:, None].expand(-1, count)
    return (
        unit([0.003, 3e-4, 6.0, 0.004], [0.4, 3.5e-3, 30.0, 0.02]),
        unit([0.0, 0.0, 0.0], [1.2, 7.5, 150.0]),
        unit([0.0, 7e-4, -8.0, 0.003], [800.0, 9e-4, 22.0, 0.012]),
        coefficients,
    )


def test_the_expression_equals_the_simulator() -> None:
    x, u, d, c = samples(200)
    held = model.hold(u, d, model.Coefficients(*c))
    expected = x
    for _ in range(4):
        expected = model.step(expected, held, c=model.Coefficients(*c), dt_s=450.0)
    step = planning.transition(1800.0, 4)
    found = np.stack([np.asarray(step(*(t[:, i].numpy() for t in (x, u, d, c)))).ravel() for i in range(200)], axis=1)
    scale = np.abs(expected.numpy()).max(axis=1, keepdims=True)
    np.testing.assert_allclose(found / scale, expected.numpy() / scale, rtol=0.0, atol=1e-10)


def plan_input(horizon: int = 12) -> tuple[np.ndarray, ...]:
    """A February noon: state, control in force, weather (4, horizon) that grows dark, coefficients."""
    light = np.maximum(0.0, 250.0 * np.cos(np.arange(horizon) / 8.0))
    weather = np.stack([light, np.full(horizon, 7.6e-4), np.full(horizon, 5.0), np.full(horizon, 5e-3)])
    nominal = [scene_entry(SCENE).spec(CONFIG).params[name].nominal for name in model.COEFFICIENTS]
    return np.array([0.1, 1.5e-3, 15.0, 0.009]), np.array([0.3, 0.0, 50.0]), weather, np.array(nominal)


def planned_return(
    planner: planning.Planner, x: np.ndarray, controls: np.ndarray, d: np.ndarray, c: np.ndarray
) -> float:
    """The benchmark's return of controls (3, H), worked out by the simulator's own account."""
    total, tensor = 0.0, torch.tensor(c)[:, None]
    state = torch.tensor(x)[:, None]
    for u, w in zip(controls.T, d.T, strict=True):
        now = torch.tensor(u)[:, None]
        after = model.advance(state, now, torch.tensor(w)[:, None], coefficients=tensor, duration_s=1800.0, substeps=4)
        total += float(
            account(
                state,
                after,
                torch.cat([now, torch.zeros(1, 1)]),
                duration_s=1800.0,
                prices=CONFIG.prices,
                bounds=CONFIG.bounds,
            ).reward
        )
        state = after
    return total


def test_no_neighbour_of_the_plan_is_better() -> None:
    """60 random plans around it, within the actuators' speed, earn less in the simulator's own account."""
    x, last, weather, c = plan_input()
    planner = planning.Planner(CONFIG)
    found: dict[str, Any] = {}
    solve = planner._solve

    def recorded(**given: Any) -> Any:
        found["x"] = solve(**given)["x"]
        return {"x": found["x"], "lam_x": np.zeros(156), "lam_g": np.zeros(156)}

    recorded.stats = solve.stats  # pyright: ignore[reportFunctionMemberAccess]
    planner._solve = recorded
    first = planner.plan(x, last, weather, c)
    plan = np.asarray(found["x"]).reshape(12, 13)[:, 4:7].T * planning.LARGEST[:, None]
    np.testing.assert_allclose(first, plan[:, 0], atol=1e-3 * planning.LARGEST.max())
    best = planned_return(planner, x, plan, weather, c)
    rng = np.random.default_rng(0)
    for width in (0.003, 0.03):
        for _ in range(30):
            other = _reachable(plan + width * planning.LARGEST[:, None] * rng.standard_normal(plan.shape), last)
            assert planned_return(planner, x, other, weather, c) <= best + 2e-5


def _reachable(controls: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The nearest controls that the actuators can follow."""
    result, now = [], last
    for u in controls.T:
        now = np.clip(np.clip(u, now - 0.1 * planning.LARGEST, now + 0.1 * planning.LARGEST), 0.0, planning.LARGEST)
        result.append(now)
    return np.stack(result, axis=1)


def test_a_solver_that_gives_up_is_survived_within_the_limits() -> None:
    """One iteration is never enough; weather that is not a number is no plan at all."""
    x, last, weather, c = plan_input()
    planner = planning.Planner(CONFIG, planning.Settings(max_iterations=1))
    for given in (weather, np.full_like(weather, np.nan)):
        command = planner.plan(x, last, given, c)
        assert np.isfinite(command).all()
        assert (np.abs(command - last) <= 0.1 * planning.LARGEST + 1e-9).all()
    assert planner.failures == 2
    planner.restart()
    assert planner._plan is None


@pytest.mark.parametrize("forecast", ["perfect", "none", "noisy"])
def test_the_forecast_is_what_the_scene_shows(forecast: Any) -> None:
    env = make_env(SCENE, 3, family="nominal", seed=1, config=dataclasses.replace(CONFIG, forecast=forecast))
    task: Any = env.task
    env.reset(1)
    shown = planning.forecast(env, 12)
    assert shown.shape == (3, 4, 12)
    coming = torch.stack([task.bank.disturbance[r : r + 12] for r in task.state["row"]]).transpose(1, 2).numpy()
    if forecast == "perfect":
        np.testing.assert_allclose(shown, coming, rtol=1e-5, atol=1e-6)
    elif forecast == "none":
        np.testing.assert_allclose(shown, np.repeat(coming[:, :, :1], 12, axis=2), rtol=1e-5, atol=1e-6)
    else:
        assert np.abs(shown[:, 2, 6:] - coming[:, 2, 6:]).max() > 0.05


def test_earns_more_than_the_rule_in_a_day() -> None:
    """Two greenhouses, a day in March with a grown crop; the same worlds for both."""
    config = dataclasses.replace(CONFIG, start_days=(60.0, 60.0))

    def earned(law: Any) -> torch.Tensor:
        env = make_env(SCENE, 2, family="train", seed=5, config=config)
        env.reset(5)
        task: Any = env.task
        task.state["climate"][model.CROP] = 0.15
        act, total = law(env), torch.zeros(2)
        with torch.no_grad():
            for _ in range(env.episode_steps):
                total += env.step(act()).reward
        return total

    assert (earned(planning.mpc) > earned(LAWS["rule"]) + 0.01).all()


def test_without_casadi_one_line_says_which_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "casadi", None)
    with pytest.raises(RoboError, match=r'needs CasADi: pip install "robo-rl\[greenhouse\]"'):
        planning.transition(1800.0, 4)
