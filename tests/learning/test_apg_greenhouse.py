"""The analytic policy gradient in the greenhouse: its derivative, its fused step, its restart, its policy file."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from controllers.artifact import PolicyArtifact
from robo_rl.config import RunConfig
from robo_rl.job import default_config, export
from robo_rl.recipes import apg
from sim.env import BatchEnv
from sim.registry import make_env

SCENE = "greenhouse/lettuce"


def run(**changes: Any) -> RunConfig:
    """A small run in seasons of a quarter of a day."""
    config = default_config(SCENE, algorithm="apg")
    world = dataclasses.replace(config.scene_config, season_days=0.25, substep_s=450.0, engine="eager")
    algo = dataclasses.replace(config.algo, window=6, hidden=(16,), max_adjoint=changes.pop("max_adjoint", 0.1))
    settings = {"num_envs": 6, "family": "nominal", "compile": False, "linear": "torch"} | changes
    return dataclasses.replace(config, scene_config=world, algo=algo, **settings)


def trainee(config: RunConfig) -> apg.Unrolled:
    """Made ready to train."""
    env = make_env(SCENE, config.num_envs, family=config.family, seed=0, config=config.scene_config)
    return apg.prepare(config, env)


def test_the_gradient_is_the_slope_of_the_return() -> None:
    """Central differences of a window's return along a random direction; adjoints unbounded, normaliser at rest."""
    config = run(max_adjoint=0.0, num_envs=12)
    t = trainee(config)
    t.iterate()  # scales the observations
    start, obs = t.env.get_state(), t.obs.clone()
    direction = torch.randn(t.flat.value.shape, generator=torch.Generator().manual_seed(1))
    point = t.flat.value.detach().clone()

    def loss(shift: float) -> torch.Tensor:
        t.env.set_state(None, start)
        t.flat.value.data.copy_(point + shift * direction)
        seen, total = obs, torch.zeros(())
        for _ in range(4):
            step = t.env.step(t.actor(t.norm.apply(seen)))
            seen, total = step.obs["policy"], total - step.reward.mean()
        return total

    t.flat.grad.zero_()
    loss(0.0).backward()
    slope = float(t.flat.grad @ direction)
    t.env.detach()
    with torch.no_grad():
        measured = float(loss(0.003) - loss(-0.003)) / 0.006
    assert abs(slope) > 1e-4
    assert measured == pytest.approx(slope, rel=0.02)


def pair() -> tuple[BatchEnv, BatchEnv]:
    """Two equal environments whose episodes end at different times."""
    envs = [make_env(SCENE, 6, family="train", seed=3, config=run().scene_config) for _ in range(2)]
    for env in envs:
        env.stagger()
    return envs[0], envs[1]


def test_move_and_renew_are_a_step() -> None:
    whole, parts = pair()
    draws = torch.Generator().manual_seed(0)
    ends = 0
    for _ in range(14):
        action = 2.0 * torch.rand(6, 3, generator=draws) - 1.0
        expected, found = whole.step(action), parts.renew(*parts.move(action))
        for name, value in expected.obs.items():
            assert torch.equal(found.obs[name], value), name
            torch.testing.assert_close(found.final_obs[name], expected.final_obs[name], rtol=0.0, atol=0.0)
        assert torch.equal(found.reward, expected.reward)
        assert torch.equal(found.terminated, expected.terminated)
        ends += int(found.terminated.sum())
    assert ends >= 6
    ours, theirs = parts.get_state(), whole.get_state()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


@pytest.mark.filterwarnings("ignore")  # the compiler warns about itself
def test_fused_step_learns_the_same() -> None:
    """What torch.compile makes of the step, before its C++ compiler."""
    plain, fused = trainee(run()), trainee(run(compile=True))
    fused._fused = torch.compile(fused._act, dynamic=False, backend="eager")
    for _ in range(3):
        expected, found = plain.iterate(), fused.iterate()
        assert found["window_loss"] == pytest.approx(expected["window_loss"], rel=1e-4, abs=1e-6)
        assert found["episodes"] == expected["episodes"]
    torch.testing.assert_close(fused.flat.value, plain.flat.value, rtol=1e-3, atol=1e-4)


def test_resumed_run_is_the_same_bit_for_bit() -> None:
    whole, first, second = (trainee(run(seed=4)) for _ in range(3))
    for t in (whole, whole, whole, first):
        t.iterate()
    second.load(first.state())
    values = [second.iterate() for _ in range(2)]
    assert torch.equal(second.flat.value, whole.flat.value)
    assert torch.equal(second.average, whole.average)
    assert torch.equal(second.obs, whole.obs)
    assert values[-1]["update"] == 3.0


def test_learns_to_keep_a_house_for_a_day() -> None:
    """Thirty windows of half a day; then days that it has not seen, the same before and after."""
    config = run(num_envs=16)
    world = dataclasses.replace(config.scene_config, season_days=1.0)
    config = dataclasses.replace(
        config, scene_config=world, algo=dataclasses.replace(config.algo, window=12, learning_rate=0.01)
    )
    t = trainee(config)

    @torch.no_grad()
    def earned() -> float:
        env = make_env(SCENE, 16, family="nominal", seed=9, config=world)
        obs, total = env.reset(9)["policy"], 0.0
        for _ in range(env.episode_steps):
            step = env.step(t.actor(t.norm.apply(obs)))
            obs, total = step.obs["policy"], total + float(step.reward.mean())
        return total

    before = earned()
    for _ in range(30):
        t.iterate()
    assert earned() > before + 0.1


def test_the_policy_file_holds_the_tracking_head(tmp_path: Path) -> None:
    """Through onnxruntime, no command is farther from the last one than the actuators can move in half an hour."""
    config = run()
    t = trainee(config)
    for _ in range(2):
        t.iterate()
    path = tmp_path / "policy.onnx"
    assert export(config, t, path, ["test"]) < 1e-5
    artifact = PolicyArtifact.load(path)
    columns = [f.name for f in artifact.card.observation for _ in range(f.size * f.history)]
    first = columns.index("command")
    rng = np.random.default_rng(0)
    obs = t.obs.numpy().repeat(50, axis=0) + 0.1 * rng.standard_normal((300, t.obs.shape[1])).astype(np.float32)
    obs[:, first : first + 3] = last = rng.uniform(-1.0, 1.0, (300, 3)).astype(np.float32)
    command = artifact.run({"policy": obs})
    offset, scale = (np.array([getattr(f, k) for f in artifact.card.action]) for k in ("offset", "scale"))
    change = np.abs((command - offset) / scale - last)
    assert change.max() <= 0.2 + 1e-5
    assert change.max() > 0.05
