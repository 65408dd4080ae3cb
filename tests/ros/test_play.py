"""The player over real rclpy: exact bytes at the recorded pace, commands kept aside, services, a clock that goes on."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger
from support.log_samples import START_NS

from controllers.nodes.messages import message_class
from controllers.nodes.play_node import Played, Playing, lateness_histogram, play
from controllers.nodes.profile import VARIABLE, profile_path
from hardware.log.qos import LATCHED
from hardware.log.types import encode, new_message
from hardware.log.writer import LogWriter
from hardware.messages import RosbagsMessages, command_message
from hardware.robot import Command
from hardware.spec import load_spec

pytestmark = [
    pytest.mark.ros,
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),  # lark's, when rclpy first makes a message
]
COUNT = 100


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> None:
    """This test and its processes see only one another."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv(VARIABLE, str(profile_path()))


@pytest.fixture
def flight(tmp_path: Path) -> tuple[Path, list[bytes]]:
    """One second of odometry at 100 Hz with commands, a heartbeat and a goal; a card at its start. And its bytes."""
    spec, sent = load_spec("crazyflie"), []
    with LogWriter(tmp_path / "flight") as writer:
        writer.add_topic("/cf/policy/card", "std_msgs/msg/String", (LATCHED,))
        card = new_message("std_msgs/msg/String")
        card.data = "the card"
        writer.write_message("/cf/policy/card", card, START_NS)
        for i in range(COUNT):
            t_ns = START_NS + i * 10_000_000
            odometry = new_message("nav_msgs/msg/Odometry")
            odometry.header.stamp.sec, odometry.pose.pose.position.x = i, i / 7
            sent.append(encode(odometry))
            writer.write_message("/cf/odom", odometry, t_ns)
            command = Command("attitude_thrust", np.array([0.1, 0.2, 0.3, i / COUNT]))
            writer.write_message("/cf/cmd_vel_legacy", command_message(spec, command, RosbagsMessages())[1], t_ns + 1)
            writer.write_message("/cf/heartbeat", new_message("std_msgs/msg/Header"), t_ns + 2)
        writer.write_message("/cf/goal", new_message("geometry_msgs/msg/PoseStamped"), t_ns + 3)
        writer.write_message("/cf/command/land", new_message("std_msgs/msg/Float64MultiArray"), t_ns + 4)
        writer.write_message("/cf/command/stop", new_message("std_msgs/msg/Empty"), t_ns + 5)
    return tmp_path / "flight", sent


class Listener:
    """A node of its own that keeps the raw bytes of some topics."""

    def __init__(self, name: str = "listener") -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node(name, context=self.context)
        self.heard: dict[str, list[bytes]] = {}
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def listen(self, topic: str, kind: str, *, latched: bool = False) -> None:
        """Subscribes, reliably."""
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        self.heard[topic] = heard = []
        qos = QoSProfile(depth=1000, durability=durability)
        self.node.create_subscription(message_class(kind), topic, heard.append, qos, raw=True)

    def call(self, kind: type, name: str, request: Any) -> Any:
        """Calls a service and waits for its answer."""
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(timeout_sec=20.0)
        future = client.call_async(request)
        _until(future.done)
        return future.result()

    def close(self) -> None:
        """Ends the node."""
        self._executor.shutdown()
        self._thread.join(timeout=10.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def listener(domain: None) -> Iterator[Listener]:
    """See Listener."""
    node = Listener()
    yield node
    node.close()


def _until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last, "waited in vain"
        time.sleep(0.01)


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "robo_rl", "log", "play", *argv], capture_output=True, text=True, timeout=90
    )


def test_exact_bytes_latched_messages_first_and_commands_aside(
    listener: Listener, flight: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    """From half-way: the card from before is there, odometry byte for byte, nothing that would move a robot."""
    path, sent = flight
    moving = {
        "/cf/cmd_vel_legacy": "geometry_msgs/msg/Twist",
        "/cf/heartbeat": "std_msgs/msg/Header",
        "/cf/goal": "geometry_msgs/msg/PoseStamped",
        "/cf/command/land": "std_msgs/msg/Float64MultiArray",
        "/cf/command/stop": "std_msgs/msg/Empty",
    }
    listener.listen("/cf/odom", "nav_msgs/msg/Odometry")
    listener.listen("/cf/policy/card", "std_msgs/msg/String", latched=True)
    listener.listen("/clock", "rosgraph_msgs/msg/Clock")
    for topic, kind in moving.items():
        listener.listen(topic, kind)
        listener.listen("/replay" + topic, kind)
    done = _run(
        *(str(path), "--rate", "0.5", "--start", "0.5", "--clock", "50", "--delay", "3"),
        *("--json", str(tmp_path / "play.json")),
    )
    assert done.returncode == 0, done.stderr
    heard = listener.heard
    _until(lambda: len(heard["/replay/cf/command/land"]) == 1)
    assert heard["/cf/odom"] == sent[COUNT // 2 :]
    card = new_message("std_msgs/msg/String")
    card.data = "the card"
    [latched] = heard["/cf/policy/card"]
    assert latched.rstrip(b"\0") == encode(card).rstrip(b"\0")  # the middleware pads to a multiple of four bytes
    assert {t: len(heard["/replay" + t]) for t in moving} == {
        "/cf/cmd_vel_legacy": COUNT // 2, "/cf/heartbeat": COUNT // 2, "/cf/goal": 1, "/cf/command/land": 1,
        "/cf/command/stop": 1,
    }  # fmt: skip
    assert not any(heard[t] for t in moving)
    stamps = [_clock_ns(raw) for raw in heard["/clock"]]
    assert len(stamps) > 10
    assert stamps == sorted(stamps)
    assert stamps[0] >= START_NS + 500_000_000
    result = json.loads((tmp_path / "play.json").read_text())
    assert result["messages"] == 3 * (COUNT // 2) + 4
    assert result["duration_s"] == pytest.approx(0.99, abs=0.8)  # half a second of log at half speed
    assert result["duration_s"] >= 0.98
    assert set(result["lateness_ms"]) == {"p50", "p99", "max"}


def test_commands_never_reach_a_live_robot(listener: Listener, flight: tuple[Path, list[bytes]]) -> None:
    """--allow-commands is refused while somebody publishes the robot's state, and works when nobody does."""
    path, _ = flight
    listener.listen("/cf/cmd_vel_legacy", "geometry_msgs/msg/Twist")
    live = listener.node.create_publisher(message_class("nav_msgs/msg/Odometry"), "/cf/odom", 1)
    done = _run(str(path), "--allow-commands", "--rate", "20", "--delay", "3")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "a live robot publishes /cf/odom (listener)" in done.stderr
    assert not listener.heard["/cf/cmd_vel_legacy"]
    listener.node.destroy_publisher(live)
    done = _run(str(path), "--allow-commands", "--rate", "20", "--delay", "3")
    assert done.returncode == 0, done.stderr
    _until(lambda: len(listener.heard["/cf/cmd_vel_legacy"]) == COUNT)


def test_pause_single_step_seek_rate_and_resume(listener: Listener, flight: tuple[Path, list[bytes]]) -> None:
    """The services, as a debugger of a flight uses them."""
    path, sent = flight
    listener.listen("/cf/odom", "nav_msgs/msg/Odometry")
    results: list[Played] = []
    playing = Playing(path, regex="/cf/odom", paused=True, delay_s=0.0)
    player = threading.Thread(target=lambda: results.append(play(playing, say=lambda _: None)))
    player.start()
    odometry = listener.heard["/cf/odom"]
    try:
        _until(lambda: listener.node.count_publishers("/cf/odom") == 1)
        _until(lambda: any(n == "log_player" for n in listener.node.get_node_names()))
        time.sleep(1.0)  # the player must have found this subscriber too; nothing is published meanwhile
        assert not odometry
        for _ in range(2):
            assert listener.call(Trigger, "/log_player/play_next", Trigger.Request()).success
        _until(lambda: len(odometry) == 2)
        assert odometry == sent[:2]
        _set(listener, "position_s", 0.9)
        assert "at 0.900 s" in listener.call(Trigger, "/log_player/seek", Trigger.Request()).message
        listener.call(Trigger, "/log_player/play_next", Trigger.Request())
        _until(lambda: len(odometry) == 3)
        assert odometry[2] == sent[90]
        _set(listener, "rate", 0.1)
        listener.call(Trigger, "/log_player/resume", Trigger.Request())
        assert "paused at 0.9" in listener.call(Trigger, "/log_player/pause", Trigger.Request()).message
        _set(listener, "rate", 5.0)
        listener.call(Trigger, "/log_player/resume", Trigger.Request())
        player.join(timeout=30.0)
        _until(lambda: len(odometry) == 2 + 10)
    finally:
        player.join(timeout=30.0)
    assert odometry == [*sent[:2], *sent[90:]]
    assert results[0].counts == {"/cf/odom": 12}


def test_loop_filter_and_remap(listener: Listener, flight: tuple[Path, list[bytes]]) -> None:
    """Again and again from the start, only what is wanted, elsewhere; each jump is announced before /clock shows it."""
    path, sent = flight
    listener.listen("/again/odom", "nav_msgs/msg/Odometry")
    listener.listen("/cf/heartbeat", "std_msgs/msg/Header")
    times: list[tuple[str, int]] = []
    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    for topic, qos in (("/clock", 10), ("/log_player/jump", latched)):
        listener.node.create_subscription(
            message_class("rosgraph_msgs/msg/Clock"), topic, lambda m, t=topic: times.append((t, _ns(m))), qos
        )
    stop, results = threading.Event(), []
    playing = Playing(
        path,
        rate=2.0,
        topics=("/cf/odom", "/cf/heartbeat"),
        exclude=".*card",
        remap={"/cf/odom": "/again/odom"},
        loop=True,
        clock_hz=100.0,
        delay_s=2.0,
    )
    player = threading.Thread(target=lambda: results.append(play(playing, stop=stop, say=lambda _: None)))
    player.start()
    try:
        _until(lambda: len(listener.heard["/again/odom"]) >= 2 * COUNT + 20)
    finally:
        stop.set()
        player.join(timeout=30.0)
    assert listener.heard["/again/odom"][: 2 * COUNT] == sent * 2
    assert not listener.heard["/cf/heartbeat"]
    [played] = results
    assert set(played.counts) == {"/again/odom", "/replay/cf/heartbeat"}
    assert sum(played.histogram.values()) == sum(played.counts.values())
    jumps = [t for topic, t in times if topic == "/log_player/jump"]
    assert len(jumps) >= 2
    assert set(jumps) == {START_NS}
    shown = [t for topic, t in times if topic == "/clock"]
    backwards = sum(b < a for a, b in pairwise(shown))
    assert 1 <= backwards <= len(jumps)


def test_remapping_onto_a_command_is_a_command(listener: Listener, flight: tuple[Path, list[bytes]]) -> None:
    """A topic that moves nobody does not become one that does, and a live robot there stops it."""
    path, _ = flight
    listener.listen("/other/cmd_vel_legacy", "geometry_msgs/msg/Twist")
    listener.listen("/replay/other/cmd_vel_legacy", "geometry_msgs/msg/Twist")
    remap = ("--topics", "/cf/cmd_vel_legacy", "--remap", "/cf/cmd_vel_legacy:=/other/cmd_vel_legacy")
    done = _run(str(path), *remap, "--rate", "20", "--delay", "3")
    assert done.returncode == 0, done.stderr
    _until(lambda: len(listener.heard["/replay/other/cmd_vel_legacy"]) == COUNT)
    assert not listener.heard["/other/cmd_vel_legacy"]
    assert "up to" in done.stdout
    listener.node.create_publisher(message_class("nav_msgs/msg/Odometry"), "/other/odom", 1)
    done = _run(str(path), *remap, "--allow-commands", "--rate", "20", "--delay", "3")
    assert done.returncode == 1
    assert "a live robot publishes /other/odom (listener)" in done.stderr


def test_lateness_histogram_by_hand() -> None:
    """Bounds belong to the class below them."""
    found = lateness_histogram(np.array([0.05, 0.2, 0.9, 2.0, 50.0, 500.0, 500.0]))
    assert found == {
        "up to 0.1 ms": 1, "up to 0.3 ms": 1, "up to 1 ms": 1, "up to 3 ms": 1, "up to 10 ms": 0,
        "up to 30 ms": 0, "up to 100 ms": 1, "over 100 ms": 2,
    }  # fmt: skip


def test_bad_options_are_one_line(flight: tuple[Path, list[bytes]], domain: None) -> None:
    """Rates and expressions that mean nothing, logs that are not there."""
    path, _ = flight
    for argv, says in [
        ((str(path), "--rate", "0"), "rate 0 must lie in"),
        ((str(path), "--start", "-1"), "start -1 s at 0 or later"),
        ((str(path), "--regex", "("), "is not a regular expression"),
        ((str(path / "nowhere"),), "does not exist"),
        ((str(path), "--topics", "/nix"), "'/nix' not found; known: /cf/cmd_vel_legacy"),
        ((str(path), "--remap", "/cf/odom"), "--remap /cf/odom: expected /recorded:=/published"),
    ]:
        done = _run(*argv)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert says in done.stderr


def _set(listener: Listener, name: str, value: float) -> None:
    request = SetParameters.Request()
    number = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
    request.parameters = [Parameter(name=name, value=number)]
    answer = listener.call(SetParameters, "/log_player/set_parameters", request)
    assert answer.results[0].successful, answer.results[0].reason


def _clock_ns(raw: bytes) -> int:
    from rclpy.serialization import deserialize_message

    return _ns(deserialize_message(raw, Clock))


def _ns(message: Any) -> int:
    return message.clock.sec * 10**9 + message.clock.nanosec
