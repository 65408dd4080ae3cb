"""Nonlinear model predictive control of the greenhouse with CasADi and IPOPT: what knowing the model is worth.

Every control step a plan of six hours is made anew: multiple shooting on the model's own Runge-Kutta steps, the
penalties as slacks, the actuators' speed as constraints. The controller knows the true climate and the greenhouse's
coefficients of the season (not the noise of single steps), and the forecast that the scene shows: the coming weather
as it will be, with errors, or, without a forecast, the weather now for the whole horizon.

Van Laatum et al. (2026), Control Engineering Practice 169:106787, use the same objective and horizon. CasADi: Andersson
et al. (2019), Mathematical Programming Computation 11:1-36; it comes with the extra `greenhouse`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hardware.errors import RoboError
from sim.dynamics import greenhouse as model
from sim.env import BatchEnv
from sim.scenes.greenhouse.config import LettuceConfig
from sim.scenes.greenhouse.weather.bank import LEADS, disturbances

Array = NDArray[np.float64]

STATE_SCALE = np.array([0.1, 1e-3, 10.0, 1e-2])
SLACK_SCALE = np.array([100.0, 100.0, 1.0, 1.0, 10.0, 10.0])
"""ppm, ppm, degC, degC, percent, percent: below and above the bounds of CO2, temperature and humidity."""
LARGEST = np.array([1.2, 7.5, 150.0])
"""CO2 mg/m2/s, ventilation mm/s, heating W/m2."""
GAIN = 100.0
"""EUR to units of the objective, so that IPOPT's tolerances mean something."""


@dataclass(frozen=True)
class Settings:
    """How far to look and how long to try."""

    horizon: int = 12
    """Control steps; at most the 12 that the forecast covers."""
    max_iterations: int = 100
    """IPOPT iterations per plan."""
    tolerance: float = 1e-4
    """IPOPT's tolerance."""


def casadi() -> Any:
    """The package; raises RoboError saying which extra it comes with."""
    try:
        import casadi as package
    except ImportError as e:
        raise RoboError('model predictive control needs CasADi: pip install "robo-rl[greenhouse]"') from e
    return package


def rate(x: Any, u: Any, d: Any, c: Any) -> Any:
    """Time derivative (4) as a CasADi expression of state (4), control (3), weather (4), coefficients (22).

    Van Henten (2003), equations 2 to 11, written anew; a test compares it with `sim.dynamics.greenhouse`.
    """
    ca, p = casadi(), model.Coefficients(*(c[i] for i in range(len(model.COEFFICIENTS))))
    crop, co2, temperature, vapour = x[0], x[1], x[2], x[3]
    radiation, co2_out, temperature_out, vapour_out = d[0], d[1], d[2], d[3]
    ventilation = 1e-3 * u[1]
    air = ventilation + p.leak
    canopy = 1 - ca.exp(-p.canopy_surface * crop)
    diffusion = -p.diffusion_2 * temperature**2 + p.diffusion_1 * temperature - p.diffusion_0
    uptake = ca.fmax(diffusion, 0) * ca.fmax(co2 - p.compensation, 0)
    light = p.light_use * radiation
    assimilation = canopy * light * uptake / ca.fmax(light + uptake, 1e-15)
    respiration = crop * 2 ** (0.1 * temperature - 2.5)
    saturated = p.saturation_1 / (p.gas_constant * (temperature + p.kelvin))
    leaf = saturated * ca.exp(p.saturation_2 * temperature / (temperature + p.saturation_3))
    transpired = canopy * p.transpiration * (leaf - vapour)
    loss = (p.heat_capacity_air * ventilation + p.heat_transfer) * (temperature - temperature_out)
    return ca.vertcat(
        p.yield_factor * assimilation - p.respiration_dry * respiration,
        (-assimilation + p.respiration_co2 * respiration + 1e-6 * u[0] - air * (co2 - co2_out)) / p.volume_co2,
        (u[2] - loss + p.solar_gain * radiation) / p.heat_capacity,
        (transpired - air * (vapour - vapour_out)) / p.volume_vapour,
    )


def transition(duration_s: float, substeps: int) -> Any:
    """CasADi function (state, control, weather, coefficients) -> state after a control step, not clipped."""
    ca = casadi()
    x, u, d = ca.SX.sym("x", 4), ca.SX.sym("u", 3), ca.SX.sym("d", 4)
    c, h, after = ca.SX.sym("c", len(model.COEFFICIENTS)), duration_s / substeps, x
    for _ in range(substeps):
        k1 = rate(after, u, d, c)
        k2 = rate(after + h / 2 * k1, u, d, c)
        k3 = rate(after + h / 2 * k2, u, d, c)
        k4 = rate(after + h * k3, u, d, c)
        after = after + h / 6 * (k1 + 2 * (k2 + k3) + k4)
    return ca.Function("transition", [x, u, d, c], [after])


def climate(x: Any) -> tuple[Any, Any, Any]:
    """CO2 (ppm), temperature (degC) and relative humidity (percent, not capped) of a state, as expressions."""
    ca, kelvin, gas = casadi(), x[2] + model.KELVIN, 8.3144598
    saturation = 610.78 * ca.exp(17.2694 * x[2] / (x[2] + 238.3))
    return (
        1e6 * gas / (101325.0 * 0.04401) * kelvin * x[1],
        x[2],
        100.0 * gas / 0.01801528 * kelvin * x[3] / saturation,
    )


class Planner:
    """Plans of one greenhouse; each starts from the one before, moved on by a step."""

    def __init__(self, config: LettuceConfig, settings: Settings = Settings()) -> None:
        self.settings, self.failures = settings, 0
        """`failures`: plans that IPOPT gave up on; the best known plan was followed instead."""
        self._step = transition(config.step_s, round(config.step_s / config.substep_s))
        self._reach = config.step_s / 18000.0
        """Share of its range that an actuator moves in a step: 10 % in half an hour."""
        self._bounds = config.bounds
        self._solve = self._problem(config)
        h = settings.horizon
        self._lower_g = np.tile([0.0] * 4 + [0.0] * 6 + [-self._reach] * 3, h)
        self._upper_g = np.tile([0.0] * 4 + [np.inf] * 6 + [self._reach] * 3, h)
        self._lower = np.tile([*(np.array(model.LOWEST) / STATE_SCALE), *[0.0] * 3, *[0.0] * 6], h)
        self._upper = np.tile([*(np.array(model.HIGHEST) / STATE_SCALE), *[1.0] * 3, *[np.inf] * 6], h)
        self._warm: dict[str, Array] | None = None
        self._plan: Array | None = None

    def plan(self, state: Array, last: Array, weather: Array, coefficients: Array) -> Array:
        """The control (3) to apply now, from the state (4), the control in force (3), and weather (4, horizon)."""
        h = self.settings.horizon
        guess = np.tile(last[:, None], (1, h)) if self._plan is None else self._plan
        start = self._guess(state, guess, weather, coefficients)
        given = np.concatenate([state, last, coefficients, weather.T.ravel()])
        found = self._solve(
            x0=start,
            p=given,
            lbx=self._lower,
            ubx=self._upper,
            lbg=self._lower_g,
            ubg=self._upper_g,
            **({} if self._warm is None else self._warm),
        )
        values = np.asarray(found["x"]).reshape(h, 13)
        if self._solve.stats()["success"] and np.isfinite(values).all():
            moved = lambda flat: np.concatenate([flat[13:], flat[-13:]])  # noqa: E731
            self._warm = {f"lam_{k}0": moved(np.asarray(found[f"lam_{k}"]).ravel()) for k in ("x", "g")}
            plan = values[:, 4:7].T * LARGEST[:, None]
        else:
            self.failures += 1
            self._warm, plan = None, guess
        self._plan = np.concatenate([plan[:, 1:], plan[:, -1:]], axis=1)
        reach = self._reach * LARGEST
        return np.clip(np.clip(plan[:, 0], last - reach, last + reach), 0.0, LARGEST)

    def restart(self) -> None:
        """Forgets the plan: a new season."""
        self._plan = self._warm = None

    def _problem(self, config: LettuceConfig) -> Any:
        """IPOPT over a horizon; per step 4 states, 3 controls and 6 slacks, scaled."""
        ca, h, prices, bounds = casadi(), self.settings.horizon, config.prices, config.bounds
        values = ca.SX.sym("v", 13, h)
        x0, u0, c = ca.SX.sym("x0", 4), ca.SX.sym("u0", 3), ca.SX.sym("c", len(model.COEFFICIENTS))
        weather = ca.SX.sym("d", 4, h)
        costs = np.array([*bounds.co2_cost, *bounds.temperature_cost, *bounds.humidity_cost]) * SLACK_SCALE
        cost, constraints, x, u_share = 0, [], x0, u0 / LARGEST
        for k in range(h):
            after, share, slack = values[:4, k] * STATE_SCALE, values[4:7, k], values[7:, k]
            u = share * LARGEST
            constraints.append((after - self._step(x, u, weather[:, k], c)) / STATE_SCALE)
            outside = []
            for value, (low, high) in zip(
                climate(after), (bounds.co2, bounds.temperature, bounds.humidity), strict=True
            ):
                outside += [low - value, value - high]
            constraints += [slack - ca.vertcat(*outside) / SLACK_SCALE, share - u_share]
            used = 1e-6 * config.step_s * prices.co2 * u[0] + config.step_s / 3.6e6 * prices.heat * u[2]
            cost += used - prices.crop * (after[0] - x[0]) + ca.dot(costs, slack)
            x, u_share = after, share
        problem = {
            "x": ca.vec(values),
            "p": ca.vertcat(x0, u0, c, ca.vec(weather)),
            "f": GAIN * cost,
            "g": ca.vertcat(*constraints),
        }
        ipopt = {
            "print_level": 0,
            "sb": "yes",
            "max_iter": self.settings.max_iterations,
            "tol": self.settings.tolerance,
            "mu_init": 1e-2,
            "warm_start_init_point": "yes",
            "warm_start_bound_push": 1e-6,
            "warm_start_mult_bound_push": 1e-6,
        }
        return ca.nlpsol("plan", "ipopt", problem, {"print_time": False, "error_on_fail": False, "ipopt": ipopt})

    def _guess(self, state: Array, controls: Array, weather: Array, coefficients: Array) -> Array:
        """States and slacks that follow from controls (3, horizon)."""
        rows, x = [], state
        b = self._bounds
        for u, d in zip(controls.T, weather.T, strict=True):
            x = np.clip(np.asarray(self._step(x, u, d, coefficients)).ravel(), model.LOWEST, model.HIGHEST)
            outside = [
                float(side)
                for value, (low, high) in zip(climate(x), (b.co2, b.temperature, b.humidity), strict=True)
                for side in (low - value, value - high)
            ]
            rows.append(np.concatenate([x / STATE_SCALE, u / LARGEST, np.maximum(outside, 0.0) / SLACK_SCALE]))
        return np.concatenate(rows)


def mpc(env: BatchEnv, settings: Settings = Settings()) -> Callable[[], Tensor]:
    """A function that gives the actions (N, 3) for the environment's present state: a plan for every greenhouse.

    Takes some 0.03 s per greenhouse and step; `act.planners` counts failures.
    """
    task: Any = env.task
    planners = [Planner(task.config, settings) for _ in range(env.num_envs)]
    offset = torch.tensor([f.offset for f in env.interface.action])
    scale = torch.tensor([f.scale for f in env.interface.action])

    def act() -> Tensor:
        weather = forecast(env, settings.horizon)
        state, coefficients = (task.state[k].double().cpu().numpy() for k in ("climate", "coefficients"))
        last, commands = env.command.double().cpu().numpy(), []
        for i, planner in enumerate(planners):
            if env.age[i] == 0:
                planner.restart()
            commands.append(planner.plan(state[:, i], last[i], weather[i], coefficients[:, i]))
        return ((torch.tensor(np.array(commands)).float() - offset) / scale).to(env.device)

    act.planners = planners
    return act


def forecast(env: BatchEnv, horizon: int) -> Array:
    """(N, 4, horizon) weather per control step as the scene shows it, in the model's units."""
    task: Any = env.task
    signals = task.measured(task.view(None))
    if task.config.forecast == "none":
        shown = signals["outdoor"][:, None, :4].expand(-1, horizon, -1)
    else:
        per_lead = round(1800.0 / task.config.step_s)
        leads = torch.arange(horizon) // per_lead
        shown = signals["forecast"].reshape(env.num_envs, LEADS, 4)[:, leads.clamp(max=LEADS - 1)]
    rows = disturbances(shown.double().reshape(-1, 4)).reshape(env.num_envs, horizon, 4)
    return rows.transpose(1, 2).cpu().numpy()
