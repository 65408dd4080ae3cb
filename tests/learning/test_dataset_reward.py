"""The scene's own reward of recorded steps is the one that the simulator paid."""

import dataclasses

import numpy as np
import pytest
import torch

from robo_rl.seeds import child_seed
from sim.registry import make_env, scene_entry
from sim.scenes.quadrotor.hover import GOAL


@pytest.mark.parametrize("mode", ["attitude_thrust", "rotor_thrust"])
def test_the_hover_reward_of_true_states_is_the_simulators(mode: str) -> None:
    entry = scene_entry("quadrotor/hover")
    config = dataclasses.replace(entry.config, mode=mode)
    env = make_env("quadrotor/hover", 64, seed=3, config=config)
    act = torch.Generator().manual_seed(child_seed(0, "test"))
    offset = torch.tensor([f.offset for f in env.interface.action])
    scale = torch.tensor([f.scale for f in env.interface.action])
    shift = np.array([5.0, -3.0, 1.0])  # the goal of a flight lies anywhere
    for _ in range(40):
        last = (env.command - offset) / scale
        step = env.step(torch.rand(64, 4, generator=act) * 2 - 1)
        body = env.task.state["body"].numpy().T
        sent = (env.command - offset) / scale
        after = {
            "position_world": body[:, :3] + shift,
            "velocity_world": body[:, 3:6],
            "quat_wxyz": body[:, 6:10],
            "angular_velocity_body": body[:, 10:13],
        }
        goal = {"position_world": np.tile(np.asarray(GOAL) + shift, (64, 1))}
        assert entry.logged_reward is not None
        found = entry.logged_reward(after, after, goal, action=sent.numpy(), last_action=last.numpy(), config=config)
        on = ~(step.terminated | step.truncated).numpy()  # the others already stand at their next start
        np.testing.assert_allclose(found[on], step.reward.numpy()[on], atol=2e-5)


def test_the_lettuce_reward_of_the_signals_is_the_simulators() -> None:
    entry = scene_entry("greenhouse/lettuce")
    config = dataclasses.replace(entry.config, season_days=3.0, split="train")
    env = make_env("greenhouse/lettuce", 32, seed=3, config=config)
    assert entry.logged_reward is not None
    act = torch.Generator().manual_seed(child_seed(0, "test"))
    offset = torch.tensor([f.offset for f in env.interface.action])
    scale = torch.tensor([f.scale for f in env.interface.action])

    def signals() -> dict[str, np.ndarray]:
        return {k: v.numpy() for k, v in env.task.measured(env.task.view(None)).items()}

    for _ in range(60):
        before = {k: v.copy() for k, v in signals().items()}
        step = env.step(torch.rand(32, 3, generator=act) * 2 - 1)
        sent = ((env.command - offset) / scale).numpy()
        found = entry.logged_reward(before, signals(), {}, action=sent, last_action=sent, config=config)
        np.testing.assert_allclose(found, step.reward.numpy(), atol=2e-6)
