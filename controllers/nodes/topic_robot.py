"""A robot behind ROS 2 topics: the RobotIO of whatever `robot_node`, Crazyswarm2 or another driver publishes."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node
from std_msgs.msg import Empty, Header, String
from std_srvs.srv import SetBool

from controllers.channels import HEARTBEAT, STOP, any_command_message, command_topic
from controllers.nodes import qos
from controllers.nodes.messages import RclpyMessages, message_class
from hardware.clock import Clock
from hardware.errors import LinkLost, RoboError, Unreachable
from hardware.messages import STATUS_TOPIC, primary_topic, state_topics, update_state
from hardware.robot import Command, RobotState
from hardware.spec import RobotSpec

ANSWER_S = 5.0
"""Longest wait for the answer of a service."""


class TopicRobot:
    """Callbacks run in the node's executor and only keep the newest message; everything else may run in any thread."""

    def __init__(self, node: Node, spec: RobotSpec, clock: Clock, wait_s: float = 10.0) -> None:
        self.spec = spec
        self._node, self._clock, self._wait_s = node, clock, wait_s
        self._make = RclpyMessages()
        self._state = RobotState(0, {})
        self._peer_ns: int | None = None
        self.abandoned = threading.Event()
        """Set to end a wait for the first state."""
        self._primary = primary_topic(spec)
        self._subscriptions = [
            node.create_subscription(message_class(kind), topic, self._taking(topic), qos.STATE_IN)
            for topic, kind in state_topics(spec).items()
        ]
        self._subscriptions += [
            node.create_subscription(String, STATUS_TOPIC, self._taking(STATUS_TOPIC), qos.LATCHED),
            node.create_subscription(Header, HEARTBEAT[0], self._on_heartbeat, qos.HEARTBEAT_IN),
        ]
        self._publishers: dict[str, Any] = {}
        for mode in spec.modes.values():
            topic, kind = command_topic(mode)
            profile = qos.COMMAND if mode.rate_hz > 0 else qos.ONE_SHOT
            self._publishers[mode.name] = node.create_publisher(message_class(kind), topic, profile)
        self._stop = node.create_publisher(Empty, STOP[0], qos.ONE_SHOT)
        self._arm = node.create_client(SetBool, "arm")

    @property
    def heartbeat_age_s(self) -> float | None:
        """Age of the last heartbeat of the robot's node; None for a driver that has never sent one."""
        return None if self._peer_ns is None else (self._clock.now_ns() - self._peer_ns) / 1e9

    def open(self) -> None:
        """Waits for the first state; raises Unreachable. Needs an executor that spins in another thread."""
        begin = self._clock.now_ns()
        while self._state.t_ns == 0:
            if self.abandoned.is_set():
                raise RoboError("told to stop while waiting for the robot's first state")
            waited_s = (self._clock.now_ns() - begin) / 1e9
            if waited_s > self._wait_s:
                topic = self._node.resolve_topic_name(self._primary)
                raise Unreachable(f"topic {topic}", waited_s, "is the robot's node running in this domain?")
            self._clock.sleep_until_ns(self._clock.now_ns() + 20_000_000)

    def await_recorder(self, recorder: str, topics: Sequence[str], wait_s: float) -> bool:
        """Waits until the node `recorder` listens to all commands, to the primary state and to `topics`.

        False where it has not come to that in time. By then the robot's own node has long been listening, too.
        """
        wanted = [self._primary, *topics, *(command_topic(mode)[0] for mode in self.spec.modes.values())]
        names = [self._node.resolve_topic_name(topic) for topic in wanted]
        until_ns = self._clock.now_ns() + round(wait_s * 1e9)
        while not all(recorder in self._listeners(name) for name in names):
            if self.abandoned.is_set() or self._clock.now_ns() > until_ns:
                return False
            self._clock.sleep_until_ns(self._clock.now_ns() + 20_000_000)
        return True

    def _listeners(self, topic: str) -> set[str]:
        return {info.node_name for info in self._node.get_subscriptions_info_by_topic(topic)}

    def read(self) -> RobotState:
        """The newest state; raises LinkLost where the robot's node says so."""
        state = self._state
        if "link_lost" in state.status:
            raise LinkLost("the robot's node has lost its link")
        return state

    def write(self, command: Command) -> None:
        """Publishes the command."""
        self._publishers[command.mode].publish(any_command_message(self.spec, command, self._make))

    def arm(self) -> None:
        """Calls service `arm`; raises RoboError with the robot's reason where it refuses."""
        if not self._arm.wait_for_service(timeout_sec=ANSWER_S):
            raise RoboError(f"no service {self._arm.srv_name}: is the robot's node active?")
        answered = threading.Event()
        future = self._arm.call_async(SetBool.Request(data=True))
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(ANSWER_S):
            raise RoboError(f"service {self._arm.srv_name} did not answer within {ANSWER_S:g} s")
        response = future.result()
        if response is None or not response.success:
            raise RoboError(f"the robot cannot be armed: {response.message if response else 'no answer'}")

    def stop(self) -> None:
        """Publishes the stop; whoever needs it to arrive for certain repeats it."""
        self._stop.publish(Empty())

    def close(self) -> None:
        """Ends the subscriptions and publishers."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        for publisher in (*self._publishers.values(), self._stop):
            self._node.destroy_publisher(publisher)
        self._node.destroy_client(self._arm)
        self._subscriptions, self._publishers = [], {}

    def _taking(self, topic: str) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            self._state = update_state(self.spec, self._state, topic, message, self._clock.now_ns())

        return take

    def _on_heartbeat(self, message: Header) -> None:
        if message.frame_id != self._node.get_name():
            self._peer_ns = self._clock.now_ns()
