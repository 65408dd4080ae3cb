"""The nearest point of a polytope: optimality conditions, scipy's solvers, hand-computed cases, numpy against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize, nnls

from controllers.polytope import nearest

RNG = np.random.default_rng(20)


def instances(count: int, rows: int, shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    normals = RNG.normal(size=(count, rows, 3))
    return 3.0 * RNG.normal(size=(count, 3)), normals, RNG.normal(size=(count, rows)) + shift


def optimality_gap(wish: np.ndarray, normals: np.ndarray, bounds: np.ndarray, x: np.ndarray) -> tuple[float, float]:
    """Largest violation, and how far `wish - x` is from the cone of the active normals: both 0 at the optimum (KKT)."""
    slack = bounds - normals @ x
    active = normals[slack < 1e-6]
    residual = nnls(active.T, wish - x)[1] if len(active) else float(np.linalg.norm(wish - x))
    return float(-slack.min()), residual


@pytest.mark.parametrize(("rows", "shift"), [(1, 0.0), (2, 0.0), (4, 0.5), (8, 1.0), (30, 3.0), (90, 4.0)])
def test_solutions_satisfy_the_optimality_conditions_and_infeasibility_is_scipys(rows: int, shift: float) -> None:
    wish, normals, bounds = instances(60, rows, shift)
    found = nearest(wish, normals, bounds)
    for i in range(len(wish)):
        status = linprog(np.zeros(3), A_ub=normals[i], b_ub=bounds[i], bounds=(None, None)).status
        assert found.feasible[i] == (status == 0)
        if found.feasible[i]:
            violation, residual = optimality_gap(wish[i], normals[i], bounds[i], found.point[i])
            assert violation < 1e-6
            assert residual < 1e-6
    assert found.feasible.any()
    assert (found.changed | found.feasible).all()


def test_the_point_is_that_of_a_general_solver() -> None:
    for wish, normals, bounds in zip(*instances(20, 6, 1.5), strict=True):
        found = nearest(wish, normals, bounds)
        limits = {"type": "ineq", "fun": lambda y, g=normals, b=bounds: b - g @ y, "jac": lambda y, g=normals: -g}
        other = minimize(lambda y, w=wish: ((y - w) ** 2).sum(), wish, constraints=[limits], method="SLSQP", tol=1e-12)
        if found.feasible:
            np.testing.assert_allclose(found.point, other.x, atol=1e-5)


def test_hand_computed_faces_edges_and_corners() -> None:
    box = np.concatenate([np.eye(3), -np.eye(3)])
    ones = np.ones(6)
    for wish, point in (
        ((3, 0, 0), (1, 0, 0)),
        ((3, 3, 0), (1, 1, 0)),
        ((3, 3, -3), (1, 1, -1)),
        ((0, 0.5, 0), (0, 0.5, 0)),
    ):
        found = nearest(np.array(wish, dtype=float), box, ones)
        np.testing.assert_allclose(found.point, point, atol=1e-12)
        assert found.feasible
        assert found.changed == (wish != point)


def test_contradictions_duplicates_and_empty_rows() -> None:
    wish = np.array([1.0, 0.0, 0.0])
    apart = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    assert not nearest(wish, apart, np.array([-1.0, -1.0])).feasible
    assert nearest(wish, apart, np.array([0.5, -0.5])).feasible  # a plane between them remains
    twice = np.array([[2.0, 0.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = nearest(wish, twice, np.array([1.0, 2.0, 0.0]))
    np.testing.assert_allclose(found.point, [0.5, 0, 0], atol=1e-12)
    assert found.feasible


@given(st.integers(0, 2**32 - 1))
def test_nearly_parallel_constraints_are_met(seed: int) -> None:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=3)
    normals = base + 10.0 ** rng.uniform(-9, -1, size=(6, 1)) * rng.normal(size=(6, 3))
    bounds = np.linalg.norm(normals, axis=1) * rng.uniform(0.1, 1.0, size=6)  # the origin is inside
    wish = 5.0 * rng.normal(size=3)
    found = nearest(wish, normals, bounds)
    assert found.feasible
    assert (normals @ found.point - bounds).max() < 1e-5
    toward = np.linalg.norm(found.point - wish)
    for point in rng.normal(size=(50, 3)):
        if (normals @ point <= bounds).all():
            assert np.linalg.norm(point - wish) > toward - 1e-5


def test_batched_torch_is_numpy_one_by_one() -> None:
    wish, normals, bounds = instances(40, 12, 1.5)
    arrays = [torch.from_numpy(a.reshape(8, 5, *a.shape[1:])) for a in (wish, normals, bounds)]
    together = nearest(*arrays)
    for i in range(40):
        alone = nearest(wish[i], normals[i], bounds[i])
        assert bool(together.feasible[i // 5, i % 5]) == bool(alone.feasible)
        if alone.feasible:
            np.testing.assert_allclose(together.point[i // 5, i % 5], alone.point, atol=1e-9)
    single = nearest(*(a.float() for a in arrays))
    assert single.point.dtype == torch.float32
