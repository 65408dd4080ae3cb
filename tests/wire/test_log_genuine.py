"""Recordings made by rosbag2 itself: our reader agrees with the mcap library, also where rosbags reads nothing."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from support.log_samples import by_mcap, by_ours, fixture

from hardware.log.metadata import Metadata, parse_metadata, read_metadata
from hardware.log.qos import FOREVER_NS, Qos
from hardware.log.reader import Log
from hardware.log.recover import recover

COUNTS = {
    "convert_a": {"a_empty": 100, "b_basictypes": 50},
    "convert_b": {"c_strings": 50, "a_empty": 25},
    "talker": {"/topic": 10, "/rosout": 10, "/parameter_events": 0},
}
"""Messages per topic, from the recordings' own metadata.yaml."""


@pytest.mark.parametrize("name", COUNTS)
def test_our_reader_agrees_with_mcap(name: str) -> None:
    """Another library: same messages, bytes and instants; every one of them decodes."""
    path = fixture(name)
    log = Log(path)
    assert {t.name: t.count for t in log.topics.values()} == COUNTS[name]
    assert not any(t.problem for t in log.topics.values())
    assert sorted(by_ours(path)) == sorted(by_mcap(path))
    assert sum(1 for _ in log.messages()) == sum(COUNTS[name].values())


@pytest.mark.parametrize("name", ["convert_a", "talker"])
def test_qos_that_differs_between_yaml_and_channel_loses_no_message(name: str) -> None:
    """The trap: rosbags matches by QoS and yields nothing here, without an error."""
    path = fixture(name)
    with Reader(path) as reader:
        assert sum(1 for _ in reader.messages()) == 0
    assert len(by_ours(path)) == sum(COUNTS[name].values())


def test_contents_of_a_genuine_talker() -> None:
    """Values a person can check: the demo talker's greetings, twice a second."""
    log = Log(fixture("talker"))
    t_ns, values, unit = log.channels["/topic.data"]
    assert list(values) == [f"Hello, world! {i}" for i in range(10)]
    assert unit == ""
    assert np.allclose(np.diff(t_ns) / 1e9, 0.5, atol=0.05)
    assert set(log.channels["/rosout.level"].values) == {20}
    assert log.duration_s == pytest.approx(4.531096768, abs=1e-12)
    rosout = log.topics["/rosout"].qos[0]
    assert (rosout.history, rosout.durability, rosout.lifespan_ns) == ("unknown", "transient_local", 10 * 10**9)
    assert rosout.deadline_ns == FOREVER_NS


def test_contents_of_genuine_strings_and_numbers() -> None:
    """Default values and bounded strings in the definitions do not disturb the decoding."""
    strings = Log(fixture("convert_b")).series("c_strings", ["string_value", "string_value_default1"])
    assert list(strings["string_value"].values[:3]) == ["stringval0", "stringval1", "stringval2"]
    assert set(strings["string_value_default1"].values) == {"Hello world!"}
    numbers = Log(fixture("convert_a")).series("b_basictypes")
    assert len(numbers) == 13
    assert all(len(s.values) == 50 for s in numbers.values())


@pytest.mark.parametrize("name", COUNTS)
def test_metadata_written_again_says_the_same(name: str) -> None:
    """Versions 4 and 5 read, version 9 written and read: every field that both have is equal."""
    old = read_metadata(fixture(name))
    again = parse_metadata(old.body())
    assert again == Metadata(
        topics=old.topics,
        files=old.files,
        starting_ns=old.starting_ns,
        duration_ns=old.duration_ns,
        message_count=old.message_count,
        ros_distro=old.ros_distro,
    )
    assert {t.name: t.message_count for t in again.topics} == COUNTS[name]


@pytest.mark.parametrize("name", COUNTS)
def test_recovery_copies_a_genuine_recording_into_one_that_rosbags_reads(name: str, tmp_path: Path) -> None:
    """A complete recording passes through recovery unchanged, message for message, and gets consistent QoS."""
    source = fixture(name)
    done = recover(source, tmp_path / "copy")
    assert done.counts == {t: n for t, n in COUNTS[name].items() if n or t == "/parameter_events"}
    assert not done.stopped
    assert sorted(by_ours(tmp_path / "copy")) == sorted(by_mcap(source))
    with Reader(tmp_path / "copy") as reader:
        assert sum(1 for _ in reader.messages()) == sum(COUNTS[name].values())


def test_a_moved_recording_keeps_its_hash(tmp_path: Path) -> None:
    """The content hash is of the data, not of names or places."""
    source = fixture("talker")
    shutil.copytree(source, tmp_path / "elsewhere")
    lone = tmp_path / "other_name.mcap"
    shutil.copy(source / "talker.mcap", lone)
    assert Log(source).content_hash == Log(tmp_path / "elsewhere").content_hash == Log(lone).content_hash
    assert Log(source).content_hash != Log(fixture("convert_a")).content_hash


def test_two_publishers_qos_is_read_from_the_yaml_shape() -> None:
    """convert_a's a_empty was merged from two recordings: two profiles of different depth."""
    topic = next(t for t in read_metadata(fixture("convert_a")).topics if t.name == "a_empty")
    expected = Qos(depth=1, durability="transient_local")
    assert topic.qos == (expected, Qos(depth=2, reliability="best_effort", durability="transient_local"))
