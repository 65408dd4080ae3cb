"""ROS 2 node `robot_node`: one robot's own protocol on one side, standard messages on the other.

    python -m controllers.nodes.robot_node --ros-args -r __ns:=/crazyflie -p robot:=crazyflie -p uri:=udp://127.0.0.1:19850

Publishes the robot's states; takes commands once armed (service `arm`), behind the guard. Watches whoever commands:
where the heartbeat or the stream of set points ends in flight, the robot goes to its safe state by itself.
"""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from std_msgs.msg import Bool, Empty, Header, String
from std_srvs.srv import Empty as EmptyService
from std_srvs.srv import SetBool, Trigger

from controllers.channels import ESTOP, HEARTBEAT, STOP, any_command_values, command_topic
from controllers.flight import FlightPlan
from controllers.gate import Gate
from controllers.nodes import qos
from controllers.nodes.managed import HEARTBEAT_PERIOD_S, ManagedNode, Stop, run_node
from controllers.nodes.messages import message_class
from controllers.sinks import Level
from hardware.clock import MonotonicClock
from hardware.errors import RoboError
from hardware.messages import STATUS_TOPIC, primary_topic, state_messages, state_topics, status_message
from hardware.robot import Command, RobotState
from hardware.robots import connect
from hardware.spec import CommandMode, load_spec

POLLS_PER_STATE, POLL_S = 0.2, (0.002, 0.1)
"""How often the driver is asked for a new state: five times a period, within these bounds in real time."""
COMMAND_TIMEOUT_S = 0.4
"""Where the robot's spec does not say otherwise."""
SLOW_TOPIC_S = 0.1
"""Shortest interval of the topics that do not carry the state's instant, such as the battery's."""
WATCH_S = 0.01
LANDING_WAIT_S = 25.0
"""Longest wait for a robot to come to rest before the node ends."""


class RobotNode(ManagedNode):
    """See the module; lifecycle: configure connects, activate lets commands through, deactivate lands."""

    def __init__(self, context: rclpy.Context) -> None:
        super().__init__("robot_node", context)
        name = self.declare("robot", "crazyflie", "Name of the robot: a folder of hardware/robots.")
        self.spec = load_spec(name)
        self._uri = self.declare("uri", "", "Address of the robot; empty: the address in its spec.")
        own_timeout_s = float(self.spec.parameters.get("command_timeout_s", COMMAND_TIMEOUT_S))
        timeout_s = self.declare(
            "command_timeout_s",
            own_timeout_s,
            "Age of the last heartbeat or streamed command at which the robot goes to its safe state, s.",
            low=0.05,
            high=max(5.0, own_timeout_s),
        )
        self.declare("autostart", True, "Configure and activate by itself.")
        plan = FlightPlan(
            takeoff_height_m=self.declare("takeoff_height_m", 0.5, "Height of service takeoff, m.", low=0.2, high=2.0),
            takeoff_s=self.declare("takeoff_s", 2.0, "Duration of service takeoff, s.", low=1.0, high=10.0),
        )
        self.gate = Gate(
            self.spec,
            plan,
            self.monotonic,
            timeout_s=timeout_s,
            report=self._tell_fault,
            label=lambda: self.state_label,
        )
        self._poller: threading.Thread | None = None
        self._closing = threading.Event()
        self._make_interfaces()

    @property
    def at_rest(self) -> bool:
        """Whether nothing moves, or is about to, by this node."""
        return self.gate.at_rest

    def configure(self) -> None:
        """Connects to the robot; refused with Unreachable's line where it does not answer."""
        if self.gate.robot is not None:  # after an error in a transition
            self.cleanup()
        robot = connect(self.spec.name, self._uri or None, clock=self.monotonic)
        robot.open()
        self.gate.robot, self._closing = robot, threading.Event()
        self._poller = threading.Thread(target=self._poll, name="robot", daemon=True)
        self._poller.start()
        self.get_logger().info(f"connected to {self.spec.name} at {self._uri or self.spec.address}")

    def activate(self) -> None:
        """Lets commands through; the robot itself is armed by service `arm`."""
        self.gate.is_open = True

    def deactivate(self) -> None:
        """The safe state first; commands are refused from now on."""
        self.make_safe()

    def cleanup(self) -> None:
        """Disconnects; refused while the robot is still on its way down."""
        if not self.at_rest:
            raise RoboError("the robot is not yet at rest")
        self.disconnect()

    def make_safe(self) -> None:
        """Puts an armed robot on its way to the safe state; commands and arming are refused from now on."""
        self.gate.shut()

    def disconnect(self) -> None:
        """Stops polling and closes the link, which stops the robot."""
        self._closing.set()
        if self._poller is not None:
            self._poller.join(timeout=2.0)
        if self.gate.robot is not None:
            self.gate.robot.close()
        self.gate.robot = self.gate.state = None

    def stop_now(self, reason: str) -> None:
        """Emergency stop."""
        self.gate.estop(reason)
        self.get_logger().error(f"emergency stop: {reason}")
        self.report()

    def health(self) -> tuple[Level, str, dict[str, str]]:
        """See ManagedNode.health."""
        values = {"lifecycle": self.state_label, "supervisor": self.gate.supervisor.mode}
        state, robot = self.gate.state, self.gate.robot
        if state is not None:
            age_s = (self.monotonic.now_ns() - state.t_ns) / 1e9
            values |= {"state_age_s": f"{age_s:.3f}", "status": " ".join(sorted(state.status))}
        if robot is not None:
            values |= {"guard_interventions": str(robot.interventions), "commands_ignored": str(self.gate.ignored)}
        fault = self.gate.supervisor.fault
        if fault is not None:
            return "error", fault.reason, values | {"fault": fault.name}
        return ("warn", "e-stop is on", values) if self.gate.estop_on else ("ok", self.state_label, values)

    def _make_interfaces(self) -> None:
        self._state_out = {
            topic: self.create_publisher(message_class(kind), topic, qos.STATE_OUT)
            for topic, kind in state_topics(self.spec).items()
        }
        self._status = self.create_publisher(String, STATUS_TOPIC, qos.LATCHED)
        for mode in self.spec.modes.values():
            topic, kind = command_topic(mode)
            profile = qos.COMMAND if mode.rate_hz > 0 else qos.ONE_SHOT
            self.create_subscription(message_class(kind), topic, self._command_callback(mode), profile)
        self.create_subscription(Empty, STOP[0], lambda _: self.gate.stop(), qos.ONE_SHOT)
        self._estop_out = self.create_publisher(Bool, ESTOP[0], qos.LATCHED)
        self.create_subscription(Bool, ESTOP[0], self._on_estop, qos.LATCHED)
        self.create_subscription(Header, HEARTBEAT[0], self._on_heartbeat, qos.HEARTBEAT_IN)
        self.create_service(SetBool, "arm", self._on_arm)
        for one_shot in {"takeoff", "land"} & self.spec.modes.keys():
            self.create_service(Trigger, one_shot, lambda _, r, mode=one_shot: self._on_one_shot(mode, r))
        self.create_service(EmptyService, "emergency", self._on_emergency)

    # --- commands (executor thread) -----------------------------------------------------------------------------

    def _command_callback(self, mode: CommandMode) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            try:
                self.gate.pass_on(Command(mode.name, any_command_values(mode, message)))
            except RoboError as e:
                self.get_logger().warning(f"{mode.name}: {e}", throttle_duration_sec=1.0)

        return take

    def _on_arm(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        try:
            if request.data:
                self.gate.arm()
            else:
                self.gate.stop()
            response.success, response.message = True, "armed" if request.data else "disarmed"
        except RoboError as e:
            response.success, response.message = False, str(e)
        return response

    def _on_one_shot(self, mode: str, response: Trigger.Response) -> Trigger.Response:
        try:
            response.success, response.message = True, self.gate.one_shot(mode)
        except RoboError as e:
            response.success, response.message = False, str(e)
        return response

    def _on_emergency(self, _: EmptyService.Request, response: EmptyService.Response) -> EmptyService.Response:
        self._estop_out.publish(Bool(data=True))  # whoever flies the robot must know, and this node hears it too
        self.gate.estop_on = True
        self.stop_now("service emergency")
        return response

    def _on_estop(self, message: Bool) -> None:
        before, self.gate.estop_on = self.gate.estop_on, bool(message.data)
        if self.gate.estop_on and not before:
            self.stop_now("topic estop")

    def _on_heartbeat(self, message: Header) -> None:
        if message.frame_id != self.get_name():
            self.gate.heard()

    # --- states and watching (own thread) -----------------------------------------------------------------------

    def _poll(self) -> None:
        wall = MonotonicClock()  # how often to ask is a matter of real time, however fast the robot's clock runs
        period_s = min(max(POLLS_PER_STATE / (self.spec.rate_hz * self.monotonic.scale), POLL_S[0]), POLL_S[1])
        deadline = wall.now_ns()
        last_ns, beat_ns, watch_ns = -1, 0, 0
        slow: dict[str, int] = {}
        while not self._closing.is_set():
            deadline = max(deadline + round(period_s * 1e9), wall.now_ns())
            wall.sleep_until_ns(deadline)
            now = wall.now_ns()
            state = None
            try:
                state = self._read()
                if now - watch_ns >= WATCH_S * 1e9:
                    watch_ns = now
                    if self.gate.watch(state):
                        self.get_logger().info("the robot is at rest")
            except Exception as e:  # noqa: BLE001 - this thread is what watches; it must not end
                self._broken(f"{type(e).__name__}: {e}", on_the_way_down=True)
            try:
                if state is not None:
                    self._publish_status(state)
                    if state.t_ns != last_ns:
                        last_ns = state.t_ns
                        self._publish(state, slow)
                if now - beat_ns >= HEARTBEAT_PERIOD_S * 1e9:
                    beat_ns = now
                    self.beat()
            except Exception as e:  # noqa: BLE001 - nor is a robot that nobody hears of to be left alone
                self._broken(f"{type(e).__name__}: {e}")

    def _broken(self, why: str, *, on_the_way_down: bool = False) -> None:
        self.get_logger().error(f"watching the robot: {why}", throttle_duration_sec=1.0)
        self.gate.broken(why, on_the_way_down=on_the_way_down)

    def _read(self) -> RobotState | None:
        state = self.gate.read()
        if state is None and self.gate.robot is not None:
            self._publish_status(RobotState(0, {}, frozenset({"link_lost"})))
        return state

    def _tell_fault(self, reason: str) -> None:
        self.get_logger().error(f"{reason}: going to the safe state")
        self.report()

    def _publish(self, state: RobotState, slow: dict[str, int]) -> None:
        self.gate.state = state
        if not self.gate.is_open and self.at_rest:  # like a lifecycle publisher
            return
        primary = primary_topic(self.spec)
        messages = state_messages(self.spec, state, self.make, self.get_namespace().strip("/"))
        first = messages.pop(primary, None)
        for topic, message in messages.items():  # before the primary one, which makes the others act
            if state.t_ns - slow.get(topic, 0) >= SLOW_TOPIC_S * 1e9:
                slow[topic] = state.t_ns
                self._state_out[topic].publish(message)
        if first is not None:
            self._state_out[primary].publish(first)

    def _publish_status(self, state: RobotState) -> None:
        if getattr(self, "_told", None) != state.status:
            self._told = state.status
            self._status.publish(status_message(state, self.make))


def _work(node: RobotNode, stop: Stop) -> int:
    if node.get_parameter("autostart").value:
        node.trigger_configure()
        if node.failure:
            return 1
        node.trigger_activate()
    stop.wanted.wait()
    node.make_safe()
    deadline = time.monotonic() + LANDING_WAIT_S
    while not node.at_rest and time.monotonic() < deadline:
        if stop.hurry.wait(0.05):
            node.stop_now("second signal")
            break
    node.disconnect()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM; an armed robot is landed first."""
    return run_node("robot_node", RobotNode, _work, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
