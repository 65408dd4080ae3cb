"""When a recorded instant is due while a log plays: rate, pause and seek, as arithmetic on passed-in time."""

from dataclasses import dataclass


@dataclass
class Timeline:
    """Maps recorded instants (ns) to instants of a monotonic clock (s) and back."""

    position_ns: int
    """Recorded instant at `since_s`."""
    rate: float = 1.0
    """Recorded seconds per second."""
    since_s: float = 0.0
    paused: bool = False

    def now_ns(self, now_s: float) -> int:
        """The recorded instant that is played at `now_s`."""
        if self.paused:
            return self.position_ns
        return self.position_ns + round(max(0.0, now_s - self.since_s) * self.rate * 1e9)

    def due_s(self, recorded_ns: int) -> float | None:
        """When a recorded instant is due; None while paused."""
        return None if self.paused else self.since_s + (recorded_ns - self.position_ns) / 1e9 / self.rate

    def pause(self, now_s: float) -> None:
        """Stops here."""
        self.position_ns, self.since_s, self.paused = self.now_ns(now_s), now_s, True

    def resume(self, now_s: float) -> None:
        """Goes on from here."""
        self.position_ns, self.since_s, self.paused = self.now_ns(now_s), now_s, False

    def seek(self, recorded_ns: int, now_s: float) -> None:
        """Goes on from `recorded_ns`; stays paused where it was."""
        self.position_ns, self.since_s = recorded_ns, now_s

    def set_rate(self, rate: float, now_s: float) -> None:
        """Goes on from here at another rate."""
        self.position_ns, self.since_s = self.now_ns(now_s), now_s
        self.rate = rate
