"""The hover environment's loop: delays, guard, interpreter, firmware, criterion; in both command modes."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from controllers.interface import Interface
from hardware.guard import limit_command
from hardware.spec import load_spec
from sim.registry import make_env, scene_entry

MODES = ("attitude_thrust", "rotor_thrust")


def hover(count: int, mode: str, *, family: str = "train", seed: int = 0, **changes: Any) -> Any:
    config = dataclasses.replace(scene_entry("quadrotor/hover").config, mode=mode, **changes)
    return make_env("quadrotor/hover", count, family=family, seed=seed, config=config)


def actions(count: int, steps: int, seed: int = 1) -> Tensor:
    return 0.3 * torch.randn((steps, count, 4), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", MODES)
def test_observation_equals_the_robot_sides_interpreter_row_by_row(mode: str) -> None:
    env = hover(6, mode)
    interface = Interface(load_spec("crazyflie"), mode, env.spec.observation, env.spec.action)
    memory = interface.start((), np.zeros(1, dtype=np.float32))
    row = 2

    def seen() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        view = env.task.view(None)
        pick = lambda signals: {k: v[row].numpy() for k, v in signals.items()}  # noqa: E731
        return pick(env.task.measured(view)), pick(env.task.goal(view))

    obs = env.reset(5)
    expected, memory = interface.observe(*seen(), memory)
    assert np.allclose(obs["policy"][row], expected["policy"], atol=1e-6)
    for action in actions(6, 20):
        obs = env.step(action).obs
        memory = interface.remember(memory, env.command[row].numpy())
        expected, memory = interface.observe(*seen(), memory)
        assert np.allclose(obs["policy"][row], expected["policy"], atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_commands_pass_the_robots_own_guard(mode: str) -> None:
    env = hover(3, mode)
    limits = load_spec("crazyflie").mode(mode).limits.on(np.zeros(1))
    last = env.command[0].numpy().astype(float)
    for sign in (1.0, -1.0, 1.0, 1.0, -1.0):
        wanted = env.interface.command(torch.full((3, 4), sign))
        env.step(torch.full((3, 4), sign))
        expected = limit_command(wanted[0].numpy().astype(float), last, limits, 0.01)
        assert np.allclose(env.command[0].numpy(), expected, atol=1e-6)
        last = expected
    if mode == "attitude_thrust":  # 30 rad/s for 10 ms: a full swing of roll takes several steps
        env.reset(0)
        env.step(torch.full((3, 4), 1.0))
        assert env.command[0, 0].item() == pytest.approx(0.3)


def test_an_action_that_is_not_finite_holds_the_last_command() -> None:
    env = hover(3, "rotor_thrust")
    env.step(torch.full((3, 4), 0.2))
    before = env.command.clone()
    step = env.step(torch.full((3, 4), float("nan")))
    assert torch.equal(env.command, before)
    assert torch.isfinite(step.obs["policy"]).all()


@pytest.mark.parametrize("mode", MODES)
def test_a_delay_of_k_periods_is_exactly_k_steps(mode: str) -> None:
    """The motion under a delayed command equals, bit for bit, that of an undelayed one given k steps later."""
    results = []
    for k in (0, 1, 2):
        env = hover(1, mode, seed=3)
        env.task.worlds.set_params({"command_delay": 0.01 * k})
        bodies = []
        for t in range(12):
            value = 0.4 if t >= 4 - k else 0.0
            env.step(torch.full((1, 4), value))
            bodies.append(env.task.state["body"].clone())
        results.append(torch.stack(bodies))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_delay_within_a_period_counts_in_the_firmwares_ticks() -> None:
    """At 500 Hz a set point is taken up at the first tick that comes no earlier than its delay."""

    def rate_after(delay_s: float) -> float:
        env = hover(1, "attitude_thrust", seed=3, start_rate_rad_s=0.0, start_tilt_rad=0.0)
        env.task.worlds.set_params({"command_delay": delay_s})
        env.step(torch.zeros(1, 4))
        env.step(torch.tensor([[0.5, 0.0, 0.0, 0.0]]))
        return env.task.state["body"][10, 0].item()

    rates = [rate_after(d) for d in (0.0, 0.001, 0.003, 0.005)]
    assert rates == sorted(set(rates), reverse=True)  # each tick later turns less
    assert rate_after(0.0021) == rate_after(0.0039)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("disturbances", [False, True])
def test_traced_environment_equals_eager_bit_for_bit(mode: str, disturbances: bool) -> None:
    """Across restarts of changing numbers of rows, which the recording did not see."""
    settings: dict[str, Any] = {"disturbances": disturbances, "episode_s": 0.5, "hold_from_s": 0.2, "seed": 4}
    eager, traced = (hover(64, mode, engine=engine, **settings) for engine in ("eager", "traced"))
    for env in (eager, traced):
        env.stagger()
    ended = set()
    for action in actions(64, 120):
        a, b = eager.step(action), traced.step(action)
        ended.add(int((a.terminated | a.truncated).sum()))
        for name in a.obs:
            assert torch.equal(a.obs[name], b.obs[name])
            assert torch.equal(a.final_obs[name], b.final_obs[name])
        assert torch.equal(a.reward, b.reward)
    states = eager.get_state(), traced.get_state()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert len(ended) > 3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.slow
def test_compiled_physics_agree_with_eager(mode: str) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        eager, compiled = (hover(64, mode, seed=4, engine=engine) for engine in ("eager", "compiled"))
        for action in actions(64, 30):
            a, b = eager.step(action), compiled.step(action)
    assert torch.allclose(eager.task.state["body"], compiled.task.state["body"], atol=2e-4)
    assert torch.allclose(a.reward, b.reward, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_starts_and_worlds_are_as_the_task_says(mode: str) -> None:
    env = hover(4000, mode, seed=8)
    truth, goal = env.task.worlds.truth(), env.task.goal(env.task.view(None))["position_world"]
    distance = (truth["position_world"] - goal).norm(dim=1)
    assert distance.max() <= 2.0 + 1e-5
    assert (distance < 1.0).float().mean().item() == pytest.approx(1 / 8, abs=0.03)  # uniform in the ball
    tilt = torch.acos((1 - 2 * (truth["quat_wxyz"][:, 1:3] ** 2).sum(1)).clamp(-1, 1)).rad2deg()
    assert tilt.max() <= 60.01
    assert tilt.max() > 59.0
    rate = truth["angular_velocity_body"].norm(dim=1)
    assert rate.max() <= 5.0 + 1e-5
    assert rate.max() > 4.9
    assert truth["velocity_world"].norm(dim=1).max() <= 0.5 + 1e-5


def test_sensor_noise_is_what_the_parameters_say() -> None:
    env = hover(4000, "attitude_thrust", family="nominal", seed=2)
    measured, truth = env.task.measured(env.task.view(None)), env.task.worlds.truth()
    for name, deviation in (("position_world", 0.003), ("velocity_world", 0.03), ("angular_velocity_body", 0.0025)):
        assert (measured[name] - truth[name]).std().item() == pytest.approx(deviation, rel=0.03)
    from hardware.geometry import quat_conjugate, quat_multiply, quat_to_rotvec

    turn = quat_to_rotvec(quat_multiply(quat_conjugate(truth["quat_wxyz"]), measured["quat_wxyz"]))
    assert turn.std().item() == pytest.approx(0.00873, rel=0.03)


@pytest.mark.parametrize("mode", MODES)
def test_metrics_and_success_follow_their_definition(mode: str) -> None:
    """Recomputed in numpy from the recorded true distances of the classical controller's flights."""
    entry = scene_entry("quadrotor/hover")
    env = hover(60, mode, family="nominal", seed=6)
    act = entry.baseline(env)
    distances, crashed = [], torch.zeros(60, dtype=torch.bool)
    for _ in range(600):
        step = env.step(act())
        distances.append(step.metrics["distance"].numpy())
        crashed |= step.terminated
    table = np.stack(distances)  # row i is time (i + 1) * 10 ms
    held = table[349:]
    alive = ~crashed.numpy()
    assert step.truncated.numpy()[alive].all()
    assert np.allclose(step.metrics["hold_max"].numpy()[alive], held.max(0)[alive])
    assert np.allclose(step.metrics["hold_mean"].numpy()[alive], held.mean(0)[alive], atol=1e-6)
    radius = 0.05 if mode == "attitude_thrust" else 0.10
    assert np.array_equal(step.metrics["success"].numpy()[alive], (held.max(0) <= radius)[alive])
    assert 0.5 < step.metrics["success"].float().mean() < 1.0  # the comparison saw both outcomes


def test_disturbances_are_drawn_only_on_request() -> None:
    for on in (False, True):
        env = hover(50, "rotor_thrust", disturbances=on)
        names = list(env.spec.params)
        params = env.task.worlds.params(env.task.view(None))
        varies = {n for n, row in zip(names, params, strict=True) if row.std() > 0}
        groups = {n for n in names if env.spec.params[n].group == "disturbances"}
        assert varies == (set(names) if on else set(names) - groups)


def test_low_battery_bounds_the_thrust() -> None:
    """At 3.0 V without sag a rotor reaches f(3.0 V)/0.12 N = 0.94 of full force (see test_firmware)."""
    env = hover(1, "rotor_thrust", family="nominal", seed=0)
    env.task.worlds.set_params({"battery_voltage": 3.0, "battery_sag": 0.0})
    for _ in range(60):
        env.step(torch.ones(1, 4))
    assert env.task.state["body"][13:17].max().item() == pytest.approx(0.11278918 / 0.12, abs=1e-3)


def test_drones_behind_an_emulator_rise_under_thrust_and_stand_on_the_floor_without() -> None:
    entry = scene_entry("quadrotor/hover")
    assert entry.plant is not None
    plant = entry.plant(2, family="train", seed=1, config=entry.config)
    rest = plant.signals()["position_world"].copy()
    for _ in range(500):
        plant.step(np.full((2, 4), 0.95), 0.002)
    assert (plant.signals()["position_world"][:, 2] > rest[:, 2] + 0.3).all()
    plant.reset(1)
    for _ in range(500):
        plant.step(np.zeros((2, 4)), 0.002)
    assert np.allclose(plant.signals()["position_world"][1], rest[1]), "a stopped drone stays on the floor"
