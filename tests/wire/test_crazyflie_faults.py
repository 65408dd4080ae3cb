"""Every fault of the emulated Crazyflie, alone and in pairs, at random instants, ends in the firmware's safe state."""

import itertools

import numpy as np
import pytest
from support.crazyflie_client import Client

from hardware.errors import BadInput, NotFoundError
from hardware.robots.crazyflie import wire_commands as w
from hardware.robots.crazyflie.emulator import EmulatedSwarm
from hardware.robots.crazyflie.faults import FAULTS, Fault, parse_fault
from hardware.robots.crazyflie.supervisor import MOTORS_RUN, State

COMBINATIONS = [(name,) for name in FAULTS] + list(itertools.combinations(FAULTS, 2))


@pytest.mark.parametrize("seed", [11, 12])
def test_all_faults_alone_and_in_pairs_end_with_the_motors_off(seed: int) -> None:
    """One drone per combination; faults strike within two seconds of a streamed flight that falls silent at 3 s."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    swarm = EmulatedSwarm(num=len(COMBINATIONS), seed=seed)
    clients = [Client(swarm, i) for i in range(len(COMBINATIONS))]
    plans = [[(rng.uniform(0.0, 2.0), Fault(n, 0.0, FAULTS[n].value)) for n in names] for names in COMBINATIONS]
    swarm.advance(0.1)
    for client in clients:
        assert client.arm() == (True, True)
        client.send(w.Takeoff(1.0, 1.5))
    swarm.advance(2.0)
    start = swarm.now_s
    assert all(c.state is State.FLYING for c in clients)
    while swarm.now_s - start < 3.0:
        for client, plan in zip(clients, plans, strict=True):
            for _, fault in [p for p in plan if p[0] <= swarm.now_s - start]:
                swarm.inject(client.index, fault)
                plan[:] = [p for p in plan if p[1] is not fault]
            client.send(w.Position(0.0, float(client.index) * 0.5 - 7.0, 1.0, 0.0))
        swarm.advance(0.01)
    swarm.advance(2.0 + 0.12)  # the watchdog's two seconds, the link's delay, the supervisor's 40 ms
    for client, names in zip(clients, COMBINATIONS, strict=True):
        assert client.motors.max() == 0.0, (names, client.state)
        assert not client.pilot.supervisor.armed or client.state in MOTORS_RUN, names
    swarm.advance(1.5)
    for client, names in zip(clients, COMBINATIONS, strict=True):
        assert client.motors.max() == 0.0, names
        assert client.position[2] < 0.1, names
        if "gyro_nan" not in names and "motor_loss" not in names:
            assert client.state is State.LOCKED, names


def flying(*, seed: int = 3) -> Client:
    client = Client(EmulatedSwarm(seed=seed))
    client.take_off()
    return client


def strike(client: Client, name: str, value: float | None = None) -> None:
    client.swarm.inject(0, Fault(name, 0.0, FAULTS[name].value if value is None else value))


@pytest.mark.parametrize("motor", [1, 2, 3, 4])
def test_motor_loss_crashes_and_the_motors_stop(motor: int) -> None:
    client = flying()
    strike(client, "motor_loss", motor)
    before = client.swarm.plant.rotors[motor - 1, 0]  # type: ignore[attr-defined]
    client.advance(0.3, w.Position(0, 0, 1, 0))
    assert client.swarm.plant.rotors[motor - 1, 0] < 0.05 * before  # type: ignore[attr-defined]
    for _ in range(600):  # the client goes on as if nothing had happened
        client.advance(0.01, w.Position(0, 0, 1, 0))
        if client.state is State.CRASHED:
            break
    assert client.state is State.CRASHED
    client.advance(0.02)
    assert client.motors.max() == 0.0


def test_a_gyro_that_reads_nan_stops_the_motors_at_once() -> None:
    client = flying()
    strike(client, "gyro_nan")
    client.advance(0.004)
    assert client.motors.max() == 0.0
    client.until(lambda: client.position[2] < 0.05, within_s=2.0)
    client.advance(3.0)
    assert client.motors.max() == 0.0


def test_frozen_sensors_stand_still() -> None:
    client = flying()
    strike(client, "sensor_freeze")
    client.advance(0.01)
    before = [plane.copy() for plane in client.autopilot.estimate]
    client.advance(0.5, w.Position(1, 0, 1, 0))
    for old, new in zip(before, client.autopilot.estimate, strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_dropped_link_is_silent_both_ways_and_the_watchdog_acts() -> None:
    client = flying()
    client.advance(0.1, w.Position(0, 0, 1, 0))
    strike(client, "link_drop")
    client.collect()
    took = 0.0
    while client.state is not State.LOCKED and took < 3.0:
        client.advance(0.01, w.Position(0, 0, 1, 0))
        took += 0.01
    assert 2.0 <= took <= 2.1
    assert client.collect() == []


def test_a_link_comes_back_after_its_drop() -> None:
    client = flying()
    strike(client, "link_drop", 0.3)
    client.collect()
    client.send(w.Stop())  # is lost
    client.advance(0.25)
    assert client.motors.max() > 0.3
    client.advance(0.1)
    assert client.ask(15, 0, b"x") == b"x"
    strike(client, "link_drop", 0.3)
    client.advance(0.1, w.Stop())
    assert client.motors.max() > 0.3


def test_loss_has_the_asked_share() -> None:
    client = Client(EmulatedSwarm(seed=9))
    strike(client, "packet_loss", 0.4)
    answered = 0
    for _ in range(2000):
        client.swarm.receive(0, b"\xfcping")
        answered += len(client.collect())
    assert answered / 2000 == pytest.approx(0.36, abs=0.05)  # there and back


def test_delay_acts_each_way() -> None:
    client = Client(EmulatedSwarm())
    strike(client, "delay", 0.05)
    client.swarm.receive(0, b"\xfcping")
    took = client.until(lambda: bool(client.collect()), within_s=0.2)
    assert took == pytest.approx(0.1, abs=0.005)


def test_scheduled_faults_strike_every_drone_at_their_instant() -> None:
    faults = [parse_fault("battery_low:0.5:2.9", np.random.default_rng(0)), Fault("motor_loss", 0.2, 2.0)]
    swarm = EmulatedSwarm(num=2, faults=faults)
    swarm.advance(0.19)
    assert swarm.autopilot.pilots[1].parameters["fault.motor"] == 0
    swarm.advance(0.02)
    assert swarm.autopilot.pilots[1].parameters["fault.motor"] == 2
    assert swarm.autopilot.battery_v.max() > 4.0
    swarm.advance(0.3)
    assert swarm.autopilot.battery_v.max() == pytest.approx(2.9)


def test_an_instant_may_be_drawn_from_a_range() -> None:
    drawn = [parse_fault("delay:2..8", np.random.default_rng(s)).at_s for s in range(20)]
    assert all(2 <= t <= 8 for t in drawn)
    assert len(set(drawn)) == 20
    assert parse_fault("delay:2..8", np.random.default_rng(1)) == parse_fault("delay:2..8", np.random.default_rng(1))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("hail", NotFoundError, "fault of robot crazyflie 'hail' not found; known: battery_low, delay"),
        ("delay:soon", BadInput, "'delay:soon' is not of the form name"),
        ("delay:1:2:3", BadInput, "is not of the form"),
        ("motor_loss:1:7", BadInput, "motor 1..4 gives no force within 1..4"),
        ("packet_loss:1:nan", BadInput, "share of packets lost"),
        ("delay:-1", BadInput, "expected at_s >= 0"),
        ("delay:inf", BadInput, "expected at_s >= 0"),
    ],
)
def test_bad_faults_say_what_was_expected(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_fault(text, np.random.default_rng(0))
