"""Speed of the log writer and readers beside their peers: thousand messages per second of wall and of CPU time.

Run: `python tests/bench/bench_log.py [MESSAGES]`. Messages are JointStates of 6 joints (300 bytes of CDR). Peers: the
bare mcap library and rosbags, at the settings that write the same kind of file. Nothing is asserted.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mcap.reader import make_reader
from mcap.writer import Writer as McapWriter
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as RosbagsWriter
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode

from hardware.log.reader import Log
from hardware.log.recover import recover
from hardware.log.types import encode, new_message, standard_store, standard_type
from hardware.log.writer import LogWriter

KIND, TOPIC = "sensor_msgs/msg/JointState", "/joint_states"


def _joint_states(count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    message = new_message(KIND)
    message.name = [f"joint_{i}" for i in range(6)]
    message.header.frame_id = "base"
    encoded = []
    for i in range(count):
        message.header.stamp.nanosec = i
        message.position, message.velocity, message.effort = rng.normal(size=(3, 6))
        encoded.append(encode(message))
    return encoded


def _ours(directory: Path, cdrs: list[bytes]) -> None:
    with LogWriter(directory) as writer:
        writer.add_topic(TOPIC, KIND)
        for i, cdr in enumerate(cdrs):
            writer.write(TOPIC, cdr, i * 1_000_000)


def _mcap(directory: Path, cdrs: list[bytes]) -> None:
    directory.mkdir()
    with (directory / "x.mcap").open("wb") as stream:
        writer = McapWriter(stream)
        writer.start("ros2")
        schema = writer.register_schema(KIND, "ros2msg", standard_type(KIND).definition.encode())
        channel = writer.register_channel(TOPIC, "cdr", schema)
        for i, cdr in enumerate(cdrs):
            writer.add_message(channel, i * 1_000_000, cdr, i * 1_000_000)
        writer.finish()


def _rosbags(directory: Path, cdrs: list[bytes]) -> None:
    writer = RosbagsWriter(directory, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection(TOPIC, KIND, typestore=standard_store())
        for i, cdr in enumerate(cdrs):
            writer.write(connection, i * 1_000_000, cdr)


def _mcap_raw(directory: Path) -> int:
    with next(directory.glob("*.mcap")).open("rb") as stream:
        return sum(1 for _ in make_reader(stream).iter_messages())


def _rosbags_raw(directory: Path) -> int:
    with AnyReader([directory]) as reader:
        return sum(1 for _ in reader.messages())


def _rosbags_decoded(directory: Path) -> int:
    with AnyReader([directory]) as reader:
        return sum(1 for c, _, d in reader.messages() if reader.deserialize(d, c.msgtype))


def _timed(what: str, count: int, act: Callable[[], object]) -> None:
    cpu, wall = time.process_time(), time.perf_counter()
    act()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{what:<44} {count / wall / 1e3:8.1f} {count / cpu / 1e3:8.1f}")


def main() -> None:
    """Prints the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    cdrs = _joint_states(count)
    print(
        f"load average {os.getloadavg()[0]:.1f}, {count} messages of {len(cdrs[0])} bytes; 1000 messages/s: wall, CPU"
    )
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        _timed("write: robo_rl (zstd, CRC, flush 0.5 s)", count, lambda: _ours(root / "ours", cdrs))
        _timed("write: mcap (zstd, CRC, no flush)", count, lambda: _mcap(root / "mcap", cdrs))
        _timed("write: rosbags (zstd, no CRC, no flush)", count, lambda: _rosbags(root / "rosbags", cdrs))
        ours = root / "ours"
        _timed("open: robo_rl (counted as messages)", count, lambda: Log(ours))
        _timed("read raw: robo_rl (CRC checked)", count, lambda: sum(1 for _ in Log(ours).messages(raw=True)))
        _timed("read raw: mcap (no CRC)", count, lambda: _mcap_raw(ours))
        _timed("read raw: rosbags (no CRC)", count, lambda: _rosbags_raw(ours))
        _timed("decode: robo_rl", count, lambda: sum(1 for _ in Log(ours).messages()))
        _timed("decode: rosbags", count, lambda: _rosbags_decoded(ours))
        _timed("one channel as an array: robo_rl", count, lambda: Log(ours).channels[f"{TOPIC}.position"])
        _timed("recover and verify: robo_rl", count, lambda: recover(ours))
        for name in ("ours", "mcap", "rosbags"):
            size = sum(f.stat().st_size for f in (root / name).glob("*.mcap"))
            print(f"file over payload, {name}: {size / sum(map(len, cdrs)):.2f}")


if __name__ == "__main__":
    main()
