"""Runs a launch description: starts the children, passes on their output, stops them, leaves no orphan.

One thread, one selector: pipes, timers and signals meet in one loop. Every child leads its own session, so a signal
reaches what it started in turn and Ctrl-C on the terminal reaches the engine alone, which stops the groups by SIGINT,
SIGTERM and SIGKILL.
"""

import heapq
import itertools
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from hardware.errors import BadInput
from robo_rl.launch_engine.child import STOPPED_BY_US, Child, Stage
from robo_rl.launch_engine.output import Output
from robo_rl.launch_engine.parse import Action, Description
from robo_rl.launch_engine.resolve import Message, Process, Stop, Timer, walk
from robo_rl.launch_engine.substitutions import Context

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_S = 0.05
"""How often a child whose pipes are closed is asked whether it has ended."""
_CANNOT_START = 127


def run(description: Description, context: Context, output: Output, now_s: Callable[[], float] = time.monotonic) -> int:
    """Runs until every child has ended and no timer is pending; returns the first non-zero status of a child.

    A child that ends as asked during the stop counts as a success; one that had to be killed does not. A child that
    is respawned counts when it ends for good. Interrupted by SIGINT, SIGTERM or SIGHUP the status is 128 + signal,
    unless a child had failed before.
    """
    engine = _Engine(context, output, now_s)
    with _Signals(engine) as signals:
        engine.selector.register(signals.reader, selectors.EVENT_READ, None)
        try:
            engine.begin(description)
            while engine.busy():
                engine.turn()
        except BaseException:  # a full disk, a defect of ours: the children must not outlive it
            engine.abandon()
            raise
        finally:
            engine.selector.close()
    return engine.status or 0


class _Signals:
    """Turns signals into bytes on a socket, so that the loop wakes; restores the old handlers at the end."""

    def __init__(self, engine: "_Engine") -> None:
        self._engine = engine
        self.reader, self._writer = socket.socketpair()
        for end in (self.reader, self._writer):
            end.setblocking(False)

    def __enter__(self) -> "_Signals":
        heeded = [s for s in _SIGNALS if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN]  # nohup
        self._old = {s: signal.signal(s, self._note) for s in heeded}
        self._old[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)  # wakes the loop
        self._old_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._old_fd)
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self.reader.close()
        self._writer.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._engine.caught.append(number)


class _Engine:
    """The state of one run."""

    def __init__(self, context: Context, output: Output, now_s: Callable[[], float]) -> None:
        self.selector = selectors.DefaultSelector()
        self.caught: list[int] = []
        self.status: int | None = None
        self._context, self._output, self._now_s = context, output, now_s
        self._children: list[Child] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket, self._number = itertools.count(), itertools.count(1)
        self._stopping = False

    def begin(self, description: Description) -> None:
        """Walks the file."""
        self._perform(Timer(0.0, description.actions, description.file))

    def busy(self) -> bool:
        """Whether anything is still to happen."""
        return bool(self._children or self._timers or self.caught)

    def turn(self) -> None:
        """Waits for the next event and deals with everything that is due."""
        for key, _ in self.selector.select(self._pause_s()):
            if key.data is None:
                _drain(key.fileobj)
            else:
                self._read(*key.data)
        while self.caught:
            self._on_signal(self.caught.pop(0))
        while self._timers and self._timers[0][0] <= self._now_s():
            heapq.heappop(self._timers)[2]()
        for child in list(self._children):
            self._look_after(child)

    def abandon(self) -> None:
        """Ends every child without the loop: the engine itself has failed."""
        for stage in (Stage.TERMINATED, Stage.KILLED):
            for child in self._children:
                child.signal(stage, self._now_s())
            end_s = self._now_s() + max((c.process.sigkill_s for c in self._children), default=0.0)
            while self._children and self._now_s() < end_s:
                self._children = [c for c in self._children if c.poll() is None or c.group_alive()]
                time.sleep(_POLL_S)

    def _pause_s(self) -> float:
        deadlines = [c.deadline_s for c in self._children] + [t for t, *_ in self._timers[:1]]
        pause = min(deadlines, default=1.0) - self._now_s()
        if any(not c.streams() or c.poll() is not None for c in self._children):
            pause = min(pause, _POLL_S)
        return min(max(pause, 0.0), 0.5)

    def _walk(self, actions: tuple[Action, ...]) -> None:
        for effect in walk(actions, self._context):
            if isinstance(effect, Process):
                self._start(effect, f"{effect.name}-{next(self._number)}")
            elif isinstance(effect, Timer):
                self._after(effect.period_s, lambda e=effect: self._perform(e))
            elif isinstance(effect, Message):
                self._output.engine(effect.text)
            elif isinstance(effect, Stop):
                self._stop(effect.reason)
                return

    def _perform(self, timer: Timer) -> None:
        self._context.file = timer.file
        try:
            self._walk(timer.actions)
        except BadInput as e:
            self._output.engine(str(e), "ERROR")
            self._fail(1)
            self._stop("the launch file failed")

    def _after(self, period_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self._now_s() + period_s, next(self._ticket), action))

    def _start(self, process: Process, label: str) -> None:
        try:
            child = Child(process, label)
        except OSError as e:
            self._output.engine(f"{process.where}: cannot start '{process.argv[0]}': {e.strerror}", "ERROR")
            self._fail(_CANNOT_START)
            if process.shutdown_on_exit:
                self._stop(f"process[{label}] was required")
            return
        self._output.engine(f"process[{label}] started with pid {child.pid}")
        self._children.append(child)
        for name, stream in child.streams().items():
            self.selector.register(stream, selectors.EVENT_READ, (child, name))

    def _read(self, child: Child, name: str, *, last: bool = False) -> None:
        descriptor = child.streams()[name].fileno()
        emit = lambda line: self._output.child(child.label, child.process.output, name, line)  # noqa: E731
        if not child.read(name, emit, last=last):
            self.selector.unregister(descriptor)

    def _look_after(self, child: Child) -> None:
        now_s = self._now_s()
        if child.deadline_s <= now_s and child.stage < Stage.KILLED:
            after = Stage(child.stage + 1)
            self._output.engine(f"process[{child.label}] has not ended; escalating to {_NAMES[after]}", "ERROR")
            child.signal(after, now_s)
        if child.poll() is None:
            return
        if child.group_alive():
            if child.stage < Stage.TERMINATED:  # the leader has gone and left children behind
                child.signal(Stage.TERMINATED, now_s)
            return
        for name in child.streams():
            self._read(child, name, last=True)
        self._ended(child)

    def _ended(self, child: Child) -> None:
        self._children.remove(child)
        status = child.status or 0
        failed = status != 0 and not (child.asked and status in STOPPED_BY_US)
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        self._output.engine(f"process[{child.label}] ended {how}", "ERROR" if failed else "INFO")
        if child.process.shutdown_on_exit and not self._stopping:
            self._stop(f"process[{child.label}] was required")
        if child.process.respawn and not self._stopping:
            self._after(child.process.respawn_delay_s, lambda: self._start(child.process, child.label))
        elif failed:
            self._fail(status if status > 0 else 128 - status)

    def _on_signal(self, number: int) -> None:
        if self._stopping:
            self._output.engine(f"{signal.Signals(number).name} again: escalating", "WARNING")
            for child in self._children:
                child.deadline_s = self._now_s()
            return
        self._stop(f"{signal.Signals(number).name} received")
        self._fail(128 + number)

    def _stop(self, reason: str) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._output.engine(f"shutting down: {reason}")
        self._timers.clear()
        for child in self._children:
            if child.stage is Stage.RUNNING:
                child.signal(Stage.INTERRUPTED, self._now_s())

    def _fail(self, status: int) -> None:
        self.status = self.status or status


_NAMES: Mapping[Stage, str] = {
    Stage.INTERRUPTED: "SIGINT",
    Stage.TERMINATED: "SIGTERM",
    Stage.KILLED: "SIGKILL",
}


def _drain(reader: object) -> None:
    if isinstance(reader, socket.socket):
        try:
            reader.recv(4096)
        except BlockingIOError:
            return


def child_environment(environment: Mapping[str, str], python: str, log_directory: Path) -> dict[str, str]:
    """The environment children start from: `python3` is this interpreter, output is not held back, logs stay together.

    Three differences from genuine launch, each only where the user has not decided otherwise.
    """
    result = dict(environment)
    here = str(Path(python).parent)
    path = result.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] != here:
        result["PATH"] = os.pathsep.join([here, path])
    result.setdefault("PYTHONUNBUFFERED", "1")
    result.setdefault("ROS_LOG_DIR", str(log_directory))
    return result
