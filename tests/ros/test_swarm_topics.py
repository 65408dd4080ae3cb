"""A swarm's topics: goals in, poses out, the emergency stop of all; real processes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from geometry_msgs.msg import PoseArray, PoseStamped
from std_srvs.srv import Empty
from support.pd_policy import write_pd_policy, write_perceiving_policy
from support.ros_client import Client, ros_client

from controllers.nodes import qos
from controllers.nodes.profile import VARIABLE, profile_path
from robo_rl.cli import main

pytestmark = pytest.mark.ros


@pytest.fixture(autouse=True)
def own_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that see only one another."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv(VARIABLE, str(profile_path()))


@pytest.fixture
def client(own_domain: None) -> Iterator[Client]:
    with ros_client() as c:
        yield c


def deploy(folder: Path, *more: str) -> subprocess.Popen[str]:
    policy = write_pd_policy(folder / "p.onnx")
    argv = [sys.executable, "-m", "robo_rl", "deploy", str(policy), "--num", "2", "--transport", "ros2"]
    argv += ["--stale-s", "2", "--overruns", "2", "--log", str(folder / "log"), "--json", str(folder / "r.json"), *more]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)


def test_goals_come_in_poses_go_out_and_one_service_stops_all(client: Client, tmp_path: Path) -> None:
    poses: list[np.ndarray] = []
    stamped: list[PoseStamped] = []

    def heard(message: PoseArray) -> None:
        poses.append(np.array([[p.position.x, p.position.y, p.position.z] for p in message.poses]))

    client.node.create_subscription(PoseArray, "/poses", heard, qos.STATE_IN)
    client.node.create_subscription(PoseStamped, "/cf2/pose", stamped.append, qos.STATE_IN)
    goal = client.node.create_publisher(PoseStamped, "/cf2/goal", qos.ONE_SHOT)
    wanted = PoseStamped()
    wanted.pose.position.x, wanted.pose.position.y, wanted.pose.position.z = 0.4, 0.6, 0.9
    with deploy(tmp_path, "--duration", "60") as child:
        client.until("poses in the air", lambda: bool(poses) and bool((poses[-1][:, 2] > 0.3).all()))
        assert poses[-1].shape == (2, 3)
        begin = time.monotonic()
        while np.linalg.norm(poses[-1][1] - [0.4, 0.6, 0.9]) > 0.1:
            goal.publish(wanted)
            time.sleep(0.1)
            assert time.monotonic() - begin < 30.0, poses[-1]
        assert abs(poses[-1][0][0]) < 0.15  # the other one has stayed
        assert stamped[-1].header.frame_id == "world"
        assert abs(stamped[-1].pose.position.z - 0.9) < 0.2
        client.call(Empty, "/all/emergency", Empty.Request())
        out, _ = child.communicate(timeout=60)
    assert child.returncode == 1, out
    result = json.loads((tmp_path / "r.json").read_text())
    assert [d["fault"] for d in result["drones"]] == ["estop", "estop"]


def test_a_single_drone_with_eyes_is_refused_over_topics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = write_perceiving_policy(tmp_path / "p.onnx")
    assert main(["deploy", str(policy), "--transport", "ros2", "--log", str(tmp_path / "log")]) == 1
    assert "this policy perceives its surroundings" in capsys.readouterr().err
