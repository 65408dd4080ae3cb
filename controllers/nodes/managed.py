"""What the nodes of a deployment share: lifecycle with logged failures, bounded parameters, signals, diagnostics."""

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import rclpy
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from controllers.channels import DIAGNOSTICS, HEARTBEAT, diagnostics_message
from controllers.nodes import qos
from controllers.nodes.messages import RclpyMessages, message_class
from controllers.nodes.profile import use_shipped_profile
from controllers.realtime import real_time
from controllers.sinks import Level
from hardware.clock import MonotonicClock
from hardware.errors import RoboError

HEARTBEAT_PERIOD_S = 0.05
DIAGNOSTICS_PERIOD_S = 1.0
SWITCH_S = 1e-4
"""Python's thread switch interval: with the default of 5 ms a control loop that wakes up waits half a period for a
callback that holds the interpreter."""


class ManagedNode(LifecycleNode):
    """A lifecycle node whose transitions are the methods `configure`, `activate`, `deactivate` and `cleanup`.

    A RoboError in a transition is logged as one line and refuses it (FAILURE); anything else is logged with its
    traceback and is an ERROR, which `make_safe` answers before the node becomes unconfigured.
    """

    def __init__(self, name: str, context: rclpy.Context, clock: MonotonicClock | None = None) -> None:
        super().__init__(name, context=context)
        scale = self.declare("time_scale", 1.0, "Seconds of the robot per real second.", low=0.001, high=1000.0)
        text = "Instant, ns since the epoch, from which time runs so; the same for all nodes of a robot."
        origin_ns = self.declare("time_origin_ns", 0, text)
        self.monotonic = clock or MonotonicClock(scale, origin_ns or None)
        self.make = RclpyMessages()
        self.failure = ""
        """Why the last transition was refused."""
        self._diagnostics = self.create_publisher(message_class(DIAGNOSTICS[1]), DIAGNOSTICS[0], qos.ONE_SHOT)
        self._heartbeat = self.create_publisher(message_class(HEARTBEAT[1]), HEARTBEAT[0], qos.HEARTBEAT_OUT)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self.report)

    def configure(self) -> None:
        """Unconfigured -> inactive."""

    def activate(self) -> None:
        """Inactive -> active."""

    def deactivate(self) -> None:
        """Active -> inactive: the safe command goes out first."""

    def cleanup(self) -> None:
        """Inactive -> unconfigured."""

    def make_safe(self) -> None:
        """The safe command, after an error and on shutdown; must not raise."""

    def health(self) -> tuple[Level, str, dict[str, str]]:
        """Level, text and values for /diagnostics."""
        return "ok", self.state_label, {}

    @property
    def state_label(self) -> str:
        """The lifecycle state's name."""
        return self._state_machine.current_state[1]

    def declare(
        self, name: str, default: Any, text: str, *, low: float | None = None, high: float | None = None
    ) -> Any:
        """Declares a parameter that is fixed once the node runs, with bounds where given; returns its value."""
        descriptor = ParameterDescriptor(name=name, description=text, read_only=True)
        if low is not None and high is not None:
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
        try:
            return self.declare_parameter(name, default, descriptor).value
        except InvalidParameterValueException as e:
            raise RoboError(f"parameter {name}: {str(e).splitlines()[0]}; expected {low:g}..{high:g}") from e
        except InvalidParameterTypeException as e:
            raise RoboError(f"parameter {name}: {str(e).splitlines()[0]}") from e

    def beat(self) -> None:
        """Publishes one heartbeat."""
        message = message_class(HEARTBEAT[1])()
        message.frame_id = self.get_name()
        now = self.monotonic.now_ns()
        message.stamp.sec, message.stamp.nanosec = now // 1_000_000_000, now % 1_000_000_000
        self._heartbeat.publish(message)

    def report(self) -> None:
        """Publishes the node's health."""
        self.diagnose(*self.health())

    def diagnose(self, level: Level, text: str, values: dict[str, str]) -> None:
        """Publishes one diagnostic status."""
        name = f"{self.get_namespace().strip('/')}: {self.get_name()}"
        now = self.monotonic.now_ns()
        self._diagnostics.publish(
            diagnostics_message(name, self.get_namespace().strip("/"), level, text, values, now, self.make)
        )

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See `configure`."""
        return self._transition(self.configure, "configure")

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See `activate`."""
        return self._transition(self.activate, "activate")

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See `deactivate`."""
        return self._transition(self.deactivate, "deactivate")

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See `cleanup`."""
        return self._transition(self.cleanup, "clean up")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See `make_safe`."""
        return self._transition(self.make_safe, "shut down")

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See `make_safe`."""
        failure = self.failure
        answer = self._transition(self.make_safe, "recover")
        self.failure = self.failure or failure
        return answer

    def _transition(self, work: Callable[[], None], name: str) -> TransitionCallbackReturn:
        self.failure = ""
        try:
            work()
        except RoboError as e:
            self.failure = str(e)
            self.get_logger().error(f"cannot {name}: {e}")
            self.diagnose("error", f"cannot {name}: {e}", {})
            return TransitionCallbackReturn.FAILURE
        except Exception as e:  # noqa: BLE001 - rclpy would swallow it without a word
            self.failure = f"{type(e).__name__}: {e}"
            self.get_logger().fatal(f"{name} failed:\n{traceback.format_exc()}")
            self.diagnose("error", f"{name} failed: {self.failure}", {})
            return TransitionCallbackReturn.ERROR
        self.diagnose("ok", f"{name}: done", {})
        return TransitionCallbackReturn.SUCCESS


@contextmanager
def spinning(node: Node, context: rclpy.Context) -> Iterator[SingleThreadedExecutor]:
    """Spins a node in a background thread."""
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=_spin, args=(executor, node), name="executor", daemon=True)
    thread.start()
    try:
        yield executor
    finally:
        executor.shutdown(timeout_sec=2.0)
        thread.join(timeout=2.0)


def _spin(executor: SingleThreadedExecutor, node: Node) -> None:
    while executor.context.ok():
        try:
            executor.spin()
            return
        except ExternalShutdownException:
            return
        except Exception:  # noqa: BLE001 - one broken callback must not silence all the others
            node.get_logger().error(f"a callback failed:\n{traceback.format_exc()}")


class Stop:
    """What SIGINT and SIGTERM have asked for."""

    def __init__(self) -> None:
        self.wanted, self.hurry = threading.Event(), threading.Event()

    def __call__(self, *_: object) -> None:
        """A signal: the first one asks for an orderly end, the second one for an immediate stop."""
        (self.hurry if self.wanted.is_set() else self.wanted).set()


def run_node(
    name: str, make: Callable[[rclpy.Context], Any], work: Callable[[Any, Stop], int], argv: Sequence[str]
) -> int:
    """Starts ROS 2, makes the node, does `work(node, stop)` beside its executor; returns the exit status.

    rclpy's own signal handlers would end the context before a last command can be published, so they stay off.
    """
    use_shipped_profile()
    sys.setswitchinterval(SWITCH_S)
    stop = Stop()
    context = rclpy.Context()
    rclpy.init(args=[sys.argv[0], *argv], context=context, signal_handler_options=SignalHandlerOptions.NO)
    for s in (signal.SIGINT, signal.SIGTERM):
        signal.signal(s, stop)
    try:
        node = make(context)
        try:
            with spinning(node, context), real_time() as refused:
                if refused:
                    node.get_logger().info(refused)
                return work(node, stop)
        finally:
            node.destroy_node()
    except RoboError as e:
        print(f"{name}: {e}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown(context=context)
