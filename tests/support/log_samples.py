"""Logs for tests: random messages with known bytes, the genuine rosbag2 fixtures, and three independent readers."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader

from hardware.log.qos import LATCHED, Qos
from hardware.log.reader import Log
from hardware.log.types import encode, new_message
from hardware.log.writer import LogWriter

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "data" / "rosbag2_fixtures"
START_NS = 1_700_000_000_000_000_000


class Sent(NamedTuple):
    """One message as it was given to the writer."""

    topic: str
    log_ns: int
    publish_ns: int
    cdr: bytes


TYPES = {
    "/crazyflie/odom": "nav_msgs/msg/Odometry",
    "/crazyflie/policy/tick": "std_msgs/msg/Float64MultiArray",
    "/crazyflie/policy/card": "std_msgs/msg/String",
    "/camera": "sensor_msgs/msg/CompressedImage",
    "/empty": "std_msgs/msg/Empty",
}
QOS = {
    "/crazyflie/policy/card": (LATCHED,),
    "/camera": (Qos(reliability="best_effort", depth=1), Qos(deadline_ns=1_500_000_000, lifespan_ns=10**9)),
}


def random_messages(rng: np.random.Generator, count: int) -> list[Sent]:
    """Messages of every type in `TYPES`, about 1 ms apart, with random content."""
    sent, t_ns = [], START_NS
    topics = list(TYPES)
    for i in range(count):
        t_ns += int(rng.integers(1, 2_000_000))
        topic = topics[int(rng.integers(len(topics)))]
        message = new_message(TYPES[topic])
        if hasattr(message, "header"):
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(t_ns - 3_000_000, 10**9)
        if topic.endswith("odom"):
            message.pose.pose.position.x = float(rng.normal())
            message.pose.covariance = rng.normal(size=36)
        elif topic.endswith("tick"):
            message.data = rng.normal(size=int(rng.integers(0, 40)))
        elif topic.endswith("card"):
            message.data = "µ" * int(rng.integers(0, 50)) + str(i)
        elif topic == "/camera":
            message.data = rng.integers(0, 256, size=int(rng.integers(0, 3000)), dtype=np.uint8)
        sent.append(Sent(topic, t_ns, t_ns - int(rng.integers(0, 10**6)), encode(message)))
    return sent


def write(directory: Path, sent: list[Sent]) -> None:
    """Writes the messages as they are."""
    with LogWriter(directory) as writer:
        for topic, kind in TYPES.items():
            writer.add_topic(topic, kind, QOS.get(topic, (Qos(),)))
        for m in sent:
            writer.write(m.topic, m.cdr, m.log_ns, m.publish_ns)


def by_ours(path: Path) -> list[Sent]:
    """Raw messages as our reader gives them."""
    log = Log(path, time_base="log")
    return [Sent(m.topic, m.log_ns, m.publish_ns, m.cdr) for m in log.messages(raw=True)]


def by_mcap(path: Path) -> list[Sent]:
    """Raw messages as the mcap library gives them, CRCs checked."""
    found = []
    for file in sorted(path.glob("*.mcap")):
        with file.open("rb") as stream:
            for _, channel, m in make_reader(stream, validate_crcs=True).iter_messages():
                found.append(Sent(channel.topic, m.log_time, m.publish_time, m.data))
    return found


def by_rosbags(path: Path) -> list[tuple[str, int, bytes]]:
    """Raw messages as rosbags gives them (it does not tell the publishing time); every one is decoded on the way."""
    found = []
    with AnyReader([path]) as reader:
        for connection, t_ns, cdr in reader.messages():
            reader.deserialize(cdr, connection.msgtype)
            found.append((connection.topic, t_ns, bytes(cdr)))
    return found


def counts(sent: list[Sent]) -> Counter[str]:
    """Messages per topic."""
    return Counter(m.topic for m in sent)


def fixture(name: str) -> Path:
    """A genuine rosbag2 recording; skips the test where the sample recordings are not there."""
    path = FIXTURES / name
    if not path.is_dir():
        pytest.skip(f"sample recordings are not in {FIXTURES}")
    return path
