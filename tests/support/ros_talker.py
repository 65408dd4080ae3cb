"""A real ROS 2 process for recorder tests: publishes known bytes to whoever listens, then waits for its end.

Usage: ros_talker.py SEED COUNT. Prints `done` when every reliable subscriber has been served; ends on SIGTERM.
"""

import signal
import sys
import threading
import time

import numpy as np
import rclpy
from nav_msgs.msg import Odometry
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

from hardware.log.types import encode, new_message


def known_odometry(seed: int, count: int) -> list[bytes]:
    """The CDR bytes that this seed publishes on /robot/odom."""
    rng, sent = np.random.default_rng(seed), []
    for i in range(count):
        message = new_message("nav_msgs/msg/Odometry")
        message.header.stamp.sec, message.header.frame_id = i, "world"
        message.pose.covariance = rng.normal(size=36)
        message.pose.pose.position.x = float(rng.normal())
        sent.append(encode(message))
    return sent


def _wait_for_listener(publisher, seconds: float = 20.0) -> None:
    last = time.monotonic() + seconds
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > last:
            raise TimeoutError(f"nobody listens to {publisher.topic_name}")
        time.sleep(0.02)


def main() -> None:
    """Publishes on five topics, the last of which appears only after the others have been heard."""
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    ended = threading.Event()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *_: ended.set())
    node = rclpy.create_node("talker")
    reliable = QoSProfile(depth=5000, reliability=ReliabilityPolicy.RELIABLE)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    odometry = node.create_publisher(Odometry, "/robot/odom", reliable)
    card = node.create_publisher(String, "/robot/policy/card", latched)
    sensor = node.create_publisher(String, "/sensor", qos_profile_sensor_data)
    node.create_publisher(String, "/_hidden/topic", reliable)
    node.create_service(Trigger, "/robot/reset", lambda _, r: r)
    card.publish(String(data="before anybody listened"))
    _wait_for_listener(odometry)
    _wait_for_listener(sensor)
    for i, cdr in enumerate(known_odometry(seed, count)):
        odometry.publish(cdr)
        sensor.publish(String(data=f"reading {i}"))
        time.sleep(0.002)
    late = node.create_publisher(Float64MultiArray, "/late", reliable)
    _wait_for_listener(late)
    for i in range(20):
        late.publish(Float64MultiArray(data=[float(i), -1.0]))
    for publisher in (odometry, late):
        publisher.wait_for_all_acked(Duration(seconds=10))
    print("done", flush=True)
    ended.wait(60.0)
    odometry.publish(known_odometry(seed, count + 1)[-1])  # the last word while stopping
    odometry.wait_for_all_acked(Duration(seconds=2))
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
