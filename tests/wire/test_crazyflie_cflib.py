"""The third-party client: unmodified cflib connects to a real emulator process over UDP and does what a user would."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.emulator_process import emulated

pytest.importorskip("cflib.crazyflie", reason="needs the extra crazyflie")

import cflib.crtp
from cflib.crazyflie import Crazyflie
from cflib.crazyflie.log import LogConfig
from cflib.crazyflie.syncCrazyflie import SyncCrazyflie

from hardware.robots.crazyflie import logs, parameters

SCALE = "2.0"
"""Twice real time: the flights below take half as long, and every exchange is still a real one."""


@pytest.fixture(scope="module")
def addresses() -> Iterator[list[str]]:
    cflib.crtp.init_drivers()
    with emulated("crazyflie", "--num", "2", "--time-scale", SCALE) as served:
        yield served


@pytest.fixture(scope="module")
def connected(addresses: list[str]) -> Iterator[SyncCrazyflie]:
    with SyncCrazyflie(addresses[0], cf=Crazyflie()) as link:
        link.wait_for_params()
        yield link


@pytest.fixture
def drone(connected: SyncCrazyflie) -> SyncCrazyflie:
    """The drone, restarted and on the floor, without log blocks."""
    connected.cf.log.reset()
    connected.cf.param.set_value("fault.reboot", 1)
    wait_for(lambda: connected.cf.supervisor.can_be_armed)
    return connected


def wait_for(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


class Watch:
    """Newest values of some log variables, and all their time stamps."""

    def __init__(self, cf: Crazyflie, *names: str, period_ms: int = 10) -> None:
        self.values: dict[str, Any] = {}
        self.stamps: list[int] = []
        self._config = LogConfig("watch", period_ms)
        for name in names:
            self._config.add_variable(name)
        self._arrived = threading.Event()
        self._config.data_received_cb.add_callback(self._take)
        cf.log.add_config(self._config)
        self._config.start()
        assert self._arrived.wait(10.0)

    def _take(self, stamp: int, values: dict[str, Any], _: LogConfig) -> None:
        self.values = values
        self.stamps.append(stamp)
        self._arrived.set()

    def __getitem__(self, name: str) -> float:
        return float(self.values[name])


def arm(cf: Crazyflie) -> None:
    def armed() -> bool:
        cf.supervisor.send_arming_request(True)  # is refused while the drone still starts
        return cf.supervisor.is_armed

    wait_for(armed)


def test_tables_and_all_parameters_arrive(drone: SyncCrazyflie) -> None:
    cf = drone.cf
    assert {f"{g}.{n}" for g in cf.log.toc.toc for n in cf.log.toc.toc[g]} == set(logs.VARIABLES)
    got = {f"{g}.{n}": float(v) for g in cf.param.values for n, v in cf.param.values[g].items()}
    assert set(got) == set(parameters.INDEX)
    for name, default in parameters.defaults().items():
        assert got[name] == pytest.approx(default, rel=1e-6), name
    assert cf.platform.get_protocol_version() == 12
    assert cf.mem.mems == []


def test_parameters_are_written_read_back_and_have_defaults(drone: SyncCrazyflie) -> None:
    param = drone.cf.param
    param.set_value("posCtlPid.zKp", 1.25)
    wait_for(lambda: float(param.get_value("posCtlPid.zKp")) == 1.25)
    found: list[Any] = []
    param.get_default_value("posCtlPid.zKp", lambda name, value: found.append(value))
    wait_for(lambda: bool(found))
    assert found == [2.0]
    param.set_value_raw("posCtlPid.zKp", 0x06, 1.5)
    param.request_param_update("posCtlPid.zKp")
    wait_for(lambda: float(param.get_value("posCtlPid.zKp")) == 1.5)


def test_log_at_100_hz_by_the_drones_clock_without_gaps(drone: SyncCrazyflie) -> None:
    names = ["stateEstimate.x", "stateEstimate.y", "stateEstimate.z", "gyro.x", "pm.vbat", "supervisor.info"]
    watch = Watch(drone.cf, *names)
    wait_for(lambda: len(watch.stamps) > 150)
    steps = {b - a for a, b in zip(watch.stamps, watch.stamps[1:], strict=False)}
    assert steps == {10}
    assert 3.5 < watch["pm.vbat"] < 4.3
    assert int(watch["supervisor.info"]) & 1  # can be armed


def test_take_off_go_to_and_land_by_the_high_level_commander(drone: SyncCrazyflie) -> None:
    cf = drone.cf
    watch = Watch(cf, "stateEstimate.x", "stateEstimate.z", "supervisor.info")
    arm(cf)
    cf.high_level_commander.takeoff(0.8, 1.5)
    wait_for(lambda: watch["stateEstimate.z"] > 0.75)
    assert cf.supervisor.is_flying
    assert cf.supervisor.hl_control_active
    cf.high_level_commander.go_to(0.5, 0.0, 0.8, 0.0, 1.5)
    wait_for(lambda: watch["stateEstimate.x"] > 0.45)
    cf.high_level_commander.land(0.0, 1.5)
    wait_for(lambda: not cf.supervisor.is_flying)
    assert abs(watch["stateEstimate.z"]) < 0.05
    wait_for(lambda: not cf.supervisor.is_armed)  # it disarms itself once landed


def test_streamed_set_points_fly_and_a_positive_pitch_goes_forward(drone: SyncCrazyflie) -> None:
    cf = drone.cf
    watch = Watch(cf, "stateEstimate.x", "stateEstimate.z", "stabilizer.pitch")
    arm(cf)
    cf.commander.send_setpoint(0, 0, 0, 0)
    for _ in range(100):
        cf.commander.send_hover_setpoint(0.0, 0.0, 0.0, 0.7)
        time.sleep(0.01)
    wait_for(lambda: watch["stateEstimate.z"] > 0.4)
    start, lowest = watch["stateEstimate.x"], 0.0
    for _ in range(25):
        cf.commander.send_setpoint(0.0, 15.0, 0.0, 40000)
        time.sleep(0.01)
        lowest = min(lowest, watch["stabilizer.pitch"])
    assert watch["stateEstimate.x"] > start + 0.05
    assert lowest < -5.0  # the firmware counts nose-down pitch as negative
    cf.commander.send_stop_setpoint()
    cf.commander.send_notify_setpoint_stop()
    wait_for(lambda: watch["stateEstimate.z"] < 0.05)


def test_external_pose_shifts_the_estimate(drone: SyncCrazyflie) -> None:
    cf = drone.cf
    watch = Watch(cf, "stateEstimate.x", "stateEstimate.yaw")

    def seen() -> bool:
        cf.loc.send_extpose([0.5, -0.25, 0.0], [0.0, 0.0, 0.1494, 0.98877])  # yaw 0.3 rad
        return abs(watch["stateEstimate.x"] - 0.5) < 0.01 and abs(watch["stateEstimate.yaw"] - 17.2) < 1.0

    wait_for(seen)


def test_emergency_stop_locks(drone: SyncCrazyflie) -> None:
    cf = drone.cf
    arm(cf)
    cf.high_level_commander.takeoff(0.5, 1.0)
    wait_for(lambda: cf.supervisor.is_flying)
    cf.supervisor.send_emergency_stop()
    wait_for(lambda: cf.supervisor.is_locked)
    cf.supervisor.send_arming_request(True)
    time.sleep(0.2)
    assert not cf.supervisor.is_armed


def test_faults_by_parameter_and_crash_recovery(drone: SyncCrazyflie) -> None:
    cf = drone.cf
    watch = Watch(cf, "stateEstimate.z")
    arm(cf)
    cf.high_level_commander.takeoff(1.0, 1.0)
    wait_for(lambda: watch["stateEstimate.z"] > 0.9)
    cf.param.set_value("fault.motor", 2)
    wait_for(lambda: cf.supervisor.is_crashed)
    assert not cf.supervisor.can_fly
    wait_for(lambda: not cf.supervisor.is_tumbled)  # it comes to lie on its legs
    cf.supervisor.send_crash_recovery_request()
    wait_for(lambda: not cf.supervisor.is_crashed)


def test_tables_come_from_the_cache_the_second_time(addresses: list[str], tmp_path: Path) -> None:
    sent: list[int] = []
    for _ in range(2):
        cf = Crazyflie(rw_cache=str(tmp_path))
        count = [0]
        cf.packet_sent.add_callback(
            lambda packet, count=count: count.__setitem__(0, count[0] + (packet.port in (2, 5)))
        )
        with SyncCrazyflie(addresses[1], cf=cf) as connected:
            connected.wait_for_params()
        sent.append(count[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        f"{crc:08X}.json" for crc in (crazyflie_crc("log"), crazyflie_crc("param"))
    )
    assert sent[0] - sent[1] == len(logs.VARIABLES) + len(parameters.PARAMETERS)


def crazyflie_crc(table: str) -> int:
    from hardware.robots.crazyflie.services import LOG_CRC, PARAMETER_CRC

    return LOG_CRC if table == "log" else PARAMETER_CRC


def test_two_drones_of_one_process_are_apart(addresses: list[str], drone: SyncCrazyflie) -> None:
    with SyncCrazyflie(addresses[1], cf=Crazyflie()) as second:
        second.wait_for_params()
        here, there = Watch(drone.cf, "stateEstimate.z"), Watch(second.cf, "stateEstimate.z")
        arm(second.cf)
        second.cf.high_level_commander.takeoff(0.6, 1.0)
        wait_for(lambda: there["stateEstimate.z"] > 0.5)
        assert abs(here["stateEstimate.z"]) < 0.05
        second.cf.high_level_commander.land(0.0, 1.0)
        wait_for(lambda: there["stateEstimate.z"] < 0.05)


def test_the_latency_ping_is_answered(drone: SyncCrazyflie) -> None:
    wait_for(lambda: drone.cf.link_statistics.latency.latency > 0.0)
