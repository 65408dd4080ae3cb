"""The emulated drone in the air, stepped: every kind of set point, the planner, the estimator and its parameters."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.crazyflie_client import Client

from hardware.robots.crazyflie import wire_commands as w
from hardware.robots.crazyflie import wire_localization as wl
from hardware.robots.crazyflie.emulator import EmulatedSwarm
from hardware.robots.crazyflie.estimator import QUIET
from hardware.robots.crazyflie.planner import Planner
from hardware.robots.crazyflie.supervisor import State
from hardware.robots.crazyflie.wire import Info

HOVER_THRUST = 0.029 * 9.81 / (4 * 0.12)


@pytest.fixture
def client() -> Client:
    c = Client(EmulatedSwarm(seed=2))
    c.take_off()
    return c


def test_position_is_held_within_a_decimetre_and_on_average_within_six_centimetres(client: Client) -> None:
    goal, distances = np.array([0.5, 0.3, 1.0]), []
    client.advance(2.0, w.Position(*goal, 0.5))
    for _ in range(100):
        client.advance(0.02, w.Position(*goal, 0.5))
        distances.append(np.linalg.norm(client.position - goal))
    # The firmware's height integral, wound up by the climb, unwinds within about ten seconds.
    assert max(distances) < 0.10
    assert np.mean(distances) < 0.085
    assert client.autopilot.estimate.angles[2, 0] == pytest.approx(0.5, abs=0.05)


def test_hover_set_point_moves_along_the_heading(client: Client) -> None:
    client.advance(1.5, w.Position(0, 0, 1, math.pi / 2))
    start = client.position
    client.advance(2.0, w.Hover(0.3, 0.0, 0.0, 1.0))
    dx, dy, _ = client.position - start
    assert 0.35 < dy < 0.7  # facing +y
    assert abs(dx) < 0.12


def test_velocity_set_point_moves_in_the_world(client: Client) -> None:
    client.advance(1.0, w.Position(0, 0, 1, math.pi / 2))
    start = client.position
    client.advance(2.0, w.VelocityWorld(0.3, 0.0, 0.1, 0.0))
    dx, dy, dz = client.position - start
    assert 0.35 < dx < 0.7
    assert abs(dy) < 0.12
    assert 0.1 < dz < 0.35


def test_height_set_point_with_attitude(client: Client) -> None:
    client.advance(1.0, w.ZDistance(0.0, 0.1, 0.0, 1.3))
    assert client.pilot.setpoint[:2] == pytest.approx((0.0, 0.1), abs=1e-6)
    assert client.position[0] > 0.1  # nose down: forward
    client.advance(0.7, w.ZDistance(0.0, 0.0, 0.0, 1.3))
    assert client.position[2] == pytest.approx(1.3, abs=0.15)


def test_full_state_goes_to_position_and_yaw(client: Client) -> None:
    quat = (math.cos(0.4), 0.0, 0.0, math.sin(0.4))
    client.advance(2.5, w.FullState((0.4, -0.2, 1.2), (0, 0, 0), (0, 0, 0), quat, (0, 0, 0)))
    assert np.linalg.norm(client.position - [0.4, -0.2, 1.2]) < 0.12
    assert client.autopilot.estimate.angles[2, 0] == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("message", [w.Attitude(0.1, 0.2, 0.0, 0.62), w.Manual(0.1, 0.2, 0.0, 0.62, False)])
def test_attitude_set_point_tilts_as_told(client: Client, message: w.Setpoint) -> None:
    client.send(w.Attitude(0, 0, 0, 0))
    client.advance(0.6, message)
    roll, pitch, _ = client.autopilot.estimate.angles[:, 0]
    assert roll == pytest.approx(0.1, abs=0.05)
    assert pitch == pytest.approx(0.2, abs=0.05)
    assert client.position[0] > 0.05  # forward
    assert client.position[1] < -0.02  # and to the right


def test_yaw_rate_turns_to_the_left(client: Client) -> None:
    client.send(w.Attitude(0, 0, 0, 0))
    client.advance(0.7, w.Attitude(0.0, 0.0, 1.0, HOVER_THRUST))
    before = client.autopilot.estimate.angles[2, 0]
    client.advance(0.5, w.Attitude(0.0, 0.0, 1.0, HOVER_THRUST))
    assert client.autopilot.estimate.angles[2, 0] - before == pytest.approx(0.5, abs=0.05)


def test_rotor_thrusts_go_to_the_motors_as_they_are(client: Client) -> None:
    command = (0.6, 0.58, 0.61, 0.57)
    client.advance(0.03, w.RotorThrust(command))
    assert client.motors == pytest.approx(command, abs=1e-6)
    client.advance(0.03, w.RotorThrust((2.0, -1.0, 0.5, 0.5)))
    assert client.motors == pytest.approx((1.0, 0.0, 0.5, 0.5))


def test_a_set_point_without_position_control_acts_within_a_tick(client: Client) -> None:
    client.send(w.Attitude(0, 0, 0, 0))
    client.advance(0.002)  # whatever the phase of the 100 Hz loop
    client.send(w.RotorThrust((0.5, 0.51, 0.52, 0.53)))
    client.advance(0.002)
    assert client.motors == pytest.approx((0.5, 0.51, 0.52, 0.53), abs=1e-6)
    client.send(w.Attitude(0.1, 0.2, 0.3, 0.6))
    client.advance(0.002)
    assert client.pilot.setpoint == pytest.approx((0.1, 0.2, 0.3, 0.6), abs=1e-4)


def test_rate_mode_is_counted_as_not_emulated(client: Client) -> None:
    client.send(w.Manual(0.0, 0.0, 0.0, 0.5, True))
    services = client.swarm.services[0]
    assert services.malformed == 1
    assert "is not emulated" in services.last_error


def test_stop_drops_the_drone(client: Client) -> None:
    client.send(w.Stop())
    client.advance(0.02)
    assert client.motors.max() == 0.0
    client.until(lambda: client.position[2] < 0.05, within_s=1.0)


def test_go_to_is_relative_or_absolute(client: Client) -> None:
    client.send(w.GoTo((0.3, 0.2, 0.1), 0.4, 2.0, relative=True))
    client.advance(2.5)
    assert np.linalg.norm(client.position - [0.3, 0.2, 1.1]) < 0.13
    client.send(w.GoTo((0.0, 0.0, 0.8), 0.0, 2.0, linear=True))
    client.advance(2.6)
    assert np.linalg.norm(client.position - [0.0, 0.0, 0.8]) < 0.15
    assert Info.HIGH_LEVEL_FINISHED in client.info


def test_high_level_answers_with_the_firmwares_codes(client: Client) -> None:
    takeoff = w.encode_high_level(w.Takeoff(1.0, 2.0)).data
    assert client.ask(8, 0, takeoff) == takeoff[:3] + b"\x10"  # EBUSY: it flies already
    land = w.encode_high_level(w.Land(0.0, 2.0)).data
    assert client.ask(8, 0, land) == land[:3] + b"\0"
    assert client.ask(8, 0, land) == land[:3] + b"\x10"
    other_group = w.encode_high_level(w.HighLevelStop(group=2)).data
    assert client.ask(8, 0, other_group) == other_group + b"\0" + b"\0"
    client.advance(0.1)
    assert client.state is State.FLYING  # a command for another group changes nothing


@settings(max_examples=40)
@given(
    st.lists(st.floats(-3, 3), min_size=8, max_size=8),
    st.floats(0.5, 8.0),
)
def test_plans_begin_where_the_drone_is_and_end_at_rest(values: list[float], duration: float) -> None:
    here, goal = np.array(values[:4]), np.array(values[4:])
    planner = Planner()
    speed = 0.3 * here
    planner.go_to(w.GoTo((goal[0], goal[1], goal[2]), goal[3], duration), here, speed, 10.0)
    point, velocity, acceleration = planner.evaluate(10.0)
    np.testing.assert_allclose(point, here, atol=1e-9)
    np.testing.assert_allclose(velocity, speed, atol=1e-9)
    np.testing.assert_allclose(acceleration, 0.0, atol=1e-9)
    before = planner.evaluate(10.0 + duration - 1e-6)
    np.testing.assert_allclose(before[0][:3], goal[:3], atol=1e-6)
    assert abs(math.remainder(before[0][3] - goal[3], 2 * math.pi)) < 1e-6
    assert abs(before[0][3] - here[3]) <= math.pi + 1e-6  # the short way round
    np.testing.assert_allclose(before[1], 0.0, atol=1e-6)
    np.testing.assert_allclose(planner.evaluate(99.0)[1], 0.0)
    h = 1e-5
    middle = 10.0 + 0.4 * duration
    ahead, behind = planner.evaluate(middle + h)[0], planner.evaluate(middle - h)[0]
    np.testing.assert_allclose(planner.evaluate(middle)[1], (ahead - behind) / (2 * h), atol=1e-4)


def test_external_pose_moves_the_estimate_and_the_drone_follows() -> None:
    client = Client(EmulatedSwarm(seed=2, noise=QUIET))
    client.take_off()
    before = client.position
    shift = np.array([0.2, 0.0, 0.0])
    for _ in range(200):
        x, y, z = client.position + shift
        client.send(wl.ExternalPosition((float(x), float(y), float(z))))
        client.advance(0.02)
    # Motion capture says that it stands 0.2 m ahead of where it was: it flies back by as much.
    assert client.position[0] - before[0] == pytest.approx(-0.2, abs=0.04)


def test_external_attitude_turns_the_estimate() -> None:
    client = Client(EmulatedSwarm(seed=2, noise=QUIET))
    half = 0.15
    for _ in range(50):
        client.send(wl.ExternalPose((0.0, 0.0, 0.0), (math.cos(half), 0.0, 0.0, math.sin(half))))
        client.advance(0.01)
    assert client.autopilot.estimate.angles[2, 0] == pytest.approx(0.3, abs=0.01)
    client.set_parameter("kalman.resetEstimation", 1)
    assert client.autopilot.estimator.variance[0] == 1.0
    client.advance(0.01)
    assert client.autopilot.estimate.angles[2, 0] == pytest.approx(0.0, abs=0.01)
    client.advance(1.5)
    assert client.autopilot.estimator.variance[0] < 1e-5


def test_noise_has_the_stated_size_and_its_seed_repeats_it() -> None:
    def record(seed: int, ticks: int) -> np.ndarray:
        swarm = EmulatedSwarm(num=4, seed=seed)
        rows = []
        for _ in range(ticks):
            swarm.tick()
            e = swarm.autopilot.estimate
            rows.append(np.concatenate([e.position[0] - 0.0, e.velocity[0], e.gyro[0]]))
        return np.array(rows)

    first = record(5, 1500)
    assert np.array_equal(first[:60], record(5, 60))
    assert not np.array_equal(first[:60], record(6, 60))
    assert np.std(first[:, 0:4]) == pytest.approx(0.001, rel=0.35)  # correlated over 0.1 s: 120 independent values
    assert np.std(first[:, 4:8]) == pytest.approx(0.02, rel=0.35)
    assert np.std(first[:, 8:12]) == pytest.approx(0.0025, rel=0.05)


def test_gains_have_an_effect(client: Client) -> None:
    assert client.set_parameter("posCtlPid.pLimit", 5.0) == 5.0
    client.advance(0.3, w.Position(3.0, 0.0, 1.0, 0.0))
    assert client.pilot.setpoint[1] == pytest.approx(math.radians(5.0), rel=1e-6)
    for name in ("pid_rate.roll_kp", "pid_rate.roll_ki", "pid_rate.roll_kd"):
        assert client.set_parameter(name, 0.0) == 0.0
    client.send(w.Attitude(0, 0, 0, 0))
    client.advance(0.05, w.Attitude(0.3, 0.0, 0.0, HOVER_THRUST))
    assert client.motors[0] == pytest.approx(client.motors[3], abs=0.02)  # roll no longer mixes left against right


def test_parameters_are_kept_by_type_and_read_only_ones_are_not_written(client: Client) -> None:
    assert client.set_parameter("fault.motor", 300) == 255
    assert client.set_parameter("fault.motor", 0) == 0
    assert client.set_parameter("deck.bcFlow2", 1) == 0
    assert client.set_parameter("posCtlPid.zKp", math.nan) == 2.0


def test_a_battery_below_its_limit_is_reported_after_five_seconds(client: Client) -> None:
    client.set_parameter("fault.vbat", 3.1)
    client.advance(4.9)
    assert client.autopilot.battery_state(0) == 0
    client.advance(0.2)
    assert client.autopilot.battery_state(0) == 3
    client.set_parameter("fault.vbat", 0.0)
    client.advance(0.1)
    assert client.autopilot.battery_state(0) == 0


def test_a_scenes_simulator_can_be_the_world() -> None:
    pytest.importorskip("torch", reason="the simulator comes with the extra train")
    from sim.registry import scene_entry

    entry = scene_entry("quadrotor/hover")
    assert entry.plant is not None
    plant = entry.plant(2, family="nominal", seed=0, config=entry.config)
    client = Client(EmulatedSwarm(plant, num=2, seed=1))
    client.take_off(0.6, 1.0)
    other = plant.signals()["position_world"][1]
    assert np.linalg.norm(other - [0.0, 0.25, 0.0]) < 0.05
    client.set_parameter("fault.reboot", 1)
    client.advance(0.1)
    assert client.state is State.CHECKED
    assert abs(client.position[2]) < 0.02
