"""The reader: what it returns, and that it never stays silent when a log is not what it says."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from mcap.writer import Writer
from support.log_samples import START_NS, random_messages, write

from hardware.errors import BadInput, NotFoundError
from hardware.log.reader import Log, LogWarning
from hardware.log.types import MAX_TAIL_BYTES, MessageType, encode, new_message
from hardware.log.writer import LogWriter


def _odometry(log: Path, stamps: list[int], delay_ns: int = 5_000_000) -> None:
    """A log with one odometry message per stamp, received `delay_ns` after it and sent 1 ms after it."""
    with LogWriter(log) as writer:
        for i, stamp in enumerate(stamps):
            message = new_message("nav_msgs/msg/Odometry")
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
            message.pose.pose.position.x = i / 4.0
            message.twist.covariance = np.arange(36.0) + i
            writer.write_message("/odom", message, stamp + delay_ns, stamp + 1_000_000)


def test_series_hold_values_instants_and_units(tmp_path: Path) -> None:
    """Hand-computed: numbers put in come out, in three time bases, with units by the message definitions."""
    stamps = [START_NS + i * 10_000_000 for i in range(100)]
    _odometry(tmp_path / "log", stamps)
    for base, offset in {"header": 0, "log": 5_000_000, "publish": 1_000_000}.items():
        t_ns, values, unit = Log(tmp_path / "log", time_base=base).channels["/odom.pose.pose.position.x"]  # pyright: ignore[reportArgumentType]
        assert t_ns.dtype == np.int64
        assert t_ns.tolist() == [s + offset for s in stamps]
        assert values.tolist() == [i / 4.0 for i in range(100)]
        assert unit == "m"
    log = Log(tmp_path / "log")
    some = log.series("/odom", ["twist.covariance", "twist.twist.angular.z", "header.frame_id"])
    assert np.array_equal(some["twist.covariance"].values, np.arange(36.0) + np.arange(100.0)[:, None])
    assert some["twist.twist.angular.z"].unit == "rad/s"
    assert some["header.frame_id"].values.tolist() == [""] * 100
    assert len(log.channels) == len(list(log.channels)) == len(log.series("/odom"))


def test_a_window_of_time(tmp_path: Path) -> None:
    """Half-open, by log time."""
    stamps = [START_NS + i * 10_000_000 for i in range(100)]
    _odometry(tmp_path / "log", stamps, delay_ns=0)
    found = [m.log_ns for m in Log(tmp_path / "log").messages(["/odom"], stamps[10], stamps[20])]
    assert found == stamps[10:20]


def test_sequences_of_changing_and_of_equal_length(tmp_path: Path) -> None:
    """Equal lengths give (T, n); changing ones stay separate arrays."""
    with LogWriter(tmp_path / "log") as writer:
        for i in range(4):
            for topic, size in (("/equal", 3), ("/changing", i)):
                message = new_message("std_msgs/msg/Float64MultiArray")
                message.data = np.full(size, float(i))
                writer.write_message(topic, message, START_NS + i)
    log = Log(tmp_path / "log")
    assert log.channels["/equal.data"].values.tolist() == [[float(i)] * 3 for i in range(4)]
    assert [v.tolist() for v in log.channels["/changing.data"].values] == [[float(i)] * i for i in range(4)]


@pytest.mark.parametrize("tail", range(MAX_TAIL_BYTES + 3))
def test_stray_bytes_behind_a_message(tmp_path: Path, tail: int) -> None:
    """rclpy's serializer leaves up to 8 stray bytes; more of them mean another type, and are refused."""
    message = new_message("sensor_msgs/msg/JointState")
    message.position = np.array([1.5, -2.5])
    with LogWriter(tmp_path / "log") as writer:
        writer.add_topic("/joints", "sensor_msgs/msg/JointState")
        writer.write("/joints", encode(message) + b"\xab" * tail, START_NS)
    log = Log(tmp_path / "log")
    if tail <= MAX_TAIL_BYTES:
        assert log.channels["/joints.position"].values.tolist() == [[1.5, -2.5]]
    else:
        with pytest.raises(BadInput, match=r"/joints.*message is \d+ bytes long, \d+ were recorded"):
            _ = log.channels["/joints.position"]


def test_big_endian_messages(tmp_path: Path) -> None:
    """Another library writes big-endian CDR; values and header stamps are the same."""
    from hardware.log.types import standard_store

    message = new_message("geometry_msgs/msg/PointStamped")
    message.header.stamp.sec, message.header.stamp.nanosec = 17, 5
    message.point.x = 2.5
    cdr = bytes(standard_store().serialize_cdr(message, "geometry_msgs/msg/PointStamped", little_endian=False))
    with LogWriter(tmp_path / "log") as writer:
        writer.add_topic("/point", "geometry_msgs/msg/PointStamped")
        writer.write("/point", cdr, START_NS)
    t_ns, values, _ = Log(tmp_path / "log").channels["/point.point.x"]
    assert (t_ns.tolist(), values.tolist()) == ([17_000_000_005], [2.5])


def test_undecodable_topics_are_skipped_with_a_warning(tmp_path: Path) -> None:
    """A service event (its definition holds `---`) stops rosbags and mcap-ros2 for the whole log; here it does not."""
    event = MessageType("std_srvs/srv/Trigger_Event", "---\nbool success\nstring message\n", "ros2msg")
    _odometry(tmp_path / "plain", [START_NS])
    with LogWriter(tmp_path / "log") as writer:
        writer.add_topic("/reset/_service_event", event)
        writer.write("/reset/_service_event", b"\0\1\0\0", START_NS)
        writer.add_topic("/unknown", MessageType("acme_msgs/msg/Secret", "", ""))
        writer.write("/unknown", b"\0\1\0\0", START_NS)
        writer.add_topic("/protobuf", "std_msgs/msg/String", encoding="protobuf")
        writer.write_message("/ok", new_message("std_msgs/msg/Bool"), START_NS + 1)
    with pytest.warns(LogWarning) as caught:
        log = Log(tmp_path / "log")
    assert len(caught) == 3
    assert {t.name for t in log.topics.values() if t.problem} == {"/reset/_service_event", "/unknown", "/protobuf"}
    assert [m.topic for m in log.messages()] == ["/ok"]
    assert len(list(log.messages(raw=True))) == 3
    with pytest.raises(BadInput, match="/unknown cannot be decoded"):
        log.series("/unknown")


def test_wrong_counts_are_refused(tmp_path: Path) -> None:
    """metadata.yaml of another recording, or one that was edited."""
    write(tmp_path / "log", random_messages(np.random.default_rng(0), 50))
    path = tmp_path / "log" / "metadata.yaml"
    body = yaml.safe_load(path.read_text())
    body["rosbag2_bagfile_information"]["topics_with_message_count"][0]["message_count"] += 1
    path.write_text(yaml.safe_dump(body))
    with pytest.raises(BadInput, match=r"metadata\.yaml says"):
        Log(tmp_path / "log")


def test_statistics_that_do_not_fit_the_messages_are_refused(tmp_path: Path) -> None:
    """A file whose index misses a chunk: a whole pass finds fewer messages than were recorded, and says so."""
    path = tmp_path / "x.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start("ros2")
        schema = writer.register_schema("std_msgs/msg/Empty", "ros2msg", b"")
        channel = writer.register_channel("/a", "cdr", schema)
        for i in range(10):
            writer.add_message(channel, i, b"\0\1\0\0\0", i)
            writer.flush()
        writer._Writer__chunk_indices.pop(3)  # pyright: ignore[reportAttributeAccessIssue]
        writer.finish()
    log = Log(path)
    with pytest.raises(BadInput, match=r"9 messages of /a were read, 10 were recorded"):
        list(log.messages())


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_a_flipped_bit_in_a_chunk_is_found(tmp_path: Path, at: float) -> None:
    """CRC or decompression: damaged data never comes out as values."""
    write(tmp_path / "log", random_messages(np.random.default_rng(5), 500))
    file = tmp_path / "log" / "log_0.mcap"
    raw = bytearray(file.read_bytes())
    raw[int(len(raw) * 0.8 * at) + 100] ^= 0x10
    file.write_bytes(raw)
    with pytest.raises(BadInput, match="damaged"):
        list(Log(tmp_path / "log").messages(raw=True))


def test_a_damaged_index_is_found(tmp_path: Path) -> None:
    """The summary's CRC."""
    write(tmp_path / "log", random_messages(np.random.default_rng(5), 500))
    file = tmp_path / "log" / "log_0.mcap"
    raw = bytearray(file.read_bytes())
    raw[-200] ^= 0x01
    file.write_bytes(raw)
    with pytest.raises(BadInput, match="robo-rl log recover"):
        Log(tmp_path / "log")


def test_several_files_are_one_log(tmp_path: Path) -> None:
    """A recording split by rosbag2: files in the YAML's order, counts added up."""
    sent = random_messages(np.random.default_rng(8), 400)
    for i, part in enumerate((sent[:150], sent[150:])):
        write(tmp_path / f"part{i}", part)
    whole = tmp_path / "whole"
    whole.mkdir()
    bodies = []
    for i in (0, 1):
        shutil.copy(tmp_path / f"part{i}" / f"part{i}_0.mcap", whole / f"whole_{i}.mcap")
        bodies.append(
            yaml.safe_load((tmp_path / f"part{i}" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
        )
    merged = bodies[0] | {
        "message_count": 400,
        "relative_file_paths": ["whole_0.mcap", "whole_1.mcap"],
        "files": [b["files"][0] | {"path": f"whole_{i}.mcap"} for i, b in enumerate(bodies)],
    }
    for a, b in zip(merged["topics_with_message_count"], bodies[1]["topics_with_message_count"], strict=True):
        a["message_count"] += b["message_count"]
    (whole / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": merged}))
    log = Log(whole, time_base="log")
    assert [(m.topic, m.log_ns, m.cdr) for m in log.messages(raw=True)] == [(m.topic, m.log_ns, m.cdr) for m in sent]
    assert log.duration_s == (sent[-1].log_ns - sent[0].log_ns) / 1e9


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    """Errors say what exists."""
    _odometry(tmp_path / "log", [START_NS])
    log = Log(tmp_path / "log")
    with pytest.raises(NotFoundError, match="'/nix' not found; known: /odom"):
        log.series("/nix")
    with pytest.raises(NotFoundError, match=r"'pose\.x' not found; known: .*pose\.pose\.position\.x"):
        log.series("/odom", ["pose.x"])
    with pytest.raises(KeyError, match=r"/odom\.nix"):
        _ = log.channels["/odom.nix"]
    assert "/odom.nix" not in log.channels
    with pytest.raises(BadInput, match="time base 'wall' unknown"):
        Log(tmp_path / "log", time_base="wall")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "holds no .mcap file"),
        (lambda p: p.write_bytes(b""), "not an MCAP file"),
        (lambda p: p.write_bytes(b"SQLite format 3\0" + bytes(4096)), "not an MCAP file"),
        (lambda p: p.write_bytes(b"\x89MCAP0\r\n" * 9), "robo-rl log recover"),
    ],
)
def test_what_is_not_a_log(tmp_path: Path, make, message: str) -> None:
    """Bad input: one line each."""
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(BadInput, match=message) as caught:
        Log(path)
    assert "\n" not in str(caught.value)


def test_broken_metadata_is_one_line(tmp_path: Path) -> None:
    """A metadata.yaml that is not one, and one that names a missing file."""
    _odometry(tmp_path / "log", [START_NS])
    path = tmp_path / "log" / "metadata.yaml"
    good = path.read_text()
    for text in ("", "a: [", "rosbag2_bagfile_information: {version: 9}", good.replace("mcap", "sqlite3", 1), "\x00"):
        path.write_text(text)
        with pytest.raises(BadInput):
            Log(tmp_path / "log")
    path.write_text(good.replace("log_0.mcap", "gone_0.mcap"))
    with pytest.raises(BadInput, match=r"names gone_0\.mcap, which is not there"):
        Log(tmp_path / "log")


def test_a_log_is_not_changed_by_reading(tmp_path: Path) -> None:
    """Same bytes, same time of change, before and after everything was read."""
    write(tmp_path / "log", random_messages(np.random.default_rng(0), 200))
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "log").iterdir()}
    log = Log(tmp_path / "log")
    list(log.messages())
    _ = log.content_hash
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _ = [log.channels[name] for name in list(log.channels)[:5]]
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "log").iterdir()} == before
