"""Write a small recording and read it back as arrays in SI units: python examples/read_log.py [LOG].

With a LOG of yours, prints what is in it.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from hardware.log.reader import Log
from hardware.log.types import new_message
from hardware.log.writer import LogWriter


def write(folder: Path) -> None:
    """A drone that climbs 1 m in 2 s, at 50 Hz."""
    with LogWriter(folder) as writer:
        for i in range(100):
            t_ns = i * 20_000_000
            message = new_message("nav_msgs/msg/Odometry")
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(t_ns, 1_000_000_000)
            message.pose.pose.position.z = 0.5 * t_ns / 1e9
            message.pose.pose.orientation.w = 1.0
            writer.write_message("/crazyflie/odom", message, t_ns=t_ns)


def describe(folder: Path) -> None:
    """Topics, then the climb rate where there is an odometry."""
    log = Log(folder)
    print(f"{log.count} messages in {log.duration_s:.2f} s")
    for name, topic in log.topics.items():
        print(f"  {name}  {topic.type.name}  {topic.count}")
    for name, topic in log.topics.items():
        if topic.type.name == "nav_msgs/msg/Odometry" and topic.count > 1:
            z = log.series(name, ["pose.pose.position.z"])["pose.pose.position.z"]
            rate = np.polyfit((z.t_ns - z.t_ns[0]) / 1e9, z.values, 1)[0]
            print(f"{name}: climbs {rate:.3f} {z.unit}/s on average")


def main() -> None:
    if len(sys.argv) > 1:
        describe(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "climb")
        describe(Path(folder) / "climb")


if __name__ == "__main__":
    main()
