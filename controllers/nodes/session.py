"""One node with its executor, from start to clean end, for programs that handle their own signals."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from controllers.nodes.profile import use_shipped_profile


@contextmanager
def session(
    name: str, stop: threading.Event, ros_args: Sequence[str] = ()
) -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    """A node that can still publish while it stops: SIGINT and SIGTERM set `stop` and leave the context alone.

    `ros_args` are passed to rclpy.init, for instance `--ros-args -r __ns:=/lab`. Large messages need the shipped Fast
    DDS profile, which is used unless the user has set one.
    """
    use_shipped_profile()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    context = rclpy.Context()
    try:
        rclpy.init(args=list(ros_args), context=context, signal_handler_options=SignalHandlerOptions.NO)
        node = Node(name, context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        try:
            yield node, executor
        finally:
            executor.shutdown()
            node.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)
        for s, handler in before.items():
            signal.signal(s, handler)
