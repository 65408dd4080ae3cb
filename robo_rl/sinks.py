"""Where a run's numbers go: CSV always, a progress line for people, TensorBoard where asked for."""

import csv
import io
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hardware.errors import RoboError


class Sink(Protocol):
    """Takes the scalars of one update."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Records values at an environment step."""
        ...

    def close(self) -> None:
        """Finishes; nothing more comes."""
        ...


class CsvSink:
    """Rows of one CSV file, flushed at each checkpoint; going on after a resume cuts what lies beyond it."""

    def __init__(self, path: Path, resumed_at: int | None = None) -> None:
        """`resumed_at`: environment steps of the checkpoint; later rows belong to a future that is run anew."""
        self._names: list[str] = []
        keep: list[dict[str, str]] = []
        if resumed_at is not None and path.exists():
            with path.open(newline="") as f:
                reader = csv.DictReader(f)
                self._names = list(reader.fieldnames or [])
                keep = [row for row in reader if int(row["env_steps"]) <= resumed_at]
        aside = path.with_name(path.name + ".tmp")
        aside.write_text(_lines(self._names, keep, header=True) if self._names else "", newline="")
        aside.replace(path)  # what was measured before is on the disk at every instant
        self._file = path.open("a", newline="")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Appends a row; the first decides the columns. Eight significant digits; empty where not a number."""
        if not self._names:
            self._names = ["env_steps", *values]
            self._file.write(_lines(self._names, [], header=True))
        row = {k: ("" if math.isnan(v) else f"{v:.8g}") for k, v in values.items()} | {"env_steps": str(step)}
        self._file.write(_lines(self._names, [row], header=False))

    def flush(self) -> None:
        """Makes the rows so far readable by others."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoardSink:
    """Event files for TensorBoard; needs the extra `logging`."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as e:
            raise RoboError("--tensorboard needs the package tensorboard; pip install 'robo_rl[logging]'") from e
        self._writer = SummaryWriter(str(folder))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one point per name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()


class Progress:
    """How far the training is: a live bar on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self, total: int, done: int, *, title: str, every_s: float = 5.0) -> None:
        self.total, self._first, self._every_s = total, done, every_s
        self._start = self._shown = time.monotonic()
        self._bar: Any = None
        if sys.stdout.isatty():
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %  {task.fields[words]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns)
            self._task = self._bar.add_task(title, total=total, completed=done, words="")
            self._bar.start()
        else:
            print(f"{title}: {total:,} steps", flush=True)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the newest numbers."""
        now = time.monotonic()
        rate = (step - self._first) / max(now - self._start, 1e-9)
        words = f"{rate / 1e3:.1f}k steps/s  return {values.get('return_mean', math.nan):.2f}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, words=words)
        elif now - self._shown >= self._every_s or step >= self.total:
            self._shown = now
            left = (self.total - step) / max(rate, 1e-9)
            print(
                f"  {step:>12,} steps  {min(100 * step / self.total, 100):3.0f} %  {words}  {max(left, 0):.0f} s left",
                flush=True,
            )

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.stop()


def _lines(names: list[str], rows: list[dict[str, str]], *, header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", extrasaction="ignore", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
