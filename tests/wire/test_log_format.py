"""The log's bytes: what goes in comes out, for our reader and for two foreign ones; the YAML is rosbag2's version 9."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.records import Chunk
from mcap.stream_reader import StreamReader
from rosbags.rosbag2 import Reader
from support.log_samples import (
    QOS,
    START_NS,
    TYPES,
    Sent,
    by_mcap,
    by_ours,
    by_rosbags,
    counts,
    random_messages,
    write,
)

from hardware.errors import BadInput
from hardware.log.metadata import read_metadata
from hardware.log.qos import FOREVER_NS, Qos, parse_qos, qos_to_plain, qos_to_yaml
from hardware.log.reader import Log
from hardware.log.types import standard_type
from hardware.log.writer import LogWriter

# Published by ROS 2 (share/<package>/msg/<Type>.json of the Kilted packages), not computed by the library under test.
PUBLISHED_HASHES = {
    "nav_msgs/msg/Odometry": "RIHS01_3cc97dc7fb7502f8714462c526d369e35b603cfc34d946e3f2eda2766dfec6e0",
    "geometry_msgs/msg/Twist": "RIHS01_9c45bf16fe0983d80e3cfe750d6835843d265a9a6c46bd2e609fcddde6fb8d2a",
    "std_msgs/msg/Float64MultiArray": "RIHS01_1025ddc6b9552d191f89ef1a8d2f60f3d373e28b283d8891ddcc974e8c55397f",
    "sensor_msgs/msg/BatteryState": "RIHS01_4bee5dfce981c98faa6828b868307a0a73f992ed0789f374ee96c8f840e69741",
    "std_msgs/msg/String": "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18",
    "diagnostic_msgs/msg/DiagnosticArray": "RIHS01_5a8a36efb05fb25070fa0fb3810290c0e6cd4862b54a8fb975a1ee8dc55a333e",
    "geometry_msgs/msg/PoseStamped": "RIHS01_10f3786d7d40fd2b54367835614bff85d4ad3b5dab62bf8bca0cc232d73b4cd8",
    "sensor_msgs/msg/JointState": "RIHS01_a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c5882bc9179260e",
}


@pytest.mark.parametrize("seed", range(3))
def test_three_readers_agree_byte_for_byte(tmp_path: Path, seed: int) -> None:
    """Another library (mcap, rosbags): same messages, same order of log time, same bytes, same instants."""
    sent = random_messages(np.random.default_rng(seed), 2000)
    write(tmp_path / "log", sent)
    assert by_ours(tmp_path / "log") == sent
    assert by_mcap(tmp_path / "log") == sent
    assert by_rosbags(tmp_path / "log") == [(m.topic, m.log_ns, m.cdr) for m in sent]
    log = Log(tmp_path / "log")
    assert {t.name: t.count for t in log.topics.values()} == dict(counts(sent))
    assert log.count == len(sent)


@settings(max_examples=25)
@given(
    raw=st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.binary(max_size=300)), max_size=60)
)
def test_any_bytes_and_instants_come_back(tmp_path_factory: pytest.TempPathFactory, raw: list) -> None:
    """Round trip of garbage: the log does not look into what it stores; equal instants keep their order."""
    directory = tmp_path_factory.mktemp("any") / "log"
    with LogWriter(directory) as writer:
        writer.add_topic("/a", "std_msgs/msg/String")
        for t_ns, publish_ns, data in raw:
            writer.write("/a", data, t_ns, publish_ns)
    expected = sorted((Sent("/a", *m) for m in raw), key=lambda m: m.log_ns)
    assert by_ours(directory) == expected
    assert by_mcap(directory) == expected


def test_metadata_is_version_9_field_by_field(tmp_path: Path) -> None:
    """The keys, their order and their types as rosbag2 writes them (yaml.hpp; the fixtures show versions 4 and 5)."""
    sent = random_messages(np.random.default_rng(7), 300)
    write(tmp_path / "flight", sent)
    body = yaml.safe_load((tmp_path / "flight" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    duration = sent[-1].log_ns - sent[0].log_ns
    assert list(body) == [
        *("version", "storage_identifier", "duration", "starting_time", "message_count", "topics_with_message_count"),
        *("compression_format", "compression_mode", "relative_file_paths", "files", "custom_data", "ros_distro"),
    ]
    assert body["version"] == 9
    assert body["storage_identifier"] == "mcap"
    assert body["duration"] == {"nanoseconds": duration}
    assert body["starting_time"] == {"nanoseconds_since_epoch": sent[0].log_ns}
    assert body["message_count"] == len(sent)
    assert body["compression_format"] == body["compression_mode"] == ""
    assert body["relative_file_paths"] == ["flight_0.mcap"]
    assert body["files"] == [
        {
            "path": "flight_0.mcap",
            "starting_time": {"nanoseconds_since_epoch": sent[0].log_ns},
            "duration": {"nanoseconds": duration},
            "message_count": len(sent),
        }
    ]
    assert body["custom_data"] is None
    card = next(t for t in body["topics_with_message_count"] if t["topic_metadata"]["name"] == "/crazyflie/policy/card")
    forever = {"sec": 9223372036, "nsec": 854775807}
    assert card == {
        "topic_metadata": {
            "name": "/crazyflie/policy/card",
            "type": "std_msgs/msg/String",
            "serialization_format": "cdr",
            "offered_qos_profiles": [
                {
                    "history": "keep_last",
                    "depth": 1,
                    "reliability": "reliable",
                    "durability": "transient_local",
                    "deadline": forever,
                    "lifespan": forever,
                    "liveliness": "automatic",
                    "liveliness_lease_duration": forever,
                    "avoid_ros_namespace_conventions": False,
                }
            ],
            "type_description_hash": PUBLISHED_HASHES["std_msgs/msg/String"],
        },
        "message_count": counts(sent)["/crazyflie/policy/card"],
    }


def test_channels_carry_what_playback_needs(tmp_path: Path) -> None:
    """Per channel: definition, QoS equal to the YAML's, type hash; profile ros2, statistics, rosbag2's record."""
    write(tmp_path / "log", random_messages(np.random.default_rng(1), 100))
    metadata = read_metadata(tmp_path / "log")
    with (tmp_path / "log" / "log_0.mcap").open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        summary, header = reader.get_summary(), reader.get_header()
        record = next(iter(reader.iter_metadata()))
    assert header.profile == "ros2"
    assert summary is not None
    assert summary.statistics is not None
    assert record.name == "rosbag2"
    assert yaml.safe_load(record.metadata["serialized_metadata"]) == metadata.body()
    assert {c.topic for c in summary.channels.values()} == set(TYPES)
    for channel in summary.channels.values():
        entry = next(t for t in metadata.topics if t.name == channel.topic)
        schema = summary.schemas[channel.schema_id]
        assert (schema.name, schema.encoding, channel.message_encoding) == (entry.type, "ros2msg", "cdr")
        assert schema.data.decode() == standard_type(entry.type).definition
        assert parse_qos(channel.metadata["offered_qos_profiles"]) == entry.qos == QOS.get(channel.topic, (Qos(),))
        assert yaml.safe_load(channel.metadata["offered_qos_profiles"]) == qos_to_plain(entry.qos)
        assert channel.metadata["topic_type_hash"] == entry.type_hash


def test_chunks_are_zstd_with_crc(tmp_path: Path) -> None:
    """Every chunk is compressed, carries a CRC, and stays near 1 MiB."""
    rng = np.random.default_rng(2)
    with LogWriter(tmp_path / "log", flush_s=60.0) as writer:
        writer.add_topic("/camera", TYPES["/camera"])
        for i in range(60):
            writer.write("/camera", rng.bytes(100_000), START_NS + i)
    with (tmp_path / "log" / "log_0.mcap").open("rb") as stream:
        chunks = [r for r in StreamReader(stream, emit_chunks=True).records if isinstance(r, Chunk)]
    assert len(chunks) >= 5
    assert all(c.compression == "zstd" and c.uncompressed_crc != 0 for c in chunks)
    assert all(c.uncompressed_size < 1024 * 1024 + 101_000 for c in chunks)


def test_a_lone_mcap_can_be_opened_by_rosbags_and_by_us(tmp_path: Path) -> None:
    """Without metadata.yaml: the record inside the file carries the same."""
    sent = random_messages(np.random.default_rng(3), 200)
    write(tmp_path / "log", sent)
    lone = tmp_path / "moved.mcap"
    (tmp_path / "log" / "log_0.mcap").rename(lone)
    assert by_ours(lone) == sent
    with Reader(lone) as reader:
        assert reader.message_count == len(sent)
        assert [(c.topic, t, bytes(d)) for c, t, d in reader.messages()] == [(m.topic, m.log_ns, m.cdr) for m in sent]


def test_topics_may_join_at_any_time(tmp_path: Path) -> None:
    """A topic announced after chunks have been closed is readable by all three readers."""
    with LogWriter(tmp_path / "log") as writer:
        writer.add_topic("/early", "std_msgs/msg/Empty")
        writer.write("/early", b"\0\1\0\0\0", START_NS)
        writer.flush()
        writer.add_topic("/late", "std_msgs/msg/Empty")
        writer.add_topic("/silent", "std_msgs/msg/Empty")
        writer.write("/late", b"\0\1\0\0\0", START_NS + 1)
    expected = [("/early", START_NS), ("/late", START_NS + 1)]
    assert [(m.topic, m.log_ns) for m in by_ours(tmp_path / "log")] == expected
    assert [(m.topic, m.log_ns) for m in by_mcap(tmp_path / "log")] == expected
    assert [(t, ns) for t, ns, _ in by_rosbags(tmp_path / "log")] == expected
    assert Log(tmp_path / "log").topics["/silent"].count == 0


def test_an_empty_log_is_a_log(tmp_path: Path) -> None:
    """No message at all: still opens, everywhere."""
    with LogWriter(tmp_path / "log") as writer:
        writer.add_topic("/a", "std_msgs/msg/String")
    log = Log(tmp_path / "log")
    assert (log.count, log.duration_s, log.start_ns, list(log.messages())) == (0, 0.0, 0, [])
    with Reader(tmp_path / "log") as reader:
        assert reader.message_count == 0


@pytest.mark.parametrize(("name", "published"), PUBLISHED_HASHES.items())
def test_type_hashes_are_the_published_ones(name: str, published: str) -> None:
    """A published value."""
    assert standard_type(name).hash == published


QOS_VALUES = st.builds(
    Qos,
    history=st.sampled_from(["system_default", "keep_last", "keep_all", "unknown"]),
    depth=st.integers(0, 2**31),
    reliability=st.sampled_from(["system_default", "reliable", "best_effort", "unknown", "best_available"]),
    durability=st.sampled_from(["system_default", "transient_local", "volatile", "unknown", "best_available"]),
    deadline_ns=st.integers(0, FOREVER_NS),
    lifespan_ns=st.integers(0, FOREVER_NS),
    liveliness=st.sampled_from(["system_default", "automatic", "manual_by_node", "manual_by_topic", "unknown"]),
    liveliness_lease_duration_ns=st.sampled_from([0, 1, 10**9, FOREVER_NS]),
    avoid_ros_namespace_conventions=st.booleans(),
)


@given(profiles=st.lists(QOS_VALUES, max_size=3))
def test_qos_survives_yaml_and_reads_as_rosbags_reads_it(profiles: list[Qos]) -> None:
    """Round trip, and another library's reading of the same text."""
    from rosbags.rosbag2.metadata import parse_qos as foreign

    text = qos_to_yaml(profiles)
    assert parse_qos(text) == tuple(profiles)
    for ours, theirs in zip(profiles, foreign(text), strict=True):
        assert theirs.history.name.lower() == ours.history
        assert theirs.reliability.name.lower() == ours.reliability
        assert theirs.durability.name.lower() == ours.durability
        assert theirs.deadline.sec * 10**9 + theirs.deadline.nsec == ours.deadline_ns
        assert theirs.depth == ours.depth


def test_qos_by_number_as_old_recordings_hold_it() -> None:
    """Versions up to 8 write rmw's numbers; older DDS wrote infinity as 2147483647 s and 4294967295 ns."""
    text = (
        "- history: 1\n  depth: 5\n  reliability: 2\n  durability: 1\n"
        "  deadline: {sec: 2147483647, nsec: 4294967295}\n  lifespan: {sec: 10, nsec: 5}\n  liveliness: 1\n"
        "  liveliness_lease_duration: {sec: 9223372036, nsec: 854775807}\n  avoid_ros_namespace_conventions: false"
    )
    expected = Qos("keep_last", 5, "best_effort", "transient_local", FOREVER_NS, 10_000_000_005)
    assert parse_qos(text) == (expected,)


@pytest.mark.parametrize("text", ["nonsense", "- 5", "- history: 1", "[", "- {history: [1]}"])
def test_broken_qos_is_one_line(text: str) -> None:
    """Malformed input."""
    with pytest.raises(BadInput, match="offered_qos_profiles") as caught:
        parse_qos(text)
    assert "\n" not in str(caught.value).splitlines()[0]
