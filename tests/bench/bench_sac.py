"""SAC beside stable-baselines3: one pendulum, 256x256, batch 256, one gradient step per environment step, one thread.

    python tests/bench/bench_sac.py --peer /path/to/python --rounds 3

`--peer` is a Python that has stable-baselines3 and gymnasium. Every library runs in its own process, one after another,
round by round. Prints steps per second of processor time, the best of the rounds, and the ratio.
"""

import argparse
import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

STEPS, WARM_UP = 1_500, 200
LIBRARIES = ("sb3", "ours torch", "ours onednn")


def main() -> None:
    """Runs all libraries, or one of them where it was started as a worker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, default=Path(sys.executable))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", choices=LIBRARIES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(peer() if args.worker == "sb3" else ours(args.worker.split()[1]))
        return
    best = dict.fromkeys(LIBRARIES, 0.0)
    for _ in range(args.rounds):
        for library in LIBRARIES:
            python = args.peer if library == "sb3" else Path(sys.executable)
            command = [str(python.absolute()), __file__, "--worker", library]
            done = subprocess.run(
                command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, stdout=subprocess.PIPE, text=True
            )
            best[library] = max(best[library], float(done.stdout.split()[-1]))
    print(f"load {os.getloadavg()[0]:.1f}")
    for library, rate in best.items():
        print(f"{library:12s} {rate:7.0f} steps per second of processor time, {rate / best['sb3']:.2f}")


def ours(linear: str) -> float:
    """Our rate."""
    import torch

    from robo_rl.config import RunConfig
    from robo_rl.pendulum import PendulumEnv
    from robo_rl.recipes import sac

    torch.set_num_threads(1)
    algo = dataclasses.replace(sac.CONFIG, warmup_steps=100)
    config = RunConfig("pendulum", num_envs=1, algorithm="sac", algo=algo, linear=linear)
    trainee = sac.prepare(config, PendulumEnv(1))
    while trainee.env_steps < 100 + WARM_UP:
        trainee.iterate()
    first, start = trainee.env_steps, time.process_time()
    while trainee.env_steps < first + STEPS:
        trainee.iterate()
    return (trainee.env_steps - first) / (time.process_time() - start)


def peer() -> float:
    """The rate of stable-baselines3 on Gymnasium's pendulum."""
    import torch
    from stable_baselines3 import SAC  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    model = SAC("MlpPolicy", "Pendulum-v1", learning_starts=100, seed=0, device="cpu")
    model.learn(100 + WARM_UP)
    start = time.process_time()
    model.learn(STEPS, reset_num_timesteps=False)
    return STEPS / (time.process_time() - start)


if __name__ == "__main__":
    main()
