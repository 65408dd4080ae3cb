"""Train a hover policy from Python and fly its first commands: python examples/train_hover.py [STEPS] [OUT].

The default budget is far too small for a good policy; 5,000,000 steps make one in a minute or two.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np

from controllers.artifact import PolicyArtifact
from robo_rl.commands import train


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory() as folder:
        out = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(folder) / "run"
        defaults = train.prepare(["quadrotor/hover"])  # the scene's own settings and hyper-parameters
        outcome = train.run(dataclasses.replace(defaults, steps=steps, num_envs=64, eval_episodes=20, out=out))
        print(f"{outcome.result['env_steps']} steps, success rate {outcome.result['success_rate']:.2f}")
        policy = PolicyArtifact.load(out / "policy.onnx")
        size = policy.interface.group_sizes["policy"]
        command = policy.run({"policy": np.zeros((1, size), dtype=np.float32)})[0]
        print(dict(zip(policy.interface.mode.components, command.astype(float).round(3).tolist(), strict=True)))


if __name__ == "__main__":
    main()
