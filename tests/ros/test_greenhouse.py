"""A greenhouse over ROS 2 in real processes, a thousand times faster than real time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from support.greenhouse_policy import write_greenhouse_policy

from controllers.nodes.profile import VARIABLE, profile_path
from hardware.log.reader import Log

pytestmark = pytest.mark.ros


def test_a_morning_over_standard_messages_survives_a_power_cut_and_replays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv(VARIABLE, str(profile_path()))
    policy, log, out = write_greenhouse_policy(tmp_path / "p.onnx"), tmp_path / "log", tmp_path / "result.json"
    argv = [sys.executable, "-m", "robo_rl", "deploy", str(policy), "--transport", "ros2", "--time-scale", "1000"]
    argv += ["--duration", "14400", "--fault", "restart:90m:10m", "--log", str(log), "--json", str(out)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done
    r = json.loads(out.read_text())
    assert r["success"] is True
    assert r["transport"] == "ros2"
    assert r["policy_ticks"] >= 6
    assert r["check"]["violations"] == []
    assert "restart or key" in [s["cause"] for s in r["check"]["failsafe"]]
    topics = {t.name.removeprefix("/greenhouse_plc/"): (t.type.name, t.count) for t in Log(log).topics.values()}
    for topic, kind in {
        "climate/temperature": "sensor_msgs/msg/Temperature",
        "climate/humidity": "sensor_msgs/msg/RelativeHumidity",
        "climate/co2": "std_msgs/msg/Float64",
        "weather/forecast": "std_msgs/msg/Float64MultiArray",
        "cmd_direct": "std_msgs/msg/Float64MultiArray",
        "policy/tick": "std_msgs/msg/Float64MultiArray",
        "status": "std_msgs/msg/String",
        "heartbeat": "std_msgs/msg/Header",
    }.items():
        assert topics[topic][0] == kind
        assert topics[topic][1] > 0
    assert topics["policy/tick"][1] == r["policy_ticks"]
    again = tmp_path / "parity.json"
    argv = [sys.executable, "-m", "robo_rl", "replay", "policy", str(policy), str(log), "--json", str(again)]
    assert subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False).returncode == 0
    parity = json.loads(again.read_text())
    assert parity["max_action_difference"] <= 1e-5
    assert parity["compared"] >= 0.8 * parity["ticks"]
