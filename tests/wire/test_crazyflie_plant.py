"""The emulator's numpy world against physics: closed forms, invariants and measured order of convergence."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from hardware.errors import BadInput, NotFoundError
from hardware.plant import Plant
from hardware.robots.crazyflie.battery import current_a, discharge, level_percent, open_circuit_v
from hardware.robots.crazyflie.plant import GRAVITY, Airframe, RigidBodyPlant, load_airframe

DT = 0.002
HIGH = np.array([[0.0, 0.0, 1000.0]])


def high_up(airframe: Airframe | None = None) -> RigidBodyPlant:
    return RigidBodyPlant(1, airframe, start_world=HIGH)


def hover_command(a: Airframe) -> float:
    """Share of full force per rotor that carries the weight, and the command that gives it."""
    share = a.mass_kg * GRAVITY / (4.0 * a.thrust_max_n)
    k = a.thrust_curve
    return share if k == 0.0 else (k - 1.0 + math.sqrt((1.0 - k) ** 2 + 4.0 * k * share)) / (2.0 * k)


def fly(plant: RigidBodyPlant, command: object, seconds: float, dt_s: float = DT) -> None:
    actuators = np.broadcast_to(np.asarray(command, dtype=np.float64), (plant.num_robots, 4))
    for _ in range(round(seconds / dt_s)):
        plant.step(actuators, dt_s)


@pytest.mark.parametrize("name", ["cf21", "foerster", "crazyflow", "l2f", "quad_swarm"])
def test_hover_thrust_holds_every_airframe(name: str) -> None:
    plant = high_up(load_airframe(name))
    u = hover_command(plant.airframe)
    plant.rotors[:] = u
    fly(plant, u, 2.0)
    assert np.abs(plant.velocity).max() < 1e-9
    assert plant.position[2, 0] == pytest.approx(1000.0, abs=1e-9)


def test_free_fall_without_drag_is_half_g_t_squared() -> None:
    plant = high_up(replace(load_airframe(), drag_kg_s=(0.0, 0.0, 0.0)))
    fly(plant, 0.0, 3.0)
    assert 1000.0 - plant.position[2, 0] == pytest.approx(0.5 * GRAVITY * 9.0, rel=1e-12)


def test_terminal_speed_is_weight_over_drag() -> None:
    plant = high_up(load_airframe("crazyflow"))
    fly(plant, 0.0, 25.0, dt_s=0.01)
    assert -plant.velocity[2, 0] == pytest.approx(0.0328 * GRAVITY / 0.0139, rel=1e-4)  # 23.1 m/s


def test_rotors_reach_their_command_by_the_time_constants() -> None:
    plant = high_up()
    a = plant.airframe
    plant.step(np.full((1, 4), 0.5), a.tau_up_s)
    assert plant.rotors[:, 0] == pytest.approx(0.5 * (1.0 - math.exp(-1.0)), rel=1e-12)
    plant.rotors[:] = 0.5
    fly(plant, 0.0, a.tau_down_s)
    assert plant.rotors[:, 0] == pytest.approx(0.5 * math.exp(-1.0), rel=1e-6)


@pytest.mark.parametrize(
    ("command", "axis", "sign"),
    [
        ([0.4, 0.4, 0.6, 0.6], 0, +1),  # left rotors stronger: rolls to the right side down
        ([0.4, 0.6, 0.6, 0.4], 1, +1),  # rear rotors stronger: the nose goes down
        ([0.4, 0.6, 0.4, 0.6], 2, +1),  # M2 and M4 turn clockwise: the body turns to the left
    ],
)
def test_torques_turn_the_right_way(command: list[float], axis: int, sign: int) -> None:
    plant = high_up(replace(load_airframe(), rotor_inertia_kg_m2=0.0))
    fly(plant, [command], 0.05)
    rates = plant.rates[:, 0]
    assert sign * rates[axis] > 0.1
    assert np.abs(np.delete(rates, axis)).max() < 1e-9


def test_tilt_forward_accelerates_forward() -> None:
    plant = high_up()
    plant.quat[:, 0] = (math.cos(0.1), 0.0, math.sin(0.1), 0.0)  # 0.2 rad about y: nose down
    plant.rotors[:] = hover_command(plant.airframe)
    fly(plant, hover_command(plant.airframe), 0.1)
    assert plant.velocity[0, 0] == pytest.approx(GRAVITY * math.sin(0.2) * 0.1, rel=0.05)
    assert abs(plant.velocity[1, 0]) < 1e-9


def tumbling(dt_s: float, seconds: float = 0.4) -> RigidBodyPlant:
    plant = high_up(replace(load_airframe(), drag_kg_s=(0.0, 0.0, 0.0)))
    plant.rates[:, 0] = (8.0, -5.0, 3.0)
    fly(plant, 0.0, seconds, dt_s)
    return plant


def test_torque_free_motion_keeps_energy_and_angular_momentum() -> None:
    inertia = np.array(load_airframe().inertia_kg_m2)
    before, after = np.array([8.0, -5.0, 3.0]), tumbling(0.0005)
    w, x, y, z = after.quat[:, 0]
    u, body = np.array([x, y, z]), inertia * after.rates[:, 0]
    turned = body + 2.0 * w * np.cross(u, body) + 2.0 * np.cross(u, np.cross(u, body))
    np.testing.assert_allclose(turned, inertia * before, rtol=0.01)
    energy = (inertia * after.rates[:, 0] ** 2).sum() / (inertia * before**2).sum()
    assert energy == pytest.approx(1.0, abs=2e-3)


def test_rotation_converges_with_order_one() -> None:
    reference = tumbling(0.0000625).rates
    errors = [np.abs(tumbling(dt).rates - reference).max() for dt in (0.004, 0.002, 0.001)]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(0.85 < order < 1.35 for order in orders), orders


def test_spinning_symmetric_top_precesses() -> None:
    a = replace(load_airframe(), inertia_kg_m2=(1.66e-5, 1.66e-5, 2.93e-5), rotor_inertia_kg_m2=0.0)
    plant = high_up(a)
    plant.rates[:, 0] = (0.5, 0.0, 6.0)
    fly(plant, 0.0, 0.3, 0.0001)
    angle = math.atan2(plant.rates[1, 0], plant.rates[0, 0])
    assert angle == pytest.approx((2.93 - 1.66) / 1.66 * 6.0 * 0.3, rel=1e-3)


def test_rotor_gyroscope_couples_roll_and_pitch_only_when_spins_do_not_cancel() -> None:
    balanced, yawing = high_up(), high_up()
    for plant, command in ((balanced, [0.5] * 4), (yawing, [0.3, 0.7, 0.3, 0.7])):
        plant.rates[0, 0] = 5.0
        plant.rotors[:, 0] = command
        plant.step(np.array([command]), DT)
    assert abs(balanced.rates[1, 0]) < 1e-9
    assert abs(yawing.rates[1, 0]) > 1e-4


def test_a_batch_is_its_members() -> None:
    rng = np.random.default_rng(3)
    starts = rng.uniform([-1, -1, 0.05], [1, 1, 2], (5, 3))
    commands = rng.uniform(0, 1, (5, 4))
    together = RigidBodyPlant(5, start_world=starts)
    for _ in range(300):
        together.step(commands, DT)
    for i in range(5):
        alone = RigidBodyPlant(1, start_world=starts[i : i + 1])
        for _ in range(300):
            alone.step(commands[i : i + 1], DT)
        for name, value in alone.signals().items():
            np.testing.assert_allclose(together.signals()[name][i], value[0], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("tilt", [0.0, 0.4, math.pi])
def test_a_dropped_drone_comes_to_rest_on_the_floor(tilt: float) -> None:
    plant = RigidBodyPlant(1, start_world=np.array([[0.0, 0.0, 0.5]]))
    plant.quat[:, 0] = (math.cos(tilt / 2), math.sin(tilt / 2), 0.0, 0.0)
    plant.velocity[0, 0] = 0.5
    lowest = 1.0
    for _ in range(1500):
        plant.step(np.zeros((1, 4)), DT)
        lowest = min(lowest, plant.position[2, 0])
    assert np.abs(plant.velocity).max() < 1e-3
    assert np.abs(plant.rates).max() < 1e-2
    assert -0.001 < plant.position[2, 0] < 0.031
    assert lowest > -0.03


def test_reset_restores_one_drone_only() -> None:
    plant = RigidBodyPlant(2)
    fly(plant, 0.9, 0.5)
    other = plant.position[:, 1].copy()
    plant.reset(0)
    assert plant.position[:, 0] == pytest.approx([0.0, -0.25, 0.0])
    assert plant.battery_v[0] == pytest.approx(4.2)
    assert plant.position[:, 1] == pytest.approx(other)


def test_battery_sags_and_empties() -> None:
    one = np.ones(1)
    hover = np.full((4, 1), hover_command(load_airframe()))
    charge, loaded = discharge(one, hover, DT)
    assert 0.3 < open_circuit_v(one)[0] - loaded[0] < 0.45
    minutes = 0.25 * 60.0 / current_a(hover)[0]
    assert 6.0 < minutes < 8.0  # the data sheet says seven
    charge, voltage = discharge(0.0 * one, hover, DT)
    assert charge[0] == 0.0
    assert voltage[0] < 3.0
    assert [level_percent(v) for v in (2.5, 3.5, 3.9, 4.0, 4.2)] == [0, 10, 50, 70, 90]


def test_an_empty_battery_limits_the_force() -> None:
    full, empty = high_up(), RigidBodyPlant(1, start_world=HIGH, charge=0.02)
    for plant in (full, empty):
        fly(plant, 1.0, 1.0)
    assert full.rotors.max() > 0.99
    assert empty.rotors.max() < 0.9


def test_errors_name_what_there_is() -> None:
    with pytest.raises(NotFoundError, match="airframe of robot crazyflie 'cf3' not found; known: cf21, crazyflow"):
        load_airframe("cf3")
    with pytest.raises(BadInput, match=r"shape \(1, 3\); expected \(2, 3\)"):
        RigidBodyPlant(2, start_world=HIGH)


def test_it_is_a_plant() -> None:
    plant: Plant = RigidBodyPlant(3)
    shapes = {name: value.shape for name, value in plant.signals().items()}
    assert shapes["quat_wxyz"] == (3, 4)
    assert shapes["position_world"] == shapes["velocity_world"] == shapes["angular_velocity_body"] == (3, 3)
    assert shapes["battery_voltage"] == (3,)
