"""Rotations and rigid motions. Quaternions are scalar-first unit quaternions; leading dimensions are free.

`quat` maps body to world: `v_world = rotate(quat, v_body)`. Euler angles are intrinsic z-y-x (yaw, pitch, roll),
as in REP-103. Every function works on numpy, torch or any array-API namespace.
"""

import math
from typing import Any

from hardware.arrays import namespace


def quat_multiply(a: Any, b: Any) -> Any:
    """Hamilton product (..., 4): first b, then a, when they act on vectors."""
    xp = namespace(a)
    aw, ax, ay, az = (a[..., i] for i in range(4))
    bw, bx, by, bz = (b[..., i] for i in range(4))
    return xp.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def quat_conjugate(q: Any) -> Any:
    """The inverse rotation of a unit quaternion (..., 4)."""
    xp = namespace(q)
    return xp.concat([q[..., :1], -q[..., 1:]], axis=-1)


def quat_normalize(q: Any) -> Any:
    """The unit quaternion along q (..., 4)."""
    xp = namespace(q)
    return q / xp.sqrt(xp.sum(q * q, axis=-1, keepdims=True))


def rotate(q: Any, v: Any) -> Any:
    """Rotates vectors (..., 3) by unit quaternions (..., 4): v + 2 w (u x v) + 2 u x (u x v)."""
    u = q[..., 1:]
    t = 2.0 * cross(u, v)
    return v + q[..., :1] * t + cross(u, t)


def rotate_inverse(q: Any, v: Any) -> Any:
    """Rotates vectors (..., 3) by the inverse of unit quaternions (..., 4)."""
    u = -q[..., 1:]
    t = 2.0 * cross(u, v)
    return v + q[..., :1] * t + cross(u, t)


def cross(a: Any, b: Any) -> Any:
    """Cross product (..., 3), broadcasting leading dimensions."""
    xp = namespace(a)
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return xp.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def quat_to_matrix(q: Any) -> Any:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4); columns are the body axes in the world."""
    xp = namespace(q)
    w, x, y, z = (q[..., i] for i in range(4))
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return xp.stack([xp.stack(r, axis=-1) for r in rows], axis=-2)


def quat_from_matrix(m: Any) -> Any:
    """Unit quaternions (..., 4), w >= 0, of rotation matrices (..., 3, 3).

    Takes the best conditioned of the four forms (Shepperd 1978), so it is exact near 180 degrees too.
    """
    xp = namespace(m)
    d0, d1, d2 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    a, b, c = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    p, r, s = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    forms = xp.stack(
        [
            xp.stack([1 + d0 + d1 + d2, a, b, c], axis=-1),
            xp.stack([a, 1 + d0 - d1 - d2, p, r], axis=-1),
            xp.stack([b, p, 1 - d0 + d1 - d2, s], axis=-1),
            xp.stack([c, r, s, 1 - d0 - d1 + d2], axis=-1),
        ],
        axis=-2,
    )
    weight = xp.stack([d0 + d1 + d2, d0, d1, d2], axis=-1)
    best = xp.argmax(weight, axis=-1)
    q = forms[..., 0, :]
    for i in (1, 2, 3):
        q = xp.where((best == i)[..., None], forms[..., i, :], q)
    q = quat_normalize(q)
    return xp.where(q[..., :1] < 0, -q, q)


def quat_from_rotvec(v: Any) -> Any:
    """Exponential map: unit quaternions (..., 4) of rotation vectors (..., 3), rad; smooth at zero."""
    xp = namespace(v)
    half_sq = xp.sum(v * v, axis=-1, keepdims=True) / 4.0
    small = half_sq < 1e-8
    # The square root never sees zero, where its derivative is infinite: gradients stay finite at no rotation.
    half = xp.sqrt(xp.where(small, xp.ones_like(half_sq), half_sq))
    sinc = xp.where(small, 1.0 - half_sq / 6.0, xp.sin(half) / half)
    return xp.concat([xp.where(small, 1.0 - half_sq / 2.0, xp.cos(half)), 0.5 * sinc * v], axis=-1)


def quat_to_rotvec(q: Any) -> Any:
    """Logarithmic map: rotation vectors (..., 3), rad, at most pi long, of unit quaternions (..., 4)."""
    xp = namespace(q)
    q = xp.where(q[..., :1] < 0, -q, q)
    u = q[..., 1:]
    sin_sq = xp.sum(u * u, axis=-1, keepdims=True)
    small = sin_sq < 1e-14
    sin = xp.sqrt(xp.where(small, xp.ones_like(sin_sq), sin_sq))
    return u * xp.where(small, 2.0 * xp.ones_like(sin), 2.0 * xp.atan2(sin, q[..., :1]) / sin)


def quat_from_euler(roll: Any, pitch: Any, yaw: Any) -> Any:
    """Unit quaternions (..., 4) of roll, pitch and yaw (...), rad, intrinsic z-y-x."""
    xp = namespace(roll)
    cr, sr, cp, sp = xp.cos(roll / 2), xp.sin(roll / 2), xp.cos(pitch / 2), xp.sin(pitch / 2)
    cy, sy = xp.cos(yaw / 2), xp.sin(yaw / 2)
    return xp.stack(
        [
            cr * cp * cy + sr * sp * sy,
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
        ],
        axis=-1,
    )


def quat_to_euler(q: Any) -> tuple[Any, Any, Any]:
    """Roll, pitch and yaw (...), rad, of unit quaternions (..., 4); pitch within +-pi/2.

    From half sum and half difference of roll and yaw (Bernardes and Viollet 2022): accurate near pitch +-pi/2 too,
    where only one of the two is determined and the angles found still describe the same rotation.
    """
    xp = namespace(q)
    w, x, y, z = (q[..., i] for i in range(4))
    half_sum, half_difference = xp.atan2(x + z, w - y), xp.atan2(x - z, w + y)
    up, down = xp.sqrt((w + y) ** 2 + (x - z) ** 2), xp.sqrt((w - y) ** 2 + (x + z) ** 2)
    pitch = 2.0 * xp.atan2(up, down) - math.pi / 2
    return wrap_angle(half_sum + half_difference), pitch, wrap_angle(half_sum - half_difference)


def wrap_angle(angle: Any) -> Any:
    """Angles (...), rad, within +-pi."""
    return angle - math.tau * namespace(angle).round(angle * (1.0 / math.tau))


def quat_yaw(q: Any) -> Any:
    """Heading (...), rad: the yaw of the z-y-x Euler angles."""
    xp = namespace(q)
    w, x, y, z = (q[..., i] for i in range(4))
    return xp.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def transform_compose(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
    """SE(3) product of (translation (..., 3), quat (..., 4)) pairs: `T_ac = T_ab * T_bc`."""
    return a[0] + rotate(a[1], b[0]), quat_multiply(a[1], b[1])


def transform_inverse(t: tuple[Any, Any]) -> tuple[Any, Any]:
    """The inverse rigid motion: `T_ba` of `T_ab`."""
    inverse = quat_conjugate(t[1])
    return -rotate(inverse, t[0]), inverse


def transform_point(t: tuple[Any, Any], p: Any) -> Any:
    """Points (..., 3) given in frame b, expressed in frame a, by `T_ab`."""
    return t[0] + rotate(t[1], p)
