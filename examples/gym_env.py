"""A scene as a Gymnasium environment, single and as a vector. Run: python examples/gym_env.py."""

import gymnasium
import numpy as np

import sim.gym  # noqa: F401 - registers the scenes


def main() -> None:
    env = gymnasium.make("robo_rl/QuadrotorHover-v0", family="nominal")
    obs, _ = env.reset(seed=0)
    print(f"one drone: observation {obs.shape}, action {env.action_space.shape}")
    rewards = []
    for _ in range(100):
        obs, reward, terminated, truncated, _ = env.step(np.zeros(4, dtype=np.float32))
        rewards.append(float(reward))
        if terminated or truncated:
            obs, _ = env.reset()
    env.close()
    print(f"mean reward of doing nothing: {np.mean(rewards):.3f}")

    envs = gymnasium.make_vec("robo_rl/QuadrotorHover-v0", num_envs=64, family="train")
    obs, _ = envs.reset(seed=0)
    steps = 200
    ended = 0
    for _ in range(steps):
        obs, _, terminated, truncated, _ = envs.step(envs.action_space.sample())
        ended += int(np.sum(terminated | truncated))
    envs.close()
    print(f"64 drones with random actions: {ended} episodes ended in {steps} steps")


if __name__ == "__main__":
    main()
