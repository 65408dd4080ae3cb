"""What a check says, and how to try something without putting this process at risk."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROBE_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    ok: bool
    detail: str
    """What was found."""
    mend: str = ""
    """The one line that mends it; empty where nothing is to be done."""
    core: bool = False
    """Whether the robot side and the command line depend on it; the others are optional."""


def probe(code: str, environment: Mapping[str, str] | None = None) -> tuple[bool, str]:
    """Runs Python code in its own process: whether it ended well, and the last line it printed (or its error's)."""
    env = {**os.environ, **(environment or {})}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {PROBE_TIMEOUT_S:.0f} s"
    lines = [line for line in (done.stdout if done.returncode == 0 else done.stderr).splitlines() if line.strip()]
    status = f"ended by signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
    return done.returncode == 0, lines[-1].strip() if lines else status


def repository() -> Path | None:
    """The repository this package runs from, None where it is installed."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else None


def install_line(extra: str) -> str:
    """The command that installs an extra of this package (the plain package for '')."""
    bracket = f"[{extra}]" if extra else ""
    if repository():
        return f"{sys.executable} -m pip install -c constraints.txt -e '.{bracket}'  # in {repository()}"
    return f"{sys.executable} -m pip install 'robo_rl{bracket}'"
