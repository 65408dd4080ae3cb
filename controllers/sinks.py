"""Where a control loop's story goes: the protocol, the sink that forgets, and the one that survives a broken sink."""

from collections.abc import Callable
from typing import Literal, Protocol

from hardware.messages import Tick
from hardware.robot import Command, RobotState

Level = Literal["ok", "warn", "error"]


class Sink(Protocol):
    """Receives what happens; called from the loop's thread, must not block."""

    def state(self, state: RobotState, now_ns: int) -> None:
        """A new state was read."""
        ...

    def tick(self, tick: Tick, now_ns: int) -> None:
        """The policy decided."""
        ...

    def sent(self, command: Command, now_ns: int) -> None:
        """A command left the guard."""
        ...

    def event(self, level: Level, text: str, values: dict[str, str], now_ns: int) -> None:
        """A phase began, a goal changed or a fault was latched."""
        ...


class NullSink:
    """Forgets everything."""

    def state(self, state: RobotState, now_ns: int) -> None:
        """Nothing."""

    def tick(self, tick: Tick, now_ns: int) -> None:
        """Nothing."""

    def sent(self, command: Command, now_ns: int) -> None:
        """Nothing."""

    def event(self, level: Level, text: str, values: dict[str, str], now_ns: int) -> None:
        """Nothing."""


class SurvivingSink:
    """Passes everything on until the sink fails once; then forgets, and says so: a full disk must not crash a drone."""

    def __init__(self, sink: Sink, on_failure: Callable[[], None]) -> None:
        self._sink: Sink = sink
        self._on_failure = on_failure
        self.failure: Exception | None = None

    def state(self, state: RobotState, now_ns: int) -> None:
        """See Sink.state."""
        self._pass(lambda: self._sink.state(state, now_ns))

    def tick(self, tick: Tick, now_ns: int) -> None:
        """See Sink.tick."""
        self._pass(lambda: self._sink.tick(tick, now_ns))

    def sent(self, command: Command, now_ns: int) -> None:
        """See Sink.sent."""
        self._pass(lambda: self._sink.sent(command, now_ns))

    def event(self, level: Level, text: str, values: dict[str, str], now_ns: int) -> None:
        """See Sink.event."""
        self._pass(lambda: self._sink.event(level, text, values, now_ns))

    def _pass(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as e:  # noqa: BLE001 - whatever is wrong with the sink, the flight goes on
            self.failure = e
            self._sink = NullSink()
            self._on_failure()
