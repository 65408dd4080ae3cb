"""Where the lines of a launch go: the screen, one log for the run, one log per child."""

import contextlib
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

# As in genuine launch (launch.logging.get_output_loggers): output mode -> stream -> destinations.
_ROUTES: Mapping[str, Mapping[str, frozenset[str]]] = {
    "screen": {"stdout": frozenset({"screen"}), "stderr": frozenset({"screen"})},
    "log": {"stdout": frozenset({"log"}), "stderr": frozenset({"log", "screen"})},
    "both": {"stdout": frozenset({"log", "screen"}), "stderr": frozenset({"log", "screen"})},
    "own_log": {"stdout": frozenset({"own"}), "stderr": frozenset({"own"})},
    "full": {"stdout": frozenset({"log", "screen", "own"}), "stderr": frozenset({"log", "screen", "own"})},
}


class Output:
    """The screen and the log directory of one run."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._screen: _Writable = sys.stdout
        self._files: dict[str, _Writable] = {}

    def engine(self, text: str, level: str = "INFO") -> None:
        """One line of the engine itself."""
        self._print(f"[{level}] [launch]: {text}")
        self._write("launch.log", f"[{level}] [launch]: {text}")

    def child(self, label: str, mode: str, stream: str, line: str) -> None:
        """One line of a child, prefixed `[name-N]`."""
        routes = _ROUTES[mode][stream]
        if "screen" in routes:
            self._print(f"[{label}] {line}")
        if "log" in routes:
            self._write("launch.log", f"[{label}] {line}")
        if "own" in routes:
            self._write(f"{label}-{stream}.log", line)

    def close(self) -> None:
        """Closes the logs."""
        for file in self._files.values():
            with contextlib.suppress(OSError):  # said when it happened
                file.close()
        self._files.clear()

    def _print(self, line: str) -> None:
        try:
            print(line, file=self._screen, flush=True)
        except BrokenPipeError:  # the reader of our output has gone; the children's stop must not depend on it
            self._screen = _Nowhere()

    def _write(self, name: str, line: str) -> None:
        stamp = f"{datetime.now(UTC).isoformat(timespec='milliseconds')} " if name == "launch.log" else ""
        try:
            if name not in self._files:
                self._files[name] = (self.directory / name.replace("/", "_")).open("a", encoding="utf-8", buffering=1)
            self._files[name].write(f"{stamp}{line}\n")
        except OSError as e:  # a full disk must not bring down what is running
            self._files[name] = _Nowhere()
            self._print(f"[ERROR] [launch]: {self.directory / name}: {e.strerror}; nothing more is logged there")


class _Writable(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class _Nowhere:
    """A screen that nobody reads, a log that cannot be written."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        return None

    def close(self) -> None:
        return None
