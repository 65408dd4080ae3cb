"""Recordings of several files, and of a disk that is full: all readers, recovery, and what is kept."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.log_samples import QOS, START_NS, TYPES, Sent, by_mcap, by_ours, by_rosbags, random_messages

from hardware.errors import BadInput
from hardware.log.metadata import read_metadata
from hardware.log.qos import Qos
from hardware.log.reader import Log
from hardware.log.recover import recover
from hardware.log.reserve import RESERVE_BYTES
from hardware.log.writer import LogWriter


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, list[Sent]]:
    """A log of several files, and what was written; one topic occurs only near the end."""
    sent = random_messages(np.random.default_rng(5), 3000)
    sent.append(Sent("/late", sent[-1].log_ns + 1, sent[-1].log_ns, b"\0\1\0\0\0"))
    with LogWriter(tmp_path / "log", flush_s=0.01, max_bytes=100_000) as writer:
        for topic, kind in TYPES.items():
            writer.add_topic(topic, kind, QOS.get(topic, (Qos(),)))
        for i, m in enumerate(sent):
            if m.topic == "/late":
                writer.add_topic("/late", "std_msgs/msg/Empty")
            writer.write(m.topic, m.cdr, m.log_ns, m.publish_ns)
            if i % 50 == 0:
                writer.flush()
    return tmp_path / "log", sent


def test_several_files_read_as_one(parts: tuple[Path, list[Sent]]) -> None:
    """By our reader, by mcap and by rosbags: every message once, in order; metadata.yaml lists the files."""
    path, sent = parts
    files = sorted(path.glob("*.mcap"), key=lambda p: int(p.stem.split("_")[1]))
    assert len(files) > 5
    assert [f.stat().st_size > 90_000 for f in files[:-1]] == [True] * (len(files) - 1)
    assert max(f.stat().st_size for f in files) < 300_000
    assert by_ours(path) == sent
    assert sorted(by_mcap(path)) == sorted(sent)
    assert by_rosbags(path) == [(m.topic, m.log_ns, m.cdr) for m in sent]
    metadata = read_metadata(path)
    assert [f.path for f in metadata.files] == [f.name for f in files] == [f"log_{i}.mcap" for i in range(len(files))]
    assert sum(f.message_count for f in metadata.files) == metadata.message_count == len(sent)
    assert metadata.starting_ns == sent[0].log_ns
    assert metadata.duration_ns == sent[-1].log_ns - sent[0].log_ns
    middle = sent[len(sent) // 2].log_ns
    assert [m.log_ns for m in Log(path).messages(raw=True, start_ns=middle)] == [
        m.log_ns for m in sent if m.log_ns >= middle
    ]


def test_each_file_stands_alone(parts: tuple[Path, list[Sent]]) -> None:
    """Its own channels, counts and metadata; together they are everything."""
    path, sent = parts
    found = [m for f in read_metadata(path).files for m in by_ours(path / f.path)]
    assert found == sent


def test_a_kill_loses_only_the_end_of_the_last_file(parts: tuple[Path, list[Sent]]) -> None:
    """No metadata.yaml, the last file cut: the others are whole, and recovery says where the last one stops."""
    path, sent = parts
    names = [f.path for f in read_metadata(path).files]
    before = [len(by_ours(path / n)) for n in names]
    last = path / names[-1]
    (path / "metadata.yaml").unlink()
    last.write_bytes(last.read_bytes()[:-30])
    with pytest.raises(BadInput, match=rf"robo-rl log recover {path}$"), pytest.warns(UserWarning, match="not closed"):
        Log(path)
    done = recover(path)
    assert by_ours(done.output) == sent[: done.messages]
    assert done.messages >= sum(before[:-1])
    assert [s.split()[0] for s in done.stopped] == [names[-1]]


def test_sizes_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="max_bytes 0 must be positive"):
        LogWriter(tmp_path / "log", max_bytes=0)


FULL = """
import os, sys
from hardware.errors import RoboError
from hardware.log.writer import LogWriter
from hardware.log.reader import Log
path, limit = sys.argv[1], sys.argv[2]
try:
    with LogWriter(path, flush_s=0.05, max_bytes=int(limit) or None) as writer:
        writer.add_topic("/a", "std_msgs/msg/String")
        for i in range(10**6):
            writer.write("/a", i.to_bytes(8, "little") + os.urandom(500), i)
except RoboError as e:
    print(e)
log = Log(path)
numbers = [int.from_bytes(m.cdr[:8], "little") for m in log.messages(raw=True)]
print(len(numbers), numbers == list(range(writer.messages)), sorted(os.listdir(path))[-1], len(log.files))
"""


@pytest.mark.parametrize("limit", [0, 1_500_000])
def test_a_full_disk_ends_a_log_that_reads_to_its_end(tmp_path: Path, limit: int) -> None:
    """A real file system of 8 MiB, mounted in a namespace of its own: one line, and not a message lost."""
    (tmp_path / "small").mkdir()
    mount = f"mount -t tmpfs -o size=8m tmpfs {tmp_path / 'small'}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount in a user namespace")
    script = tmp_path / "write.py"
    script.write_text(FULL)
    command = f"{mount} && {sys.executable} {script} {tmp_path / 'small' / 'log'} {limit}"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert (done.stderr, done.returncode) == ("", 0)
    line, figures = done.stdout.splitlines()
    assert "the disk is full; recording ends here, what was written is complete" in line
    count, whole, last, files = figures.split()
    assert (whole, last) == ("True", "metadata.yaml")
    assert (8 * 2**20 - RESERVE_BYTES) / 600 < int(count) < 8 * 2**20 / 500
    assert (int(files) > 1) == bool(limit)


def test_nothing_is_left_of_the_reserved_space(tmp_path: Path) -> None:
    """Held while recording, without a name; given back at the end."""
    with LogWriter(tmp_path / "log") as writer:
        writer.add_topic("/a", "std_msgs/msg/Empty")
        assert [p.name for p in (tmp_path / "log").iterdir()] == ["log_0.mcap"]
        writer.write("/a", b"\0\1\0\0\0", START_NS)
    assert sorted(p.name for p in (tmp_path / "log").iterdir()) == ["log_0.mcap", "metadata.yaml"]
