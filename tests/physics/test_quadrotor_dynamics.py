"""Quadrotor dynamics against closed forms, invariants and measured orders of convergence (float64)."""

import math
from itertools import pairwise

import pytest
import torch
from quadrotor_params import params
from torch import Tensor

from sim.dynamics import quadrotor as body


def fly(
    state: Tensor, command: Tensor, c: body.Coefficients, *, dt_s: float, steps: int, method: str = "rk4"
) -> Tensor:
    step = body.step_rk4 if method == "rk4" else body.step_semi_implicit
    for _ in range(steps):
        state = step(state, command, c, dt_s=dt_s)
    return state


def tumbling(count: int = 1, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """A state in full motion and a command that all rotors rise to."""
    g = torch.Generator().manual_seed(5)
    state = torch.randn((17, count), generator=g, dtype=torch.float64)
    state[body.QUAT] /= state[body.QUAT].norm(dim=0)
    state[body.RATE] *= 4.0
    state[body.ROTOR] = 0.2 + 0.1 * torch.rand((4, count), generator=g, dtype=torch.float64)
    command = 0.5 + 0.1 * torch.rand((4, count), generator=g, dtype=torch.float64)
    return state.to(dtype), command.to(dtype)


@pytest.mark.parametrize("curve", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("method", ["rk4", "semi_implicit"])
def test_hover_command_balances_the_weight(curve: float, method: str) -> None:
    p = params(thrust_curve=curve)
    u = body.hover_command(p)
    if curve == 1.0:  # f = k2 r^2 per rotor: u = sqrt(m g / (4 k2))
        k2 = p["thrust_to_weight"] * p["mass"] * 9.81 / 4
        assert torch.allclose(u, torch.sqrt(p["mass"] * 9.81 / (4 * k2)), rtol=1e-12)
    state = body.rest_state((1,), u)
    state[body.ROTOR] = u
    state = fly(state, u.expand(4, 1), body.coefficients(p), dt_s=0.01, steps=1000, method=method)
    assert state[body.VELOCITY].abs().max() < 1e-9
    assert state[body.RATE].abs().max() < 1e-9


def test_free_fall_is_exact_under_rk4() -> None:
    p = params(drag_xy=0.0, drag_z=0.0)
    start = body.rest_state((1,), p["mass"])
    state = fly(start, torch.zeros(4, 1, dtype=torch.float64), body.coefficients(p), dt_s=0.01, steps=100)
    assert state[2].item() == pytest.approx(-9.81 / 2, abs=1e-12)
    assert state[5].item() == pytest.approx(-9.81, abs=1e-12)


@pytest.mark.parametrize(("tau", "begin", "end"), [("motor_tau_up", 0.2, 0.8), ("motor_tau_down", 0.8, 0.2)])
def test_rotor_closes_63_percent_of_a_step_in_its_time_constant(tau: str, begin: float, end: float) -> None:
    p = params()
    state = body.rest_state((1,), p["mass"])
    state[body.ROTOR] = begin
    command = torch.full((4, 1), end, dtype=torch.float64)
    steps = 50
    for method, tolerance in (("rk4", 1e-9), ("semi_implicit", 1e-12)):
        after = fly(state, command, body.coefficients(p), dt_s=p[tau].item() / steps, steps=steps, method=method)
        share = (after[body.ROTOR] - begin) / (end - begin)
        assert torch.allclose(share, torch.full_like(share, 1 - math.exp(-1)), atol=tolerance)


def test_terminal_speed_is_weight_over_drag() -> None:
    p = params(mass=0.0328)
    state = body.rest_state((1,), p["mass"])
    state = fly(state, torch.zeros(4, 1, dtype=torch.float64), body.coefficients(p), dt_s=0.02, steps=2500)
    assert -state[5].item() == pytest.approx(0.0328 * 9.81 / 0.0139, rel=1e-6)
    assert -state[5].item() == pytest.approx(23.1, abs=0.1)


def test_symmetric_top_precesses_at_the_published_rate() -> None:
    jx, jz, spin, wobble, t = 1.7e-5, 2.9e-5, 12.0, 1.5, 2.0
    p = params(inertia_xx=jx, inertia_yy=jx, inertia_zz=jz)
    state = body.rest_state((1,), p["mass"])
    state[10], state[12] = wobble, spin
    state = fly(state, torch.zeros(4, 1, dtype=torch.float64), body.coefficients(p), dt_s=0.002, steps=1000)
    angle = (jz - jx) / jx * spin * t
    assert state[10].item() == pytest.approx(wobble * math.cos(angle), abs=1e-7)
    assert state[11].item() == pytest.approx(wobble * math.sin(angle), abs=1e-7)
    assert state[12].item() == pytest.approx(spin, abs=1e-12)


@pytest.mark.parametrize(("method", "order"), [("rk4", 4.0), ("semi_implicit", 1.0)])
def test_order_of_convergence(method: str, order: float) -> None:
    p = params(rotor_inertia=3e-8)
    c = body.coefficients(p)
    state, command = tumbling()
    exact = fly(state, command, c, dt_s=0.5 / 8000, steps=8000)
    errors = [
        (fly(state, command, c, dt_s=0.5 / n, steps=n, method=method) - exact)[body.POSITION].norm().item()
        for n in (50, 100, 200, 400)
    ]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(abs(o - order) < 0.3 for o in orders), (errors, orders)


@pytest.mark.parametrize(("dt_ms", "energy", "momentum"), [(10, 1e-4, 3e-5), (5, 4e-6, 1e-6), (2, 4e-8, 1e-8)])
def test_torque_free_motion_keeps_energy_and_angular_momentum(dt_ms: int, energy: float, momentum: float) -> None:
    p = params()
    inertia = torch.tensor([1.657e-5, 1.666e-5, 2.926e-5], dtype=torch.float64)[:, None]
    state = body.rest_state((1,), p["mass"])
    state[body.RATE] = torch.tensor([[4.0], [-3.0], [5.0]], dtype=torch.float64)

    def invariants(s: Tensor) -> tuple[Tensor, Tensor]:
        from hardware.geometry import rotate

        w = s[body.RATE]
        return 0.5 * (w * inertia * w).sum(), rotate(s[body.QUAT].T, (inertia * w).T)[0]

    e0, l0 = invariants(state)
    c = body.coefficients(p)
    state = fly(state, torch.zeros(4, 1, dtype=torch.float64), c, dt_s=dt_ms / 1000, steps=10_000 // dt_ms)
    e1, l1 = invariants(state)
    assert abs(e1 / e0 - 1) < energy
    assert (l1 - l0).norm() / l0.norm() < momentum


def test_turning_the_world_turns_the_motion() -> None:
    """Yaw symmetry, with drag and rotor inertia: physics knows no compass."""
    from hardware.geometry import quat_from_euler, quat_multiply, rotate

    p = params(rotor_inertia=3e-8, inertia_yy=1.657e-5)
    c = body.coefficients(p)
    state, command = tumbling()
    turn = quat_from_euler(*(torch.tensor([a], dtype=torch.float64) for a in (0.0, 0.0, 0.7)))

    def turned(s: Tensor) -> Tensor:
        quat = quat_multiply(turn, s[body.QUAT].T).T
        return torch.cat([rotate(turn, s[:3].T).T, rotate(turn, s[3:6].T).T, quat, s[10:]])

    a = fly(turned(state), command, c, dt_s=0.005, steps=200)
    b = turned(fly(state, command, c, dt_s=0.005, steps=200))
    assert torch.allclose(a, b, atol=1e-11)


def test_swapping_the_body_axes_swaps_the_motion() -> None:
    """x and y symmetry: mirror the drone on its diagonal plane x = y, rotors and all."""
    p = params(inertia_yy=1.657e-5)
    c = body.coefficients(p)
    state, command = tumbling()
    # The mirror exchanges x and y; axial vectors also change sign. Rotors: M1 (+,-) <-> M3 (-,+); M2, M4 stay.
    rotors = [2, 1, 0, 3]

    def mirrored(s: Tensor) -> Tensor:
        quat = torch.stack([s[6], -s[8], -s[7], -s[9]])
        rate = torch.stack([-s[11], -s[10], -s[12]])
        vector = lambda v: torch.stack([v[1], v[0], v[2]])  # noqa: E731
        return torch.cat([vector(s[:3]), vector(s[3:6]), quat, rate, s[13:][rotors]])

    # The reaction torque turns with the mirror only if the rotors turn the other way round: c changes sign.
    other = body.coefficients(p | {"torque_per_thrust": -p["torque_per_thrust"]})
    a = fly(mirrored(state), command[rotors], other, dt_s=0.005, steps=200)
    b = mirrored(fly(state, command, c, dt_s=0.005, steps=200))
    assert torch.allclose(a, b, atol=1e-11)


def test_shifted_centre_of_mass_needs_the_torque_of_its_lever() -> None:
    offset, p = 0.002, params()
    c = body.coefficients(p | {"centre_of_mass_x": torch.tensor([offset], dtype=torch.float64)})
    state = body.rest_state((1,), p["mass"])
    state[body.ROTOR] = body.hover_command(p)
    _, angular = body.accelerations(state, c)
    # The thrust m g acts at (-offset, 0, 0) from the centre of mass: torque +offset m g about y.
    assert angular[1].item() == pytest.approx(offset * 0.029 * 9.81 / 1.666e-5, rel=1e-12)
    assert angular[0].abs().item() < 1e-12


def test_a_batch_equals_its_members_one_by_one() -> None:
    count = 37
    p = params(count, rotor_inertia=3e-8)
    p["mass"] = p["mass"] * torch.linspace(0.8, 1.2, count, dtype=torch.float64)
    state, command = tumbling(count)
    together = fly(state, command, body.coefficients(p), dt_s=0.005, steps=100, method="semi_implicit")
    for i in (0, 17, 36):
        one = {name: value[i : i + 1] for name, value in p.items()}
        alone = fly(
            state[:, i : i + 1], command[:, i : i + 1], body.coefficients(one), dt_s=0.005, steps=100, method="semi"
        )
        assert torch.allclose(alone[:, 0], together[:, i], atol=1e-12)


def test_float32_stays_close_to_float64_for_a_second() -> None:
    results = []
    for dtype in (torch.float32, torch.float64):
        state, command = tumbling(8, dtype)
        c = body.coefficients(params(8, dtype=dtype, rotor_inertia=3e-8))
        results.append(fly(state, command, c, dt_s=0.01, steps=100).double())
    gap = (results[0] - results[1]).abs()
    assert gap[body.POSITION].max() < 1e-4
    assert gap[body.QUAT].max() < 1e-4


def test_gradients_flow_through_a_flight() -> None:
    state, command = tumbling(2)
    command.requires_grad_(True)
    c = body.coefficients(params(2))
    assert torch.autograd.gradcheck(
        lambda u: fly(state, u, c, dt_s=0.005, steps=5, method="semi_implicit")[:10], (command,), atol=1e-6
    )


def test_rotation_forms_agree_with_the_geometry_module() -> None:
    from hardware.geometry import quat_to_euler, quat_to_matrix

    state, _ = tumbling(200)
    quat = state[body.QUAT]
    forms, matrix = body.rotation_forms(quat), quat_to_matrix(quat.T)
    assert torch.allclose(forms[:3].T, matrix[:, :, 2], atol=1e-14)
    assert torch.allclose(forms[[7, 8, 2]].T, matrix[:, 2, :], atol=1e-14)
    assert torch.allclose(body.euler_angles(forms), torch.stack(quat_to_euler(quat.T)), atol=1e-12)
