"""How well two annotators agree, tier by tier: Cohen's kappa per frame, F1 of segments, error of boundaries."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware.annotation.mark import KINDS, Annotation

IOU = 0.5
"""Overlap (intersection over union) from which two segments are the same one."""
NEAR_S = 0.1
"""Distance within which two instants are the same one."""


class Agreement(NamedTuple):
    """Figures of one tier."""

    kappa: float | None
    """Cohen's kappa over frames; None where both say one and the same everywhere, or where marks are instants."""
    f1: float
    """2 TP / (2 TP + FP + FN) over segments of the same label that overlap by IOU or lie within NEAR_S."""
    boundary_ms: float | None
    """Mean distance of the starts and ends of matched segments."""
    count: tuple[int, int]


def agreement(
    a: Sequence[Annotation], b: Sequence[Annotation], start_ns: int, end_ns: int, frame_s: float = 0.05
) -> dict[str, Agreement]:
    """Kind -> figures, for the kinds that either of two annotators has used between two instants."""
    found = {}
    for kind in KINDS:
        one, two = ([m for m in marks if m.kind == kind and m.status != "rejected"] for marks in (a, b))
        if not one and not two:
            continue
        pairs = _matched(one, two)
        edges = [abs(x - y) / 1e6 for p, q in pairs for x, y in ((p.t0_ns, q.t0_ns), (p.t1_ns, q.t1_ns))]
        kappa = None
        if KINDS[kind].range is not False:
            times = np.arange(start_ns, end_ns, round(frame_s * 1e9))
            kappa = cohen_kappa(_frames(one, times), _frames(two, times))
        f1 = 2 * len(pairs) / (len(one) + len(two))
        found[kind] = Agreement(kappa, f1, float(np.mean(edges)) if edges else None, (len(one), len(two)))
    return found


def cohen_kappa(a: NDArray[np.str_], b: NDArray[np.str_]) -> float | None:
    """Chance-corrected agreement of two labellings (Cohen 1960); None where chance alone explains everything."""
    if not len(a):
        return None
    observed = float(np.mean(a == b))
    labels = np.union1d(a, b)
    expected = float(sum(np.mean(a == x) * np.mean(b == x) for x in labels))
    return None if expected >= 1.0 else (observed - expected) / (1.0 - expected)


def _frames(marks: Sequence[Annotation], times: NDArray[np.int64]) -> NDArray[np.str_]:
    """The label at each instant, '' outside of all marks; where marks overlap, the later one."""
    labels = np.full(len(times), "", dtype=object)
    for m in sorted(marks, key=lambda m: m.t0_ns):
        first, last = np.searchsorted(times, [m.t0_ns, m.t1_ns])
        labels[first:last] = m.label or m.kind
    return labels.astype(str)


def _matched(a: Sequence[Annotation], b: Sequence[Annotation]) -> list[tuple[Annotation, Annotation]]:
    """Pairs of the same label, the best overlap first, each mark at most once."""
    scored = [(s, i, j) for i, p in enumerate(a) for j, q in enumerate(b) if p.label == q.label and (s := _score(p, q))]
    pairs, used_a, used_b = [], set(), set()
    for _, i, j in sorted(scored, key=lambda x: (-x[0], x[1], x[2])):
        if i not in used_a and j not in used_b:
            used_a.add(i)
            used_b.add(j)
            pairs.append((a[i], b[j]))
    return pairs


def _score(p: Annotation, q: Annotation) -> float:
    """Overlap of two segments, or nearness of two instants, 0 where they are not the same."""
    if p.t0_ns == p.t1_ns and q.t0_ns == q.t1_ns:
        apart_s = abs(p.t0_ns - q.t0_ns) / 1e9
        return 1.0 / (1.0 + apart_s) if apart_s <= NEAR_S else 0.0
    shared = min(p.t1_ns, q.t1_ns) - max(p.t0_ns, q.t0_ns)
    iou = shared / (max(p.t1_ns, q.t1_ns) - min(p.t0_ns, q.t0_ns))
    return iou if iou >= IOU else 0.0
