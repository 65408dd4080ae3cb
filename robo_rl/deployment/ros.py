"""ROS 2 transport: `robot_node`, `policy_node` and the recorder, each in its own process."""

import importlib.util
import json
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hardware.errors import BadInput, RoboError
from robo_rl.deployment.order import Order
from robo_rl.deployment.processes import Child, start_emulator

MISSING = (
    "ROS 2 is not available here: pip install 'robo_rl[ros2]' (Linux x86-64), source your ROS 2 set-up, "
    "or use --transport direct"
)
RECORDER_READY_S = 60.0
FASTEST_SCALED_HZ = 1.0
"""State streams up to this rate may run faster than real time over ROS 2."""
END_S = 60.0
"""Longest wait, beyond the flight's own duration, for a policy node to land and end."""


def available() -> bool:
    """Whether ROS 2 is installed for this interpreter."""
    return importlib.util.find_spec("rclpy") is not None


def fly(order: Order) -> dict[str, Any]:
    """Runs the order over ROS 2 to the end; returns its figures. Raises RoboError where it cannot begin."""
    if not available():
        raise RoboError(MISSING)
    if order.perceives:
        raise BadInput(
            f"{order.artifact.path}: this policy perceives its surroundings, which no topic tells policy_node; "
            "use --transport direct, or --num for several robots"
        )
    robot = order.artifact.interface.robot
    if order.time_scale != 1.0 and robot.rate_hz > FASTEST_SCALED_HZ:
        raise BadInput(
            f"--time-scale {order.time_scale:g} needs --transport direct: ROS 2 nodes of a robot with "
            f"{robot.rate_hz:g} states per second run in real time"
        )
    if order.kind == "replay":
        raise BadInput("--mode replay needs --transport direct; over ROS 2, robo-rl log play publishes a recording")
    shared = environment(order)
    time_parameters = {"time_scale": order.time_scale, "time_origin_ns": time.time_ns()}
    with ExitStack() as stack:
        uri = order.uri
        if order.kind == "emulated" and uri is None:
            emulator, uri = start_emulator(robot.name, order.time_scale, order.faults, order.scene)
            stack.enter_context(emulator)
            print(f"emulated {robot.name} at {uri}")
        regex = f"/{order.name}/.*|/diagnostics"
        recorder = Child(
            "recorder",
            ["robo_rl", "log", "record", str(order.log), "--regex", regex],
            quiet=True,
            environment=shared,
        )
        stack.enter_context(recorder)
        recorder.wait_for_line("recording to", RECORDER_READY_S)
        parameters = {"robot": robot.name, "uri": uri or "", "takeoff_height_m": order.plan.takeoff_height_m}
        node = Child("robot_node", _node("robot_node", order.name, parameters | time_parameters), environment=shared)
        stack.callback(node.stop, 30.0)
        result = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "result.json"
        asked = _policy(order, result) | time_parameters
        policy = Child("policy_node", _node("policy_node", order.name, asked), environment=shared)
        stack.callback(policy.stop, 40.0)
        interrupted = _wait(policy, node, order)
        if not result.exists():
            raise RoboError(f"policy_node ended without a result: {_words(policy.last_line or node.last_line)}")
        figures = json.loads(result.read_text())
    return figures | {"log": str(order.log), "interrupted": interrupted}


def environment(order: Order) -> dict[str, str]:
    """An emulated robot is nobody's business outside this machine, unless the user has said otherwise."""
    if order.kind != "emulated" or "ROS_AUTOMATIC_DISCOVERY_RANGE" in os.environ:
        return {}
    return {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def _policy(order: Order, result: Path) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "policy": str(order.artifact.path.resolve()),
        "robot": order.artifact.card.robot,
        "duration_s": order.plan.duration_s,
        "handover_s": order.plan.handover_s,
        "takeoff_height_m": order.plan.takeoff_height_m,
        **{f"bounds.{name}": value for name, value in asdict(order.bounds).items()},
        "recorder_wait_s": RECORDER_READY_S,
        "exit_when_done": True,
        "result": str(result),
    }
    if order.goals:
        parameters["goal"] = np.concatenate([next(iter(g.values())) for g in order.goals]).tolist()
    return parameters


def _node(module: str, namespace: str, parameters: dict[str, Any]) -> list[str]:
    argv = [f"controllers.nodes.{module}", "--ros-args", "-r", f"__ns:=/{namespace}"]
    for name, value in parameters.items():
        argv += ["-p", f"{name}:={_text(value)}"]
    return argv


def _text(value: Any) -> str:
    """A parameter's value as YAML that keeps its type."""
    if isinstance(value, str):
        return json.dumps(value)
    return json.dumps([float(v) for v in value] if isinstance(value, list) else value)


def _words(line: str) -> str:
    """A line of a node's output without the stamps that rclpy puts before it."""
    return re.sub(r"^(\[[^]]*\] )*\[[^]]*\]: ", "", line)


def _wait(policy: Child, node: Child, order: Order) -> bool:
    """Waits for the policy node's end; passes SIGINT and SIGTERM on to it. Returns whether there was one."""
    interrupts: list[int] = []
    endless, real_s = order.plan.duration_s == 0, order.plan.duration_s / order.time_scale
    deadline = float("inf") if endless else time.monotonic() + real_s + END_S
    with _forwarding_signals(policy, order, interrupts):
        while policy.wait(0.2) is None:
            if node.status is not None:
                raise RoboError(f"robot_node ended: {_words(node.last_line)}")
            if time.monotonic() > deadline:
                raise RoboError(f"policy_node did not end within {real_s + END_S:g} s")
    return bool(interrupts)


@contextmanager
def _forwarding_signals(child: Child, order: Order, interrupts: list[int]) -> Iterator[None]:
    def handle(number: int, _: object) -> None:
        interrupts.append(number)
        print(f"{order.ending}; once more for an emergency stop", flush=True)
        child.interrupt()

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
