"""What every scene must keep: the VecEnv contract, in every command mode that it has hyper-parameters for."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from controllers.interface import Interface
from hardware.errors import BadInput, NotFoundError
from hardware.spec import load_spec
from sim.ranges import read_ranges
from sim.registry import make_env, ranges_path, scene_entry, scene_ids, summaries

CASES = [(scene, mode) for scene in scene_ids() for mode in scene_entry(scene).training]


def make(scene: str, mode: str, count: int = 8, **kwargs: Any) -> Any:
    config = dataclasses.replace(scene_entry(scene).config, mode=mode)
    return make_env(scene, count, config=config, **kwargs)


def play(env: Any, steps: int, seed: int = 1) -> list[Any]:
    g = torch.Generator().manual_seed(seed)
    shape = (env.num_envs, env.interface.action_size)
    return [env.step(0.3 * torch.randn(shape, generator=g)) for _ in range(steps)]


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """The same numbers, NaN included."""
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


def same(a: Any, b: Any) -> bool:
    """Steps that agree bit for bit."""
    pairs = [(a.obs, b.obs), (a.final_obs, b.final_obs), (a.metrics, b.metrics)]
    dicts = all(x.keys() == y.keys() and all(equal(x[k], y[k]) for k in x) for x, y in pairs)
    plain = all(
        torch.equal(x, y)
        for x, y in ((a.reward, b.reward), (a.terminated, b.terminated), (a.truncated, b.truncated), (a.cost, b.cost))
    )
    return dicts and plain


def test_there_is_a_scene() -> None:
    assert "quadrotor/hover" in scene_ids()
    assert CASES


@pytest.mark.parametrize(("scene", "mode"), CASES)
def test_spec_fits_the_robot_and_names_everything(scene: str, mode: str) -> None:
    entry = scene_entry(scene)
    spec = entry.spec(dataclasses.replace(entry.config, mode=mode))
    robot = load_spec(spec.robot)
    interface = Interface(robot, spec.mode, spec.observation, spec.action)
    assert (spec.id, spec.mode, spec.robot) == (scene, mode, summaries()[scene]["robot"])
    assert interface.action_size == len(robot.mode(mode).components)
    assert spec.rate_hz == robot.mode(mode).rate_hz, "policies run at the rate they were trained at"
    assert spec.episode_s > 0
    assert spec.success
    limits = robot.mode(mode).limits.on(np.zeros(1))
    for sign in (-1.0, 1.0):  # every action is a command the guard lets through at once or over time
        command = interface.command(np.full(interface.action_size, sign))
        assert (command >= limits.low - 1e-9).all(), command
        assert (command <= limits.high + 1e-9).all(), command


@pytest.mark.parametrize("scene", scene_ids())
def test_every_parameter_has_a_range_with_a_source(scene: str) -> None:
    for p in read_ranges(ranges_path(scene)).params.values():
        assert p.unit, p.name
        assert len(p.reference) > 5, p.name
        assert p.minimum <= p.low <= p.high <= p.maximum, p.name


@pytest.mark.parametrize(("scene", "mode"), CASES)
@pytest.mark.parametrize("family", ["nominal", "train", "wide"])
def test_steps_have_the_declared_shapes_and_types(scene: str, mode: str, family: str) -> None:
    env = make(scene, mode, family=family)
    n = env.num_envs
    obs = env.reset(3)
    expected = env.interface.group_sizes
    for name, size in expected.items():
        assert obs[name].shape == (n, size)
    assert obs["critic"].shape[0] == n
    for step in play(env, 5):
        assert step.obs.keys() == obs.keys() == step.final_obs.keys()
        for name, value in step.obs.items():
            assert value.shape == obs[name].shape == step.final_obs[name].shape
            assert value.dtype == torch.float32
            assert torch.isfinite(value).all()
        for value in (step.reward, step.cost, *step.metrics.values()):
            assert value.shape == (n,)
        assert step.terminated.dtype == step.truncated.dtype == torch.bool
        assert not (step.terminated & step.truncated).any()
        assert "success" in step.metrics


@pytest.mark.parametrize(("scene", "mode"), CASES)
def test_the_same_seed_gives_the_same_run_and_another_seed_another(scene: str, mode: str) -> None:
    first, second, other = make(scene, mode, seed=5), make(scene, mode, seed=5), make(scene, mode, seed=6)
    a, b, c = play(first, 40), play(second, 40), play(other, 40)
    assert all(same(x, y) for x, y in zip(a, b, strict=True))
    assert not same(a[0], c[0])
    first.reset(5)
    assert all(same(x, y) for x, y in zip(a, play(first, 40), strict=True)), "reset(seed) starts the same run again"


@pytest.mark.parametrize(("scene", "mode"), CASES)
def test_state_resumes_bit_for_bit_in_a_new_environment(scene: str, mode: str) -> None:
    count = 48 * scene_entry(scene).spec(scene_entry(scene).config).agents
    env = make(scene, mode, count=count, seed=5)
    env.stagger()
    play(env, 60)
    state = {k: v.clone() for k, v in env.get_state().items()}
    onward = play(env, 60, seed=2)
    assert any((s.terminated | s.truncated).any() for s in onward), "restarts are part of what must resume"
    fresh = make(scene, mode, count=count, seed=99)
    fresh.set_state(None, state)
    assert all(same(x, y) for x, y in zip(onward, play(fresh, 60, seed=2), strict=True))


@pytest.mark.parametrize(("scene", "mode"), CASES)
def test_rows_can_be_put_into_a_state_alone(scene: str, mode: str) -> None:
    env, other = make(scene, mode, seed=1), make(scene, mode, seed=2)
    play(env, 10)
    play(other, 10)
    before, wanted = env.get_state(), other.get_state()
    ids = torch.tensor([1, 4])
    env.set_state(ids, {k: v if k in ("generator",) or k.startswith("shared") else v[ids] for k, v in wanted.items()})
    after = env.get_state()
    rest = [i for i in range(8) if i not in (1, 4)]
    for name, rows in after.items():
        if name == "generator" or name.startswith("shared."):
            assert torch.equal(rows, before[name])
        else:
            assert torch.equal(rows[ids], wanted[name][ids]), name
            assert torch.equal(rows[rest], before[name][rest]), name


@pytest.mark.parametrize(("scene", "mode"), CASES)
def test_wrong_input_says_what_was_expected(scene: str, mode: str) -> None:
    env = make(scene, mode)
    size = env.interface.action_size
    with pytest.raises(BadInput, match=rf"action has shape \(8, {size + 1}\); expected \(8, {size}\)"):
        env.step(torch.zeros(8, size + 1))
    with pytest.raises(BadInput, match=r"environment state has \['age'\] too much or too little"):
        env.set_state(None, {k: v for k, v in env.get_state().items() if k != "age"})
    rows = 3 * env.spec.agents
    small = make(scene, mode, count=rows)
    with pytest.raises(BadInput, match=f"environment state has {rows} rows; expected 8"):
        env.set_state(None, small.get_state())


@pytest.mark.parametrize(("scene", "mode"), CASES)
def test_the_classical_baseline_beats_doing_nothing(scene: str, mode: str) -> None:
    entry = scene_entry(scene)
    returns = []
    for law in ("baseline", "nothing"):
        env = make(scene, mode, count=32, family="nominal", seed=3)
        act = entry.baseline(env) if law == "baseline" else lambda e=env: torch.zeros(32, e.interface.action_size)
        total = torch.zeros(32)
        for _ in range(env.episode_steps):
            action = act()
            assert action.abs().max() <= 1.0
            total += env.step(action).reward
        returns.append(total.mean().item())
    assert returns[0] > returns[1] + 1.0, returns


@pytest.mark.parametrize("scene", scene_ids())
def test_the_scenes_world_can_stand_behind_an_emulator(scene: str) -> None:
    entry = scene_entry(scene)
    robot = load_spec(summaries()[scene]["robot"])
    if entry.plant is None:
        pytest.skip("this scene offers no world for an emulator")
    plant = entry.plant(2, family="train", seed=1, config=entry.config)
    signals = plant.signals()
    for name, value in signals.items():
        assert value.shape == (2, *robot.signals[name].shape), name
        assert value.dtype == np.float64
    strongest = np.tile(robot.mode(entry.config.mode).limits.on(np.zeros(1)).high, (2, 1))
    rest = {name: value.copy() for name, value in signals.items()}
    for _ in range(500):
        plant.step(strongest, 1.0 / robot.rate_hz / 20.0)
    moved = plant.signals()
    assert all(np.isfinite(value).all() for value in moved.values())
    assert any(np.abs(moved[name] - rest[name]).max() > 0.1 for name in rest), "full actuators move nothing"
    plant.reset(1)
    again = plant.signals()
    for name, value in rest.items():
        assert np.allclose(again[name][1], value[1]), name
        assert np.array_equal(again[name][0], moved[name][0]), "the other robot was reset too"
    with pytest.raises(BadInput, match=rf"actuator commands have shape \(3, {strongest.shape[1]}\); expected \(2, J\)"):
        plant.step(np.zeros((3, strongest.shape[1])), 0.002)
    with pytest.raises(BadInput, match="robot 2 of 2"):
        plant.reset(2)


def test_registry_refuses_what_there_is_not() -> None:
    with pytest.raises(NotFoundError, match=r"scene 'quadrotor/hver' not found; known: .*quadrotor/hover"):
        scene_entry("quadrotor/hver")
    with pytest.raises(BadInput, match="0 environments; expected at least 1"):
        make_env("quadrotor/hover", 0)
    with pytest.raises(BadInput, match="scene quadrotor/hover takes a HoverConfig, not a dict"):
        make_env("quadrotor/hover", 1, config={})
    with pytest.raises(BadInput, match="family 'hard' not found"):
        make_env("quadrotor/hover", 1, family="hard")
    wrong = dataclasses.replace(scene_entry("quadrotor/hover").config, mode="hover")
    with pytest.raises(BadInput, match="no action for mode 'hover'; modes: attitude_thrust, rotor_thrust"):
        make_env("quadrotor/hover", 1, config=wrong)
