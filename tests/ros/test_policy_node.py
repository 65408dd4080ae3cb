"""What the policy node takes for a goal."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from support.pd_policy import write_pd_policy
from support.ros_client import Client, ros_client

from controllers.nodes.policy_node import PolicyNode
from controllers.nodes.profile import VARIABLE, profile_path
from hardware.messages import Tick

pytestmark = pytest.mark.ros


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv(VARIABLE, str(profile_path()))
    with ros_client() as c:
        yield c


@pytest.fixture
def node(client: Client, tmp_path: Path) -> Iterator[PolicyNode]:
    policy = write_pd_policy(tmp_path / "p.onnx")
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "-r", "__ns:=/crazyflie", "-p", f"policy:={policy}"], context=context)
    made = PolicyNode(context)
    made.trigger_configure()
    yield made
    made.destroy_node()
    rclpy.try_shutdown(context=context)


def test_a_goal_that_the_node_announces_late_is_not_taken_for_somebody_elses(node: PolicyNode, client: Client) -> None:
    """Both announcements are heard after the second one was made; the first must not bring its goal back."""
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    for i, height in enumerate((0.5, 1.0)):
        goal = {"position_world": np.array([0.0, 0.0, height])}
        node.tick(Tick(i, 0, goal, {"policy": np.zeros(1)}, np.zeros(4), np.zeros(4)), 1_000_000_000 + i)
    for _ in range(40):
        executor.spin_once(timeout_sec=0.02)
    assert node._goals == []

    def taken() -> bool:
        client.go_to(0.0, 0.0, 1.5)
        executor.spin_once(timeout_sec=0.05)
        return bool(node._goals)

    client.until("a goal from outside", taken)
    assert node._goals[0]["position_world"].tolist() == [0.0, 0.0, 1.5]
    executor.shutdown()
