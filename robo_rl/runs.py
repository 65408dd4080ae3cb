"""Run directories: what one training run leaves behind, and how to find and compare it."""

import csv
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hardware.errors import BadInput
from robo_rl.config import RunConfig, read_yaml, write_yaml
from robo_rl.launcher import allocator

ROOT = Path("runs")
VERSIONS = ("robo_rl", "torch", "numpy", "onnx", "onnxruntime", "gymnasium", "mujoco")


@dataclass(frozen=True)
class RunDir:
    """Paths inside one run directory."""

    path: Path

    @property
    def config(self) -> Path:
        """Resolved configuration; `--config` replays it."""
        return self.path / "config.yaml"

    @property
    def meta(self) -> Path:
        """Commit, versions, command line, machine."""
        return self.path / "meta.json"

    @property
    def metrics(self) -> Path:
        """One row per update; nothing in it depends on the clock."""
        return self.path / "metrics.csv"

    @property
    def timing(self) -> Path:
        """Wall and processor time per update."""
        return self.path / "timing.csv"

    @property
    def checkpoints(self) -> Path:
        """States to resume from."""
        return self.path / "checkpoints"

    @property
    def policy(self) -> Path:
        """The exported policy."""
        return self.path / "policy.onnx"

    @property
    def evaluation(self) -> Path:
        """Result of the evaluation after training."""
        return self.path / "eval.json"

    @property
    def done(self) -> Path:
        """Result of the whole run; present once the budget was reached."""
        return self.path / "DONE"


def create(config: RunConfig, out: Path | None, name: str, argv: list[str]) -> RunDir:
    """A new run directory with config.yaml and meta.json; raises BadInput where one is already there."""
    if out is None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        out = ROOT / config.scene / f"{stamp}-{name}-s{config.seed}"
    run = RunDir(out)
    if run.config.exists():
        raise BadInput(f"{out} already holds a run; resume it with --resume {out}, or give another --out")
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    write_yaml(config, run.config)
    write_json(run.meta, describe(argv))
    return run


def describe(argv: list[str]) -> dict[str, Any]:
    """Commit, versions, command line and machine: what a number needs beside it."""
    commit, dirty = commit_of_source()
    return {
        "commit": commit,
        "uncommitted_changes": dirty,
        "argv": argv,
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in VERSIONS},
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "allocator": allocator(),
    }


def commit_of_source() -> tuple[str, bool]:
    """The commit this code stands at and whether files differ from it; ("unknown", False) outside a repository."""
    root = Path(__file__).resolve().parent.parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return "unknown", False
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False


def cpu_name() -> str:
    """The processor's own name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def open_run(path: Path) -> RunDir:
    """An existing run directory; raises BadInput where there is none."""
    run = RunDir(path)
    if not run.config.is_file():
        raise BadInput(f"{path} is no run directory: it holds no config.yaml")
    return run


def find(root: Path) -> list[RunDir]:
    """All runs below a folder, oldest first."""
    return [RunDir(p.parent) for p in sorted(root.rglob("config.yaml"), key=lambda p: p.stat().st_mtime)]


def summary(run: RunDir) -> dict[str, Any]:
    """One line of a comparison: what was run, how far it came, how good it is."""
    config, evaluation = read_yaml(run.config), read_json(run.evaluation)
    last = _last_row(run.metrics)
    return {
        "name": str(run.path),
        "scene": config["scene"],
        "seed": config.get("seed", 0),
        "state": "done" if run.done.exists() else "resumable" if any(run.checkpoints.glob("*.pt")) else "empty",
        "env_steps": int(float(last.get("env_steps", 0) or 0)),
        "return_mean": evaluation.get("return_mean"),
        "success_rate": evaluation.get("success_rate"),
        "commit": read_json(run.meta).get("commit", "unknown"),
        "config": config,
    }


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    aside.write_text(json.dumps(value, indent=2) + "\n")
    aside.replace(path)


def command_line() -> list[str]:
    """The words this process was started with, the program's path shortened to its name."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _last_row(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="") as f:
            rows = list(csv.DictReader(f))
    except OSError:
        return {}
    return rows[-1] if rows else {}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
