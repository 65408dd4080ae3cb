"""A swarm's face on ROS 2: goals come in and poses go out, while this process flies the robots over their own links.

Names are Crazyswarm2's, message types the standard ones: `/cfN/goal` (PoseStamped) sets a robot's goal, `/cfN/pose`
(PoseStamped) tells where it is, `/poses` (PoseArray) where all are, in the order of their numbers and not a number for
one that is not heard of; the service `/all/emergency` (std_srvs/Empty) stops all motors.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import rclpy
from geometry_msgs.msg import Pose, PoseArray, PoseStamped
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Empty

from controllers.channels import goal_values
from controllers.goals import checked_goal, fence_of
from controllers.loop import Loop
from controllers.nodes import qos
from controllers.nodes.managed import spinning
from controllers.nodes.profile import use_shipped_profile
from controllers.swarm import Swarm
from hardware.clock import Clock
from hardware.errors import RoboError
from hardware.messages import set_stamp_ns
from hardware.robot import RobotState

POSES_S = 0.02
"""Period of `/poses`."""
EVERY = 5
"""One in so many goes out on the robots' own topics as well: 10 Hz, Crazyswarm2's default."""
FRAME = "world"


class SwarmTopics(Node):
    """See the module; callbacks run in the executor's thread, the swarm in its own."""

    def __init__(self, swarm: Swarm, names: Sequence[str], clock: Clock, context: rclpy.Context) -> None:
        super().__init__("swarm", context=context)
        self._swarm, self._time, self._count = swarm, clock, 0
        self._poses = self.create_publisher(PoseArray, "/poses", qos.STATE_OUT)
        self._pose = [self.create_publisher(PoseStamped, f"/{name}/pose", qos.STATE_OUT) for name in names]
        for name, loop in zip(names, swarm.loops, strict=True):
            self.create_subscription(PoseStamped, f"/{name}/goal", partial(self._on_goal, name, loop), qos.ONE_SHOT)
        self.create_service(Empty, "/all/emergency", self._on_emergency)
        self.create_timer(POSES_S, self._on_timer)

    def _on_goal(self, name: str, loop: Loop, message: PoseStamped) -> None:
        try:
            robot = loop.robot.spec
            goal = {}
            for signal, value in goal_values(message, loop.policy.goals).items():
                goal |= checked_goal(signal, value, robot, fence_of(robot))
            loop.goal(goal)
        except RoboError as e:
            self.get_logger().warning(f"{name}: {e}")

    def _on_emergency(self, _: Empty.Request, response: Empty.Response) -> Empty.Response:
        self._swarm.estop("service /all/emergency")
        return response

    def _on_timer(self) -> None:
        message = PoseArray()
        message.header.frame_id = FRAME
        set_stamp_ns(message, self._time.now_ns())
        states = [loop.state for loop in self._swarm.loops]
        message.poses = [_pose(state) for state in states]
        self._poses.publish(message)
        self._count += 1
        if self._count % EVERY:
            return
        for publisher, state, pose in zip(self._pose, states, message.poses, strict=True):
            if state is not None:
                stamped = PoseStamped(pose=pose)
                stamped.header.frame_id = FRAME
                set_stamp_ns(stamped, state.t_ns)
                publisher.publish(stamped)


@contextmanager
def swarm_topics(swarm: Swarm, names: Sequence[str], clock: Clock) -> Iterator[None]:
    """Serves the topics while the context lasts; the caller keeps its own signal handlers."""
    use_shipped_profile()
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = SwarmTopics(swarm, names, clock, context)
        try:
            with spinning(node, context):
                yield
        finally:
            node.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)


def _pose(state: RobotState | None) -> Pose:
    pose = Pose()
    p, o = pose.position, pose.orientation
    if state is None:
        p.x = p.y = p.z = math.nan
        return pose
    p.x, p.y, p.z = (float(v) for v in state.signals["position_world"])
    o.w, o.x, o.y, o.z = (float(v) for v in state.signals["quat_wxyz"])
    return pose
