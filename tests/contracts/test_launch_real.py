"""The shipped launch files with real processes and tiny budgets: what they start works together and ends together."""

import os
import re
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.pd_policy import write_pd_policy

from hardware.log.reader import Log

pytestmark = pytest.mark.slow
ros = pytest.mark.skipif(find_spec("rclpy") is None, reason="ROS 2 is not installed")
PATIENCE_S = 240.0


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pd_policy(tmp_path_factory.mktemp("policy") / "p.onnx")


def start(folder: Path, name: str, **arguments: object) -> subprocess.Popen[str]:
    """`robo-rl launch NAME key:=value ...` on loopback, in a domain of its own."""
    words = [f"{k}:={v}" for k, v in arguments.items()]
    env = {"ROS_DOMAIN_ID": str(1 + os.getpid() % 100), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    return subprocess.Popen(
        [sys.executable, "-m", "robo_rl", "launch", name, *words],
        cwd=folder,
        env={**os.environ, **env, "ROBO_RL_LAUNCHED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, name: str, **arguments: object) -> tuple[int, str]:
    process = start(folder, name, **arguments)
    text, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, text


def started_pids(text: str) -> dict[str, int]:
    return {label: int(pid) for label, pid in re.findall(r"process\[(\S+)-\d+\] started with pid (\d+)", text)}


def assert_gone(text: str, *names: str) -> None:
    pids = started_pids(text)
    assert set(names) == set(pids), text
    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_emulate(tmp_path: Path) -> None:
    status, text = run(tmp_path, "emulate", port=0, num=2, duration=0.5, fault="packet_loss:0.1:0.5")
    assert status == 0, text
    assert text.count("udp://127.0.0.1:") >= 2
    assert_gone(text, "emulator")


def test_emulate_says_what_is_wrong(tmp_path: Path) -> None:
    status, text = run(tmp_path, "emulate", port=0, fault="nonsense", duration=0.5)
    assert status == 1
    assert "nonsense" in text


def test_fly_directly_then_replay(tmp_path: Path, policy: Path) -> None:
    status, text = run(tmp_path, "deploy", transport="direct", policy=policy, duration=1.5, log="flight")
    assert "phase takeoff" in text, text
    went_well = "phase done" in text and "error: " not in text
    assert status == (0 if went_well else 1), text
    assert Log(tmp_path / "flight").topics["/crazyflie/odom"].count > 100
    status, text = run(tmp_path, "replay", log="flight", policy=policy)
    assert status == 0, text
    status, text = run(tmp_path, "deploy", mode="replay", uri="flight", policy=policy, log="again")
    assert (tmp_path / "again" / "metadata.yaml").exists(), text


def test_fly_a_swarm_then_replay_one_of_it(tmp_path: Path, policy: Path) -> None:
    status, text = run(
        tmp_path, "swarm", num=3, policy=policy, duration=1.5, formation="line", port=free_port(), log="flight"
    )
    assert "phase takeoff" in text, text
    went_well = "phase done" in text and "error: " not in text
    assert status == (0 if went_well else 1), text
    assert_gone(text, "emulator", "deploy")
    assert sorted(f.name for f in (tmp_path / "flight").iterdir()) == ["cf1", "cf2", "cf3"]
    status, text = run(tmp_path, "replay", log="flight/cf2", policy=policy)
    assert status == 0, text


@pytest.mark.ros
@ros
def test_fly_over_ros_2(tmp_path: Path, policy: Path) -> None:
    """Four processes; the flight's end is the launch's end, and its status is the flight's."""
    status, text = run(tmp_path, "deploy", policy=policy, duration=1.5, log="flight", port=free_port())
    assert "phase takeoff" in text, text
    went_well = "phase done" in text and "going to the safe state" not in text
    assert status == (0 if went_well else 1), text
    assert_gone(text, "emulator", "recorder", "robot_node", "policy_node")
    log = Log(tmp_path / "flight")
    assert log.topics["/crazyflie/odom"].count > 100
    assert log.topics["/crazyflie/policy/card"].count == 1


@pytest.mark.ros
@ros
def test_a_port_in_use_ends_the_launch_before_anybody_else_s_drone_is_flown(tmp_path: Path, policy: Path) -> None:
    port = free_port()
    with start(tmp_path, "emulate", port=port) as other:
        assert other.stdout is not None
        while "READY" not in (line := other.stdout.readline()):
            assert line
        status, text = run(tmp_path, "deploy", policy=policy, duration=1.5, log="flight", port=port)
        other.send_signal(signal.SIGINT)
        other.communicate(timeout=PATIENCE_S)
    assert status == 1, text
    assert f"udp://127.0.0.1:{port} is in use by another process" in text
    assert "phase takeoff" not in text


@pytest.mark.ros
@ros
def test_ctrl_c_in_flight_lands_and_records_the_landing(tmp_path: Path, policy: Path) -> None:
    """SIGINT reaches emulator, recorder and nodes at once; the first two outlast the landing."""
    process = start(tmp_path, "deploy", policy=policy, duration=60, log="flight", port=free_port())
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "phase policy" in line or "going to the safe state" in line:
            break
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=PATIENCE_S)
    text = "".join(lines) + rest
    assert process.returncode in (1, 128 + signal.SIGINT), text
    assert "at rest" in text
    assert_gone(text, "emulator", "recorder", "robot_node", "policy_node")
    height = Log(tmp_path / "flight").channels["/crazyflie/odom.pose.pose.position.z"].values
    assert height.max() > 0.2
    assert height[-1] < 0.1


@pytest.mark.ros
@ros
def test_record_and_publish_again(tmp_path: Path) -> None:
    status, text = run(tmp_path, "record", log="empty", duration=0.5, regex="/nothing")
    assert status == 0, text
    assert Log(tmp_path / "empty").count == 0
    status, text = run(tmp_path, "replay", log="empty", through="topics")
    assert_gone(text, "player")
