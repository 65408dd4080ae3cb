"""Rigid-body quadrotor with first-order rotors: thousands of them as planes of one tensor.

The state is one tensor (17, N): position world 0:3, velocity world 3:6, quat_wxyz 6:10, body rate 10:13, normalised
rotor state 13:17. Motors M1 front right (+x, -y), then clockwise seen from above; body axes
x forward, y left, z up; world z up.

    dr_i/dt = (u_i - r_i) / tau            tau_up where u > r, else tau_down
    f_i     = gain_i f_max ((1 - k) r_i + k r_i^2)
    m dv/dt = F R e_z - m g e_z - R diag(d_xy, d_xy, d_z) R^T v + f_constant
    J dw/dt = tau_b - w x (J w) - h (w x e_z)
    dq/dt   = 1/2 q * (0, w)

with F the sum of the f_i, tau_b = [l(-f1-f2+f3+f4), l(-f1+f2+f3-f4), c(-f1+f2-f3+f4)] about the shifted centre of
mass, l = arm / sqrt(2), and h = J_p sum s_i Omega_i, the rotors' angular momentum (Omega = Omega_max sqrt(f/f_max)).
Equations as in Foerster, System identification of the Crazyflie 2.0 (2015), with the firmware's motor numbering.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sim import ode

GRAVITY = 9.81
POSITION, VELOCITY, QUAT, RATE, ROTOR = slice(0, 3), slice(3, 6), slice(6, 10), slice(10, 13), slice(13, 17)
STATE_PARTS = (3, 3, 4, 3, 4)
STATE_SIZE = 17

DEFAULTS = {
    "arm": 0.046,
    "centre_of_mass_x": 0.0,
    "centre_of_mass_y": 0.0,
    "rotor_gain_1": 1.0,
    "rotor_gain_2": 1.0,
    "rotor_gain_3": 1.0,
    "rotor_gain_4": 1.0,
    "force_x": 0.0,
    "force_y": 0.0,
    "force_z": 0.0,
    "rotor_inertia": 0.0,
    "rotor_speed_max": 2430.0,
}
"""Parameters that a world need not name, SI units."""


class Coefficients(NamedTuple):
    """What a step needs of the parameters, as planes; made by `coefficients`."""

    thrust_linear: Tensor
    """(4, N) N: force = linear r + square r^2."""
    thrust_square: Tensor
    lag: Tensor
    """(2, N) 1/s: 1/tau_up and 1/tau_down."""
    inverse_mass: Tensor
    """(1, N) 1/kg."""
    drag: Tensor
    """(2, N) 1/s: d_xy/m and (d_z - d_xy)/m."""
    pull: Tensor
    """(3, N) m/s^2: gravity and constant force."""
    lever: Tensor
    """(3, N): angular acceleration per rolling, pitching and yawing sum of forces, rad/s^2 per N."""
    offset: Tensor
    """(3, N): angular acceleration per total force, from the shifted centre of mass, rad/s^2 per N."""
    gyro: Tensor
    """(3, N): (Jy - Jz)/Jx, (Jz - Jx)/Jy, (Jx - Jy)/Jz."""
    spin: Tensor
    """(2, N): J_p Omega_max / (Jx, Jy) per root of normalised force; 1/s."""
    inverse_force_max: Tensor
    """(4, N) 1/N: of each rotor at r = 1."""


COEFFICIENT_ROWS = tuple(zip(Coefficients._fields, (4, 4, 2, 1, 2, 3, 3, 3, 3, 2, 4), strict=True))
"""Field and number of its planes, for packing into one tensor."""


def coefficients(params: Mapping[str, Tensor]) -> Coefficients:
    """Coefficients of worlds with parameters name -> (N,), named and in units as in `ranges.toml`."""
    like = params["mass"]
    p = {name: torch.full_like(like, value) for name, value in DEFAULTS.items()} | dict(params)
    mass, k = p["mass"], p["thrust_curve"]
    jx, jy, jz = p["inertia_xx"], p["inertia_yy"], p["inertia_zz"]
    each = 0.25 * p["thrust_to_weight"] * mass * GRAVITY
    force_max = torch.stack([each * p[f"rotor_gain_{i}"] for i in (1, 2, 3, 4)])
    arm = p["arm"] / math.sqrt(2.0)
    spin = p["rotor_inertia"] * p["rotor_speed_max"]
    zero = torch.zeros_like(like)
    return Coefficients(
        thrust_linear=force_max * (1.0 - k),
        thrust_square=force_max * k,
        lag=torch.stack([1.0 / p["motor_tau_up"], 1.0 / p["motor_tau_down"]]),
        inverse_mass=(1.0 / mass)[None],
        drag=torch.stack([p["drag_xy"] / mass, (p["drag_z"] - p["drag_xy"]) / mass]),
        pull=torch.stack([p["force_x"] / mass, p["force_y"] / mass, p["force_z"] / mass - GRAVITY]),
        lever=torch.stack([arm / jx, arm / jy, p["torque_per_thrust"] / jz]),
        # The rotors push along z at -c from the centre of mass c: torque (-c) x F e_z = F (-c_y, c_x, 0).
        offset=torch.stack([-p["centre_of_mass_y"] / jx, p["centre_of_mass_x"] / jy, zero]),
        gyro=torch.stack([(jy - jz) / jx, (jz - jx) / jy, (jx - jy) / jz]),
        spin=torch.stack([spin / jx, spin / jy]),
        inverse_force_max=1.0 / force_max,
    )


def unpack(packed: Tensor) -> Coefficients:
    """Coefficients of one tensor (31, N), as `torch.cat(list(c))` makes it."""
    return Coefficients(*packed.split([rows for _, rows in COEFFICIENT_ROWS]))


def rotor_forces(rotor: Tensor, c: Coefficients) -> Tensor:
    """Force of each rotor (4, N), N, at normalised rotor states (4, N)."""
    return torch.addcmul(c.thrust_linear, c.thrust_square, rotor) * rotor


def accelerations(
    state: Tensor, c: Coefficients, forms: Tensor | None = None, *, rotor_gyro: bool = True
) -> tuple[Tensor, Tensor]:
    """World acceleration (3, N), m/s^2, and body angular acceleration (3, N), rad/s^2, at a state (17, N).

    `forms` are `rotation_forms` of the state, for callers that have them; `rotor_gyro` False leaves out the rotors' own
    angular momentum.
    """
    forms = rotation_forms(state[QUAT]) if forms is None else forms
    velocity, rate, up = state[VELOCITY], state[RATE], forms[:3]
    force = rotor_forces(state[ROTOR], c)
    sums = _constant("mixing", state) @ force
    total = sums[:1]
    along = total * c.inverse_mass - c.drag[1:] * (velocity * up).sum(0, keepdim=True)
    linear = torch.addcmul(torch.addcmul(c.pull, up, along), velocity, c.drag[:1], value=-1.0)

    angular = torch.addcmul(sums[1:] * c.lever, c.offset, total)
    following, preceding = torch.cat([rate[1:], rate[:1]]), torch.cat([rate[2:], rate[:2]])
    angular = torch.addcmul(angular, c.gyro, following * preceding)
    if rotor_gyro:
        speed = torch.sqrt((force * c.inverse_force_max).clamp_(min=0.0))
        turn = c.spin * (_constant("spin", state) @ speed)  # rotors turn against their reaction torque
        angular = torch.cat([torch.addcmul(angular[:2], turn, torch.cat([following[:1], following[2:]])), angular[2:]])
    return linear, angular


def rotation_forms(quat: Tensor) -> Tensor:
    """Quadratic forms (9, N) of unit quaternions (4, N) that make up the rotation.

    Rows 0:3 the body's z axis in the world; 3:5 sines and 5:7 cosines of roll and yaw, unnormalised; 7:9 the world's z
    axis along the body's x and y: minus the sine of the pitch, and row 3 once more.
    """
    products = (quat[:, None] * quat).reshape(16, -1)
    return _constant("forms", quat) @ products


def into_body(quat: Tensor, vector: Tensor) -> Tensor:
    """World vectors (3, N) in the frames of bodies with quaternions (4, N)."""
    w, u = quat[:1], -quat[1:]
    turned = 2.0 * torch.linalg.cross(u, vector, dim=0)
    return vector + w * turned + torch.linalg.cross(u, turned, dim=0)


def euler_angles(forms: Tensor) -> Tensor:
    """Roll, pitch and yaw (3, N), rad, z-y-x, from `rotation_forms`."""
    level = torch.atan2(forms[3:5], forms[5:7])
    return torch.stack([level[0], torch.asin((-forms[7]).clamp_(-1.0, 1.0)), level[1]])


def derivative(state: Tensor, command: Tensor, c: Coefficients, *, rotor_gyro: bool = True) -> Tensor:
    """d(state)/dt (17, N) under rotor commands (4, N) in 0..1."""
    linear, angular = accelerations(state, c, rotor_gyro=rotor_gyro)
    gap = command - state[ROTOR]
    spinning = gap * torch.where(gap > 0.0, c.lag[0], c.lag[1])
    return torch.cat([state[VELOCITY], linear, _quat_rate(state[QUAT], state[RATE]), angular, spinning])


def step_rk4(state: Tensor, command: Tensor, c: Coefficients, *, dt_s: float, rotor_gyro: bool = True) -> Tensor:
    """The state (17, N) after `dt_s` under a constant command: classical Runge-Kutta, fourth order."""
    new = ode.step_rk4(lambda _, s: derivative(s, command, c, rotor_gyro=rotor_gyro), 0.0, state, dt_s)
    return torch.cat([new[:6], _unit(new[QUAT]), new[10:]])


def step_semi_implicit(
    state: Tensor,
    command: Tensor,
    c: Coefficients,
    *,
    dt_s: float,
    decay: Tensor | None = None,
    forms: Tensor | None = None,
    rotor_gyro: bool = True,
) -> Tensor:
    """The state (17, N) after `dt_s`: velocities first, then positions with the new velocities; first order.

    The rotors' lag is integrated exactly. `decay` is `lag_decay(c, dt_s)` and `forms` are `rotation_forms`, for callers
    that have them.
    """
    decay = lag_decay(c, dt_s) if decay is None else decay
    linear, angular = accelerations(state, c, forms, rotor_gyro=rotor_gyro)
    position, velocity, quat, rate, rotor = state.split(STATE_PARTS)
    velocity = torch.add(velocity, linear, alpha=dt_s)
    rate = torch.add(rate, angular, alpha=dt_s)
    position = torch.add(position, velocity, alpha=dt_s)
    # Not torch.add(..., alpha=dt_s): torch 2.13 compiles that sum with a matrix product without its alpha.
    quat = _unit(quat + _quat_rate(quat, dt_s * rate))
    gap = command - rotor
    rotor = torch.addcmul(rotor, gap, torch.where(gap > 0.0, decay[0], decay[1]))
    return torch.cat([position, velocity, quat, rate, rotor])


def lag_decay(c: Coefficients, dt_s: float) -> Tensor:
    """(2, N): share of the gap to the command that a rotor closes in `dt_s`, rising and falling."""
    return -torch.expm1(-dt_s * c.lag)


def rest_state(batch: tuple[int, ...], like: Tensor) -> Tensor:
    """(17, *batch): level, at rest at the origin, rotors stopped."""
    state = like.new_zeros((STATE_SIZE, *batch))
    state[6] = 1.0
    return state


def turn_small(quat: Tensor, turn: Tensor) -> Tensor:
    """Quaternions (4, N) turned in their own frame by small rotation vectors (3, N), rad; error of third order."""
    return _unit(quat + _quat_rate(quat, turn))


def hover_command(params: Mapping[str, Tensor]) -> Tensor:
    """Rotor command (N,) at which the thrust of equal rotors balances the weight."""
    k, share = params["thrust_curve"], 1.0 / params["thrust_to_weight"]
    # Root of k u^2 + (1 - k) u = share, in the form that also holds for k = 0.
    b = 1.0 - k
    return 2.0 * share / (b + torch.sqrt(b * b + 4.0 * k * share))


def _quat_rate(quat: Tensor, rate: Tensor) -> Tensor:
    """1/2 q * (0, w): (4, N)."""
    products = (quat[:, None] * rate).reshape(12, -1)
    return _constant("quat_rate", quat) @ products


def _unit(quat: Tensor) -> Tensor:
    return quat * torch.rsqrt((quat * quat).sum(0, keepdim=True))


_MIXING = ((1, 1, 1, 1), (-1, -1, 1, 1), (-1, 1, 1, -1), (-1, 1, -1, 1))
"""Total, rolling, pitching and yawing sums of the four forces."""
_SPIN = ((-1, 1, -1, 1), (1, -1, 1, -1))
"""Signs of -h (w x e_z) = (-h w_y, h w_x) per rotor: M1 and M3 turn counter-clockwise."""


def _bilinear(rows: list[dict[str, float]], left: str, right: str) -> tuple[tuple[float, ...], ...]:
    """Coefficients of bilinear forms over the products left_i right_j, row-major; a form maps 'ij' to its factor."""
    return tuple(tuple(row.get(i + j, 0.0) for i in left for j in right) for row in rows)


_FORMS = _bilinear(
    [
        {"xz": 2.0, "wy": 2.0},
        {"yz": 2.0, "wx": -2.0},
        {"ww": 1.0, "xx": -1.0, "yy": -1.0, "zz": 1.0},
        {"yz": 2.0, "wx": 2.0},
        {"xy": 2.0, "wz": 2.0},
        {"ww": 1.0, "xx": -1.0, "yy": -1.0, "zz": 1.0},
        {"ww": 1.0, "xx": 1.0, "yy": -1.0, "zz": -1.0},
        {"xz": 2.0, "wy": -2.0},
        {"yz": 2.0, "wx": 2.0},
    ],
    "wxyz",
    "wxyz",
)
_QUAT_RATE = _bilinear(
    [
        {"xa": -0.5, "yb": -0.5, "zc": -0.5},
        {"wa": 0.5, "yc": 0.5, "zb": -0.5},
        {"wb": 0.5, "za": 0.5, "xc": -0.5},
        {"wc": 0.5, "xb": 0.5, "ya": -0.5},
    ],
    "wxyz",
    "abc",
)


_TABLES = {"mixing": _MIXING, "spin": _SPIN, "forms": _FORMS, "quat_rate": _QUAT_RATE}
_TENSORS: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}


def _constant(name: str, like: Tensor) -> Tensor:
    """The table of that name as a tensor like `like`, made once per dtype and device."""
    key = (name, like.dtype, like.device)
    if key not in _TENSORS:
        _TENSORS[key] = torch.tensor(_TABLES[name], dtype=like.dtype, device=like.device)
    return _TENSORS[key]
