"""Unmodified cflib flies eight emulated drones of one process, each by the policy on its own board."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.emulator_process import served

pytest.importorskip("cflib.crazyflie", reason="needs the extra crazyflie")

import cflib.crtp
from cflib.crazyflie import Crazyflie
from cflib.crazyflie.log import LogConfig
from cflib.crazyflie.swarm import CachedCfFactory, Swarm
from cflib.crazyflie.syncCrazyflie import SyncCrazyflie

from hardware.robots.crazyflie.mocap import Mocap
from hardware.robots.crazyflie.onboard import OUT_OF_TREE

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

NAMES = ("stateEstimate.x", "stateEstimate.y", "stateEstimate.z", "policy.active", "policy.peers", "policy.peerAge")
NUM = 8


@pytest.fixture(scope="module")
def ready() -> Iterator[dict[str, Any]]:
    cflib.crtp.init_drivers()
    options = ("--num", str(NUM), "--mocap", "--mocap-dropout", "0.05", "--mocap-noise", "0.002")
    with served("crazyflie", *options, "--onboard", "zoo:quadrotor-hover-rotor") as told:
        yield told


@pytest.fixture(scope="module")
def swarm(ready: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    cache = tmp_path_factory.mktemp("tables")
    with SyncCrazyflie(ready["addresses"][0], cf=Crazyflie(rw_cache=str(cache))) as first:
        first.wait_for_params()
    with Swarm(ready["addresses"], factory=CachedCfFactory(rw_cache=str(cache))) as connected:
        yield connected


@pytest.fixture(scope="module")
def watched(swarm: Swarm) -> dict[str, dict[str, float]]:
    """The newest values of NAMES of every drone, by address."""
    values: dict[str, dict[str, float]] = {}

    def watch(link: SyncCrazyflie) -> None:
        config, arrived = LogConfig("goal", 100), threading.Event()
        for name in NAMES:
            config.add_variable(name)

        def take(_: int, data: dict[str, float], __: LogConfig) -> None:
            values[link.cf.link_uri] = data
            arrived.set()

        config.data_received_cb.add_callback(take)
        link.cf.log.add_config(config)
        config.start()
        assert arrived.wait(20.0)

    swarm.parallel_safe(watch)
    return values


def wait_for(holds: Callable[[], bool], timeout_s: float = 40.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def distance(values: dict[str, float], goal: tuple[float, float, float]) -> float:
    here = [values[f"stateEstimate.{axis}"] for axis in "xyz"]
    return sum((a - b) ** 2 for a, b in zip(here, goal, strict=True)) ** 0.5


def test_eight_drones_reach_the_goals_that_cflib_sends(
    swarm: Swarm, watched: dict[str, dict[str, float]], ready: dict[str, Any]
) -> None:
    cameras = Mocap(ready["mocap"])
    cameras.open()
    goals = {a: (0.4, 0.5 * (i - 3.5), 0.8 + 0.05 * i) for i, a in enumerate(ready["addresses"])}

    def fly(link: SyncCrazyflie) -> None:
        cf = link.cf
        assert int(cf.param.get_value("stabilizer.controller")) == OUT_OF_TREE

        def armed() -> bool:
            cf.supervisor.send_arming_request(True)
            return cf.supervisor.is_armed

        wait_for(armed)
        cf.high_level_commander.takeoff(0.6, 1.5)
        wait_for(lambda: watched[cf.link_uri]["stateEstimate.z"] > 0.5)
        assert watched[cf.link_uri]["policy.active"] == 1
        cf.high_level_commander.go_to(*goals[cf.link_uri], 0.0, 1.5)
        wait_for(lambda: distance(watched[cf.link_uri], goals[cf.link_uri]) < 0.08)
        for _ in range(60):  # streamed goals, a decimetre higher
            x, y, z = goals[cf.link_uri]
            cf.commander.send_position_setpoint(x, y, z + 0.1, 0.0)
            time.sleep(0.05)
        x, y, z = goals[cf.link_uri]
        assert distance(watched[cf.link_uri], (x, y, z + 0.1)) < 0.08
        assert watched[cf.link_uri]["policy.active"] == 1
        assert watched[cf.link_uri]["policy.peers"] == NUM - 1
        cf.commander.send_notify_setpoint_stop()
        cf.high_level_commander.land(0.0, 1.5)
        wait_for(lambda: not cf.supervisor.is_flying)

    swarm.parallel_safe(fly)
    assert max(values["policy.peerAge"] for values in watched.values()) < 300
    seen = cameras.latest()
    cameras.close()
    assert set(seen) == set(range(1, NUM + 1))
    for i, address in enumerate(ready["addresses"]):
        x, y, z = seen[i + 1][1]
        assert distance(watched[address], (x, y, z)) < 0.05
        assert abs(z) < 0.05


def test_the_controller_is_a_parameter_that_cflib_writes(swarm: Swarm) -> None:
    def change(link: SyncCrazyflie) -> None:
        for value in (1, OUT_OF_TREE):
            link.cf.param.set_value("stabilizer.controller", value)
            wait_for(lambda value=value: int(link.cf.param.get_value("stabilizer.controller")) == value)

    swarm.parallel_safe(change)


def test_a_run_says_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from robo_rl.cli import main

    bad = tmp_path / "room.toml"
    bad.write_text("centres_m = 3")
    for arguments, message in (
        (["--onboard", "zoo:quadrotor-hover"], "a policy of mode attitude_thrust does not fly on board"),
        (["--onboard", "zoo:nothing"], "zoo policy 'nothing' not found"),
        (["--obstacles", str(bad)], f"{bad} holds centres_m; expected centres_m = "),
    ):
        assert main(["emulate", "crazyflie", "--port", "0", *arguments]) == 1
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    assert main(["emulate", "greenhouse_plc", "--onboard", "zoo:quadrotor-hover-rotor"]) == 1
    assert "--onboard is for robot 'crazyflie', not 'greenhouse_plc'" in capsys.readouterr().err
