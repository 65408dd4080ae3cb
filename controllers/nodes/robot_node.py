"""ROS 2 node `robot_node`: one robot's own protocol on one side, standard messages on the other.

    python -m controllers.nodes.robot_node --ros-args -r __ns:=/crazyflie -p robot:=crazyflie -p uri:=udp://127.0.0.1:19850

Publishes the robot's states; takes commands once armed (service `arm`), behind the guard. Watches whoever commands:
where the heartbeat or the stream of set points ends in flight, the robot goes to its safe state by itself.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rclpy
from std_msgs.msg import Bool, Empty, Header, String
from std_srvs.srv import Empty as EmptyService
from std_srvs.srv import SetBool, Trigger

from controllers.channels import ESTOP, HEARTBEAT, STOP, any_command_values, command_topic
from controllers.fallback import fallback_law
from controllers.flight import Flight, FlightPlan
from controllers.nodes import qos
from controllers.nodes.managed import HEARTBEAT_PERIOD_S, ManagedNode, Stop, run_node
from controllers.nodes.messages import message_class
from controllers.reaction import Reaction
from controllers.sinks import Level
from controllers.supervisor import Supervisor
from hardware.clock import MonotonicClock
from hardware.errors import LinkLost, RoboError
from hardware.guard import GuardedRobot
from hardware.messages import STATUS_TOPIC, primary_topic, state_messages, state_topics, status_message
from hardware.robot import Command, RobotState
from hardware.robots import connect
from hardware.spec import CommandMode, load_spec

POLL_S = 0.002
"""How often the driver is asked for a new state."""
SLOW_TOPIC_S = 0.1
"""Shortest interval of the topics that do not carry the state's instant, such as the battery's."""
WATCH_S = 0.01
LANDING_WAIT_S = 25.0
"""Longest wait for a robot to come to rest before the node ends."""


class RobotNode(ManagedNode):
    """See the module; lifecycle: configure connects, activate lets commands through, deactivate lands."""

    def __init__(self, context: rclpy.Context) -> None:
        super().__init__("robot_node", context, MonotonicClock())
        name = self.declare("robot", "crazyflie", "Name of the robot: a folder of hardware/robots.")
        self._uri = self.declare("uri", "", "Address of the robot; empty: the address in its spec.")
        self._timeout_s = self.declare(
            "command_timeout_s",
            0.4,
            "Age of the last heartbeat or streamed command at which the robot goes to its safe state, s.",
            low=0.05,
            high=5.0,
        )
        self.declare("autostart", True, "Configure and activate by itself.")
        self._plan = FlightPlan(
            takeoff_height_m=self.declare("takeoff_height_m", 0.5, "Height of service takeoff, m.", low=0.2, high=2.0),
            takeoff_s=self.declare("takeoff_s", 2.0, "Duration of service takeoff, s.", low=1.0, high=10.0),
        )
        self.spec = load_spec(name)
        self._lock = threading.RLock()
        self._robot: GuardedRobot | None = None
        self._state: RobotState | None = None
        self._active = False
        self._estop_on = False
        self._supervisor = Supervisor(self.spec, self.spec.rate_hz)
        self._supervisor.configure()
        self._poller: threading.Thread | None = None
        self._closing = threading.Event()
        self._peer_ns: int | None = None
        self._stream: tuple[str, int] | None = None
        self._ignored = 0
        self._make_interfaces()

    @property
    def at_rest(self) -> bool:
        """Whether nothing moves, or is about to, by this node."""
        return self._supervisor.mode == "inactive" or (self._supervisor.mode == "fault" and self._supervisor.settled)

    def configure(self) -> None:
        """Connects to the robot; refused with Unreachable's line where it does not answer."""
        if self._robot is not None:  # after an error in a transition
            self.cleanup()
        robot = connect(self.spec.name, self._uri or None, clock=self.monotonic)
        robot.open()
        self._robot, self._closing = robot, threading.Event()
        self._poller = threading.Thread(target=self._poll, name="robot", daemon=True)
        self._poller.start()
        self.get_logger().info(f"connected to {self.spec.name} at {self._uri or self.spec.address}")

    def activate(self) -> None:
        """Lets commands through; the robot itself is armed by service `arm`."""
        self._active = True

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
        with self._lock:
            self._active = False
            self._fault("shutdown", "")

    def disconnect(self) -> None:
        """Stops polling and closes the link, which stops the robot."""
        self._closing.set()
        if self._poller is not None:
            self._poller.join(timeout=2.0)
        if self._robot is not None:
            self._robot.close()
        self._robot = self._state = None

    def stop_now(self, reason: str) -> None:
        """Emergency stop."""
        with self._lock:
            self._supervisor.estop(self.monotonic.now_ns(), reason)
            if self._robot is not None:
                self._robot.stop()
        self.get_logger().error(f"emergency stop: {reason}")
        self.report()

    def health(self) -> tuple[Level, str, dict[str, str]]:
        """See ManagedNode.health."""
        values = {"lifecycle": self.state_label, "supervisor": self._supervisor.mode}
        state, robot = self._state, self._robot
        if state is not None:
            age_s = (self.monotonic.now_ns() - state.t_ns) / 1e9
            values |= {"state_age_s": f"{age_s:.3f}", "status": " ".join(sorted(state.status))}
        if robot is not None:
            values |= {"guard_interventions": str(robot.interventions), "commands_ignored": str(self._ignored)}
        fault = self._supervisor.fault
        if fault is not None:
            return "error", fault.reason, values | {"fault": fault.name}
        return ("warn", "e-stop is on", values) if self._estop_on else ("ok", self.state_label, values)

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
        self.create_subscription(Empty, STOP[0], lambda _: self._stop_command(), qos.ONE_SHOT)
        self._estop_out = self.create_publisher(Bool, ESTOP[0], qos.LATCHED)
        self.create_subscription(Bool, ESTOP[0], self._on_estop, qos.LATCHED)
        self.create_subscription(Header, HEARTBEAT[0], self._on_heartbeat, qos.HEARTBEAT_IN)
        self.create_service(SetBool, "arm", self._on_arm)
        self.create_service(Trigger, "takeoff", lambda _, r: self._on_one_shot("takeoff", r))
        self.create_service(Trigger, "land", lambda _, r: self._on_one_shot("land", r))
        self.create_service(EmptyService, "emergency", self._on_emergency)

    # --- commands (executor thread) -----------------------------------------------------------------------------

    def _command_callback(self, mode: CommandMode) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            try:
                self._command(Command(mode.name, any_command_values(mode, message)))
            except RoboError as e:
                self.get_logger().warning(f"{mode.name}: {e}", throttle_duration_sec=1.0)

        return take

    def _command(self, command: Command) -> None:
        with self._lock:
            robot, state = self._robot, self._state
            if robot is None or state is None or not self._active or self._supervisor.mode != "active":
                self._ignored += 1
                raise RoboError(f"ignored: {self._why_not()}")
            if self.spec.mode(command.mode).rate_hz > 0:
                if self._stream is None or self._stream[0] != command.mode:
                    # The first set point ramps from what the classical law would do in the measured state.
                    robot.ramp_from(command.mode, fallback_law(self.spec, command.mode).command(*_standing(state)))
                self._stream = (command.mode, self.monotonic.now_ns())
            else:
                self._stream = None
            robot.write(command)

    def _why_not(self) -> str:
        if self._robot is None or not self._active:
            return f"the node is {self.state_label}"
        fault = self._supervisor.fault
        return fault.reason if fault else "the robot is not armed; call service arm"

    def _stop_command(self) -> None:
        with self._lock:
            if self._robot is not None:
                self._robot.stop()
                self._disarmed()
                self._supervisor.settle()  # where a fault was bringing it down, nothing is left to do

    def _on_arm(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        try:
            if request.data:
                self._arm()
            else:
                self._stop_command()
            response.success, response.message = True, "armed" if request.data else "disarmed"
        except RoboError as e:
            response.success, response.message = False, str(e)
        return response

    def _arm(self) -> None:
        with self._lock:
            robot, state = self._robot, self._state
            if self._estop_on:
                raise RoboError("e-stop is on")
            if robot is None or state is None or not self._active:
                raise RoboError(f"cannot arm: the node is {self.state_label}")
            self._disarmed()  # it may have disarmed itself after a landing
            self._supervisor.reset()
            robot.arm()
            now = self.monotonic.now_ns()
            self._supervisor.activate()
            self._stream, self._peer_ns = None, None
            self._flight = Flight(self.spec, self._plan)
            self._flight.begin(now, state)
            streamed = next(m.name for m in self.spec.modes.values() if m.rate_hz > 0)
            law = fallback_law(self.spec, streamed)
            self._reaction = Reaction(robot, self._flight, law, streamed, lambda c, _: robot.write(c))

    def _disarmed(self) -> None:
        self._stream = None
        if self._supervisor.mode == "active":
            self._supervisor.deactivate()

    def _on_one_shot(self, mode: str, response: Trigger.Response) -> Trigger.Response:
        state = self._state
        try:
            if state is None or self._supervisor.mode != "active":
                raise RoboError(f"cannot {mode}: {self._why_not()}")
            ground, land_s = self._flight.landing(state)
            height = ground + self._plan.takeoff_height_m
            values = [height, self._plan.takeoff_s] if mode == "takeoff" else [ground, land_s]
            self._command(Command(mode, np.array(values)))
            response.success, response.message = True, f"{mode} to {values[0]:.2f} m in {values[1]:.1f} s"
        except RoboError as e:
            response.success, response.message = False, str(e)
        return response

    def _on_emergency(self, _: EmptyService.Request, response: EmptyService.Response) -> EmptyService.Response:
        self._estop_out.publish(Bool(data=True))  # whoever flies the robot must know, and this node hears it too
        self._estop_on = True
        self.stop_now("service emergency")
        return response

    def _on_estop(self, message: Bool) -> None:
        before, self._estop_on = self._estop_on, bool(message.data)
        if self._estop_on and not before:
            self.stop_now("topic estop")

    def _on_heartbeat(self, message: Header) -> None:
        if message.frame_id != self.get_name():
            self._peer_ns = self.monotonic.now_ns()

    # --- states and watching (own thread) -----------------------------------------------------------------------

    def _poll(self) -> None:
        deadline = self.monotonic.now_ns()
        last_ns, beat_ns, watch_ns = -1, 0, 0
        slow: dict[str, int] = {}
        while not self._closing.is_set():
            deadline = max(deadline + round(POLL_S * 1e9), self.monotonic.now_ns())
            self.monotonic.sleep_until_ns(deadline)
            now = self.monotonic.now_ns()
            state = None
            try:
                state = self._read()
                if now - watch_ns >= WATCH_S * 1e9:
                    watch_ns = now
                    self._watch(now, state)
            except Exception as e:  # noqa: BLE001 - this thread is what watches; it must not end
                self._broken(f"{type(e).__name__}: {e}", on_the_way_down=True)
            try:
                if state is not None and state.t_ns != last_ns:
                    last_ns = state.t_ns
                    self._publish(state, slow)
                if now - beat_ns >= HEARTBEAT_PERIOD_S * 1e9:
                    beat_ns = now
                    self.beat()
            except Exception as e:  # noqa: BLE001 - nor is a robot that nobody hears of to be left alone
                self._broken(f"{type(e).__name__}: {e}")

    def _broken(self, why: str, *, on_the_way_down: bool = False) -> None:
        """In flight an error is a fault like others; where landing itself has failed, the motors are stopped."""
        self.get_logger().error(f"watching the robot: {why}", throttle_duration_sec=1.0)
        with self._lock:
            if self._supervisor.mode == "active":
                self._fault("internal_error", why)
            elif on_the_way_down and not self._supervisor.settled and self._robot is not None:
                self._robot.stop()
                self._supervisor.settle()

    def _read(self) -> RobotState | None:
        with self._lock:
            try:
                state = self._robot.read() if self._robot else None
            except LinkLost as e:
                self._fault("link_lost", str(e))
                self._publish_status(RobotState(0, {}, frozenset({"link_lost"})))
                return None
        return state

    def _publish(self, state: RobotState, slow: dict[str, int]) -> None:
        self._publish_status(state)
        self._state = state
        if not self._active and self.at_rest:  # like a lifecycle publisher
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

    def _watch(self, now: int, state: RobotState | None) -> None:
        with self._lock:
            if self._supervisor.mode == "active":
                self._watch_peer(now)
            unsettled = self._supervisor.mode == "fault" and not self._supervisor.settled
            if unsettled and self._reaction.step(now, state, self._supervisor):
                self._supervisor.settle()
                self.get_logger().info("the robot is at rest")

    def _watch_peer(self, now: int) -> None:
        for what, seen in (("heartbeat", self._peer_ns), ("set point", self._stream[1] if self._stream else None)):
            if seen is not None and (now - seen) / 1e9 > self._timeout_s:
                self._fault("heartbeat_lost", f"last {what} {(now - seen) / 1e9:.2f} s ago")

    def _fault(self, name: str, detail: str) -> None:
        if self._supervisor.mode != "active":
            return
        self._supervisor.raise_fault(self.monotonic.now_ns(), name, detail)
        fault = self._supervisor.fault
        if fault is not None:
            self.get_logger().error(f"{fault.reason}: going to the safe state")
            self.report()


def _standing(state: RobotState) -> tuple[Any, Any]:
    """State and goal of holding the present position."""
    return state.signals, {k: v for k, v in state.signals.items() if k in ("position_world", "quat_wxyz")}


def _work(node: RobotNode, stop: Stop) -> int:
    if node.get_parameter("autostart").value:
        node.trigger_configure()
        if node.failure:
            return 1
        node.trigger_activate()
    stop.wanted.wait()
    node.make_safe()
    deadline = node.monotonic.now_ns() + round(LANDING_WAIT_S * 1e9)
    while not node.at_rest and node.monotonic.now_ns() < deadline:
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
