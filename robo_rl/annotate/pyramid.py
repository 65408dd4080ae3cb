"""A signal that can be drawn at any zoom: minimum and maximum over blocks of 16, 256, 4096, ... samples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FACTOR = 16
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pyramid:
    """Samples in the order of time, with ever coarser levels of (lowest, highest); no spike is lost in any."""

    t_ns: NDArray[np.int64]
    """(T,)."""
    levels: list[tuple[Floats, Floats]]
    """Level k holds blocks of 16^k samples; level 0 the samples themselves."""

    def columns(self, start_ns: int, end_ns: int, count: int) -> NDArray[np.float32]:
        """(count, 2) lowest and highest in each of `count` equal parts of a window; NaN where no sample lies."""
        edges = start_ns + np.arange(count + 1, dtype=np.int64) * (end_ns - start_ns) // count
        found = np.full((count, 2), np.nan, np.float32)
        bounds = np.searchsorted(self.t_ns, edges)
        samples = int(bounds[-1] - bounds[0])
        if not samples:
            return found
        k, block = 0, 1
        while k + 1 < len(self.levels) and block * FACTOR * 4 * count <= samples:
            k, block = k + 1, block * FACTOR
        low, high = self.levels[k]
        if block == 1:
            full = np.flatnonzero(bounds[1:] > bounds[:-1])
            starts = bounds[:-1][full]
        else:  # at four blocks or more per column, a block belongs to the column in which it begins
            blocks = np.clip(-(-bounds // block), 0, len(low))
            blocks[0], blocks[-1] = bounds[0] // block, max(blocks[-1], bounds[0] // block + 1)
            full = np.flatnonzero(blocks[1:] > blocks[:-1])
            starts, bounds = blocks[:-1][full], blocks
        stop = int(bounds[-1])
        found[full, 0] = np.fmin.reduceat(low[:stop], starts)
        found[full, 1] = np.fmax.reduceat(high[:stop], starts)
        return found

    def beside(self, start_ns: int, end_ns: int) -> tuple[tuple[int, float] | None, tuple[int, float] | None]:
        """(instant, value) of the last sample before a window and the first one behind it."""
        i = int(np.searchsorted(self.t_ns, start_ns)) - 1
        j = int(np.searchsorted(self.t_ns, end_ns))
        values = self.levels[0][0]
        before = (int(self.t_ns[i]), float(values[i])) if i >= 0 else None
        after = (int(self.t_ns[j]), float(values[j])) if j < len(values) else None
        return before, after


def build(t_ns: NDArray[np.int64], low: Floats, high: Floats | None = None) -> Pyramid:
    """The pyramid over samples (T,), or over ranges from `low` to `high` that stand for samples not yet read."""
    high = low if high is None else high
    if len(t_ns) > 1 and (t_ns[1:] < t_ns[:-1]).any():
        order = np.argsort(t_ns, kind="stable")
        t_ns, low, high = t_ns[order], low[order], high[order]
    levels = [(low, high)]
    while len(levels[-1][0]) > FACTOR:
        lower, upper = levels[-1]
        levels.append((_reduced(np.fmin, lower), _reduced(np.fmax, upper)))
    return Pyramid(t_ns, levels)


def _reduced(act: np.ufunc, values: Floats) -> Floats:
    """`act` over blocks of 16 values; the last block may be shorter."""
    whole = len(values) // FACTOR * FACTOR
    blocks = act.reduce(values[:whole].reshape(-1, FACTOR), axis=1)
    rest = act.reduce(values[whole:], keepdims=True) if whole < len(values) else values[:0]
    return np.concatenate([blocks, rest])
