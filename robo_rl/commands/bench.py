"""Measure speed on this machine: steps per second of scenes and training, and the latency of policies.

Rates are given by wall time and by processor time (which a busy machine disturbs less), beside the load average. The
comparison with other libraries is a script of its own, tests/bench/bench_peers.py.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tyro.conf import Positional

from hardware.errors import BadInput, NotFoundError
from robo_rl.cli import Outcome


@dataclass(frozen=True)
class Args:
    """Arguments of `robo-rl bench`."""

    scene: Positional[str | None] = None
    """Scene to measure; none measures all, and training on pendula, which shows the learner's own speed."""
    num_envs: int = 1024
    """Environments stepped as one batch."""
    seconds: float = 3.0
    """Time spent on each figure."""
    compile: bool = False
    """Measure what is compiled too (10 to 20 s more per figure)."""
    relaunch: bool = True
    """Restart the process once with a faster allocator and quiet threads."""


def run(args: Args) -> Outcome:
    """Prints a table; the result holds every figure, the load average and the thread count."""
    from robo_rl import launcher
    from sim.registry import scene_ids

    if args.scene is not None and args.scene not in scene_ids():
        raise NotFoundError("scene", args.scene, scene_ids())
    if args.num_envs < 1 or args.seconds <= 0:
        raise BadInput("--num-envs and --seconds: expected positive numbers")
    if args.relaunch:
        launcher.relaunch()
    import torch

    from robo_rl.runs import commit_of_source, cpu_name

    torch.set_num_threads(1)
    machine = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average_start": os.getloadavg()[0],
        "allocator": launcher.allocator(),
        "commit": commit_of_source()[0],
    }
    print(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_average_start']:.2f}, ", end="")
    print(f"{machine['threads']} thread, {machine['allocator']} allocator", flush=True)
    rows = _products()
    if args.scene is None:
        rows += _training_pendulum(args)
    for scene in [args.scene] if args.scene else scene_ids():
        rows += _scene(scene, args)
    machine["load_average_end"] = os.getloadavg()[0]
    return Outcome({**machine, "figures": rows})


def _products() -> list[dict[str, Any]]:
    """How oneDNN's product compares with torch's on typical layers."""
    from robo_rl import fast_linear

    rows = []
    for count, width in ((256, 64), (6144, 64), (6144, 256)):
        name, _, gain = fast_linear.choose("auto", count, (width,), "cpu")
        rows.append(_said(f"dense layer, {count} rows of {width}", {"chosen": name, "onednn_gain": round(gain, 2)}))
    return rows


def _training_pendulum(args: Args) -> list[dict[str, Any]]:
    """Training on a world that costs nothing: the learner's own speed."""
    from robo_rl.config import PPOConfig, RunConfig
    from robo_rl.pendulum import PendulumEnv
    from robo_rl.recipes.ppo import prepare

    few = PPOConfig(rollout_steps=32, epochs=10, minibatches=8)
    rows = []
    for num_envs, algo in ((4096, PPOConfig()), (64, few)):
        for linear in ("torch", "onednn"):
            for compiled in (False, True) if args.compile else (False,):
                config = RunConfig("pendulum", num_envs=num_envs, linear=linear, compile=compiled, algo=algo)
                training = prepare(config, PendulumEnv(num_envs))
                rates = _rates(lambda t=training: t.iterate(), num_envs * algo.rollout_steps, args.seconds)
                how = f"{linear}{', compiled' if compiled else ''}"
                rows.append(_said(f"PPO, {num_envs} pendula, 64x64, {how}", rates))
    return rows


def _scene(scene: str, args: Args) -> list[dict[str, Any]]:
    """A scene's steps, its training, and the latency of its stored policies."""
    import torch

    from robo_rl.job import default_config
    from robo_rl.recipes.ppo import prepare
    from sim.registry import make_env, scene_entry

    rows = []
    for mode in _modes(scene):
        config = default_config(scene, mode, "ppo")
        name = f"{scene}{f' {mode}' if mode else ''}"
        env = make_env(scene, args.num_envs, config=config.scene_config)
        action = torch.zeros(args.num_envs, len(env.spec.action))
        rates = _rates(lambda env=env, action=action: env.step(action), args.num_envs, args.seconds)
        rows.append(_said(f"{name}: stepping {args.num_envs} environments", rates))
        share = config.num_envs // config.processes
        training = prepare(config, make_env(scene, share, config=config.scene_config))
        rates = _rates(lambda t=training: t.iterate(), share * config.algo.rollout_steps, args.seconds)
        rows.append(_said(f"{name}: PPO, one process with {share} environments", rates))
    speed = scene_entry(scene).speed
    for what, steps, work in speed(args.num_envs, args.compile) if speed else ():
        rows.append(_said(what, _rates(work, steps, args.seconds)))
    return rows + _latencies(scene, args.seconds)


def _modes(scene: str) -> list[str | None]:
    from sim.registry import scene_entry

    return list(scene_entry(scene).training) or [None]


def _latencies(scene: str, seconds: float) -> list[dict[str, Any]]:
    """Time of one command for one observation, through the policy file."""
    import numpy as np

    from controllers.artifact import PolicyArtifact, read_card
    from robo_rl import zoo

    rows = []
    for name in zoo.names():
        path = zoo.resolve(zoo.PREFIX + name)
        if read_card(path).scene != scene:
            continue
        artifact = PolicyArtifact.load(path)
        obs = {k: v[:1] for k, v in artifact.probes.observation.items()}
        times = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter_ns()
            artifact.run(obs)
            times.append(time.perf_counter_ns() - start)
        p50, p99 = np.percentile(times, [50, 99]) / 1e3
        rows.append(_said(f"policy zoo:{name}, one command", {"p50_us": round(p50, 1), "p99_us": round(p99, 1)}))
    return rows


def _rates(work: Callable[[], Any], steps: int, seconds: float) -> dict[str, float]:
    """Environment steps per second of the median call, by wall and by processor time, after a warm-up."""
    for _ in range(3):
        work()
    walls, cpus = [], []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(walls) < 3:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    middle = len(walls) // 2
    return {
        "steps_per_s_wall": round(steps / sorted(walls)[middle], 1),
        "steps_per_s_cpu": round(steps / sorted(cpus)[middle], 1),
    }


def _said(name: str, values: dict[str, Any]) -> dict[str, Any]:
    words = ", ".join(f"{k.replace('_', ' ')} {v:,}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
    print(f"  {name:<60} {words}", flush=True)
    return {"name": name, **values}
