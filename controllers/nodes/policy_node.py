"""ROS 2 node `policy_node`: runs a policy file on a robot behind topics, with guard, supervisor and flight phases.

    python -m controllers.nodes.policy_node --ros-args -r __ns:=/crazyflie -p policy:=p.onnx -p goal:="[0.0, 0.0, 1.0]"

The control loop has a thread of its own with absolute deadlines; the executor beside it only keeps the newest
messages. Configuring loads the policy and waits for the robot, activating flies, deactivating lands.
"""

import json
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import rclpy
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import SetParametersResult
from std_msgs.msg import Bool, Float64MultiArray, String
from std_srvs.srv import Trigger

from controllers.artifact import PolicyArtifact
from controllers.channels import CARD, ESTOP, GOAL, card_message, goal_message, goal_values
from controllers.flight import FlightPlan
from controllers.goals import Goal, checked_goal, fence_of
from controllers.loop import Loop
from controllers.nodes import qos
from controllers.nodes.managed import HEARTBEAT_PERIOD_S, ManagedNode, Stop, run_node
from controllers.nodes.record_node import NODE_NAME as RECORDER
from controllers.nodes.topic_robot import TopicRobot
from controllers.policy import Policy, goal_signals, signals_perceived
from controllers.results import outcome
from controllers.sinks import Level
from controllers.supervisor import LARGEST_BOUND, Bounds, Supervisor
from hardware.errors import BadInput, RoboError
from hardware.guard import GuardedRobot
from hardware.messages import TICK_TOPIC, Tick, pack_tick, stamp_ns
from hardware.robot import Command, RobotState
from hardware.spec import load_spec

LANDING_WAIT_S = 30.0
"""Longest wait for a robot to come to rest before the node ends."""


class PolicyNode(ManagedNode):
    """See the module."""

    def __init__(self, context: rclpy.Context) -> None:
        super().__init__("policy_node", context)
        self.declare("policy", "", "The policy file (.onnx).")
        self.declare("robot", "", "Name of the robot; empty: the one in the policy's card.")
        self.declare("rate_hz", 0.0, "Control rate, Hz; 0: the policy's own.", low=0.0, high=1000.0)
        self.declare("takeoff_height_m", 0.5, "Height of the take-off, m.", low=0.2, high=2.0)
        self.declare("takeoff_s", 2.0, "Duration of the take-off, s.", low=1.0, high=10.0)
        self.declare("handover_s", 1.0, "How long the classical law is blended into the policy, s.", low=0.0, high=10.0)
        self.declare("duration_s", 0.0, "How long the policy acts, s; 0: until it is stopped.", low=0.0, high=1e8)
        self.declare("wait_s", 20.0, "How long to wait for the robot's first state, s.", low=0.1, high=600.0)
        text = "How long to wait, before arming, for a recorder (robo-rl log record) to listen, s; 0: fly without one."
        self.declare("recorder_wait_s", 0.0, text, low=0.0, high=60.0)
        self.declare("autostart", True, "Configure and activate by itself.")
        self.declare("exit_when_done", False, "End the process when the robot is at rest again.")
        self.declare("result", "", "JSON file for the result of the flight.")
        for f in fields(Bounds):
            text = f"What the supervisor counts as a fault: {f.name}; see controllers.supervisor.Bounds."
            self.declare(f"bounds.{f.name}", f.default, text, low=0.0, high=LARGEST_BOUND)
        self.declare_parameter("goal", [float("nan")], _goal_descriptor())
        self.add_on_set_parameters_callback(self._on_parameters)
        self.done = threading.Event()
        self.result: dict[str, Any] | None = None
        self._loop: Loop | None = None
        self._thread: threading.Thread | None = None
        self._policy: Policy | None = None
        self._robot: TopicRobot | None = None
        self._supervisor: Supervisor | None = None
        self._goals: list[Goal] = []
        self._shown_goal: dict[str, list[float]] = {}
        self._announced_ns: deque[int] = deque(maxlen=16)
        """Stamps of our own goal messages, which come back to us."""
        self._beat_ns = 0
        self._ticks = self.create_publisher(Float64MultiArray, TICK_TOPIC, qos.STATE_OUT)
        self._card = self.create_publisher(String, CARD[0], qos.LATCHED)
        self._goal_out = self.create_publisher(PoseStamped, GOAL[0], qos.LATCHED)
        self._estop_out = self.create_publisher(Bool, ESTOP[0], qos.LATCHED)
        self.create_subscription(PoseStamped, GOAL[0], self._on_goal, qos.ONE_SHOT)
        self.create_subscription(Bool, ESTOP[0], self._on_estop, qos.LATCHED)
        self.create_service(Trigger, "estop/reset", self._on_reset)
        self.create_timer(HEARTBEAT_PERIOD_S, self._on_timer)

    @property
    def flying(self) -> bool:
        """Whether the loop runs."""
        return self._thread is not None and self._thread.is_alive()

    def configure(self) -> None:
        """Loads the policy and waits for the robot's first state; refused with one line where either is not there."""
        policy, robot, rate_hz = (self.get_parameter(n).value for n in ("policy", "robot", "rate_hz"))
        if not policy:
            raise BadInput("parameter policy is empty; expected a .onnx file")
        folder = Path(self.get_parameter("result").value).parent
        if not folder.is_dir():
            raise BadInput(f"parameter result: folder {folder} not found")
        artifact = PolicyArtifact.load(Path(policy), load_spec(robot) if robot else None, rate_hz or None)
        if signals_perceived(artifact.interface):
            raise BadInput(
                f"{policy}: this policy perceives its surroundings, which no topic tells; use robo-rl deploy"
            )
        self._policy = Policy(artifact)
        goal = list(self.get_parameter("goal").value)
        self._goals = [] if _unset(goal) else self._checked(goal)
        spec = self._policy.interface.robot
        if self._supervisor is None:
            values = {f.name: float(self.get_parameter(f"bounds.{f.name}").value) for f in fields(Bounds)}
            self._supervisor = Supervisor(spec, artifact.card.rate_hz, Bounds(**values))
        self._supervisor.configure()
        self._card.publish(card_message(artifact, self.make))
        self._robot = TopicRobot(self, spec, self.monotonic, self._patience_s("wait_s"))
        self.get_logger().info(f"policy {artifact.path.name} ({artifact.sha256[:12]}) for {spec.name}")

    def activate(self) -> None:
        """Starts the loop's thread, which arms, takes off and flies."""
        if self.flying:
            raise RoboError("the last flight is not yet over")
        if self._policy is None or self._robot is None or self._supervisor is None:
            raise RoboError("not configured")
        if self._supervisor.mode != "inactive" or self._supervisor.estop_latched:
            reason = self._supervisor.fault.reason if self._supervisor.fault else "e-stop latched"
            raise RoboError(f"{reason}; call estop/reset first")
        names = ("takeoff_height_m", "takeoff_s", "handover_s", "duration_s")
        height_m, takeoff_s, handover_s, duration_s = (float(self.get_parameter(n).value) for n in names)
        plan = FlightPlan(True, height_m, takeoff_s, handover_s, duration_s)
        robot = self._robot
        guarded = GuardedRobot(robot, self.monotonic)
        self._loop = Loop(
            guarded, self._policy, self._supervisor, plan, self.monotonic, self, lambda: robot.heartbeat_age_s
        )
        if self._goals:
            self._loop.tour(self._goals, plan.duration_s / len(self._goals))
        robot.abandoned.clear()
        self.done.clear()
        self._thread = threading.Thread(target=self._fly, args=(self._loop,), name="control", daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        """Takes back, lands and disarms; goes on in the loop's thread, and a new activation is refused until then."""
        self.make_safe()

    def cleanup(self) -> None:
        """Forgets policy and robot; refused while the robot is still on its way down."""
        if self.flying:
            raise RoboError("the robot is not yet at rest")
        if self._supervisor is not None and self._supervisor.mode == "inactive":
            self._supervisor.cleanup()
        if self._robot is not None:
            self._robot.close()
        self._policy = self._robot = None

    def make_safe(self) -> None:
        """See ManagedNode.make_safe."""
        if self._robot is not None:
            self._robot.abandoned.set()
        if self._loop is not None and self.flying:
            self._loop.finish()

    def stop_now(self, reason: str) -> None:
        """Emergency stop."""
        if self._loop is not None and self.flying:
            self._loop.estop(reason)
        elif self._supervisor is not None:
            self._supervisor.estop(self.monotonic.now_ns(), reason)

    def health(self) -> tuple[Level, str, dict[str, str]]:
        """See ManagedNode.health."""
        values = {"lifecycle": self.state_label}
        if self._loop is not None:
            loop = self._loop
            values |= {"phase": str(loop.flight.phase), "ticks": str(loop.summary.ticks)}
            values |= {"overruns": str(loop.summary.overruns), "guard": str(loop.summary.guard_interventions)}
            for name, percent in (("latency_ms_p50", 50.0), ("latency_ms_p99", 99.0)):
                value = loop.policy_latency.percentile_ms(percent)
                values[name] = "" if value is None else f"{value:.3f}"
        supervisor = self._supervisor
        if supervisor is None:
            return "ok", self.state_label, values
        values["supervisor"] = supervisor.mode
        if supervisor.fault is not None:
            return "error", supervisor.fault.reason, values | {"fault": supervisor.fault.name}
        return ("warn", "e-stop latched", values) if supervisor.estop_latched else ("ok", self.state_label, values)

    # --- sink of the loop (loop's thread) ------------------------------------------------------------------------

    def state(self, state: RobotState, now_ns: int) -> None:
        """The robot's topics carry the state already."""

    def tick(self, tick: Tick, now_ns: int) -> None:
        """Publishes policy/tick, and the goal where it has changed."""
        shown = {name: value.tolist() for name, value in tick.goal.items()}
        if shown != self._shown_goal:
            self._shown_goal = shown
            self._announced_ns.append(now_ns)
            self._goal_out.publish(goal_message(tick.goal, now_ns, self.make))
        self._ticks.publish(pack_tick(tick, self.make))

    def sent(self, command: Command, now_ns: int) -> None:
        """The robot's topics carry the command already."""

    def event(self, level: Level, text: str, values: dict[str, str], now_ns: int) -> None:
        """Diagnostics and the log."""
        self.diagnose(level, text, values)
        if level == "error":  # rclpy refuses to change the severity of one line of code
            self.get_logger().error(text)
        else:
            self.get_logger().info(text)

    def _beat_when_due(self) -> None:
        """The heartbeat comes from the loop's thread while it runs, so that it ends when the loop does."""
        now = self.monotonic.now_ns()
        if now - self._beat_ns >= HEARTBEAT_PERIOD_S * 1e9:
            self._beat_ns = now
            self.beat()

    def _fly(self, loop: Loop) -> None:
        try:
            if self._robot is not None:
                self._robot.open()
                self._await_recorder(self._robot)
            loop.run(self._beat_when_due)
        except RoboError as e:
            self.get_logger().error(str(e))
            self.failure = str(e)
        except Exception as e:  # noqa: BLE001 - the thread's last words must reach the log
            self.get_logger().fatal(f"control loop: {type(e).__name__}: {e}")
            self.failure = str(e)
        if loop.sink.failure is not None:
            self.get_logger().error(f"telling what happens failed: {loop.sink.failure}")
        try:
            self._conclude(outcome(loop, self.failure))
        finally:
            self.done.set()

    def _conclude(self, result: dict[str, Any]) -> None:
        path = self.get_parameter("result").value
        try:
            if path:
                Path(path).write_text(json.dumps(result, indent=2) + "\n")
        except OSError as e:
            self.get_logger().error(f"the result cannot be written: {e}")
            result |= {"success": False, "reason": result["reason"] or f"the result cannot be written: {e}"}
        self.result = result

    def _patience_s(self, name: str) -> float:
        """A wait for other processes, given in real time, on the node's own clock."""
        return float(self.get_parameter(name).value) * self.monotonic.scale

    def _await_recorder(self, robot: TopicRobot) -> None:
        wait_s = self._patience_s("recorder_wait_s")
        if wait_s > 0.0 and not robot.await_recorder(RECORDER, [TICK_TOPIC, GOAL[0]], wait_s):
            self.get_logger().warning(f"no recorder listens after {wait_s:g} s: the recording will lack the beginning")

    # --- goals, e-stop, parameters (executor thread) -------------------------------------------------------------

    def _on_goal(self, message: PoseStamped) -> None:
        try:
            if self._policy is None:
                raise RoboError("goal ignored: no policy is configured")
            if stamp_ns(message) in self._announced_ns:
                return
            values = goal_values(message, goal_signals(self._policy.interface))
            robot = self._policy.interface.robot
            goal: dict[str, Any] = {}
            for name, value in values.items():
                goal |= checked_goal(name, value, robot, fence_of(robot))
            self._set_goals([goal])
        except RoboError as e:
            self.get_logger().warning(str(e))
            self.diagnose("warn", str(e), {})

    def _set_goals(self, goals: list[Goal]) -> None:
        self._goals = goals
        if self._loop is not None and self.flying:
            self._loop.goal(goals[-1])

    def _checked(self, values: Sequence[float]) -> list[Goal]:
        """One goal, or several in a row."""
        if self._policy is None:
            raise RoboError("no policy is configured")
        robot, signals = self._policy.interface.robot, goal_signals(self._policy.interface)
        if not signals:
            raise BadInput("this policy takes no goal")
        size = math.prod(robot.signals[signals[0]].shape)
        rows = [values[i : i + size] for i in range(0, len(values), size)]
        return [checked_goal(signals[0], row, robot, fence_of(robot)) for row in rows]

    def _on_parameters(self, parameters: list[Any]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == "goal" and self._policy is not None and not _unset(parameter.value):
                try:
                    goals = self._checked(parameter.value)
                except RoboError as e:
                    return SetParametersResult(successful=False, reason=str(e))
                self._set_goals(goals)
        return SetParametersResult(successful=True)

    def _on_estop(self, message: Bool) -> None:
        if message.data:
            self.get_logger().error("emergency stop: topic estop")
            self.stop_now("topic estop")
            self.report()

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            if self._supervisor is None:
                raise RoboError("nothing to reset: not configured")
            if self.flying:
                raise RoboError("cannot reset: the robot is not yet at rest")
            if self.state_label == "active":
                raise RoboError("cannot reset: active; deactivate first")
            self._supervisor.reset()
            self._estop_out.publish(Bool(data=False))
            response.success, response.message = True, "released"
        except RoboError as e:
            response.success, response.message = False, str(e)
        self.report()
        return response

    def _on_timer(self) -> None:
        """Heartbeats while no loop gives them, and the step to inactive once a flight is over."""
        if self.flying:
            return
        self.beat()
        if self.state_label == "active" and self.done.is_set():
            self.trigger_deactivate()


def _unset(goal: Sequence[float]) -> bool:
    """The default of parameter goal, one NaN, stands for none; a longer goal with a NaN is refused."""
    return len(goal) == 1 and goal[0] != goal[0]


def _goal_descriptor() -> Any:
    from rcl_interfaces.msg import ParameterDescriptor

    return ParameterDescriptor(
        name="goal",
        description="Goal of the policy's first goal signal, SI, or several in a row; may be set in flight.",
    )


def _work(node: PolicyNode, stop: Stop) -> int:
    if node.get_parameter("autostart").value:
        for transition in (node.trigger_configure, node.trigger_activate):
            transition()
            if node.failure:
                return 1
    exit_when_done = node.get_parameter("exit_when_done").value
    while not stop.wanted.wait(0.05):
        if exit_when_done and node.done.is_set():
            break
    interrupted = stop.wanted.is_set() and node.flying
    node.make_safe()
    deadline = time.monotonic() + LANDING_WAIT_S
    while node.flying and time.monotonic() < deadline:
        if stop.hurry.wait(0.05):
            node.stop_now("second signal")
            break
    while node.flying and time.monotonic() < deadline:
        node.done.wait(0.05)
    result = node.result
    endless = float(node.get_parameter("duration_s").value) == 0.0
    if result is None:
        return 0 if not node.failure else 1
    return 0 if result["success"] or (interrupted and endless and result["fault"] is None) else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM, or until the flight is over; the robot is landed first."""
    return run_node("policy_node", PolicyNode, _work, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
