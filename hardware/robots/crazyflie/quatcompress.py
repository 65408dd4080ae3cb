"""Unit quaternions in 32 bits, as CRTP carries them (the firmware's quatcompress.h). Scalar first on our side."""

import math

from hardware.robots.crazyflie.wire import WireError

Quat = tuple[float, float, float, float]


def compress_quat(quat_wxyz: Quat) -> int:
    """A unit quaternion in 32 bits: index of the largest of (x, y, z, w), then sign and 9 bits of each other one.

    quatcompress.h; the largest component is left out because the norm restores it; worst error 0.28 degrees.
    """
    w, x, y, z = unit_quat(quat_wxyz)
    xyzw = (x, y, z, w)
    largest = max(range(4), key=lambda i: abs(xyzw[i]))
    packed = largest
    for i in range(4):
        if i != largest:
            negative = (xyzw[i] < 0) != (xyzw[largest] < 0)
            packed = packed << 10 | negative << 9 | int(511 * abs(xyzw[i]) * math.sqrt(2) + 0.5)
    return packed


def decompress_quat(packed: int) -> Quat:
    """The unit quaternion (scalar first) in 32 bits; see `compress_quat`."""
    largest, rest = packed >> 30, 0.0
    xyzw = [0.0] * 4
    for i in reversed([i for i in range(4) if i != largest]):
        magnitude = (packed & 511) / 511 / math.sqrt(2)
        xyzw[i] = -magnitude if packed & 512 else magnitude
        rest += magnitude * magnitude
        packed >>= 10
    if rest > 1.0:  # three components at their greatest: no unit quaternion has that
        raise WireError(f"compressed quaternion with squared remainder {1 - rest:.3f}; expected at least 0")
    xyzw[largest] = math.sqrt(1 - rest)
    return xyzw[3], xyzw[0], xyzw[1], xyzw[2]


def unit_quat(quat: Quat) -> Quat:
    """The unit quaternion along a nearly normalised one; raises WireError for anything else."""
    norm = math.sqrt(sum(v * v for v in quat))
    if not 0.5 < norm < 2.0:
        raise WireError(f"quaternion of norm {norm:.3g}; expected 1")
    return quat[0] / norm, quat[1] / norm, quat[2] / norm, quat[3] / norm
