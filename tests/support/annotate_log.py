"""A log like a quadrotor's flight, for the annotation page: pose, inertial measurements and pictures."""

import math
from pathlib import Path

import cv2
import numpy as np

from hardware.log.types import new_message
from hardware.log.writer import LogWriter

START_NS = 1_700_000_000_000_000_000
CRASH_S = 7.5


def write_flight(path: Path, seconds: float = 10.0, *, pictures: bool = True) -> Path:
    """Odometry at 100 Hz, an IMU at 200 Hz with a crash of 8 g at CRASH_S, pictures at 20 Hz that show a clock."""
    with LogWriter(path) as writer:
        for i in range(round(seconds * 200)):
            t = i / 200
            t_ns = START_NS + i * 5_000_000
            imu = new_message("sensor_msgs/msg/Imu")
            imu.linear_acceleration.z = 80.0 if CRASH_S <= t < CRASH_S + 0.02 else 9.81 + 0.3 * math.sin(40 * t)
            imu.linear_acceleration.x, imu.linear_acceleration.y = 0.4 * math.sin(9 * t), 0.2 * math.cos(11 * t)
            if t >= 3:
                w = imu.angular_velocity
                w.x, w.y, w.z = 0.5 * math.sin(7 * t), 0.3 * math.cos(5 * t), 0.2 * math.sin(2 * t)
            imu.orientation_covariance[0] = -1.0
            writer.write_message("/drone/imu", imu, t_ns)
            if i % 2 == 0:
                odom = new_message("nav_msgs/msg/Odometry")
                odom.pose.pose.position.x = math.cos(t)
                odom.pose.pose.position.y = math.sin(t)
                odom.pose.pose.position.z = 1.0 + 0.2 * math.sin(3 * t)
                odom.pose.pose.orientation.w, odom.pose.pose.orientation.z = math.cos(t / 2), math.sin(t / 2)
                odom.twist.twist.linear.x = -math.sin(t)
                writer.write_message("/drone/odom", odom, t_ns)
            if pictures and i % 10 == 0:
                writer.write_message("/camera/image/compressed", picture(t), t_ns)
    return path


def picture(t: float) -> object:
    """A JPEG of 320 x 200 whose left part is as bright as the time is late."""
    pixels = np.full((200, 320, 3), 60, np.uint8)
    pixels[:, :160] = round(25 * t) % 256
    cv2.putText(pixels, f"{t:.2f} s", (170, 110), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255, 255, 255), 2)
    message = new_message("sensor_msgs/msg/CompressedImage")
    message.format = "jpeg"
    message.data = cv2.imencode(".jpg", pixels)[1].ravel()
    return message
