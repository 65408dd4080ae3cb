"""Run a launch file (ROS 2 launch YAML) with the embedded engine, or hand it to the genuine ROS 2 launch.

FILE is a path or the name of a shipped file (train, emulate, deploy, record, replay, demo).
Arguments are given as key:=value; --show-args lists them.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from hardware.errors import RoboError
from robo_rl.cli import Outcome
from robo_rl.launch_engine import files, resolve
from robo_rl.launch_engine.output import Output
from robo_rl.launch_engine.parse import Description, load
from robo_rl.launch_engine.run import child_environment
from robo_rl.launch_engine.run import run as run_description
from robo_rl.launch_engine.substitutions import Context


@dataclass(frozen=True)
class Args:
    """What to launch and how."""

    file: Positional[str]
    """Path or name of a launch file."""
    arguments: Positional[tuple[str, ...]] = ()
    """Arguments of the launch file, as key:=value."""
    engine: Literal["embedded", "ros"] = "embedded"
    """Who runs it: this program, or the genuine ROS 2 launch (which returns 0 even when a child fails)."""
    dry_run: bool = False
    """Print the resolved plan and start nothing."""
    show_args: bool = False
    """List the file's arguments and start nothing."""
    log_dir: Path | None = None
    """Directory for the logs of this run; by default a new one below $ROS_LOG_DIR, else below runs/launch."""


def run(args: Args) -> Outcome:
    """Runs the file; the exit status is the first non-zero one of its children."""
    path = files.find(args.file)
    given = files.given_arguments(args.arguments)
    if args.engine == "ros":
        return Outcome({"file": str(path)}, _hand_over(path, args))
    description = load(path)
    log_directory = args.log_dir or _log_directory(path)
    environment = child_environment(os.environ, sys.executable, log_directory.resolve())
    context = Context(dict(given), environment, description.file)
    arguments = resolve.arguments_of(description, context)
    if args.show_args:
        print(files.describe_arguments(arguments))
        return Outcome([vars(a) for a in arguments])
    plan = _checked_plan(description, context, arguments, given)
    if args.dry_run:
        print("\n".join(_plan_lines(plan, environment)) or "nothing to do")
        return Outcome([_plain(t, effect, environment) for t, effect in plan])
    output = Output(log_directory)
    output.engine(f"logs of this run: {log_directory}")
    try:
        status = run_description(description, context, output)
    finally:
        output.close()
    return Outcome({"file": str(path), "status": status, "log_dir": str(log_directory)}, status)


def _checked_plan(
    description: Description, context: Context, arguments: list[resolve.Argument], given: dict[str, str]
) -> list[tuple[float, resolve.Effect]]:
    """The plan, after everything that can be known before the first child starts has been checked."""
    rehearsal = context.copy()
    static = {a.name for a in arguments}
    try:
        plan = resolve.plan(description, rehearsal)
    except RoboError:
        files.check_known(given, static | rehearsal.declared)  # a misspelt argument explains more
        raise
    files.check_known(given, static | rehearsal.declared)
    for t, effect in plan:
        if isinstance(effect, resolve.Process) and t == 0.0:
            _check_startable(effect)
    return plan


def _check_startable(process: resolve.Process) -> None:
    if process.cwd is not None and not Path(process.cwd).is_dir():
        raise RoboError(f"{process.where}.cwd: '{process.cwd}' is not a directory")
    folder = process.cwd or os.curdir
    name = process.argv[0]
    where = str(Path(folder) / name) if os.sep in name else name
    if shutil.which(where, path=process.environment.get("PATH")) is None:
        raise RoboError(f"{process.where}.cmd: executable '{name}' not found")


def _plan_lines(plan: list[tuple[float, resolve.Effect]], base: dict[str, str]) -> list[str]:
    lines = []
    for t, effect in plan:
        lines.append(f"{t:8.3f} s  {_plan_line(effect)}")
        if isinstance(effect, resolve.Process):
            lines += [f"            env {k}={v}" for k, v in _changes(effect, base).items()]
    return lines


def _plan_line(effect: resolve.Effect) -> str:
    if isinstance(effect, resolve.Process):
        notes = [f"cwd {effect.cwd}"] if effect.cwd else []
        notes += [f"respawn after {effect.respawn_delay_s} s"] if effect.respawn else []
        notes += ["shutdown on exit"] if effect.shutdown_on_exit else []
        return f"start {effect.name}: {list(effect.argv)}{'; ' + ', '.join(notes) if notes else ''}"
    if isinstance(effect, resolve.Message):
        return f"log {effect.text}"
    return f"shutdown: {effect.reason}" if isinstance(effect, resolve.Stop) else f"timer {effect.period_s} s"


def _plain(t: float, effect: resolve.Effect, base: dict[str, str]) -> dict[str, Any]:
    if isinstance(effect, resolve.Process):
        env = _changes(effect, base)
        return {"t_s": t, "start": effect.name, "argv": list(effect.argv), "cwd": effect.cwd, "env": env}
    return {"t_s": t, type(effect).__name__.lower(): _plan_line(effect)}


def _changes(process: resolve.Process, base: dict[str, str]) -> dict[str, str | None]:
    """What the launch file changes in the environment; None for a variable it removes."""
    names = sorted({*process.environment, *base})
    changed = {name: process.environment.get(name) for name in names}
    return {name: value for name, value in changed.items() if base.get(name) != value}


def _log_directory(path: Path) -> Path:
    base = Path(os.environ.get("ROS_LOG_DIR") or Path("runs") / "launch")
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return base / f"{stamp}-{path.name.removesuffix(files.SUFFIX)}-{os.getpid()}"


def _hand_over(path: Path, args: Args) -> int:
    """Runs the genuine `ros2 launch` in our place."""
    spec = importlib.util.find_spec("launch")
    command = shutil.which("ros2")
    if spec is None or spec.origin is None or command is None:
        raise RoboError(
            "ROS 2 launch is not installed here (the wheels of the extra [ros2] lack it): "
            "source a ROS 2 installation, or use --engine embedded"
        )
    if args.dry_run:
        raise RoboError("--dry-run needs --engine embedded; ROS 2 launch has no such option")
    words = [command, "launch", str(path), *(["--show-args"] if args.show_args else []), *args.arguments]
    return subprocess.run(words, check=False).returncode
