"""Child processes of a deployment: started in sessions of their own, so that a Ctrl-C ends them in our order."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from hardware.errors import RoboError

GRACE_S = 5.0
"""Time between SIGINT, SIGTERM and SIGKILL."""


class Child:
    """One child; its output is printed line by line with a prefix, unless quiet."""

    def __init__(
        self, name: str, argv: Sequence[str], *, environment: Mapping[str, str] | None = None, quiet: bool = False
    ) -> None:
        self.name = name
        self.last_line = ""
        self._quiet = quiet
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return self._process.poll()

    def wait_for_line(self, start: str, timeout_s: float) -> str:
        """The next line that begins so; raises RoboError with the child's last words where none comes."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(deadline - time.monotonic(), 0.0))
            except queue.Empty:
                raise RoboError(f"{self.name} was not ready after {timeout_s:g} s") from None
            if line is None:
                raise RoboError(f"{self.name} ended: {self.last_line or 'without a word'}")
            if line.startswith(start):
                return line

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Waits for the end; None where it has not come in time."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(timeout=1.0)
        return status

    def interrupt(self) -> None:
        """Asks for an orderly end."""
        if self.status is None:
            self._process.send_signal(signal.SIGINT)

    def stop(self, grace_s: float = GRACE_S) -> int:
        """Ends the child: SIGINT, SIGTERM, SIGKILL, each after a while; returns its exit status."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self.status is None:
                self._process.send_signal(number)
            status = self.wait(grace_s)
            if status is not None:
                break
        self._reader.join(timeout=1.0)
        return self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _read(self) -> None:
        stream = self._process.stdout
        if stream is None:
            return
        with stream:
            for raw in stream:
                line = raw.rstrip("\n")
                self.last_line = line or self.last_line
                self._lines.put(line)
                if not self._quiet:
                    print(f"[{self.name}] {line}", flush=True)
        self._lines.put(None)


def start_emulator(robot: str, time_scale: float, faults: Sequence[str], scene: str | None = None) -> tuple[Child, str]:
    """An emulator on a free port in its own process, and its address; raises RoboError where it does not start."""
    child, ready = start_emulators(robot, time_scale, faults, scene)
    return child, ready["addresses"][0]


def start_emulators(
    robot: str, time_scale: float, faults: Sequence[str], scene: str | None = None, more: Sequence[str] = ()
) -> tuple[Child, dict[str, Any]]:
    """An emulator, with `more` of its flags, on free ports in its own process, and what it says when it is ready."""
    argv = ["robo_rl", "emulate", robot, "--port", "0", "--time-scale", str(time_scale)]
    for fault in faults:
        argv += ["--fault", fault]
    if scene is not None:
        argv += ["--scene", scene]
    child = Child("emulator", [*argv, *more], quiet=True)
    try:
        line = child.wait_for_line("READY ", 60.0)
    except RoboError:
        child.stop()
        raise
    return child, json.loads(line.removeprefix("READY "))
