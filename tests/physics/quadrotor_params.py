"""One drone's parameters in float64, for the tests of this folder."""

import torch
from torch import Tensor

CF21 = {
    "mass": 0.029,
    "inertia_xx": 1.657e-5,
    "inertia_yy": 1.666e-5,
    "inertia_zz": 2.926e-5,
    "thrust_to_weight": 4 * 0.12 / (0.029 * 9.81),
    "thrust_curve": 0.0,
    "motor_tau_up": 0.045,
    "motor_tau_down": 0.08,
    "torque_per_thrust": 0.006993,
    "drag_xy": 0.015,
    "drag_z": 0.0139,
}


def params(count: int = 1, *, dtype: torch.dtype = torch.float64, **changes: float) -> dict[str, Tensor]:
    """CF21 with changes, `count` times."""
    return {name: torch.full((count,), value, dtype=dtype) for name, value in (CF21 | changes).items()}
