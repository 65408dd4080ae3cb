"""The lettuce task: published returns, seasons that hang together, options against hand computations."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from greenhouse_case import reference
from torch import Tensor

from hardware.errors import BadInput
from sim.registry import make_env, scene_entry
from sim.scenes.greenhouse import devices, instruments
from sim.scenes.greenhouse.baseline import LAWS
from sim.scenes.greenhouse.config import Bounds, Equipment, LettuceConfig, Prices
from sim.scenes.greenhouse.picture import draw_season
from sim.scenes.greenhouse.weather import readers
from sim.scenes.greenhouse.weather.series import Series

SCENE = "greenhouse/lettuce"
OFFSET = SCALE = torch.tensor([0.6, 3.75, 75.0])
CHANGE = torch.tensor([0.12, 0.75, 15.0])
"""Largest change of the command in half an hour."""


def make(count: int = 1, *, family: str = "nominal", seed: int = 0, **settings: Any) -> Any:
    return make_env(SCENE, count, family=family, seed=seed, config=replace(LettuceConfig(), **settings))


def action(command: Tensor) -> Tensor:
    return (command - OFFSET) / SCALE


def still_air(tmp_path: Path, radiation: float = 0.0, temperature: float = 5.0) -> str:
    """A file of constant weather."""
    values = np.tile([radiation, temperature, 0.8, 420.0, 3.0], (24 * 70, 1))
    path = tmp_path / "still.csv"
    readers.write_csv(path, Series("still", np.datetime64("2021-01-01T00:00:00", "ms"), 3600.0, values))
    return str(path)


def test_returns_of_the_standard_season_are_the_packages() -> None:
    if importlib.util.find_spec("lettuce_greenhouse_gym") is None:
        pytest.skip("lettuce_greenhouse_gym is not installed")
    stored = reference()
    wanted = dict(zip(stored["return_names"], stored["returns"], strict=True))
    env = make(4, weather="bleiswijk-2014", start_days=(40.0, 40.0), substep_s=450.0)
    grower = LAWS["grower"](env)
    moves = torch.tensor(np.random.default_rng(0).uniform(-1.0, 1.0, (1920, 3)), dtype=torch.float32)
    total = torch.zeros(4, dtype=torch.float64)
    for move in moves:
        act = grower()
        act[0] = -1.0
        act[1] = action(torch.tensor([0.0, 0.0, 50.0]))
        act[2] = action((env.command[2] + CHANGE * move).clamp(min=0.0))
        step = env.step(act)
        total += step.reward.double()
    assert step.terminated.all()
    for got, name in zip(total.tolist(), ("off", "hold", "random", "grower"), strict=True):
        assert got == pytest.approx(wanted[name], abs=0.03), name
    assert (round(wanted["off"], 2), round(wanted["hold"], 2)) == (-64.53, -73.57), "as published"
    profit = step.metrics["epi"] - step.metrics["penalty"]
    assert torch.allclose(profit.double(), total, atol=2e-3), "metrics sum to the return"


def test_a_season_is_bookkept_by_hand(tmp_path: Path) -> None:
    env = make(weather=still_air(tmp_path), season_days=1.0, start_days=(1.0, 5.0), leak="paper")
    for _ in range(48):
        step = env.step(action(torch.tensor([[0.0, 0.0, 50.0]])))
    m = {name: value.item() for name, value in step.metrics.items()}
    assert m["heat_kwh"] == pytest.approx(50.0 * 24 / 1000.0, rel=1e-5)
    assert m["heat_cost"] == pytest.approx(1.2 * 0.1281, rel=1e-5)
    assert (m["co2_cost"], m["travel"], m["electricity_cost"]) == (0.0, 0.0, 0.0)
    assert m["revenue"] == pytest.approx(22.285125 * (m["crop"] - 0.0035), abs=1e-5)
    temperature = 5.0 + 50.0 / 6.1  # in balance with the cover; vents shut
    assert env.task.truth(env.task.view(None))["air_temperature"].item() == pytest.approx(15.0)  # planted anew
    assert m["degree_hours"] == pytest.approx(0.0, abs=1e-6)
    assert 10.0 < temperature < 20.0


def test_staggered_seasons_hang_together() -> None:
    env = make(64, family="train", seed=2)
    env.stagger()
    task = env.task
    assert torch.equal(task.state["row"] - task.state["begun"], env.age)
    late, early = env.age > 1500, env.age < 300
    assert task.state["climate"][0, late].min() > 2.0 * task.state["climate"][0, early].max()
    ends = torch.full((64,), -1)
    for t in range(60):
        step = env.step(torch.zeros(64, 3))
        ends = torch.where(step.terminated & (ends < 0), t, ends)
        signals = task.truth(task.view(None))
        share = (task.state["row"] - task.state["begun"]) / 1920
        assert torch.allclose(signals["season"][:, 2], share)
    begun = torch.full((64,), 1919) - (task.state["row"] - task.state["begun"])
    assert (begun >= 0).all()
    assert torch.equal(ends >= 0, env.age < 60)


def test_time_of_day_belongs_to_the_weather() -> None:
    env = make(8, family="train", weather="bundled")
    sun, hour = [], []
    for _ in range(96):
        signals = env.task.truth(env.task.view(None))
        sun.append(signals["outdoor"][:, 0])
        hour.append(torch.atan2(signals["season"][:, 0], signals["season"][:, 1]) * (12.0 / math.pi) % 24.0)
        env.step(torch.zeros(8, 3))
    sun_, hour_ = torch.stack(sun), torch.stack(hour)
    assert (sun_[(hour_ < 4.0) | (hour_ > 20.0)] == 0.0).all()
    assert sun_[(hour_ > 10.0) & (hour_ < 13.0)].min() > 0.0


def test_restarts_take_given_parameters() -> None:
    env = make(4, family="train", season_days=1.0)
    names = list(env.spec.params)
    given = torch.stack([torch.tensor(p.nominal).repeat(4) for p in env.spec.params.values()])
    given[names.index("leak")] = torch.tensor([1e-6, 1e-5, 5e-5, 1e-4])
    env.task.contexts = given
    env.reset(0)
    for _ in range(50):  # beyond one harvest
        env.step(torch.zeros(4, 3))
    assert torch.equal(env.task.state["params"], given)
    leak = env.task.state["coefficients"][15]
    assert torch.allclose(leak, given[names.index("leak")])


def test_structure_and_presets_change_the_house() -> None:
    house = make(64, family="train", structure=True).task
    leak, cover = house.state["coefficients"][15], house.state["coefficients"][13]
    assert leak.min() < 7.5e-6 < 5e-5 < leak.max(), "leaks span decades"
    assert cover.min() < 5.0 < 7.0 < cover.max()
    plain = make(64, family="train").task.state["coefficients"]
    spread = plain / plain.mean(1, keepdim=True)
    assert (spread.amin(1) > 0.93).all()
    assert (spread.amax(1) < 1.07).all()
    assert (plain[20:] == plain[20:, :1]).all(), "constants of nature stay"
    assert make(1, leak="paper").task.state["coefficients"][15].item() == pytest.approx(7.5e-5)
    assert make(1, cultivar="compact").task.state["coefficients"][3].item() == pytest.approx(0.85 * 53.0)


def test_noise_per_step_moves_every_coefficient_anew(tmp_path: Path) -> None:
    weather = still_air(tmp_path, radiation=300.0, temperature=12.0)
    settings: dict[str, Any] = {"weather": weather, "start_days": (1.0, 5.0)}
    noisy, exact = make(512, step_noise=0.05, **settings), make(2, **settings)
    for _ in range(2):
        a = noisy.step(torch.zeros(512, 3)).reward
        b = exact.step(torch.zeros(2, 3)).reward
    assert a.std() > 1e-5
    assert b.std() == 0.0
    assert a.mean().item() == pytest.approx(b[0].item(), abs=5.0 * a.std().item() / math.sqrt(512) + 2e-5)
    assert torch.equal(noisy.task.state["coefficients"][:, 0], exact.task.state["coefficients"][:, 0])


def test_noisy_forecasts_err_by_the_root_of_the_lead_and_keep_their_errors() -> None:
    generator = torch.Generator().manual_seed(1)
    outlook = instruments.start_outlook(4000, 1, generator, torch.device("cpu"))
    truth = torch.tensor([400.0, 8.0, 0.7, 420.0]).expand(4000, 13, 4)
    told = instruments.noisy_forecast(truth, outlook, 1)
    assert torch.equal(told[:, 0], truth[:, 0]), "the weather now is measured"
    assert torch.equal(told[..., 3], truth[..., 3])
    error = (told - truth)[..., 1].std(0)
    lead = torch.arange(13) / 48.0
    assert torch.allclose(error, 2.0 * torch.sqrt(lead), rtol=0.06, atol=1e-6), error
    later = instruments.moved_outlook(outlook, 1, generator)
    assert torch.equal(later[:, :-1], outlook[:, 1:]), "an instant keeps its own error as it comes nearer"
    pairs = torch.corrcoef(torch.stack([outlook[1, 3], outlook[1, 4]]))
    assert pairs[0, 1].item() == pytest.approx(math.exp(-0.5 / 6.0), abs=0.03)
    env = make(4, family="train", forecast="noisy", step_s=900.0)
    step = env.step(torch.zeros(4, 3))
    clean = env.task.truth(env.task.view(None))["forecast"]
    assert torch.equal(step.obs["policy"][:, -52:-48], clean[:, :4])
    assert not torch.equal(step.obs["policy"][:, -48:], clean[:, 4:])


def params_of(count: int, **changed: float) -> dict[str, Tensor]:
    env_params = scene_entry(SCENE).spec(LettuceConfig()).params
    values = {n: p.nominal for n, p in env_params.items() if p.group == "sensors"} | changed
    return {n: torch.full((count,), v) for n, v in values.items()}


def test_sensors_show_noise_bias_gain_drift_and_delay() -> None:
    g, n = torch.Generator().manual_seed(0), 20000
    truth = torch.tensor([[18.0], [0.7], [600.0]]).expand(3, n)
    before = truth + torch.tensor([[-6.0], [0.0], [0.0]])
    quiet: dict[str, float] = {"dropout": 0.0, "outage_rate": 0.0, "spike": 0.0}
    p = params_of(n, bias_temperature=0.4, gain_sensor_co2=1.02, drift_humidity=0.0003, delay=180.0, **quiet)
    state = instruments.start_readings(truth, p, g)
    state |= instruments.read(before, truth, state, p, age_s=torch.full((n,), 864000.0), dt_s=1800.0, generator=g)
    mean, spread = state["readings"].mean(1), state["readings"].std(1)
    assert mean.tolist() == pytest.approx([18.0 - 0.6 + 0.4, 0.7 + 0.003, 612.0], abs=0.6)
    assert mean[0].item() == pytest.approx(17.8, abs=0.01)
    assert mean[1].item() == pytest.approx(0.703, abs=0.001)
    assert spread.tolist() == pytest.approx([0.2, 0.015, 20.0], rel=0.03)
    steps = state["readings"] / torch.tensor(instruments.RESOLUTION)[:, None]
    assert (steps - steps.round()).abs().max() < 2e-3, "readings come in steps of the resolution"


def test_sensors_drop_samples_stick_and_spike() -> None:
    g, n = torch.Generator().manual_seed(0), 20000
    truth = torch.tensor([[18.0], [0.7], [600.0]]).expand(3, n)
    off: dict[str, float] = {"dropout": 0.0, "outage_rate": 0.0, "spike": 0.0}
    age = torch.full((n,), 3600.0)

    def readings(**changed: float) -> tuple[Tensor, Tensor, Tensor]:
        p = params_of(n, **(off | changed))
        start = instruments.start_readings(truth, p, g)
        after = instruments.read(truth, truth, start, p, age_s=age, dt_s=1800.0, generator=g)
        return start["readings"], after["readings"], after["outage_s"]

    first, then, _ = readings(dropout=0.25, noise_co2=20.0)
    assert (first == then)[2].float().mean().item() == pytest.approx(0.25 + 0.75 * 0.015, abs=0.02)
    _, _, left = readings(outage_rate=4.8)
    assert (left > 0.0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert left.max() <= instruments.OUTAGE_S[1]
    _, then, _ = readings(spike=0.05)
    assert ((then[2] - 600.0).abs() > 150.0).float().mean().item() == pytest.approx(0.05 * 0.94, abs=0.01)


def test_the_crop_is_estimated_from_weekly_samples() -> None:
    env = make(256, family="nominal", sensors="real", weather="bundled")
    env.task.state["row"] = env.task.state["row"] + 330  # late on the seventh day
    ratios = []
    for _ in range(12):
        env.step(torch.zeros(256, 3))
        view = env.task.view(None)
        ratios.append(env.task.measured(view)["crop_dry_weight"][:, 0] / env.task.truth(view)["crop_dry_weight"][:, 0])
    assert torch.allclose(ratios[0], ratios[4], rtol=1e-4), "the error stays between samples"
    assert not torch.allclose(ratios[0], ratios[11], rtol=1e-2)
    assert ratios[-1].std().item() == pytest.approx(0.1, rel=0.2)


def test_actuators_lag_rest_in_their_dead_band_and_stick() -> None:
    actual, target = torch.tensor([[0.0], [2.0], [30.0]]), torch.tensor([[1.2], [2.0], [90.0]])
    lag = torch.tensor([[60.0], [120.0], [1200.0]])
    after, mean = devices.follow(actual, target, lag, 300.0)
    assert after[2].item() == pytest.approx(90.0 - 60.0 * math.exp(-0.25), rel=1e-5)
    fine = torch.arange(0.5, 300.0) / 1200.0
    assert mean[2].item() == pytest.approx((90.0 - 60.0 * torch.exp(-fine)).mean().item(), rel=1e-5)
    assert after[1].item() == 2.0
    largest, band = torch.tensor([1.2, 7.5, 150.0]), torch.tensor([0.02])
    near = devices.targets(
        actual + torch.tensor([[0.1], [0.1], [2.9]]), actual, torch.zeros(3, 1), dead_band=band, largest=largest
    )
    assert near[:, 0].tolist() == pytest.approx([0.1, 2.0, 30.0]), "CO2 leaves its dead band, the others rest"
    stuck = devices.targets(target, actual, torch.tensor([[0.0], [0.0], [60.0]]), dead_band=band, largest=largest)
    assert stuck[:, 0].tolist() == pytest.approx([1.2, 2.0, 30.0])
    g = torch.Generator().manual_seed(0)
    faults = devices.stick(torch.zeros(3, 20000), torch.full((20000,), 4.8), 1800.0, g)
    assert (faults > 0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert 3600.0 <= faults[faults > 0].min() <= faults.max() <= 86400.0
    assert (devices.stick(torch.full((3, 4), 2000.0), torch.zeros(4), 1800.0, g) == 200.0).all()


def test_gains_scale_what_is_used_and_paid() -> None:
    env = make(2, season_days=1.0)
    given = env.task.state["params"].clone()
    given[list(env.spec.params).index("gain_heating")] = torch.tensor([1.0, 0.8])
    env.task.contexts = given
    env.reset(0)
    step = env.step(action(torch.tensor([[0.0, 0.0, 50.0]] * 2)))
    assert step.metrics["heat_cost"].tolist() == pytest.approx([0.1281 * 0.025, 0.8 * 0.1281 * 0.025], rel=1e-5)


def test_lamps_cost_electricity_give_light_and_heat_as_computed(tmp_path: Path) -> None:
    weather = still_air(tmp_path, radiation=0.0, temperature=10.0)
    lamps = Equipment(lamps_w_m2=80.0, lamp_hours=(0.0, 24.0))
    settings: dict[str, Any] = {"weather": weather, "season_days": 2.0, "start_days": (1.0, 5.0)}
    lit, dark = make(equipment=lamps, **settings), make(**settings)
    for _ in range(95):
        a, b = (e.step(action(torch.tensor([[0.6, 0.0, 0.0]]))) for e in (lit, dark))
    hours = 47.5
    assert a.metrics["electricity_cost"].item() == pytest.approx(0.30 * 0.080 * hours, rel=1e-4)
    assert a.metrics["revenue"] > 0.0 > b.metrics["revenue"]
    warm, cold = (e.task.truth(e.task.view(None))["air_temperature"].item() for e in (lit, dark))
    assert cold == pytest.approx(10.0, abs=0.05)
    assert warm == pytest.approx(10.0 + 80.0 / 6.1, abs=0.05), "all electricity ends as heat"


def test_screens_keep_heat_as_computed(tmp_path: Path) -> None:
    weather = still_air(tmp_path, radiation=0.0, temperature=10.0)
    env = make(weather=weather, equipment=Equipment(screen_saving=0.4), start_days=(1.0, 5.0))
    for _ in range(40):
        env.step(action(torch.tensor([[0.0, 0.0, 30.0]])))
    temperature = env.task.truth(env.task.view(None))["air_temperature"].item()
    assert temperature == pytest.approx(10.0 + 30.0 / (0.6 * 6.1), abs=0.05)


def test_success_asks_for_the_seasons_return() -> None:
    for threshold, wanted in ((-1000.0, True), (1000.0, False)):
        env = make(2, season_days=1.0, success_return=threshold)
        flags = [env.step(torch.zeros(2, 3)).metrics["success"] for _ in range(48)]
        assert not torch.stack(flags[:-1]).any(), "nobody succeeds before the harvest"
        assert flags[-1].tolist() == [wanted, wanted]


def test_the_plant_behind_an_emulated_plc_is_the_same_greenhouse(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"weather": still_air(tmp_path, 200.0), "start_days": (1.0, 1.0), "substep_s": 300.0}
    env, config = make(**settings), replace(LettuceConfig(), **settings)
    entry = scene_entry(SCENE)
    assert entry.plant is not None
    plant = entry.plant(1, family="nominal", seed=0, config=config)
    for _ in range(48):
        env.step(action(torch.tensor([[0.0, 0.0, 50.0]])))
        for _ in range(30):
            plant.step(np.array([[0.0, 0.0, 50.0]]), 60.0)
    told, seen = env.task.truth(env.task.view(None)), plant.signals()
    for name, value in seen.items():
        assert np.allclose(value[0], told[name][0].numpy(), rtol=2e-4, atol=1e-5), name


def test_open_loop_follows_the_environment_from_a_logged_state() -> None:
    env = make(3, family="nominal", weather="bundled", seed=4)
    for _ in range(30):
        env.step(torch.zeros(3, 3))
    signals = env.task.truth(env.task.view(None))
    entry = scene_entry(SCENE)
    assert entry.open_loop is not None
    world = entry.open_loop(3, mode="direct", config=replace(LettuceConfig(), weather="bundled"))
    world.place(signals, env.command[:, None])
    for _ in range(48):  # far beyond the forecast's six hours
        given = {name: env.task.truth(env.task.view(None))[name] for name in world.inputs}
        env.step(torch.full((3, 3), -0.2))
        world.advance(env.command, given)
    told = env.task.truth(env.task.view(None))
    for name, value in world.signals().items():
        assert torch.allclose(value, told[name], rtol=2e-4), name
    with pytest.raises(BadInput, match="no action for mode 'setpoint'; modes: direct"):
        entry.open_loop(1, mode="setpoint", config=LettuceConfig())


def test_gradients_flow_through_steps_and_stop_at_a_cut() -> None:
    env = make(4, weather="bundled")
    env.differentiable = True
    first, second = (torch.full((4, 3), v, requires_grad=True) for v in (0.05, 0.02))
    env.step(action(env.command) + first)
    env.detach()
    reward = torch.zeros(())
    for _ in range(3):
        reward = reward + env.step(action(env.command.detach()) + second).reward.sum()
    reward.backward()
    assert first.grad is None
    assert second.grad is not None
    assert (second.grad[:, 2] != 0.0).all()


def test_engines_agree() -> None:
    eager, traced = (make(4, family="train", engine=e) for e in ("eager", "traced"))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        act = torch.rand((4, 3), generator=generator) * 2 - 1
        a, b = eager.step(act), traced.step(act)
        assert torch.allclose(a.reward, b.reward, rtol=1e-5, atol=1e-6)
        assert torch.allclose(a.obs["policy"], b.obs["policy"], rtol=1e-5, atol=1e-5)


def test_a_season_is_drawn(tmp_path: Path) -> None:
    one = lambda: make(season_days=1.0, weather="bundled")  # noqa: E731

    def rule(env: Any) -> Any:
        act = LAWS["rule"](env)
        return lambda obs: act()

    laws = {"rule": rule, "shut": lambda env: lambda obs: -OFFSET[None]}
    draw_season(tmp_path / "season.png", one, laws, "a day")
    assert (tmp_path / "season.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(BadInput, match=r"season.gif: a season is drawn as .png"):
        draw_season(tmp_path / "season.gif", one, laws, "a day")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_s": 600.0}, "step_s = 600; expected 1800 or 900"),
        ({"substep_s": 700.0}, "substep_s = 700: expected a divisor of step_s, at most 900"),
        ({"substep_s": 1800.0}, "substep_s = 1800: expected a divisor of step_s, at most 900"),
        ({"season_days": 0.0}, "season_days = 0; expected 0.1 to 360"),
        ({"start_days": (80.0, 40.0)}, "start_days = 80, 40: expected days of the year from 1 to 366, the first one"),
        ({"step_noise": 0.9}, "step_noise = 0.9; expected 0 to 0.5"),
        ({"success_return": math.nan}, "success_return = nan; expected a finite number"),
        ({"prices": Prices(co2=math.nan)}, "prices.co2 = nan; expected a finite number"),
        ({"bounds": Bounds(temperature=(20.0, 10.0))}, "bounds.temperature = 20, 10 degC: expected the lower bound"),
        ({"bounds": Bounds(co2=(500.0, 500.0))}, "bounds.co2 = 500, 500 ppm: expected the lower bound below"),
        ({"bounds": Bounds(humidity_cost=(-1.0, 0.0))}, "bounds.humidity_cost: expected finite costs, at least 0"),
        ({"leak": "none"}, "leak 'none' not found; known: ranges, benchmark, paper"),
        ({"cultivar": "oak leaf"}, "cultivar 'oak leaf' not found; known: butterhead, compact, vigorous"),
        ({"equipment": Equipment(lamps_w_m2=-1.0)}, "equipment.lamps_w_m2 = -1; expected a finite number, at least 0"),
        ({"equipment": Equipment(screen_saving=1.0)}, "equipment.screen_saving = 1; expected 0 to below 1"),
        ({"start_days": (340.0, 350.0)}, "no season of 40 days starts between days 340 and 350 of the weather"),
        ({"weather": "nowhere"}, "weather 'nowhere' not found"),
    ],
)
def test_settings_that_make_no_task_are_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        make(**settings)
    assert "\n" not in str(caught.value)
