"""A ROS 2 client in the test's own process: watches a deployment's topics, calls its services."""

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, Twist
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Bool, Empty, String
from std_srvs.srv import SetBool, Trigger

from controllers.nodes import qos

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # lark, which comes with the ROS wheels, imports sre_parse
    import rosidl_generator_py  # noqa: F401

SPACE = "/crazyflie"


class Client:
    """What can be seen and done from outside."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.diagnostics: list[tuple[str, int, str, dict[str, str]]] = []
        """Node, level, text, values."""
        self.position = np.full(3, np.nan)
        self.status: frozenset[str] = frozenset()
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.ONE_SHOT)
        node.create_subscription(Odometry, f"{SPACE}/odom", self._on_odom, qos.STATE_IN)
        node.create_subscription(String, f"{SPACE}/status", self._on_status, qos.LATCHED)
        self._estop = node.create_publisher(Bool, f"{SPACE}/estop", qos.LATCHED)
        self._goal = node.create_publisher(PoseStamped, f"{SPACE}/goal", qos.ONE_SHOT)
        self._set_point = node.create_publisher(Twist, f"{SPACE}/cmd_vel_legacy", qos.COMMAND)
        self._stop = node.create_publisher(Empty, f"{SPACE}/command/stop", qos.ONE_SHOT)

    def until(self, what: str, condition: Callable[[], Any], timeout_s: float = 40.0) -> Any:
        """Waits for something; fails naming it and what was told meanwhile."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.02)
        told = [(n, text) for n, _, text, _ in self.diagnostics[-8:]]
        raise AssertionError(f"{what}: not within {timeout_s} s; at {self.position}, {set(self.status)}, {told}")

    def told(self, node: str, words: str) -> bool:
        """Whether a node has published a diagnosis with these words."""
        return any(n.endswith(node) and words in text for n, _, text, _ in list(self.diagnostics))

    def health(self, node: str) -> str:
        """A node's latest diagnosis; empty before its first."""
        return next((text for n, _, text, _ in reversed(list(self.diagnostics)) if n.endswith(node)), "")

    def phase(self, name: str) -> None:
        """Waits for a phase of the flight."""
        self.until(f"phase {name}", lambda: self.told("policy_node", f"phase {name}"))

    def estop(self, on: bool) -> None:
        """Publishes the e-stop."""
        self._estop.publish(Bool(data=on))

    def go_to(self, x: float, y: float, z: float) -> None:
        """Publishes a goal."""
        message = PoseStamped()
        message.pose.position.x, message.pose.position.y, message.pose.position.z = x, y, z
        self._goal.publish(message)

    def set_point(self, roll: float, pitch: float, yaw_rate: float, thrust: float) -> None:
        """Publishes one set point: degrees, degrees per second, and thrust in 0..1."""
        message = Twist()
        message.linear.y, message.linear.x, message.angular.z, message.linear.z = roll, pitch, yaw_rate, thrust * 65535
        self._set_point.publish(message)

    def stop(self) -> None:
        """Publishes the stop of the motors."""
        self._stop.publish(Empty())

    def trigger(self, service: str) -> tuple[bool, str]:
        """Calls a Trigger service."""
        response = self.call(Trigger, f"{SPACE}/{service}", Trigger.Request())
        return response.success, response.message

    def arm(self, on: bool) -> tuple[bool, str]:
        """Calls service arm."""
        response = self.call(SetBool, f"{SPACE}/arm", SetBool.Request(data=on))
        return response.success, response.message

    def transition(self, node: str, number: int) -> bool:
        """Asks for a lifecycle transition."""
        request = ChangeState.Request()
        request.transition.id = number
        return self.call(ChangeState, f"{SPACE}/{node}/change_state", request).success

    def lifecycle(self, node: str) -> str:
        """The lifecycle state."""
        return self.call(GetState, f"{SPACE}/{node}/get_state", GetState.Request()).current_state.label

    def set_goal_parameter(self, values: list[float]) -> tuple[bool, str]:
        """Sets policy_node's parameter goal."""
        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE_ARRAY, double_array_value=values)
        request = SetParameters.Request(parameters=[Parameter(name="goal", value=value)])
        result = self.call(SetParameters, f"{SPACE}/policy_node/set_parameters", request).results[0]
        return result.successful, result.reason

    def call(self, kind: Any, service: str, request: Any) -> Any:
        """Calls a service; the executor runs in another thread."""
        client = self.node.create_client(kind, service)
        try:
            assert client.wait_for_service(timeout_sec=30.0), f"no service {service}"
            answered = threading.Event()
            future = client.call_async(request)
            future.add_done_callback(lambda _: answered.set())
            assert answered.wait(30.0), f"{service} did not answer"
            return future.result()
        finally:
            self.node.destroy_client(client)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for s in message.status:
            level = s.level[0] if isinstance(s.level, bytes) else s.level
            self.diagnostics.append((s.name, level, s.message, {v.key: v.value for v in s.values}))

    def _on_odom(self, message: Odometry) -> None:
        p = message.pose.pose.position
        self.position = np.array([p.x, p.y, p.z])

    def _on_status(self, message: String) -> None:
        self.status = frozenset(message.data.split())


@contextmanager
def ros_client() -> Iterator[Client]:
    """A client that spins in the background; the environment says in which domain."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("test_client", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=_spin, args=(executor,), daemon=True)
    thread.start()
    try:
        yield Client(node)
    finally:
        executor.shutdown(timeout_sec=2.0)
        thread.join(timeout=5.0)
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def _spin(executor: SingleThreadedExecutor) -> None:
    # rclpy destroys the executor's guard conditions at its shutdown while a callback may still be ending.
    with suppress(ExternalShutdownException, InvalidHandle):
        executor.spin()
