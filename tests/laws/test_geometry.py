"""Rotations and rigid motions: group axioms, scipy as second opinion, finite differences, limits."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from hardware import geometry as g

Array = NDArray[np.float64]
IDENTITY = np.array([1.0, 0.0, 0.0, 0.0])

COMPONENT = st.floats(-1.0, 1.0)
VECTOR = st.tuples(*[st.floats(-10.0, 10.0)] * 3).map(np.array)
AXIS = (
    st.tuples(*[COMPONENT] * 3)
    .map(np.array)
    .filter(lambda v: np.linalg.norm(v) > 1e-3)
    .map(lambda v: v / np.linalg.norm(v))
)
QUAT = (
    st.tuples(*[COMPONENT] * 4)
    .map(np.array)
    .filter(lambda q: np.linalg.norm(q) > 1e-3)
    .map(lambda q: q / np.linalg.norm(q))
)
ANGLE = st.one_of(
    st.floats(0.0, math.pi),
    st.sampled_from([0.0, 1e-300, 1e-12, 1e-8, 1e-7, 2e-4, 1e-3, math.pi / 2, math.pi - 1e-9, math.pi]),
)
MOTION = st.tuples(VECTOR, QUAT)


def _scipy(q: Array) -> Rotation:
    return Rotation.from_quat(q, scalar_first=True)


def _same_rotation(a: Array, b: Array, tolerance: float = 1e-12) -> bool:
    """Equal up to the sign that quaternions leave free."""
    return bool(min(np.abs(a - b).max(), np.abs(a + b).max()) < tolerance)


def _on_circle(angle: Any) -> Any:
    """Angles as points of the unit circle, where pi and -pi are the same."""
    return np.exp(1j * np.asarray(angle))


@given(a=QUAT, b=QUAT, c=QUAT)
def test_rotations_are_a_group(a: Array, b: Array, c: Array) -> None:
    product = g.quat_multiply(g.quat_multiply(a, b), c)
    assert product == pytest.approx(g.quat_multiply(a, g.quat_multiply(b, c)), abs=1e-14)  # associative
    assert np.array_equal(g.quat_multiply(a, IDENTITY), a)
    assert np.array_equal(g.quat_multiply(IDENTITY, a), a)
    assert g.quat_multiply(a, g.quat_conjugate(a)) == pytest.approx(IDENTITY, abs=1e-15)
    assert np.linalg.norm(product) == pytest.approx(1.0, abs=1e-14)  # closed


@given(a=QUAT, b=QUAT, v=VECTOR, w=VECTOR)
def test_rotations_act_on_vectors(a: Array, b: Array, v: Array, w: Array) -> None:
    """A homomorphism that keeps lengths, angles and handedness."""
    assert g.rotate(g.quat_multiply(a, b), v) == pytest.approx(g.rotate(a, g.rotate(b, v)), abs=1e-12)
    assert g.rotate_inverse(a, g.rotate(a, v)) == pytest.approx(v, abs=1e-12)
    assert g.rotate(a, v) @ g.rotate(a, w) == pytest.approx(v @ w, abs=1e-10)
    turned = g.cross(g.rotate(a, v), g.rotate(a, w))
    assert turned == pytest.approx(g.rotate(a, g.cross(v, w)), abs=1e-10)
    assert g.cross(v, w) == pytest.approx(np.cross(v, w), abs=1e-12)


@given(q=QUAT, v=VECTOR)
def test_scipy_agrees_on_action_and_matrix(q: Array, v: Array) -> None:
    assert g.rotate(q, v) == pytest.approx(_scipy(q).apply(v), abs=1e-12)
    matrix = g.quat_to_matrix(q)
    assert matrix == pytest.approx(_scipy(q).as_matrix(), abs=1e-13)
    assert matrix @ matrix.T == pytest.approx(np.eye(3), abs=1e-13)
    assert np.linalg.det(matrix) == pytest.approx(1.0, abs=1e-13)


@given(axis=AXIS, angle=ANGLE)
def test_matrix_round_trip_near_no_and_half_a_turn(axis: Array, angle: float) -> None:
    matrix = Rotation.from_rotvec(axis * angle).as_matrix()
    q = g.quat_from_matrix(matrix)
    assert q[0] >= 0.0
    assert np.linalg.norm(q) == pytest.approx(1.0, abs=1e-14)
    assert g.quat_to_matrix(q) == pytest.approx(matrix, abs=1e-14)


@given(axis=AXIS, angle=ANGLE)
def test_exponential_and_logarithm(axis: Array, angle: float) -> None:
    v = axis * angle
    q = g.quat_from_rotvec(v)
    assert _same_rotation(q, Rotation.from_rotvec(v).as_quat(scalar_first=True), 1e-15)
    back = g.quat_to_rotvec(q)
    # At half a turn both signs of the axis are the same rotation.
    assert min(np.abs(back - v).max(), np.abs(back + v).max() + (angle < 3.14)) < 1e-12
    assert np.linalg.norm(back) <= math.pi + 1e-15


@given(axis=AXIS, angle=st.one_of(st.sampled_from([0.0, 1e-6, 1.9e-4, 2.1e-4, 1e-3]), st.floats(0.0, 3.0)))
def test_derivative_of_exponential_and_logarithm(axis: Array, angle: float) -> None:
    """Automatic differentiation against central differences, on both sides of the series' threshold."""
    v = torch.tensor(axis * angle, dtype=torch.float64, requires_grad=True)
    for function in (g.quat_from_rotvec, lambda u: g.quat_to_rotvec(g.quat_from_rotvec(u))):
        jacobian = torch.autograd.functional.jacobian(function, v)
        assert isinstance(jacobian, torch.Tensor)
        assert torch.isfinite(jacobian).all()
        assert jacobian.numpy() == pytest.approx(_central_differences(function, axis * angle), abs=1e-7)


def _central_differences(function: Callable[[Any], Any], at: Array, step: float = 1e-6) -> Array:
    columns = [(function(at + d) - function(at - d)) / (2 * step) for d in step * np.eye(at.size)]
    return np.stack(columns, axis=-1)


def test_exponential_starts_with_half_the_vector() -> None:
    """d quat / d rotvec at zero is half the identity: the rule of q' = q * (0, omega) / 2."""
    jacobian = torch.autograd.functional.jacobian(g.quat_from_rotvec, torch.zeros(3, dtype=torch.float64))
    assert isinstance(jacobian, torch.Tensor)
    assert np.array_equal(jacobian.numpy(), np.vstack([np.zeros(3), 0.5 * np.eye(3)]))


@given(q=QUAT)
def test_euler_angles(q: Array) -> None:
    roll, pitch, yaw = g.quat_to_euler(q)
    assert -math.pi <= roll <= math.pi
    assert -math.pi / 2 <= pitch <= math.pi / 2
    assert -math.pi <= yaw <= math.pi
    assert _same_rotation(g.quat_from_euler(np.array(roll), np.array(pitch), np.array(yaw)), q)
    if abs(pitch) < 1.5:  # scipy refuses to tell roll from yaw at the lock
        assert _on_circle([yaw, pitch, roll]) == pytest.approx(_on_circle(_scipy(q).as_euler("ZYX")), abs=1e-9)
        assert _on_circle(g.quat_yaw(q)) == pytest.approx(_on_circle(yaw), abs=1e-12)


@given(sign=st.sampled_from([-1.0, 1.0]), off=st.sampled_from([0.0, 1e-12, 1e-8, 1e-5]), roll=COMPONENT, yaw=COMPONENT)
def test_euler_angles_at_the_gimbal_lock(sign: float, off: float, roll: float, yaw: float) -> None:
    """Nose straight up or down: the angles found still describe the rotation, to full precision."""
    q = g.quat_from_euler(np.array(roll), np.array(sign * (math.pi / 2 - off)), np.array(yaw))
    assert _same_rotation(g.quat_from_euler(*(np.array(a) for a in g.quat_to_euler(q))), q)


def test_euler_angles_by_hand() -> None:
    """REP-103: positive yaw turns x towards y, positive pitch puts the nose down, positive roll the left side up."""
    quarter = np.array(math.pi / 2)
    zero = np.array(0.0)
    x, y, z = np.eye(3)
    assert g.rotate(g.quat_from_euler(zero, zero, quarter), x) == pytest.approx(y, abs=1e-15)
    assert g.rotate(g.quat_from_euler(zero, quarter, zero), x) == pytest.approx(-z, abs=1e-15)
    assert g.rotate(g.quat_from_euler(quarter, zero, zero), y) == pytest.approx(z, abs=1e-15)


@given(a=MOTION, b=MOTION, c=MOTION, p=VECTOR)
def test_rigid_motions_are_a_group(a: Any, b: Any, c: Any, p: Array) -> None:
    left = g.transform_compose(g.transform_compose(a, b), c)
    right = g.transform_compose(a, g.transform_compose(b, c))
    assert left[0] == pytest.approx(right[0], abs=1e-11)
    assert left[1] == pytest.approx(right[1], abs=1e-14)
    shift, turn = g.transform_compose(a, g.transform_inverse(a))
    assert shift == pytest.approx(np.zeros(3), abs=1e-11)
    assert turn == pytest.approx(IDENTITY, abs=1e-14)
    acted = g.transform_point(a, g.transform_point(b, p))
    assert g.transform_point(g.transform_compose(a, b), p) == pytest.approx(acted, abs=1e-11)


@given(a=MOTION, b=MOTION)
def test_rigid_motions_are_homogeneous_matrices(a: Any, b: Any) -> None:
    def matrix(t: Any) -> Array:
        m = np.eye(4)
        m[:3, :3], m[:3, 3] = _scipy(t[1]).as_matrix(), t[0]
        return m

    assert matrix(g.transform_compose(a, b)) == pytest.approx(matrix(a) @ matrix(b), abs=1e-11)
    assert matrix(g.transform_inverse(a)) == pytest.approx(np.linalg.inv(matrix(a)), abs=1e-11)


ONE_ARGUMENT = [
    (g.quat_conjugate, 4),
    (g.quat_normalize, 4),
    (g.quat_to_matrix, 4),
    (g.quat_to_rotvec, 4),
    (g.quat_to_euler, 4),
    (g.quat_yaw, 4),
    (g.quat_from_rotvec, 3),
    (lambda q: g.quat_from_matrix(g.quat_to_matrix(q)), 4),
]


@pytest.mark.parametrize(("function", "size"), ONE_ARGUMENT)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_torch_equals_numpy_in_batches(function: Callable[[Any], Any], size: int, dtype: type) -> None:
    """Leading dimensions are free; both libraries differ by rounding of their elementary functions at most."""
    rng = np.random.default_rng(7)
    values = rng.normal(size=(3, 50, size))
    if size == 4:
        values /= np.linalg.norm(values, axis=-1, keepdims=True)
    ours, theirs = function(values.astype(dtype)), function(torch.from_numpy(values.astype(dtype)))
    if not isinstance(ours, tuple):
        ours, theirs = (ours,), (theirs,)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        assert b.numpy().dtype == dtype
        assert b.numpy() == pytest.approx(a, abs=10 * float(np.finfo(dtype).eps))
        one_by_one = function(values[1, 7].astype(dtype))
        one_by_one = one_by_one if isinstance(one_by_one, tuple) else (one_by_one,)
    assert ours[0][1, 7] == pytest.approx(one_by_one[0], abs=10 * float(np.finfo(dtype).eps))


def test_geometry_compiles_to_one_graph() -> None:
    def everything(q: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        turned = g.rotate(g.quat_multiply(q, g.quat_from_rotvec(v)), v)
        roll, pitch, yaw = g.quat_to_euler(g.quat_normalize(q + 0.1))
        again = g.quat_from_matrix(g.quat_to_matrix(g.quat_from_euler(roll, pitch, yaw)))
        return turned + g.rotate_inverse(again, v) + g.quat_to_rotvec(g.quat_conjugate(q))

    torch._dynamo.reset()
    generator = torch.Generator().manual_seed(5)
    q, v = torch.randn(16, 4, generator=generator), torch.randn(16, 3, generator=generator)
    q = q / q.norm(dim=-1, keepdim=True)
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(q, v), everything(q, v), atol=1e-6)
