"""Runs the command lines of a demo one after another, showing progress, keeping every output."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from hardware.errors import RoboError


@dataclass(frozen=True)
class Stage:
    """One command of the loop."""

    name: str
    title: str
    """What happens, in a few words for the progress display."""
    argv: tuple[str, ...]
    """Arguments of `robo-rl`."""

    @property
    def command(self) -> str:
        """The command line as a user would type it."""
        return " ".join(["robo-rl", *self.argv])


def run_stage(stage: Stage, number: int, total: int, folder: Path) -> dict[str, Any]:
    """Runs a stage and returns its `--json` result with `stage_s` and `status` added.

    A command that ran and missed its aim (status 1, with a result) is a result; one that left none is a RoboError.
    """
    result_path, log_path = folder / f"{stage.name}.json", folder / f"{stage.name}.log"
    argv = [sys.executable, "-m", "robo_rl", *stage.argv, "--json", str(result_path)]
    started = time.monotonic()
    with log_path.open("w") as log, _Progress(f"[{number}/{total}] {stage.title}") as progress:
        child = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(),
            start_new_session=True,  # a Ctrl-C on the terminal reaches it through us, once
        )
        with child, _forwarding(child) as interrupts:
            for line in child.stdout or ():
                log.write(line)
                progress.say(line.rstrip())
            status = child.wait()
        if interrupts:
            raise KeyboardInterrupt
        progress.done = f"{time.monotonic() - started:.0f} s" + ("" if status == 0 else f", status {status}")
    if not result_path.exists():
        last = [line for line in log_path.read_text().splitlines() if line.strip()][-1:] or ["no output"]
        raise RoboError(f"stage {stage.name} failed with status {status}: {last[0]} (output: {log_path})")
    result = json.loads(result_path.read_text())
    result = result if isinstance(result, dict) else {"items": result}
    return {**result, "stage_s": round(time.monotonic() - started, 1), "status": status}


@contextlib.contextmanager
def _forwarding(child: subprocess.Popen[str]) -> Iterator[list[int]]:
    """Passes SIGINT and SIGTERM on to the child as SIGINT: at the first it lands its robot or saves its state.

    Gives the signals that came. Should this process fail in the meantime, the child is asked to end and awaited.
    """
    caught: list[int] = []

    def handle(number: int, _: object) -> None:
        caught.append(number)
        child.send_signal(signal.SIGINT)

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    except BaseException:
        child.send_signal(signal.SIGINT)
        child.wait()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


class _Progress:
    """A spinner with the running command's last line on a terminal; one plain line per stage elsewhere."""

    def __init__(self, title: str) -> None:
        self.title, self.done = title, ""
        self._console = Console()
        self._started, self._line = time.monotonic(), ""
        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=8, transient=True)
        self._lock = threading.Lock()

    def __enter__(self) -> "_Progress":
        if self._console.is_terminal:
            self._live.start()
        else:
            print(f"{self.title} ...", flush=True)
        return self

    def say(self, line: str) -> None:
        """Shows a line of the running command."""
        with self._lock:
            self._line = line

    def _render(self) -> Text:
        spinner = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(8 * time.monotonic()) % 10]
        text = f"{spinner} {self.title}  {time.monotonic() - self._started:4.0f} s  {self._line}"
        return Text(text, no_wrap=True, overflow="ellipsis")

    def __exit__(self, kind: object, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()
        word = "interrupted" if kind else f"done in {self.done}"
        print(f"{self.title}: {word}", flush=True)
