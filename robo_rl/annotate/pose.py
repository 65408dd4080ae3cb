"""Poses in a log: which signals make up a body's position and orientation, and its path through a window."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robo_rl.annotate.signals import Signal, Signals

_POSITION = re.compile(r"^(?P<base>.*?)(?P<word>position|translation|point)\.x$")
_TURNED = [
    [f"orientation.{a}" for a in "wxyz"],
    [f"rotation.{a}" for a in "wxyz"],
    [f"q[{i}]" for i in range(4)],  # PX4
]
_PAIRS = {"position": "orientation", "translation": "rotation", "point": "orientation"}


@dataclass(frozen=True)
class Body:
    """What moves through the log."""

    name: str
    """Topic, with the field where a topic holds several."""
    position: tuple[str, ...]
    """Names of the signals x, y, z; empty where only the orientation is known."""
    orientation: tuple[str, ...]
    """Names of the signals w, x, y, z; empty where it is not known."""


def bodies(catalogue: Iterable[Signal]) -> list[Body]:
    """Everything in a log that has a position or an orientation."""
    signals = list(catalogue)
    names = {s.name for s in signals}
    found: list[Body] = []
    for s in signals:
        if not (m := _POSITION.match(s.path)):
            continue
        base = f"{s.topic}.{m['base']}"
        position = tuple(f"{base}{m['word']}.{a}" for a in "xyz")
        turned = tuple(f"{base}{_PAIRS[m['word']]}.{a}" for a in "wxyz")
        if names.issuperset(position):
            found.append(Body(_name(s, m["base"]), position, turned if names.issuperset(turned) else ()))
    known = {n for b in found for n in b.orientation}
    for s in signals:
        for elements in _TURNED:
            base = s.name.removesuffix(elements[0])
            turned = tuple(base + e for e in elements)
            if base != s.name and turned[0] not in known and names.issuperset(turned):
                found.append(Body(_name(s, s.path.removesuffix(elements[0])), (), turned))
    for s in signals:
        bare = tuple(f"{s.topic}.{a}" for a in "xyz")
        if s.name == bare[0] and names.issuperset(bare):
            found.append(Body(s.topic, bare, ()))
    return found


def path_of(signals: Signals, body: Body, start_ns: int, end_ns: int, count: int = 1000) -> NDArray[np.float32]:
    """(n, 8): place in the window (0 to 1), position, quaternion w x y z; n at most `count`; empty until it is read."""
    names = (*body.position, *body.orientation)
    signals.request(names)
    if not all(signals.is_ready(n) for n in names):
        return np.empty((0, 8), np.float32)
    pyramids = {n: p for n in names if (p := signals.pyramid(n)) is not None}
    t_ns = pyramids[names[0]].t_ns
    i = max(0, int(np.searchsorted(t_ns, start_ns, side="right")) - 1)
    j = min(len(t_ns), int(np.searchsorted(t_ns, end_ns)) + 1)
    rows = np.unique(np.linspace(i, max(i, j - 1), min(count, max(1, j - i))).round().astype(int))
    out = np.zeros((len(rows), 8), np.float32)
    out[:, 0] = (t_ns[rows] - start_ns) / (end_ns - start_ns)
    out[:, 4] = 1.0
    for k, n in enumerate(body.position):
        out[:, 1 + k] = pyramids[n].levels[0][0][rows]
    for k, n in enumerate(body.orientation):
        out[:, 4 + k] = pyramids[n].levels[0][0][rows]
    return out


def _name(s: Signal, base: str) -> str:
    """The topic; with the field where that is not the usual one."""
    base = base.rstrip(".").removeprefix("pose").removeprefix(".pose").removeprefix("transform").strip(".")
    return f"{s.topic} {base}".rstrip()
