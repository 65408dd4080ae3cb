"""Export a run's policy again, from its newest checkpoint; or turn a policy into C for a microcontroller.

With --c DIR the policy, of a run or of a file, is also written as C99 without heap or library: policy.h, policy.c, and
policy_check.c, which replays the policy's own probes. With --crazyflie DIR it becomes an app-layer folder of the
Crazyflie firmware: the policy, the code that makes its observation of the drone's state, peers and obstacles, the
out-of-tree controller around both, and a README with the commands that build and flash it. Where gcc,
arm-none-eabi-gcc and qemu-system-arm are installed, the code is compiled and run with them, and its size, stack and
instructions per decision are reported.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from robo_rl.cli import Outcome


@dataclass(frozen=True)
class Args:
    """Arguments of `robo-rl export`."""

    run: Positional[str]
    """Run directory; with --c or --crazyflie also a .onnx file or zoo:NAME."""
    out: Path | None = None
    """Policy file to write (default: RUN/policy.onnx)."""
    c: Path | None = None
    """Directory for the policy as C."""
    crazyflie: Path | None = None
    """Directory for the policy as a controller of the Crazyflie firmware (policies of mode rotor_thrust)."""
    obstacles: Path | None = None
    """With --crazyflie: TOML file of the room's obstacles, centres_m = [[x, y], ...] and radius_m = r or [r, ...]."""


def run(args: Args) -> Outcome:
    """Writes the files; the result is the policy's contract card, with the C code's figures under `c`, `crazyflie`."""
    import json

    from controllers.artifact import PolicyArtifact
    from hardware.errors import BadInput
    from robo_rl.zoo import resolve

    if args.obstacles is not None and args.crazyflie is None:
        raise BadInput("--obstacles belongs to --crazyflie DIR: C without a controller sees an observation only")
    result: dict[str, Any] = {}
    if (args.c is None and args.crazyflie is None) or args.out is not None or Path(args.run).is_dir():
        path = _export(args, result)
    else:
        path = resolve(args.run)
    artifact = PolicyArtifact.load(path)
    result = json.loads(artifact.card.to_json()) | {"policy": str(path)} | result
    if args.c is not None:
        result["c"] = _write_c(artifact, args.c)
    if args.crazyflie is not None:
        result["crazyflie"] = _write_crazyflie(artifact, args.crazyflie, args.obstacles)
    return Outcome(result)


def _export(args: Args, result: dict[str, Any]) -> Path:
    from robo_rl import job, runs
    from robo_rl.config import read_yaml
    from robo_rl.distributed import Group

    folder = runs.open_run(Path(args.run))
    config = job.config_of(read_yaml(folder.config))
    trainee, steps = job.start(config, Group(0, config.processes), folder.checkpoints)
    path = args.out or folder.policy
    command = runs.read_json(folder.meta).get("argv") or runs.command_line()
    path.parent.mkdir(parents=True, exist_ok=True)
    difference = result["export_difference"] = job.export(config, trainee, path, command)
    evaluation = runs.read_json(folder.evaluation)
    done = runs.read_json(folder.done)
    if evaluation and done.get("env_steps") == steps:  # it was made of this very checkpoint
        job.write_evaluation_into(path, evaluation)
    print(f"{path}: {config.scene}, {steps:,} steps; differs from torch by at most {difference:.1g} (action units)")
    return path


def _write_c(artifact: Any, folder: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from robo_rl.export_c.report import POLICY, report
    from robo_rl.export_c.source import FILES, write_c

    footprint = write_c(artifact, folder)
    print(f"{folder}: {', '.join(FILES)}; {footprint.parameters} constants, {footprint.buffer_bytes} bytes of buffer")
    figures = report(folder, POLICY)
    _print_figures(figures)
    return asdict(footprint) | {"folder": str(folder)} | figures


def _write_crazyflie(artifact: Any, folder: Path, obstacles: Path | None) -> dict[str, Any]:
    from dataclasses import asdict

    from hardware.robots.crazyflie.obstacles import read_obstacles
    from robo_rl.export_c.crazyflie import write_crazyflie
    from robo_rl.export_c.report import ONBOARD, beyond_limits, report

    written = write_crazyflie(artifact, folder, None if obstacles is None else read_obstacles(obstacles))
    print(
        f"{folder}: controller with {written.footprint.parameters} constants and {written.observation_size} "
        f"observed numbers, deciding every {written.period_ms} ms; see {folder / 'README.md'}"
    )
    figures = report(folder, ONBOARD)
    _print_figures(figures)
    beyond = beyond_limits(figures["cortex_m4"]) if "cortex_m4" in figures else []
    if beyond:
        print(f"  too much for the drone: {'; '.join(beyond)}")
    sizes = {"observation": written.observation_size, "period_ms": written.period_ms, "beyond_limits": beyond}
    return asdict(written.footprint) | sizes | {"folder": str(folder)} | figures


def _print_figures(figures: dict[str, Any]) -> None:
    for machine, found in figures.items():
        print(f"  {machine}: {', '.join(f'{name} {value}' for name, value in found.items())}")
    if not figures:
        print("  not compiled: neither gcc nor arm-none-eabi-gcc is installed")
