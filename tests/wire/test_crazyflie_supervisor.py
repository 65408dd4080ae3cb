"""The emulated supervisor and commander, stepped: the firmware's own timings, arming, locks and priorities."""

import numpy as np
import pytest
from support.crazyflie_client import Client

from hardware.robots.crazyflie import wire_commands as w
from hardware.robots.crazyflie import wire_localization as wl
from hardware.robots.crazyflie.emulator import EmulatedSwarm
from hardware.robots.crazyflie.supervisor import MOTORS_RUN, TRANSITIONS, State, Supervisor
from hardware.robots.crazyflie.wire import Info

HOVER_THRUST = 0.029 * 9.81 / (4 * 0.12)
LEVEL = w.Attitude(0.0, 0.0, 0.0, HOVER_THRUST)


@pytest.fixture
def client() -> Client:
    return Client(EmulatedSwarm(seed=1))


def airborne(client: Client) -> None:
    """Flies at 3 m under streamed set points that stop now."""
    client.take_off(3.0, 3.0)
    client.send(w.Attitude(0.0, 0.0, 0.0, 0.0))  # unlocks thrust
    client.send(LEVEL)
    client.advance(0.2, w.Attitude(0.15, 0.0, 0.5, HOVER_THRUST))
    assert client.pilot.setpoint[0] == pytest.approx(0.15, abs=1e-6)


def test_watchdog_levels_out_after_500_ms_and_locks_after_2000(client: Client) -> None:
    airborne(client)
    start = client.swarm.now_s - 0.010  # the last set point was sent 10 ms ago, five ticks
    client.until(lambda: client.state is State.LEVEL_OUT, within_s=1.0)
    # The supervisor looks every 40 ms.
    assert 0.500 < client.swarm.now_s - start <= 0.545
    client.advance(0.01)
    assert client.pilot.setpoint == pytest.approx((0.0, 0.0, 0.0, HOVER_THRUST), abs=1e-4)
    assert client.motors.max() > 0.3
    client.until(lambda: client.state is State.FREE_FALL, within_s=2.0)
    assert 2.000 < client.swarm.now_s - start <= 2.045
    client.advance(0.05)
    assert client.state is State.LOCKED
    assert client.motors.max() == 0.0
    assert Info.LOCKED in client.info
    assert Info.ARMED not in client.info
    assert client.arm() == (False, False)


def test_a_set_point_in_time_ends_the_warning(client: Client) -> None:
    airborne(client)
    client.until(lambda: client.state is State.LEVEL_OUT, within_s=1.0)
    client.advance(0.2, LEVEL)
    assert client.state is State.FLYING


def test_rotor_thrusts_level_out_too(client: Client) -> None:
    client.take_off()
    client.advance(0.1, w.RotorThrust((HOVER_THRUST,) * 4))
    assert client.motors == pytest.approx([HOVER_THRUST] * 4, abs=1e-6)
    client.until(lambda: client.state is State.LEVEL_OUT, within_s=1.0)
    client.advance(0.02)
    assert client.pilot.target.rotors is None
    assert client.pilot.setpoint[3] == pytest.approx(HOVER_THRUST, abs=1e-6)


def test_high_level_flight_needs_no_stream(client: Client) -> None:
    client.take_off()
    client.advance(3.0)
    assert client.state is State.FLYING
    assert np.linalg.norm(client.position - [0, 0, 1]) < 0.15


def test_arming_is_refused_until_the_checks_have_passed_and_needs_an_upright_drone() -> None:
    client = Client(EmulatedSwarm())
    assert client.arm() == (False, False)
    client.advance(0.1)
    assert Info.CAN_BE_ARMED in client.info
    assert client.arm() == (True, True)
    assert client.arm() == (True, True)
    client.advance(0.1)
    assert client.state is State.READY
    assert client.arm(False) == (True, False)
    client.advance(0.1)
    assert client.state is State.CHECKED

    client.swarm.plant.quat[:, 0] = (0.0, 1.0, 0.0, 0.0)  # type: ignore[attr-defined]
    client.advance(1.5)
    assert Info.TUMBLED in client.info
    assert client.arm() == (False, False)


def test_motors_do_not_turn_unarmed(client: Client) -> None:
    client.advance(0.1)
    client.send(w.Attitude(0, 0, 0, 0))
    client.advance(0.5, LEVEL)
    assert client.motors.max() == 0.0
    client.send(w.NotifyStop())
    client.send(w.Takeoff(1.0, 2.0))
    client.advance(1.0)
    assert client.motors.max() == 0.0


def test_thrust_is_locked_until_zero_was_shown(client: Client) -> None:
    client.advance(0.1)
    client.arm()
    client.advance(0.3, LEVEL)
    assert client.motors.max() == 0.0
    client.send(w.Attitude(0, 0, 0, 0))
    client.advance(0.3, LEVEL)
    assert client.motors.max() > 0.4


def test_tumbling_in_flight_stops_the_motors_and_recovery_needs_an_upright_drone(client: Client) -> None:
    client.take_off()
    plant = client.swarm.plant
    plant.position[2] = 0.05  # type: ignore[attr-defined]
    plant.velocity[:] = 0.0  # type: ignore[attr-defined]
    plant.quat[:, 0] = (0.0, 1.0, 0.0, 0.0)  # type: ignore[attr-defined]
    took = client.until(lambda: client.state is State.CRASHED, within_s=2.0)
    assert took < 1.2
    client.advance(0.02)
    assert client.motors.max() == 0.0
    assert Info.CRASHED in client.info
    assert client.arm() == (False, False)
    assert not client.recover()
    plant.quat[:, 0] = (1.0, 0.0, 0.0, 0.0)  # type: ignore[attr-defined]
    client.advance(0.5)
    assert client.recover()
    client.advance(0.1)
    assert client.state is State.CHECKED


@pytest.mark.parametrize(
    "stop",
    [
        lambda c: c.send(wl.EmergencyStop()),
        lambda c: c.set_parameter("stabilizer.stop", 1),
        lambda c: c.swarm.receive(0, b"\x9d\x03"),  # port 9, channel 1: emergency stop
    ],
    ids=["localization", "parameter", "supervisor"],
)
def test_emergency_stop_locks_until_a_restart(client: Client, stop) -> None:
    client.take_off()
    stop(client)
    client.advance(0.1)
    assert client.state is State.LOCKED
    assert client.motors.max() == 0.0
    client.set_parameter("stabilizer.stop", 0)
    client.recover()
    client.advance(1.0)
    assert client.state is State.LOCKED
    client.set_parameter("fault.reboot", 1)
    client.advance(0.1)
    assert client.state is State.CHECKED
    assert client.position == pytest.approx([0, 0, 0], abs=0.01)


def test_emergency_watchdog_must_be_fed_once_begun(client: Client) -> None:
    client.take_off()
    client.advance(3.0, wl.EmergencyStopWatchdog(), every_s=0.5)
    assert client.state is State.FLYING
    client.send(wl.EmergencyStopWatchdog())
    took = client.until(lambda: client.state is State.LOCKED, within_s=2.0)
    assert 1.0 <= took <= 1.09


def test_landing_disarms_after_the_firmwares_time(client: Client) -> None:
    client.take_off()
    client.send(w.Land(0.0, 2.0))
    client.until(lambda: client.motors.max() == 0.0, within_s=3.0)
    stopped = client.swarm.now_s
    client.until(lambda: client.state is State.LANDED, within_s=3.0)
    assert 2.0 <= client.swarm.now_s - stopped <= 2.05
    client.until(lambda: client.state is State.CHECKED, within_s=5.0)
    assert 5.0 <= client.swarm.now_s - stopped <= 5.2
    assert Info.ARMED not in client.info
    assert abs(client.position[2]) < 0.01


def test_an_armed_drone_that_does_not_fly_disarms_after_30_s(client: Client) -> None:
    client.set_parameter("supervisor.prefltTimeout", 1500)
    client.advance(0.1)
    client.arm()
    took = client.until(lambda: Info.ARMED not in client.info, within_s=3.0)
    assert 1.5 < took <= 1.6


def test_stream_beats_high_level_until_it_says_that_it_has_ended(client: Client) -> None:
    client.take_off()
    client.advance(0.5, w.Position(0.0, 0.0, 1.2, 0.0))
    client.send(w.Land(0.0, 2.0))
    client.advance(0.3, w.Position(0.0, 0.0, 1.2, 0.0))
    assert Info.HIGH_LEVEL_ACTIVE not in client.info
    assert client.pilot.target.position == pytest.approx((0, 0, 1.2), abs=1e-6)
    client.send(w.NotifyStop())
    client.send(w.Land(0.0, 2.0))
    client.advance(0.05)
    assert Info.HIGH_LEVEL_ACTIVE in client.info
    client.until(lambda: client.position[2] < 0.02, within_s=3.0)


def test_a_client_that_left_on_the_ground_does_not_block_the_next(client: Client) -> None:
    client.advance(0.1)
    client.send(w.Attitude(0, 0, 0, 0))  # what cflib sends when it closes
    client.advance(2.2)
    client.take_off()


def test_every_state_is_left_only_by_its_rules_and_every_loss_of_motors_disarms() -> None:
    assert set(TRANSITIONS) == set(State)
    assert TRANSITIONS[State.LOCKED] == ()
    s = Supervisor()
    s.update(0, acc_g=(0, 0, 1), thrust=False, setpoint_age_ms=0)
    assert s.state is State.CHECKED
    assert s.request_arming(True)
    s.update(40, acc_g=(0, 0, 1), thrust=True, setpoint_age_ms=0)
    s.update(80, acc_g=(0, 0, 1), thrust=True, setpoint_age_ms=0)
    assert s.state is State.FLYING
    s.request_arming(False)
    s.update(120, acc_g=(0, 0, 1), thrust=True, setpoint_age_ms=0)
    s.update(160, acc_g=(0, 0, 1), thrust=False, setpoint_age_ms=0)
    assert s.state is State.LOCKED
    assert s.state not in MOTORS_RUN


def test_free_fall_is_not_a_tumble() -> None:
    s = Supervisor()
    for t in range(0, 3000, 40):
        s.update(t, acc_g=(0.01, 0.0, -0.02), thrust=False, setpoint_age_ms=0)
    assert not s.tumbled
    for t in range(3000, 3200, 40):
        s.update(t, acc_g=(0.0, 0.0, -1.0), thrust=False, setpoint_age_ms=0)
    assert s.tumbled
