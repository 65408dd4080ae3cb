"""One child process of a launch: its own process group, its output line by line, its stop by rising signals."""

import contextlib
import ctypes
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import IO

from robo_rl.launch_engine.resolve import Process

STOPPED_BY_US = {-signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGTERM}
"""Statuses of a child that ended as asked."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Stage(IntEnum):
    """How far the stop of a child has gone."""

    RUNNING = 0
    INTERRUPTED = 1
    TERMINATED = 2
    KILLED = 3


_SIGNALS = {
    Stage.INTERRUPTED: signal.SIGINT,
    Stage.TERMINATED: signal.SIGTERM,
    Stage.KILLED: signal.SIGKILL,
}


class Child:
    """A started process and everything it started in turn (one process group)."""

    def __init__(self, process: Process, label: str) -> None:
        """Starts it; raises OSError where that is impossible."""
        self.process, self.label = process, label
        self.stage = Stage.RUNNING
        self.deadline_s = float("inf")
        """Instant on the engine's clock at which the next stage is due."""
        self.status: int | None = None
        """Status of the leader, None while it lives."""
        self.asked = False
        """Whether the leader had been asked to stop when it ended."""
        self._popen = subprocess.Popen(
            process.argv,
            cwd=process.cwd,
            env=dict(process.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_die_with_parent(),
        )
        self.pid = self._popen.pid
        self._partial = {"stdout": b"", "stderr": b""}
        for stream in self.streams().values():
            os.set_blocking(stream.fileno(), False)

    def streams(self) -> dict[str, IO[bytes]]:
        """The pipes that are still open, by name."""
        both = {"stdout": self._popen.stdout, "stderr": self._popen.stderr}
        return {k: s for k, s in both.items() if s is not None and not s.closed}

    def read(self, name: str, emit: Callable[[str], None], *, last: bool = False) -> bool:
        """Passes on the lines that have arrived; False once the pipe is at its end and closed.

        `last`: nothing more is awaited, so everything the pipe holds is passed on and it is closed.
        """
        stream = self.streams()[name]
        open_still = True
        while open_still:
            try:
                data = os.read(stream.fileno(), 65536)
            except BlockingIOError:
                break
            open_still = bool(data)
            *lines, self._partial[name] = (self._partial[name] + data).split(b"\n")
            for line in lines:
                emit(_text(line))
            if not last:
                break
        open_still = open_still and not last
        if not open_still:
            if self._partial[name]:
                emit(_text(self._partial[name]))
            stream.close()
        return open_still

    def poll(self) -> int | None:
        """Status of the leader once it has ended."""
        if self.status is None:
            self.status = self._popen.poll()
            self.asked = self.stage > Stage.RUNNING
        return self.status

    def group_alive(self) -> bool:
        """Whether anything of the process group still lives."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # a member that changed its user is beyond our signals
            return False
        return not _only_zombies(self.pid)

    def signal(self, stage: Stage, now_s: float) -> None:
        """Moves the whole group to a stage of its stop and notes when the next one is due."""
        self.stage = stage
        patience = {Stage.INTERRUPTED: self.process.sigterm_s, Stage.TERMINATED: self.process.sigkill_s}
        self.deadline_s = now_s + patience.get(stage, float("inf"))
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, _SIGNALS[stage])


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")


def _only_zombies(group: int) -> bool:
    """Whether all members of a group are dead and merely not collected by their parent (Linux only)."""
    if not sys.platform.startswith("linux"):
        return False
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"/proc/{entry.name}/stat", "rb") as file:  # noqa: PTH123 - hot loop over /proc
                state, _, pgrp = file.read().rpartition(b") ")[2].split()[:3]
        except OSError as e:
            if e.errno not in (errno.ENOENT, errno.ESRCH):
                raise
            continue
        if int(pgrp) == group and state not in (b"Z", b"X"):
            return False
    return True


def _die_with_parent() -> Callable[[], None] | None:
    """Asks the kernel to terminate the child should the engine itself be killed outright; Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
