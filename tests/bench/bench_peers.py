"""PPO throughput beside rsl-rl-lib and stable-baselines3: same world, networks, batches, allocator and threads.

    python tests/bench/bench_peers.py --rounds 3 --out table.md

Makes a throw-away virtual environment for the peers (or takes --venv DIR), then runs every library in its own
process, one after another, round by round, so that all meet the same load. Prints steps per second by wall time and
by processor time, the median over all iterations of all rounds. The peers use the hyper-parameters of their own
documentation for this kind of task; rsl-rl also with its documented `torch_compile_mode`. Ours normalises
observations; rsl-rl is given its normaliser too, stable-baselines3 has none for torch and goes without.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PEERS = ("rsl-rl-lib==5.5.1", "stable-baselines3==2.9.2")


@dataclass(frozen=True)
class Setting:
    """One benchmark: N environments of D pendula, T steps per rollout."""

    title: str
    num_envs: int
    pendula: int
    hidden: tuple[int, ...]
    rollout: int
    epochs: int
    minibatches: int
    iterations: int


SETTINGS = {
    "small": Setting("4096 envs, 3->64x64", 4096, 1, (64, 64), 24, 5, 4, 8),
    "large": Setting("4096 envs, 36->256x128", 4096, 12, (256, 128), 24, 5, 4, 4),
    "few": Setting("64 envs, 3->64x64, minibatches of 256", 64, 1, (64, 64), 32, 10, 8, 60),
}
LIBRARIES = (
    "rsl-rl",
    "rsl-rl compiled",
    "sb3",
    "ours portable",
    "ours oneDNN",
    "ours compiled",
    "ours oneDNN+compiled",
)
WARM_UP = 2


def main() -> None:
    """Runs all libraries in all settings, or one of them where it was started as a worker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--venv", type=Path, help="virtual environment that has the peers")
    parser.add_argument("--out", type=Path, help="write the table here too")
    parser.add_argument("--worker", nargs=2, metavar=("LIBRARY", "SETTING"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(work(args.worker[0], SETTINGS[args.worker[1]])))
        return
    with tempfile.TemporaryDirectory() as folder:
        python = (args.venv or make_venv(Path(folder) / "peers")) / "bin" / "python"
        results = measure(python.absolute(), args)
    text = table(results, args)
    print(text)
    if args.out:
        args.out.write_text(text)


def make_venv(path: Path) -> Path:
    """A virtual environment with the peers, on top of this one's packages."""
    subprocess.run([sys.executable, "-m", "venv", str(path)], check=True)
    (site,) = path.glob("lib/python*/site-packages")
    (site / "host.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")) + "\n")
    subprocess.run([str(path / "bin/python"), "-m", "pip", "install", "-q", *PEERS], check=True)
    return path


def measure(python: Path, args: argparse.Namespace) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(setting, library) -> (wall s, processor s) of every iteration, all rounds."""
    from robo_rl.launcher import tuned

    root = str(Path(__file__).resolve().parents[2])
    env = tuned(dict(os.environ)) | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    results: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for number in range(args.rounds):
        for setting in args.settings:
            for library in args.libraries:
                command = [str(python), __file__, "--worker", library, setting]
                done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    sys.exit(f"{library} failed: {done.stderr[-2000:]}")
                found = json.loads(done.stdout.splitlines()[-1])
                results.setdefault((setting, library), []).extend(map(tuple, found))
                print(
                    f"round {number + 1} {setting} {library}: {rate(SETTINGS[setting], found, 0):,.0f}/s",
                    file=sys.stderr,
                )
    return results


def rate(setting: Setting, iterations: Any, column: int) -> float:
    """Environment steps per second of the median iteration."""
    return setting.num_envs * setting.rollout / statistics.median(row[column] for row in iterations)


def table(results: dict[tuple[str, str], list[tuple[float, float]]], args: argparse.Namespace) -> str:
    """Markdown: one block per setting, ratios to rsl-rl and to stable-baselines3 by processor time."""
    from robo_rl.runs import commit_of_source, cpu_name

    lines = [
        f"Machine: {cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end; one thread each; "
        f"commit {commit_of_source()[0][:12]}.",
    ]
    for name in args.settings:
        setting = SETTINGS[name]
        lines += [
            "",
            f"| {setting.title} | steps/s, wall | steps/s, CPU time | x rsl-rl | x sb3 |",
            "|---|---:|---:|---:|---:|",
        ]
        cpu = {lib: rate(setting, results[name, lib], 1) for lib in args.libraries}
        for lib in args.libraries:
            to = [f"{cpu[lib] / cpu[peer]:.2f}" if peer in cpu else "-" for peer in ("rsl-rl", "sb3")]
            lines.append(
                f"| {lib} | {rate(setting, results[name, lib], 0):,.0f} | {cpu[lib]:,.0f} | {to[0]} | {to[1]} |"
            )
    return "\n".join(lines) + "\n"


class Stopwatch:
    """Times whole iterations of any library, from the first environment step of one rollout to that of the next."""

    def __init__(self, rollout: int) -> None:
        self.rollout, self.calls = rollout, 0
        self.marks: list[tuple[float, float]] = []

    def tick(self) -> None:
        """To be called once per step of all environments."""
        if self.calls % self.rollout == 0:
            self.marks.append((time.perf_counter(), time.process_time()))
        self.calls += 1

    def iterations(self) -> list[tuple[float, float]]:
        """(wall s, processor s) per iteration after the warm-up."""
        pairs = zip(self.marks[WARM_UP:], self.marks[WARM_UP + 1 :], strict=False)
        return [(b[0] - a[0], b[1] - a[1]) for a, b in pairs]


def work(library: str, setting: Setting) -> list[tuple[float, float]]:
    """Trains with one library and returns its iteration times."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    watch = Stopwatch(setting.rollout)
    rounds = WARM_UP + setting.iterations + 1
    if library.startswith("ours"):
        ours(setting, rounds, watch, onednn="oneDNN" in library, compiled="compiled" in library)
    elif library.startswith("rsl-rl"):
        rsl_rl(setting, rounds, watch, compiled="compiled" in library)
    else:
        sb3(setting, rounds, watch)
    return watch.iterations()


def ours(setting: Setting, rounds: int, watch: Stopwatch, *, onednn: bool, compiled: bool) -> None:
    """robo_rl."""
    from robo_rl.config import PPOConfig, RunConfig
    from robo_rl.pendulum import PendulumEnv
    from robo_rl.recipes.ppo import prepare

    class Watched(PendulumEnv):
        def step(self, action: Any) -> Any:
            watch.tick()
            return super().step(action)

    algo = PPOConfig(
        rollout_steps=setting.rollout,
        epochs=setting.epochs,
        minibatches=setting.minibatches,
        hidden=setting.hidden,
        init_std=1.0,
        clip_value=True,
        target_kl=0.01,
        learning_rate_max=1e-2,
    )
    config = RunConfig(
        "pendulum", num_envs=setting.num_envs, linear="onednn" if onednn else "torch", compile=compiled, algo=algo
    )
    training = prepare(config, Watched(setting.num_envs, setting.pendula))
    for _ in range(rounds):
        training.iterate()


def rsl_rl(setting: Setting, rounds: int, watch: Stopwatch, *, compiled: bool) -> None:
    """rsl-rl-lib with its documented defaults."""
    import contextlib
    import io

    import torch
    from rsl_rl.runners import OnPolicyRunner
    from tensordict import TensorDict

    from robo_rl.pendulum import PendulumEnv

    class Adapter:
        def __init__(self) -> None:
            self.env = PendulumEnv(setting.num_envs, setting.pendula)
            self.num_envs, self.num_actions = setting.num_envs, setting.pendula
            self.max_episode_length, self.device, self.cfg = self.env.episode, "cpu", {}
            self.obs = self.env.reset(0)["policy"]

        @property
        def episode_length_buf(self) -> Any:
            return self.env.age

        @episode_length_buf.setter
        def episode_length_buf(self, value: Any) -> None:
            self.env.age = value

        def get_observations(self) -> Any:
            return TensorDict({"policy": self.obs}, batch_size=[self.num_envs])

        def step(self, actions: Any) -> Any:
            watch.tick()
            step = self.env.step(actions)
            self.obs = step.obs["policy"]
            return self.get_observations(), step.reward, step.truncated, {"time_outs": step.truncated}

    def net(**more: Any) -> dict[str, Any]:
        common = {"class_name": "MLPModel", "hidden_dims": list(setting.hidden), "activation": "elu"}
        return common | {"obs_normalization": True} | more

    config = {
        "num_steps_per_env": setting.rollout,
        "save_interval": 10**9,
        "check_for_nan": False,
        "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
        "torch_compile_mode": "default" if compiled else None,
        "multi_gpu": None,
        "actor": net(distribution_cfg={"class_name": "GaussianDistribution", "init_std": 1.0, "std_type": "scalar"}),
        "critic": net(),
        "algorithm": {
            "class_name": "PPO",
            "num_learning_epochs": setting.epochs,
            "num_mini_batches": setting.minibatches,
            "clip_param": 0.2,
            "gamma": 0.99,
            "lam": 0.95,
            "value_loss_coef": 1.0,
            "entropy_coef": 0.0,
            "learning_rate": 1e-3,
            "max_grad_norm": 1.0,
            "use_clipped_value_loss": True,
            "schedule": "adaptive",
            "desired_kl": 0.01,
        },
    }
    with contextlib.redirect_stdout(io.StringIO()), torch.random.fork_rng():
        OnPolicyRunner(Adapter(), config, log_dir=None, device="cpu").learn(rounds, init_at_random_ep_len=True)


def sb3(setting: Setting, rounds: int, watch: Stopwatch) -> None:
    """stable-baselines3, its VecEnv around the same torch world (which costs one copy each way)."""
    import numpy as np
    import torch
    from gymnasium.spaces import Box
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecEnv

    from robo_rl.pendulum import PendulumEnv

    class Adapter(VecEnv):
        def __init__(self) -> None:
            self.env = PendulumEnv(setting.num_envs, setting.pendula)
            self.empty: list[dict[str, Any]] = [{} for _ in range(setting.num_envs)]
            size, actions = 3 * setting.pendula, setting.pendula
            super().__init__(
                setting.num_envs,
                Box(-np.inf, np.inf, (size,), np.float32),
                Box(-1.0, 1.0, (actions,), np.float32),
            )

        def reset(self) -> Any:
            obs = self.env.reset(0)["policy"].numpy().copy()
            self.env.stagger()
            return obs

        def step_async(self, actions: Any) -> None:
            watch.tick()
            self.actions = torch.from_numpy(actions)

        def step_wait(self) -> Any:
            step = self.env.step(self.actions)
            infos = self.empty
            ended = step.truncated.nonzero()[:, 0].tolist()
            if ended:
                infos = list(self.empty)
                for i in ended:
                    last = step.final_obs["policy"][i].numpy().copy()
                    infos[i] = {"terminal_observation": last, "TimeLimit.truncated": True}
            return step.obs["policy"].numpy().copy(), step.reward.numpy(), step.truncated.numpy(), infos

        def close(self) -> None: ...

        def get_attr(self, attr_name: str, indices: Any = None) -> Any:
            return [None] * self.num_envs

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None: ...

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
            return [None] * self.num_envs

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> Any:
            return [False] * self.num_envs

    rows = setting.num_envs * setting.rollout
    model = PPO(
        "MlpPolicy",
        Adapter(),
        n_steps=setting.rollout,
        batch_size=rows // setting.minibatches,
        n_epochs=setting.epochs,
        learning_rate=1e-3,
        gamma=0.99,
        gae_lambda=0.95,
        clip_range=0.2,
        max_grad_norm=1.0,
        policy_kwargs={
            "net_arch": {"pi": list(setting.hidden), "vf": list(setting.hidden)},
            "activation_fn": torch.nn.ELU,
        },
        device="cpu",
    )
    model.learn(rounds * rows)


if __name__ == "__main__":
    main()
