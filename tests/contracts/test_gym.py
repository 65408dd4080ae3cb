"""Scenes as Gymnasium environments: its own checker, and its vector semantics against the batched environment."""

import dataclasses

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from hardware.errors import BadInput
from sim.gym import gym_id
from sim.registry import make_env, scene_entry, scene_ids


@pytest.mark.parametrize("scene", scene_ids())
def test_gymnasiums_checker_accepts_the_single_environment(scene: str) -> None:
    env = gymnasium.make(gym_id(scene))
    check_env(env.unwrapped, skip_render_check=True)


def test_registration_is_found_through_the_id_alone() -> None:
    env = gymnasium.make("sim.gym:robo_rl/QuadrotorHover-v0", mode="rotor_thrust", family="nominal")
    obs, _ = env.reset(seed=1)
    assert env.observation_space.contains(obs)
    assert env.action_space.shape == (4,)


def test_single_episode_ends_with_its_own_last_observation() -> None:
    env = gymnasium.make("robo_rl/QuadrotorHover-v0", episode_s=0.1, hold_from_s=0.05)
    obs, _ = env.reset(seed=4)
    for t in range(10):
        before = obs
        obs, reward, terminated, truncated, info = env.step(np.zeros(4, np.float32))
        assert (terminated, truncated) == (False, t == 9)
    assert np.abs(obs[:3] - before[:3]).max() < 0.1, "the last observation follows the one before: no restart between"
    assert isinstance(reward, float)
    assert info["distance"] > 0.0


def test_vector_environment_restarts_in_the_same_step() -> None:
    env = gymnasium.make_vec("robo_rl/QuadrotorHover-v0", num_envs=6, episode_s=0.1, hold_from_s=0.05)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    seed = 7
    obs, _ = env.reset(seed=seed)
    config = dataclasses.replace(scene_entry("quadrotor/hover").config, episode_s=0.1, hold_from_s=0.05)
    seeds = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    twin = make_env("quadrotor/hover", 6, config=config)
    first = twin.reset(int(seeds.integers(2**31)))
    assert np.array_equal(obs, first["policy"].numpy())
    env.action_space.seed(0)
    for t in range(12):
        action = env.action_space.sample()
        obs, reward, terminated, truncated, infos = env.step(action)
        step = twin.step(torch.tensor(action))
        assert np.array_equal(obs, step.obs["policy"].numpy())
        assert np.array_equal(reward, step.reward.numpy().astype(np.float64))
        assert np.array_equal(terminated, step.terminated.numpy())
        assert truncated.all() == (t == 9)
        if t == 9:
            assert infos["_final_obs"].all()
            assert np.array_equal(infos["final_obs"], step.final_obs["policy"].numpy())
            assert np.abs(infos["final_obs"] - obs).max() > 0.1
        else:
            assert "final_obs" not in infos


def test_an_unknown_setting_lists_the_settings() -> None:
    with pytest.raises(BadInput, match=r"scene quadrotor/hover has no setting gravity; settings: mode, disturbances"):
        gymnasium.make("robo_rl/QuadrotorHover-v0", gravity=3.7)
