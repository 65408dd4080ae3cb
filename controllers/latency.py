"""Durations of a loop's work, kept in bounded memory and told as percentiles."""

from collections import deque

import numpy as np


class Durations:
    """The newest durations, in seconds."""

    def __init__(self, keep: int = 100_000) -> None:
        self._values: deque[float] = deque(maxlen=keep)

    def add(self, duration_s: float) -> None:
        """Adds one."""
        self._values.append(duration_s)

    def percentile_ms(self, percent: float) -> float | None:
        """A percentile in milliseconds; None where nothing was measured."""
        if not self._values:
            return None
        return float(np.percentile(np.fromiter(self._values, dtype=np.float64), percent)) * 1e3
