"""A policy flown over ROS 2 in real processes: emulator, robot_node, policy_node, and a client that interferes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from std_srvs.srv import Empty as EmptyService
from support.pd_policy import write_pd_policy
from support.ros_client import Client, ros_client

from controllers.nodes.profile import VARIABLE, profile_path
from hardware.log.reader import Log
from robo_rl.deployment.processes import Child, start_emulator

pytestmark = pytest.mark.ros
CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE, ACTIVE_SHUTDOWN = 1, 2, 3, 4, 7
PATIENT = ("bounds.stale_s:=2.0", "bounds.overruns:=2.0")
"""A machine that is busy with other tests must not look like a fault."""


@pytest.fixture(autouse=True)
def own_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that see only one another."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv(VARIABLE, str(profile_path()))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pd_policy(tmp_path_factory.mktemp("ros") / "p.onnx")


@pytest.fixture
def client(own_domain: None) -> Iterator[Client]:
    with ros_client() as c:
        yield c


@pytest.fixture
def uri(own_domain: None) -> Iterator[str]:
    child, address = start_emulator("crazyflie", 1.0, ())
    with child:
        yield address


@pytest.fixture
def children() -> Iterator[list[Child]]:
    started: list[Child] = []
    yield started
    for child in reversed(started):
        child.stop(2.0)


def node(children: list[Child], name: str, *parameters: str) -> Child:
    argv = [f"controllers.nodes.{name}", "--ros-args", "-r", "__ns:=/crazyflie"]
    for p in parameters:
        argv += ["-p", p]
    child = Child(name, argv)
    children.append(child)
    return child


def robot_node(children: list[Child], uri: str, *parameters: str) -> Child:
    return node(children, "robot_node", f"uri:={uri}", "command_timeout_s:=0.5", *parameters)


def policy_node(children: list[Child], policy: Path, *parameters: str) -> Child:
    return node(children, "policy_node", f"policy:={policy}", "takeoff_s:=1.0", *PATIENT, *parameters)


def grounded(client: Client) -> bool:
    return bool(abs(client.position[2]) < 0.06 and "flying" not in client.status)


def test_deploy_flies_records_and_replays(policy: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "result.json"
    argv = [sys.executable, "-m", "robo_rl", "deploy", str(policy), "--transport", "ros2", "--duration", "7"]
    argv += ["--goal", "0.4,-0.2,0.9", "--stale-s", "2", "--overruns", "2", "--log", str(log), "--json", str(out)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done
    r = json.loads(out.read_text())
    assert r["success"] is True
    assert r["transport"] == "ros2"
    assert r["distance_m_max"] < 0.15
    counts = {t.name: t.count for t in Log(log).topics.values()}
    for topic in ("odom", "battery", "cmd_vel_legacy", "policy/tick", "policy/card", "goal", "heartbeat", "status"):
        assert counts[f"/crazyflie/{topic}"] > 0, topic
    assert counts["/crazyflie/policy/tick"] == r["policy_ticks"]
    # Nothing moves before the recorder hears it: the recording holds the take-off.
    assert counts["/crazyflie/command/takeoff"] == 1
    heights = Log(log).channels["/crazyflie/odom.pose.pose.position.z"].values
    assert heights[0] < 0.1 < heights.max()
    again = tmp_path / "parity.json"
    argv = [sys.executable, "-m", "robo_rl", "replay", "policy", str(policy), str(log), "--json", str(again)]
    assert subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False).returncode == 0
    parity = json.loads(again.read_text())
    assert parity["max_action_difference"] <= 1e-5
    assert parity["compared"] > 0.8 * parity["ticks"]


def test_a_killed_policy_node_is_noticed_and_the_drone_lands(
    policy: Path, uri: str, children: list[Child], client: Client
) -> None:
    robot_node(children, uri)
    pilot = policy_node(children, policy)
    client.phase("policy")
    assert client.position[2] > 0.3
    os.kill(pilot.pid, signal.SIGKILL)
    client.until("the fault", lambda: client.told("robot_node", "heartbeat is gone"))
    client.until("the ground", lambda: grounded(client))
    assert pilot.wait(10.0) == -signal.SIGKILL


def test_a_signal_to_the_policy_node_lands(policy: Path, uri: str, children: list[Child], client: Client) -> None:
    robot_node(children, uri)
    pilot = policy_node(children, policy)
    client.phase("policy")
    os.kill(pilot.pid, signal.SIGTERM)
    assert pilot.wait(60.0) == 0
    assert client.told("policy_node", "phase done")
    client.until("the ground", lambda: grounded(client))
    client.until("disarming", lambda: "armed" not in client.status)


def test_a_signal_to_the_robot_node_lands_by_itself(
    policy: Path, uri: str, children: list[Child], client: Client
) -> None:
    driver = robot_node(children, uri)
    policy_node(children, policy)
    client.phase("policy")
    driver.interrupt()
    assert driver.wait(60.0) == 0
    assert client.told("robot_node", "the node is being stopped")
    assert abs(client.position[2]) < 0.12


def test_the_emergency_stop_latches_until_it_is_reset(
    policy: Path, uri: str, children: list[Child], client: Client
) -> None:
    robot_node(children, uri)
    policy_node(children, policy)
    client.phase("policy")
    assert client.trigger("estop/reset") == (False, "cannot reset: the robot is not yet at rest")
    client.estop(True)
    client.until("the fault", lambda: client.told("policy_node", "emergency stop: topic estop"))
    client.until("the fall", lambda: client.position[2] < 0.1)
    client.until("rest", lambda: client.told("policy_node", "at rest"))
    client.until("deactivation", lambda: client.lifecycle("policy_node") == "inactive")
    assert client.transition("policy_node", ACTIVATE) is False
    assert client.told("policy_node", "call estop/reset first")
    assert client.trigger("estop/reset") == (True, "released")


def test_lifecycle_goals_and_refusals(policy: Path, uri: str, children: list[Child], client: Client) -> None:
    robot_node(children, uri)
    policy_node(children, policy, "autostart:=false", "duration_s:=0.0")
    assert client.lifecycle("policy_node") == "unconfigured"
    assert client.transition("policy_node", ACTIVATE) is False
    assert client.transition("policy_node", CONFIGURE) is True
    client.estop(True)  # while inactive: nothing moves, and nothing will
    # Each node hears the topic when it hears it; released too soon, an e-stop that comes late would stop the robot.
    client.until("the latch", lambda: client.told("policy_node", "e-stop latched"))
    client.until("the robot's e-stop", lambda: client.health("robot_node") == "e-stop is on")
    assert client.transition("policy_node", ACTIVATE) is False
    assert client.trigger("estop/reset") == (True, "released")
    client.until("the robot's release", lambda: client.health("robot_node") != "e-stop is on")
    assert client.transition("policy_node", ACTIVATE) is True
    assert client.transition("policy_node", CLEANUP) is False
    client.phase("policy")
    client.go_to(float("nan"), 0.0, 1.0)
    client.until("the refusal", lambda: client.told("policy_node", "goal nan,0,1 refused: not finite"))
    client.go_to(99.0, 0.0, 1.0)
    client.until("the refusal", lambda: client.told("policy_node", "goal 99,0,1 refused: outside the fence"))
    assert client.set_goal_parameter([0.0, 0.0, float("inf")])[1] == "goal 0,0,inf refused: not finite"
    client.go_to(0.5, 0.0, 0.8)
    client.until("the goal", lambda: np.linalg.norm(client.position - [0.5, 0.0, 0.8]) < 0.1)
    assert client.set_goal_parameter([0.0, 0.0, 0.6]) == (True, "")
    client.until("the other goal", lambda: np.linalg.norm(client.position - [0.0, 0.0, 0.6]) < 0.1)
    assert client.transition("policy_node", DEACTIVATE) is True
    client.until("the ground", lambda: grounded(client))
    client.until("rest", lambda: client.told("policy_node", "at rest"))
    client.until("clean-up", lambda: client.transition("policy_node", CLEANUP))
    assert client.lifecycle("policy_node") == "unconfigured"


def test_the_robot_node_alone_can_be_flown_by_hand(uri: str, children: list[Child], client: Client) -> None:
    robot_node(children, uri, "takeoff_s:=1.0")
    client.until("the first state", lambda: np.isfinite(client.position).all())
    assert client.trigger("takeoff") == (False, "cannot takeoff: the robot is not armed; call service arm")
    assert client.arm(True) == (True, "armed")
    assert client.trigger("takeoff")[0]
    client.until("height", lambda: client.position[2] > 0.4)
    assert client.trigger("land")[0]
    client.until("the ground", lambda: grounded(client))
    assert client.arm(False) == (True, "disarmed")
    client.until("disarming", lambda: "armed" not in client.status)
    client.until("arming again", lambda: client.arm(True)[0])
    client.call(EmptyService, "/crazyflie/emergency", EmptyService.Request())
    client.until("the diagnosis", lambda: client.told("robot_node", "emergency stop: service emergency"))
    assert client.arm(True) == (False, "e-stop is on")
    client.estop(False)
    client.until("arming after the release", lambda: client.arm(True)[0])


def test_a_node_that_was_shut_down_arms_nothing(uri: str, children: list[Child], client: Client) -> None:
    robot_node(children, uri)
    client.until("the first state", lambda: np.isfinite(client.position).all())
    client.transition("robot_node", ACTIVE_SHUTDOWN)
    assert client.lifecycle("robot_node") == "finalized"
    assert client.arm(True) == (False, "cannot arm: the node is finalized")


def test_a_stop_during_the_nodes_own_landing_leaves_its_watch_alive(
    uri: str, children: list[Child], client: Client
) -> None:
    """Set points that end make the node land; whoever stops the motors meanwhile must not end what watches."""
    robot_node(children, uri, "takeoff_s:=1.0")
    client.until("the first state", lambda: np.isfinite(client.position).all())
    assert client.arm(True) == (True, "armed")
    assert client.trigger("takeoff")[0]
    client.until("height", lambda: client.position[2] > 0.4)
    client.set_point(0.0, 0.0, 0.0, 0.56)  # and no other
    client.until("the fault", lambda: client.told("robot_node", "last set point"))
    client.stop()
    client.until("the fall", lambda: client.position[2] < 0.1)
    assert "not yet in its safe state" not in client.arm(True)[1]


@pytest.mark.parametrize(
    ("name", "parameter", "words"),
    [
        ("policy_node", "takeoff_height_m:=7.0", "parameter takeoff_height_m"),
        ("policy_node", "takeoff_height_m:=high", "parameter takeoff_height_m"),
        ("policy_node", "policy:=missing.onnx", "policy missing.onnx not found"),
        ("policy_node", "goal:=[0.0, .nan, 1.0]", "goal 0,nan,1 refused: not finite"),
        ("policy_node", "result:=no/such/folder/r.json", "parameter result: folder no/such/folder not found"),
        ("policy_node", "rate_hz:=50.0", "runs at 100 Hz, not at 50 Hz"),
        ("robot_node", "command_timeout_s:=60.0", "parameter command_timeout_s"),
        ("robot_node", "robot:=unicorn", "robot 'unicorn' not found; known: crazyflie"),
        ("robot_node", "uri:=udp://127.0.0.1:9", "no answer from udp://127.0.0.1:9"),
    ],
)
def test_a_node_that_cannot_start_says_why_and_fails(
    policy: Path, children: list[Child], name: str, parameter: str, words: str
) -> None:
    given = ["wait_s:=1.0", f"policy:={policy}"] if name == "policy_node" else []
    child = node(children, name, *given, parameter)
    assert child.wait(60.0) == 1
    assert words in child.last_line
