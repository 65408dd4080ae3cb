"""A real `robo-rl emulate` process, reached as a client would reach it."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def emulated(robot: str, *arguments: str) -> Iterator[list[str]]:
    """Serves a robot on free ports; gives its addresses. Afterwards the process must end by SIGTERM with status 0."""
    with served(robot, *arguments) as ready:
        yield ready["addresses"]


@contextmanager
def served(robot: str, *arguments: str) -> Iterator[dict[str, Any]]:
    """As `emulated`; gives everything that the line beginning with READY says."""
    command = [sys.executable, "-m", "robo_rl", "emulate", robot, "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("READY "):
                yield json.loads(line.removeprefix("READY "))
                break
        else:
            raise AssertionError(process.communicate()[1])
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
