"""The firmware's cascade against numbers worked out by hand from its gains, in degrees and counts of 1/65535."""

import math

import numpy as np
import pytest
import torch
from quadrotor_params import params

from hardware.robots.crazyflie import firmware
from hardware.robots.crazyflie.firmware import (
    CascadeState,
    cascade,
    commander_thrust,
    gains_on,
    mix_force_torque,
    mix_legacy,
    per_tick,
    rotor_ceiling,
    start_cascade,
    thrust_from_voltage,
)
from sim.dynamics import quadrotor as body

DEG = math.pi / 180.0
COUNTS = 65535.0


def level() -> tuple[np.ndarray, np.ndarray, CascadeState]:
    angles, rates = np.zeros(3), np.zeros(3)
    return angles, rates, start_cascade(angles, rates)


def test_first_two_ticks_of_a_roll_step_by_hand() -> None:
    """1 degree of roll: rate set point 6 + 3*0.002 deg/s; output 250 w + 500 * 0.002 w counts, halved per motor."""
    angles, rates, state = level()
    gains = per_tick(gains_on(angles))
    setpoint = np.array([DEG, 0.0, 0.0, 0.6])
    motors, state = cascade(setpoint, angles, rates, state, gains=gains)
    half = 0.5 * (250 * 6.006 + 500 * 0.002 * 6.006) / COUNTS
    assert motors == pytest.approx([0.6 - half, 0.6 - half, 0.6 + half, 0.6 + half], abs=1e-12)
    motors, state = cascade(setpoint, angles, rates, state, gains=gains)
    second = 6 + 3 * 0.004
    half = 0.5 * (250 * second + 500 * 0.002 * (6.006 + second)) / COUNTS
    assert motors == pytest.approx([0.6 - half, 0.6 - half, 0.6 + half, 0.6 + half], abs=1e-12)


@pytest.mark.parametrize(
    ("setpoint", "signs"),
    [((0.1, 0, 0), (-1, -1, 1, 1)), ((0, 0.1, 0), (-1, 1, 1, -1)), ((0, 0, 50.0), (-1, 1, -1, 1))],
)
def test_each_axis_drives_the_motors_that_turn_it(setpoint: tuple[float, ...], signs: tuple[int, ...]) -> None:
    """Signs of the torque equation of the dynamics: right roll lifts the left, pitch down lifts the tail."""
    angles, rates, state = level()
    motors, _ = cascade(np.array([*setpoint, 0.5]), angles, rates, state, gains=per_tick(gains_on(angles)))
    assert np.array_equal(np.sign(motors - 0.5), signs)


def test_derivatives_act_on_the_measurement() -> None:
    """A roll rate that jumps by 10 deg/s: 250 * -10 - 2.5 * 10 / 0.002 counts plus the integral's first part."""
    angles, rates, state = level()
    jumped = np.array([10 * DEG, 0.0, 0.0])
    motors, _ = cascade(np.array([0, 0, 0, 0.6]), angles, jumped, state, gains=per_tick(gains_on(angles)))
    half = 0.5 * (250 * 10 + 2.5 * 10 / 0.002 + 500 * 0.002 * 10) / COUNTS
    assert motors == pytest.approx([0.6 + half, 0.6 + half, 0.6 - half, 0.6 - half], abs=1e-12)
    # Yaw: 1 degree in one tick is 500 deg/s, and the angle's derivative gain is 0.35.
    _, _, state = level()
    turned = np.array([0.0, 0.0, DEG])
    motors, _ = cascade(np.array([0, 0, 0, 0.6]), turned, rates, state, gains=per_tick(gains_on(angles)))
    wanted = -6 - 1 * 0.002 - 0.35 * 500
    out = (120 * wanted + 16.7 * 0.002 * wanted) / COUNTS
    assert motors == pytest.approx([0.6 - out, 0.6 + out, 0.6 - out, 0.6 + out], abs=1e-12)


def test_integrals_and_outputs_stay_within_the_firmwares_limits() -> None:
    angles, rates, state = level()
    gains = per_tick(gains_on(angles))
    for _ in range(200_000 // 20):
        _, state = cascade(np.array([0.5, 0, 0, 0.5]), angles, rates, state, gains=gains)
    assert state.rate_sum[0] * 0.002 == pytest.approx(33.3 * DEG)
    assert state.angle_sum[0] * 0.002 <= 20 * DEG * (1 + 1e-12)
    motors, _ = cascade(np.array([0.5, 0, 0, 0.5]), angles, np.array([-300.0, 0, 0]), state, gains=gains)
    assert motors[2] - motors[0] == pytest.approx(32767 / COUNTS)


def test_zero_thrust_stops_the_motors_and_clears_the_integrals() -> None:
    angles, rates = np.array([0.2, 0.1, 1.0]), np.array([1.0, 2.0, 3.0])
    gains = per_tick(gains_on(angles))
    state = start_cascade(angles, rates)
    for _ in range(100):
        _, state = cascade(np.array([0.5, 0.5, 1.0, 0.6]), angles, rates, state, gains=gains)
    motors, state = cascade(np.array([0.5, 0.5, 1.0, 0.0]), angles, rates, state, gains=gains)
    assert not motors.any()
    for ours, fresh in zip(state, start_cascade(angles, rates), strict=True):
        assert np.allclose(ours, fresh)


def test_yaw_setpoint_follows_the_commanded_rate_across_half_a_turn() -> None:
    gains = per_tick(gains_on(np.zeros(3)))
    yaw, state = 3.1, start_cascade(np.array([0, 0, 3.1]), np.zeros(3))
    for _ in range(250):
        yaw += 0.5 * 0.002
        measured = np.array([0, 0, firmware.wrap_angle(np.array(yaw))])
        _, state = cascade(np.array([0, 0, 0.5, 0.6]), measured, np.array([0, 0, 0.5]), state, gains=gains)
    assert firmware.wrap_angle(state.yaw_setpoint - yaw) == pytest.approx(0.0, abs=1e-9)


def test_saturated_motors_give_up_thrust_before_attitude() -> None:
    motors = mix_legacy(np.array(0.9), np.array([0.4, 0.0, 0.0]))
    assert motors == pytest.approx([0.6, 0.6, 1.0, 1.0])  # 0.7 and 1.1, less the excess of 0.1
    assert mix_legacy(np.array(0.1), np.array([0.4, 0.0, 0.0])).min() == 0.0


def test_force_torque_mixing_inverts_the_dynamics() -> None:
    wanted = np.array([0.3, 1e-3, -2e-3, 3e-4])
    motors = mix_force_torque(wanted[0], wanted[1:], arm_m=0.046, torque_per_thrust_m=0.006993, rotor_max_n=0.12)
    p = params()
    state = body.rest_state((1,), p["mass"])
    state[body.ROTOR, 0] = torch.tensor(motors)
    linear, angular = body.accelerations(state, body.coefficients(p))
    inertia = torch.tensor([1.657e-5, 1.666e-5, 2.926e-5], dtype=torch.float64)
    assert (linear[2, 0] + 9.81) * 0.029 == pytest.approx(wanted[0], rel=1e-12)
    assert (angular[:, 0] * inertia).numpy() == pytest.approx(wanted[1:], rel=1e-9)


def test_thrust_curve_and_the_ceiling_of_a_battery() -> None:
    # By hand at 3 V: -.02476538 + .19571382 - .24113259 + .18297333 N.
    assert thrust_from_voltage(np.array(3.0)) == pytest.approx(0.11278918, abs=1e-8)
    assert rotor_ceiling(np.array([3.0, 3.3])) == pytest.approx([0.11278918 / 0.12, 1.0], abs=1e-6)


def test_commander_refuses_small_thrusts_and_cuts_large_ones() -> None:
    given = np.array([0.0, 999.0, 1000.0, 40000.0, 65535.0]) / COUNTS
    assert commander_thrust(given) * COUNTS == pytest.approx([0.0, 0.0, 1000.0, 40000.0, 60000.0])


def test_numpy_equals_torch_on_every_batch_shape() -> None:
    rng = np.random.default_rng(7)
    for shape in ((), (5,), (3, 4)):
        angles, rates = rng.normal(0, 0.3, (3, *shape)), rng.normal(0, 1.0, (3, *shape))
        setpoint = np.concatenate([rng.normal(0, 0.3, (3, *shape)), rng.uniform(-0.2, 0.8, (1, *shape))])
        mine, theirs = start_cascade(angles, rates), start_cascade(torch.tensor(angles), torch.tensor(rates))
        for _ in range(20):
            rates = rates + rng.normal(0, 0.1, rates.shape)
            a, mine = cascade(setpoint, angles, rates, mine, gains=per_tick(gains_on(angles)))
            t = [torch.tensor(v) for v in (setpoint, angles, rates)]
            b, theirs = cascade(*t, theirs, gains=per_tick(gains_on(t[1])))
            assert np.allclose(a, b.numpy(), atol=1e-14)
        for x, y in zip(mine, theirs, strict=True):
            assert np.allclose(x, y.numpy(), atol=1e-14)


def test_closed_loop_reaches_a_roll_set_point_without_offset() -> None:
    """On the nominal drone with an unbalanced rotor, whose torque the integrals must find."""
    p = params(rotor_gain_1=0.95, rotor_gain_2=1.0, rotor_gain_3=1.0, rotor_gain_4=1.0)
    c = body.coefficients(p)
    state = body.rest_state((1,), p["mass"])
    state[body.ROTOR] = body.hover_command(p)
    carried = start_cascade(torch.zeros(3, 1, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64))
    gains = per_tick(gains_on(state[:3]))
    target = torch.tensor([[10 * DEG], [0.0], [0.0], [0.6]], dtype=torch.float64)
    rolls = []
    for _ in range(2000):
        angles = body.euler_angles(body.rotation_forms(state[body.QUAT]))
        rolls.append(angles[0].item() / DEG)
        motors, carried = cascade(target, angles, state[body.RATE], carried, gains=gains)
        state = body.step_semi_implicit(state, motors, c, dt_s=0.002)
    assert max(rolls) < 15.0
    assert rolls[250] > 8.0
    assert rolls[-1] == pytest.approx(10.0, abs=0.2)
