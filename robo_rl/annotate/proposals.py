"""Marks that rules propose as drafts: crash, contact, jerk and stillness, from accelerations, rates and forces."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hardware.annotation import AnnotationStore, By
from robo_rl.annotate.signals import Signals

CRASH_M_S2 = 5 * 9.80665
"""|a| above 5 g."""
CONTACT_N = 2.0
"""Force above its median by so much."""
JERK_M_S3 = 200.0
"""Change of the acceleration's mean over JERK_WINDOW_S per second; hover and flight stay below 100 m/s^3."""
JERK_WINDOW_S = 0.05
STILL_RATE_RAD_S = 0.02
"""Standard deviation of the angular velocity within STILL_WINDOW_S below which nothing moves."""
STILL_WINDOW_S, STILL_LEAST_S = 0.5, 2.0
APART_S = 1.0
"""Exceedances closer than this are one event."""
_VECTOR = re.compile(r"^(?P<base>.*(?P<word>linear_acceleration|angular_velocity|force))\.x$")

Times = NDArray[np.int64]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Proposal:
    """One draft."""

    kind: str
    label: str
    t0_ns: int
    t1_ns: int
    rule: str
    reason: str
    channel: str


def propose(signals: Signals) -> list[Proposal]:
    """What the rules find in a log, in the order of time; reads the signals that they need as a whole."""
    return sorted((p for p in _all(signals)), key=lambda p: (p.t0_ns, p.kind, p.label))


def add_proposals(store: AnnotationStore, proposals: list[Proposal]) -> int:
    """Adds drafts by the author `rules`; what was proposed before, whatever became of it, is not proposed again."""
    known = store.proposed()
    new = [p for p in proposals if (p.kind, p.label, p.t0_ns, p.t1_ns) not in known]
    for p in new:
        store.add(
            p.kind,
            p.t0_ns,
            p.t1_ns,
            label=p.label,
            value={"reason": p.reason},
            channels=(p.channel,),
            confidence=0.5,
            status="draft",
            by=By("rules", "rule", model=p.rule),
        )
    return len(new)


def events_above(t_ns: Times, size: Array, limit: float) -> Iterator[tuple[int, float]]:
    """(instant, largest size) of each stretch above a limit; stretches less than APART_S apart are one."""
    above = np.flatnonzero(size > limit)
    if not len(above):
        return
    for group in np.split(above, np.flatnonzero(np.diff(t_ns[above]) > APART_S * 1e9) + 1):
        yield int(t_ns[group[0]]), float(size[group].max())


def jerk(t_ns: Times, acceleration: Array) -> tuple[Times, Array]:
    """Instants (M,) and sizes (M,), m/s^3, of the change between means over JERK_WINDOW_S of (T, 3) accelerations."""
    starts, t = _windows(t_ns, JERK_WINDOW_S)
    if len(starts) < 2:
        return t[:0], np.empty(0)
    counts = np.diff(np.append(starts, len(acceleration)))
    means = np.add.reduceat(acceleration, starts, axis=0) / counts[:, None]
    return t[1:], np.linalg.norm(np.diff(means, axis=0), axis=1) / (np.diff(t) / 1e9)


def still(t_ns: Times, values: Array, limit: float) -> list[tuple[int, int]]:
    """Stretches of at least STILL_LEAST_S in which (T, 3) values spread by less than a limit in every window."""
    starts, t = _windows(t_ns, STILL_WINDOW_S)
    if not len(starts):
        return []
    ends = np.append(starts[1:], len(values))
    spread = np.array([np.linalg.norm(values[i:j].std(axis=0)) for i, j in zip(starts, ends, strict=True)])
    quiet = np.concatenate([[False], (spread < limit) & (ends - starts > 1), [False]])
    edges = np.flatnonzero(quiet[1:] != quiet[:-1]).reshape(-1, 2)
    found = [(int(t[i]), int(t_ns[ends[j - 1] - 1])) for i, j in edges]
    return [(a, b) for a, b in found if b - a >= STILL_LEAST_S * 1e9]


def _all(signals: Signals) -> Iterator[Proposal]:
    for name in signals.catalogue:
        m = _VECTOR.match(name)
        if m is None or not {f"{m['base']}.y", f"{m['base']}.z"} <= signals.catalogue.keys():
            continue
        read = [signals.samples(f"{m['base']}.{axis}") for axis in "xyz"]
        t_ns, values = read[0][0], np.stack([v for _, v in read], axis=1).astype(float)
        values = np.nan_to_num(values)
        yield from {"linear_acceleration": _accelerated, "angular_velocity": _turned, "force": _pushed}[m["word"]](
            m["base"], t_ns, values
        )


def _accelerated(channel: str, t_ns: Times, a: Array) -> Iterator[Proposal]:
    for t, size in events_above(t_ns, np.linalg.norm(a, axis=1), CRASH_M_S2):
        yield Proposal("event", "crash", t, t, "crash", f"|a| up to {size / 9.80665:.1f} g", channel)
    for t, size in events_above(*jerk(t_ns, a), JERK_M_S3):
        yield Proposal("event", "jerk", t, t, "jerk", f"jerk up to {size:.0f} m/s^3", channel)


def _turned(channel: str, t_ns: Times, w: Array) -> Iterator[Proposal]:
    for t0, t1 in still(t_ns, w, STILL_RATE_RAD_S):
        yield Proposal("exclude", "still", t0, t1, "stillness", f"still for {(t1 - t0) / 1e9:.1f} s", channel)


def _pushed(channel: str, t_ns: Times, f: Array) -> Iterator[Proposal]:
    size = np.linalg.norm(f, axis=1)
    for t, peak in events_above(t_ns, size - float(np.median(size)), CONTACT_N):
        yield Proposal("event", "contact", t, t, "contact", f"force up to {peak:.1f} N above rest", channel)


def _windows(t_ns: Times, window_s: float) -> tuple[NDArray[np.int64], Times]:
    """Index of the first sample and start instant of each window that holds samples."""
    if not len(t_ns):
        return np.empty(0, np.int64), t_ns
    window = round(window_s * 1e9)
    number = (t_ns - t_ns[0]) // window
    starts = np.flatnonzero(np.concatenate([[True], number[1:] != number[:-1]]))
    return starts, t_ns[0] + number[starts] * window
