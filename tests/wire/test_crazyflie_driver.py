"""Our Crazyflie driver against the emulator over real UDP: states, every command mode, silence, refusals, endings."""

import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.clock import MonotonicClock
from hardware.errors import BadInput, LinkLost, NotFoundError, RoboError, Unreachable
from hardware.robot import Command, RobotState
from hardware.robots import connect
from hardware.robots.crazyflie.driver import Driver
from hardware.robots.crazyflie.emulator import EmulatedSwarm, Emulator
from hardware.robots.crazyflie.estimator import QUIET
from hardware.robots.crazyflie.session import CflibLink
from hardware.robots.crazyflie.supervisor import State
from hardware.robots.crazyflie.telemetry import DroneClock
from hardware.robots.crazyflie.wire import Frame, Port, decode, encode
from hardware.transport import UdpLink, parse_address

SCALE = 2.0


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    served = Emulator(EmulatedSwarm(num=2, seed=4), port=0, time_scale=SCALE)
    served.start()
    yield served
    served.stop()


@pytest.fixture
def drone(emulator: Emulator) -> Iterator[Driver]:
    opened = Driver(emulator.addresses[0], clock=MonotonicClock(SCALE))
    opened.open()
    yield opened
    opened.close()


def wait_for(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


def position(drone: Driver) -> np.ndarray:
    return drone.read().signals["position_world"]


def write(drone: Driver, mode: str, *values: float) -> None:
    drone.write(Command(mode, np.array(values)))


def stream(drone: Driver, until: Callable[[], bool], mode: str, *values: float) -> None:
    def once() -> bool:
        write(drone, mode, *values)
        return until()

    wait_for(once)


def take_off(drone: Driver) -> None:
    drone.arm()
    write(drone, "takeoff", 1.0, 1.5)
    wait_for(lambda: "high_level_finished" in drone.read().status)


def test_states_hold_every_signal_of_the_spec_in_si_and_one_instant(drone: Driver, emulator: Emulator) -> None:
    state = drone.read()
    for name, signal in drone.spec.signals.items():
        assert np.shape(state.signals[name]) == signal.shape, name
        assert np.isfinite(state.signals[name]).all(), name
    assert np.linalg.norm(state.signals["quat_wxyz"]) == pytest.approx(1.0, abs=1e-3)
    assert state.signals["battery_voltage"] == pytest.approx(4.2, abs=0.1)
    wait_for(lambda: drone.read().status == {"can_be_armed"})
    seen: dict[int, RobotState] = {}
    while len(seen) < 60:
        state = drone.read()
        seen[state.t_ns] = state
        time.sleep(0.001)
    steps = np.diff(sorted(seen)) / 1e6
    assert np.median(steps) == pytest.approx(10.0, abs=0.5)  # the drone's own 100 Hz
    now_ns = drone._clock.now_ns()
    assert 0 <= now_ns - max(seen) < 1e9 * SCALE


def test_a_moving_drones_state_is_the_estimate_of_that_instant() -> None:
    served = Emulator(EmulatedSwarm(noise=QUIET), port=0)
    served.start()
    drone = Driver(served.addresses[0])
    try:
        drone.open()
        take_off(drone)
        for _ in range(30):
            write(drone, "attitude_thrust", 0.1, 0.2, 1.0, 0.6)
            time.sleep(0.01)
        states = []
        for _ in range(20):
            write(drone, "attitude_thrust", 0.1, 0.2, 1.0, 0.6)
            states.append(drone.read())
            time.sleep(0.01)
        for a, b in zip(states, states[5:], strict=False):
            dt = (b.t_ns - a.t_ns) / 1e9
            if dt > 0:
                moved = b.signals["position_world"] - a.signals["position_world"]
                mean = 0.5 * (a.signals["velocity_world"] + b.signals["velocity_world"])
                np.testing.assert_allclose(moved, mean * dt, atol=0.01)
        last = states[-1].signals
        assert last["velocity_world"][0] > 0.2  # positive pitch: forward
        assert last["velocity_world"][1] < -0.1  # positive roll: to the right
        assert last["angular_velocity_body"][2] == pytest.approx(1.0, abs=0.3)  # rad/s, not degrees
    finally:
        drone.close()
        served.stop()


def test_every_command_mode_flies(drone: Driver) -> None:
    take_off(drone)
    assert {"armed", "flying", "high_level"} <= drone.read().status
    write(drone, "go_to", 0.4, 0.0, 1.0, 0.0, 1.5)
    wait_for(lambda: abs(position(drone)[0] - 0.4) < 0.08)
    stream(drone, lambda: abs(position(drone)[1] - 0.3) < 0.08, "position", 0.4, 0.3, 1.0, 0.0)
    assert "high_level" not in drone.read().status
    y = position(drone)[1]
    stream(drone, lambda: position(drone)[1] > y + 0.1, "hover", 0.0, 0.3, 0.0, 1.0)
    x = position(drone)[0]
    stream(drone, lambda: position(drone)[0] > x + 0.05, "attitude_thrust", 0.0, 0.15, 0.0, 0.6)
    write(drone, "rotor_thrust", 0.61, 0.59, 0.6, 0.58)
    write(drone, "land", 0.0, 1.5)
    wait_for(lambda: "flying" not in drone.read().status)
    assert abs(position(drone)[2]) < 0.05
    assert drone.refused == ""


def test_rotor_thrusts_reach_the_motors(drone: Driver, emulator: Emulator) -> None:
    drone.arm()
    command = [0.11, 0.12, 0.13, 0.14]
    stream(
        drone,
        lambda: emulator.swarm.autopilot.motors[:, 0] == pytest.approx(command, abs=1e-6),
        "rotor_thrust",
        *command,
    )


def test_nothing_is_written_before_arming_and_after_stop(drone: Driver) -> None:
    with pytest.raises(RoboError, match="is not armed: call arm"):
        write(drone, "takeoff", 1.0, 2.0)
    drone.arm()
    drone.stop()
    drone.stop()
    with pytest.raises(RoboError, match="is not armed"):
        write(drone, "attitude_thrust", 0.0, 0.0, 0.0, 0.0)
    with pytest.raises(NotFoundError, match="command mode of robot crazyflie 'warp' not found; known: attitude_thrust"):
        drone._message(Command("warp", np.zeros(1)))


def test_stop_in_the_air_cuts_the_motors_without_locking(drone: Driver, emulator: Emulator) -> None:
    take_off(drone)
    drone.stop()
    wait_for(lambda: emulator.swarm.autopilot.motors[:, 0].max() == 0.0)
    wait_for(lambda: "flying" not in drone.read().status)
    assert "locked" not in drone.read().status
    wait_for(lambda: "can_be_armed" in drone.read().status)
    drone.arm()


def test_stop_gets_through_a_link_that_loses_half_of_all_packets(drone: Driver, emulator: Emulator) -> None:
    take_off(drone)
    drone.set_parameter("fault.loss", 0.5)
    drone.stop()
    wait_for(lambda: emulator.swarm.autopilot.motors[:, 0].max() == 0.0, timeout_s=1.0)


class Held(UdpLink):
    """Holds the receiving thread up while it repeats a one-shot command, as a busy machine may."""

    def __init__(self, address: str) -> None:
        parsed = parse_address(address)
        super().__init__(parsed.host, parsed.port)
        self.holding, self.sent = threading.Event(), []

    def send(self, data: bytes) -> None:
        port = decode(data).port
        if port == Port.HIGH_LEVEL and threading.current_thread().name == "crazyflie-driver":
            self.holding.set()
            time.sleep(0.3)
        self.sent.append(port)
        super().send(data)


def test_no_repetition_of_a_one_shot_command_follows_a_stop(emulator: Emulator) -> None:
    link = Held(emulator.addresses[0])
    drone = Driver(emulator.addresses[0], clock=MonotonicClock(SCALE), link=link)
    drone.open()
    drone.arm()
    drone.set_parameter("fault.loss", 0.9)  # so that it goes unanswered
    write(drone, "takeoff", 0.6, 1.0)
    assert link.holding.wait(5.0)
    drone.stop()
    after = len(link.sent)
    time.sleep(0.5)
    assert Port.HIGH_LEVEL not in link.sent[after - 6 :]
    drone.close()


def test_one_shot_commands_are_repeated_until_answered(drone: Driver, emulator: Emulator) -> None:
    drone.arm()
    drone.set_parameter("fault.loss", 0.5)
    write(drone, "takeoff", 0.6, 1.0)
    wait_for(lambda: emulator.swarm.plant.signals()["position_world"][0, 2] > 0.4)
    write(drone, "land", 0.0, 1.0)
    wait_for(lambda: emulator.swarm.autopilot.motors[:, 0].max() == 0.0)


def test_arming_says_why_it_is_refused(drone: Driver, emulator: Emulator) -> None:
    emulator.swarm.plant.quat[:, 0] = (0.0, 1.0, 0.0, 0.0)  # type: ignore[attr-defined]
    wait_for(lambda: "tumbled" in drone.read().status)
    with pytest.raises(RoboError, match="refuses to arm: it lies on its side or back"):
        drone.arm(timeout_s=0.2)
    drone.set_parameter("fault.reboot", 1, "uint8")
    wait_for(lambda: "can_be_armed" in drone.read().status)
    drone.arm()
    drone.emergency_stop()
    wait_for(lambda: "locked" in drone.read().status)
    with pytest.raises(RoboError, match="it is locked after an emergency stop"):
        drone.arm(timeout_s=0.2)


def test_silence_is_a_lost_link_and_a_link_may_come_back(drone: Driver) -> None:
    drone.set_parameter("fault.drop", 1.5)
    with pytest.raises(LinkLost, match=r"has been silent for 0\.\d\d s"):
        wait_for(lambda: drone.read() is None)
    wait_for(lambda: _reads(drone))


def _reads(drone: Driver) -> bool:
    try:
        drone.read()
    except LinkLost:
        return False
    return True


def test_a_link_drop_in_flight_ends_in_the_firmwares_lock(drone: Driver, emulator: Emulator) -> None:
    take_off(drone)
    stream(drone, lambda: "high_level" not in drone.read().status, "position", 0.0, -0.25, 1.0, 0.0)
    drone.set_parameter("fault.drop", -1.0)
    with pytest.raises(LinkLost):
        stream(drone, lambda: drone.read() is None, "position", 0.0, -0.25, 1.0, 0.0)
    wait_for(lambda: emulator.swarm.autopilot.pilots[0].supervisor.state is State.LOCKED)
    assert emulator.swarm.autopilot.motors[:, 0].max() == 0.0
    drone.stop()  # never raises
    drone.close()


def test_an_emulator_that_dies_is_a_lost_link(emulator: Emulator, drone: Driver) -> None:
    drone.arm()
    emulator.stop()
    with pytest.raises(LinkLost):
        wait_for(lambda: drone.read() is None)
    drone.stop()
    drone.close()
    drone.close()
    with pytest.raises(LinkLost, match="is not open"):
        drone.read()


def test_nobody_there_is_told_within_three_seconds() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{taken.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(Unreachable, match="robo-rl emulate crazyflie") as raised:
            Driver(address).open()
    assert raised.value.address == address
    assert raised.value.waited_s == pytest.approx(time.monotonic() - start, abs=0.5)
    assert raised.value.waited_s < 3.0


class OldFirmware:
    """A link to a drone that answers, but speaks an older protocol."""

    def __init__(self) -> None:
        self._answers: list[bytes] = []

    def open(self) -> None:
        pass

    def send(self, data: bytes) -> None:
        frame = decode(data)
        if (frame.port, frame.channel) == (Port.LINK, 1):
            self._answers.append(encode(Frame(Port.LINK, 1, b"Bitcraze Crazyflie\0")))
        if (frame.port, frame.channel) == (Port.PLATFORM, 1):
            self._answers.append(encode(Frame(Port.PLATFORM, 1, b"\0\x08")))

    def receive(self, timeout_s: float = 0.0) -> bytes | None:
        time.sleep(0.001)
        return self._answers.pop(0) if self._answers else None

    def close(self) -> None:
        pass


def test_old_firmware_is_named() -> None:
    with pytest.raises(RoboError, match="speaks CRTP version 08; expected at least 0xc: update the firmware"):
        Driver("udp://127.0.0.1:1", link=OldFirmware()).open()


@pytest.mark.parametrize("address", ["127.0.0.1:19850", "ftp://x", "", "udp//x:1"])
def test_a_bad_address_is_one_clear_line(address: str) -> None:
    with pytest.raises(BadInput, match=r"expected one of udp://, radio://, usb://, tcp:// as in udp://127.0.0.1:19850"):
        Driver(address)


def test_a_port_is_needed() -> None:
    with pytest.raises(BadInput, match="expected udp://HOST:PORT"):
        connect("crazyflie", "udp://127.0.0.1")


def test_connect_gives_a_guarded_robot_and_knows_its_robots(emulator: Emulator) -> None:
    with pytest.raises(NotFoundError, match="robot 'dragonfly' not found; known: crazyflie"):
        connect("dragonfly")
    robot = connect("crazyflie", emulator.addresses[1])
    robot.open()
    try:
        robot.arm()
        robot.write(Command("attitude_thrust", np.array([9.0, 0.0, 0.0, math.nan])))
        assert robot.interventions == 1
        assert robot.sent is not None
        assert robot.sent.values[0] <= 0.6
    finally:
        robot.close()


def test_two_drones_of_one_process_have_two_drivers(emulator: Emulator, drone: Driver) -> None:
    other = Driver(emulator.addresses[1], clock=MonotonicClock(SCALE))
    other.open()
    try:
        other.arm()
        write(other, "takeoff", 0.6, 1.0)
        wait_for(lambda: position(other)[2] > 0.4)
        assert abs(position(drone)[2]) < 0.05
        assert position(other)[1] - position(drone)[1] == pytest.approx(0.5, abs=0.1)
    finally:
        other.close()


def test_five_hundred_packets_back_to_back_all_arrive(emulator: Emulator) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", emulator.ports[0]))
        for _ in range(500):
            client.send(b"\x3c" + bytes(14))
    wait_for(lambda: emulator.swarm.services[0].packets >= 500)


def test_external_pose_is_taken(drone: Driver) -> None:
    def seen() -> bool:
        drone.send_external_pose((0.3, -0.25, 0.0), (math.cos(0.2), 0.0, 0.0, math.sin(0.2)))
        quat = drone.read().signals["quat_wxyz"]
        return abs(position(drone)[0] - 0.3) < 0.01 and abs(2 * math.atan2(quat[3], quat[0]) - 0.4) < 0.03

    wait_for(seen)


def test_parameters_are_refused_with_the_reason(drone: Driver) -> None:
    with pytest.raises(BadInput, match=r"refuses parameter 'no\.such' = 1"):
        drone.set_parameter("no.such", 1.0)
    with pytest.raises(BadInput, match=r"refuses parameter 'deck\.bcFlow2'"):
        drone.set_parameter("deck.bcFlow2", 1, "uint8")
    with pytest.raises(BadInput, match=r"expected group\.name and one of"):
        drone.set_parameter("zKp", 1.0)


def test_the_same_conversation_through_cflibs_link(emulator: Emulator) -> None:
    pytest.importorskip("cflib.crtp", reason="needs the extra crazyflie")
    drone = Driver(emulator.addresses[0], clock=MonotonicClock(SCALE), link=CflibLink(emulator.addresses[0]))
    drone.open()
    try:
        drone.arm()
        write(drone, "takeoff", 0.5, 1.0)
        wait_for(lambda: position(drone)[2] > 0.4)
    finally:
        drone.close()


def test_the_radio_carries_no_rotor_thrusts_and_needs_cflib(monkeypatch: pytest.MonkeyPatch) -> None:
    drone = Driver("radio://0/80/2M/E7E7E7E7E7")
    with pytest.raises(RoboError, match="rotor thrusts are for policies on board"):
        drone._message(Command("rotor_thrust", np.zeros(4)))
    monkeypatch.setitem(sys.modules, "cflib", None)
    monkeypatch.setitem(sys.modules, "cflib.crtp", None)
    with pytest.raises(
        RoboError, match=r"radio:// needs cflib, which is not installed; pip install 'robo_rl\[crazyflie\]'"
    ):
        drone.open()


def test_a_missing_radio_is_unreachable() -> None:
    pytest.importorskip("cflib.crtp", reason="needs the extra crazyflie")
    with pytest.raises((Unreachable, RoboError)):
        Driver("radio://0/80/2M/E7E7E7E7E7", connect_timeout_s=0.5).open()


def test_no_thread_is_left_behind(emulator: Emulator) -> None:
    before = set(threading.enumerate())
    drone = Driver(emulator.addresses[0])
    drone.open()
    drone.close()
    assert {t for t in threading.enumerate() if t.name == "crazyflie-driver"} <= before


@given(st.lists(st.floats(0.0, 0.004), min_size=40, max_size=40), st.integers(0, 2**24 - 1))
def test_the_drones_clock_is_followed_through_jitter_and_wrap(delays: list[float], first_ms: int) -> None:
    clock, epoch = DroneClock(), 1_700_000_000_000_000_000
    mapped = []
    for n, delay in enumerate(delays):
        heard = epoch + n * 10_000_000 + int(delay * 1e9)
        mapped.append(clock.map_ns((first_ms + 10 * n) % 2**24, heard))
    steps = np.diff(mapped) / 1e6
    assert all(abs(t - (epoch + n * 10_000_000)) <= 4_100_000 for n, t in enumerate(mapped))
    assert steps.min() > 5.9  # never earlier than the best guess so far by more than the jitter
    assert mapped[-1] - epoch - 39 * 10_000_000 <= (min(delays) * 1e9) + 1e6


def test_a_restarted_drones_clock_is_adopted() -> None:
    clock = DroneClock()
    assert clock.map_ns(5_000_000, 10_000_000_000) == 10_000_000_000
    assert clock.map_ns(100, 11_000_000_000) == pytest.approx(11_000_000_000, abs=1)
