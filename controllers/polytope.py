"""The point of a polytope in space nearest to a given one: a batch of exact quadratic programmes, without a library.

minimise |x - wish|^2 subject to normals x <= bounds, x in R^3. Of the active constraints at most three matter (the
problem is LP-type of combinatorial dimension 3: Matousek, Sharir & Welzl 1996), so the method keeps a basis of up to
three: while some constraint is violated, the worst one enters, and the best of the seven bases that contain it and at
most two old ones follows. The distance grows with every exchange, which ends it; where no basis exists the four
constraints contradict one another, which proves that the whole problem has no solution.

Array-API style, leading dimensions free; computed in double precision.
"""

from typing import Any, NamedTuple

from hardware.arrays import namespace

_SUBSETS = ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2))
"""Which old members of a basis stay beside the constraint that enters."""


class Nearest(NamedTuple):
    """What `nearest` found."""

    point: Any
    """(..., 3); the wish itself where it satisfies all constraints, without meaning where `feasible` is False."""
    feasible: Any
    """(...,) bool: False where the constraints contradict one another."""
    changed: Any
    """(...,) bool: the wish violates a constraint."""


class _Basis(NamedTuple):
    normals: Any
    """(n, 3, 3) unit rows."""
    bounds: Any
    """(n, 3)."""
    used: Any
    """(n, 3) bool."""


def nearest(wish: Any, normals: Any, bounds: Any, *, tolerance: float = 1e-7, exchanges: int = 100) -> Nearest:
    """The point nearest to `wish` (..., 3) under `normals` (..., C, 3) and `bounds` (..., C).

    Normals need not be unit vectors; a row of zeros holds always. A constraint counts as violated by more than
    `tolerance`, in the unit of the wish. More than `exchanges` (never seen above 20) count as infeasible.
    """
    xp = namespace(wish)
    lead, rows = tuple(wish.shape[:-1]), normals.shape[-2]
    double = lambda value, *shape: xp.astype(xp.reshape(value, (-1, *shape)), xp.float64)  # noqa: E731
    goal, g, b = double(wish, 3), double(normals, rows, 3), double(bounds, rows)
    length = xp.sqrt(xp.sum(g * g, axis=-1))
    real = length > 1e-9
    unit = xp.where(real, length, xp.ones_like(length))
    g, b = g / unit[..., None], xp.where(real, b / unit, xp.full_like(b, 1e12))
    point = goal + 0.0  # a copy: it is written to
    count = point.shape[0]
    solved = xp.ones((count,), dtype=xp.bool, device=point.device)
    basis = _Basis(xp.zeros_like(point[:, None, :] + point[:, :, None]), xp.zeros_like(point), point > xp.inf)
    violated, entering = _worst(point, g, b, tolerance)
    changed = violated & violated
    for _ in range(exchanges):
        ids = xp.nonzero(violated)[0]
        if ids.shape[0] == 0:
            break
        now = _Basis(*(part[ids, ...] for part in basis))
        slot = entering[ids]
        found, x, new = _exchange(goal[ids, :], now, g[ids, slot, :], b[ids, slot], tolerance)
        point[ids, :] = x
        for whole, part in zip(basis, new, strict=True):
            whole[ids, ...] = part
        solved[ids] = found
        still, following = _worst(x, g[ids, ...], b[ids, ...], tolerance)
        violated[ids], entering[ids] = still & found, following
    feasible = solved & ~violated
    shaped = lambda value: xp.reshape(value, lead)  # noqa: E731
    return Nearest(xp.astype(xp.reshape(point, (*lead, 3)), wish.dtype), shaped(feasible), shaped(changed | ~feasible))


def _worst(x: Any, g: Any, b: Any, tolerance: float) -> tuple[Any, Any]:
    """Whether (n,) points (n, 3) violate a constraint, and which (n,) they violate most."""
    xp = namespace(x)
    excess = xp.sum(g * x[:, None, :], axis=-1) - b
    return xp.max(excess, axis=-1) > tolerance, xp.argmax(excess, axis=-1)


def _exchange(wish: Any, basis: _Basis, normal: Any, bound: Any, tolerance: float) -> tuple[Any, Any, _Basis]:
    """Whether (n,) the basis and an entering constraint (n, 3), (n,) agree; their optimum (n, 3) and its basis.

    Each candidate solves min |x - wish|^2 on its own planes: x = wish - R^T m, R R^T m = R wish - r. It is the optimum
    if its multipliers m are not negative and it satisfies the rest of the basis; the one that fails least is taken.
    """
    xp = namespace(wish)
    zero = xp.zeros_like(bound)
    scores, points, bases = [], [], []
    for subset in _SUBSETS:
        slots = [normal] + [basis.normals[:, i, :] for i in subset]
        offsets = [bound] + [basis.bounds[:, i] for i in subset]
        allowed = zero == zero
        for i in subset:
            allowed = allowed & basis.used[:, i]
        excess = [xp.sum(r * wish, axis=-1) - o for r, o in zip(slots, offsets, strict=True)]
        multipliers, regular = _solve_gram(slots, excess)
        x = wish
        for m, r in zip(multipliers, slots, strict=True):
            x = x - m[:, None] * r
        off = xp.sum(basis.normals * x[:, None, :], axis=-1) - basis.bounds
        off = xp.where(basis.used, off, xp.zeros_like(off))
        fault = xp.max(xp.stack([xp.max(off, axis=-1), *(-m for m in multipliers)], axis=-1), axis=-1)
        scores.append(xp.where(allowed & regular, fault, xp.full_like(fault, xp.inf)))
        points.append(x)
        missing = 3 - len(slots)
        bases.append(
            _Basis(
                xp.stack(slots + [xp.zeros_like(normal)] * missing, axis=1),
                xp.stack(offsets + [zero] * missing, axis=1),
                xp.stack([allowed] * len(slots) + [zero > 0] * missing, axis=1),
            )
        )
    score = xp.stack(scores, axis=-1)
    best = xp.argmin(score, axis=-1)
    rows = xp.arange(best.shape[0], device=best.device)
    choose = lambda options: xp.stack(options, axis=1)[rows, best, ...]  # noqa: E731
    chosen = _Basis(*(choose([b[i] for b in bases]) for i in range(3)))
    return xp.min(score, axis=-1) <= tolerance, choose(points), chosen


def _solve_gram(rows: list[Any], rhs: list[Any]) -> tuple[list[Any], Any]:
    """(R R^T) m = rhs solved for one to three unit rows (n, 3), by Cramer's rule, and whether (n,) it is regular."""
    xp = namespace(rhs[0])
    dot = lambda i, j: xp.sum(rows[i] * rows[j], axis=-1)  # noqa: E731
    if len(rows) == 1:
        return rhs, rhs[0] == rhs[0]
    p = dot(0, 1)
    if len(rows) == 2:
        det, regular = _regular(1.0 - p * p)
        return [(rhs[0] - p * rhs[1]) / det, (rhs[1] - p * rhs[0]) / det], regular
    q, r = dot(0, 2), dot(1, 2)
    det, regular = _regular(1.0 + 2.0 * p * q * r - p * p - q * q - r * r)
    a, b, c = rhs
    return [
        ((1.0 - r * r) * a + (q * r - p) * b + (p * r - q) * c) / det,
        ((q * r - p) * a + (1.0 - q * q) * b + (p * q - r) * c) / det,
        ((p * r - q) * a + (p * q - r) * b + (1.0 - p * p) * c) / det,
    ], regular


def _regular(det: Any) -> tuple[Any, Any]:
    xp = namespace(det)
    regular = det > 1e-10
    return xp.where(regular, det, xp.ones_like(det)), regular
