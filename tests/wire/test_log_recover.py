"""Crash safety: what a killed writer, a cut file or a damaged one still gives back."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.records import Message
from mcap.stream_reader import StreamReader
from support.log_samples import START_NS, TYPES, Sent, by_mcap, by_ours, by_rosbags, random_messages, write

from hardware.errors import BadInput
from hardware.log.reader import Log, LogWarning
from hardware.log.recover import recover
from hardware.log.writer import LogWriter

TESTS = Path(__file__).resolve().parents[1]
SEED = random.SystemRandom().randrange(2**32)


def _killed_after(directory: Path, alive_s: float, *arguments: str) -> list[int]:
    """Instants that a real writer process had written when it was killed `alive_s` after its first message."""
    process = subprocess.Popen(
        [sys.executable, str(TESTS / "support" / "log_writer_process.py"), str(directory), *arguments],
        stdout=subprocess.PIPE,
    )
    with process:
        if process.stdout is None:
            raise RuntimeError("no pipe")
        told = process.stdout.read(8)
        collected: list[bytes] = []
        reader = threading.Thread(target=lambda: collected.append(process.stdout.read()))  # pyright: ignore[reportOptionalMemberAccess]
        reader.start()
        time.sleep(alive_s)
        process.kill()
        reader.join()
    told += collected[0]
    return [int.from_bytes(told[i : i + 8], "little") for i in range(0, len(told) - 7, 8)]


@pytest.mark.slow
def test_kill_at_random_times_loses_at_most_600_ms(tmp_path: Path) -> None:
    """20 real processes, killed with SIGKILL: instants told by the writer against those that recovery brings back."""
    rng = random.Random(SEED)
    alive = [rng.uniform(0.7, 3.0) for _ in range(20)]
    print(f"seed {SEED}")

    # Only the killing runs in threads: warnings are caught process-wide, so the reading stays in this one.
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda i: _killed_after(tmp_path / f"log{i}", alive[i], "400"), range(len(alive))))

    def rescue(directory: Path, written: list[int]) -> tuple[float, int]:
        with pytest.raises(BadInput, match="robo-rl log recover"), pytest.warns(LogWarning, match="not closed"):
            Log(directory)
        rescued = [m.log_ns for m in by_ours(recover(directory).output)]
        # A message may have been written without having been told; none is missing in between.
        assert rescued[: len(written)] == written[: len(rescued)]
        return (written[-1] - rescued[-1]) / 1e9, len(rescued)

    results = [rescue(tmp_path / f"log{i}", written) for i, written in enumerate(told)]
    losses = sorted(loss for loss, _ in results)
    print(f"lost s: {', '.join(f'{v:.3f}' for v in losses)}; rescued {min(n for _, n in results)} or more messages")
    assert max(losses) <= 0.6


def test_a_writer_that_fell_silent_loses_nothing(tmp_path: Path) -> None:
    """The flush happens without any further message."""
    written = _killed_after(tmp_path / "log", 1.5, "400", "0.3")
    done = recover(tmp_path / "log")
    assert [m.log_ns for m in by_mcap(done.output)] == written


class Whole:
    """A log of many chunks: what was written, and the file. No tuple, so that a failure does not print it all."""

    def __init__(self, sent: list[Sent], raw: bytes) -> None:
        self.sent, self.raw = sent, raw


@pytest.fixture(scope="module")
def cut_me(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A log of 20 chunks."""
    directory = tmp_path_factory.mktemp("whole") / "log"
    sent = random_messages(np.random.default_rng(11), 400)
    with LogWriter(directory) as writer:
        for i, m in enumerate(sent):
            writer.add_topic(m.topic, TYPES[m.topic])
            writer.write(m.topic, m.cdr, m.log_ns, m.publish_ns)
            if i % 20 == 19:
                writer.flush()
    return Whole(sent, (directory / "log_0.mcap").read_bytes())


def _foreign_salvage(path: Path) -> list[Sent]:
    """What the mcap library's stream reader yields before it fails; a chunk counts only if its CRC is right."""
    found: list[Sent] = []
    channels = {}
    with path.open("rb") as stream:
        records: Iterator = StreamReader(stream, validate_crcs=True, record_size_limit=1 << 24).records
        try:
            for r in records:
                if hasattr(r, "message_encoding"):
                    channels[r.id] = r.topic
                if isinstance(r, Message):
                    found.append(Sent(channels[r.channel_id], r.log_time, r.publish_time, r.data))
        except Exception:
            return found
    return found


@pytest.mark.slow
@settings(max_examples=40)
@given(cut=st.floats(0.0, 1.0), tail=st.binary(max_size=40))
def test_truncation_anywhere(cut_me: Whole, tmp_path_factory: pytest.TempPathFactory, cut: float, tail: bytes) -> None:
    """Every whole chunk comes back, in order, and nothing else, wherever the file is cut and whatever follows."""
    sent, raw = cut_me.sent, cut_me.raw
    directory = tmp_path_factory.mktemp("cut")
    file = directory / "log_0.mcap"
    file.write_bytes(raw[: int(len(raw) * cut)] + tail)
    before = file.read_bytes()
    expected = _foreign_salvage(file)
    assert expected == sent[: len(expected)]
    if not expected:
        with pytest.raises(BadInput, match=r"not an MCAP file|nothing to rescue"):
            recover(file, directory / "out")
        assert sorted(p.name for p in directory.iterdir()) == ["log_0.mcap"]
        return
    done = recover(file, directory / "out")
    assert done.messages == len(expected)
    assert by_ours(done.output) == expected
    assert [b[2] for b in by_rosbags(done.output)] == [m.cdr for m in expected]
    assert file.read_bytes() == before
    if cut < 0.98:
        assert f"stops at byte {len(before) - done.lost_bytes} of {len(before)} (" in done.stopped[0]


@settings(max_examples=40)
@given(at=st.floats(0.001, 0.999), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere(cut_me: Whole, tmp_path_factory: pytest.TempPathFactory, at: float, bit: int) -> None:
    """Recovery never invents: what comes back is what was written, up to the damage."""
    sent, raw = cut_me.sent, cut_me.raw
    directory = tmp_path_factory.mktemp("flip")
    damaged = bytearray(raw)
    damaged[int(len(raw) * at)] ^= 1 << bit
    file = directory / "log_0.mcap"
    file.write_bytes(damaged)
    try:
        done = recover(file, directory / "out")
    except BadInput:
        return
    found = by_ours(done.output)
    texts = {(m.log_ns, m.publish_ns, m.cdr) for m in sent}
    # A flip in a channel record outside every CRC may change a topic's name; messages themselves are under a CRC.
    assert all((m.log_ns, m.publish_ns, m.cdr) in texts for m in found)
    assert [m.log_ns for m in found] == [m.log_ns for m in sent[: len(found)]]


def test_a_whole_log_is_copied_whole(tmp_path: Path) -> None:
    """Nothing to mend: all messages, no stop reported, and the copy says where it comes from."""
    sent = random_messages(np.random.default_rng(0), 300)
    write(tmp_path / "log", sent)
    done = recover(tmp_path / "log")
    assert (done.output, done.messages, done.stopped, done.lost_bytes) == (tmp_path / "log-recovered", 300, (), 0)
    assert by_ours(done.output) == sent
    log = Log(done.output)
    assert log.metadata is not None
    assert log.metadata.custom == {"recovered_from": "log"}
    assert {t.name: t.qos for t in log.topics.values()} == {
        t.name: t.qos for t in Log(tmp_path / "log").topics.values() if t.count
    } | {t.name: t.qos for t in log.topics.values() if not t.count}


def test_recovery_overwrites_nothing(tmp_path: Path) -> None:
    """An existing output is refused, an existing recording too."""
    write(tmp_path / "log", random_messages(np.random.default_rng(0), 30))
    (tmp_path / "there").mkdir()
    with pytest.raises(BadInput, match="there exists"):
        recover(tmp_path / "log", tmp_path / "there")
    with pytest.raises(BadInput, match="already holds a recording"):
        LogWriter(tmp_path / "log")
    with pytest.raises(BadInput, match="does not exist"):
        recover(tmp_path / "nowhere")


DISK_FULL = """
import resource, signal, sys, time
from hardware.errors import RoboError
from hardware.log.writer import LogWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
writer = LogWriter(sys.argv[1], flush_s=0.05)
writer.add_topic("/a", "std_msgs/msg/String")
import os
try:
    for i in range(10_000):
        writer.write("/a", os.urandom(500), i)
        time.sleep(0.0005)
    print("no failure")
except RoboError as e:
    print(type(e).__name__, e)
try:
    writer.close()
    print("closed")
except RoboError as e:
    print("close:", e)
"""


def test_a_full_disk_is_reported_and_what_was_flushed_is_rescued(tmp_path: Path) -> None:
    """A real write error (file size limit): raised to the user, not swallowed by the flushing thread."""
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(tmp_path / "log")], capture_output=True, text=True, timeout=60, check=True
    )
    failed, closed = done.stdout.splitlines()
    assert "the log cannot be written" in failed
    assert closed.startswith("close:")
    assert not (tmp_path / "log" / "metadata.yaml").exists()
    rescued = recover(tmp_path / "log")
    assert rescued.messages >= 50
    assert [m.log_ns for m in by_ours(rescued.output)] == list(range(rescued.messages))


def test_fsync_reaches_the_disk_while_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted at the system call: several times while writing, with the option; once at the end, without it."""
    real, calls = os.fsync, []

    def counted(descriptor: int) -> None:
        calls.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    for fsync_s, least, most in ((0.05, 3, 1000), (None, 1, 1)):
        calls.clear()
        with LogWriter(tmp_path / f"log{fsync_s}", flush_s=0.02, fsync_s=fsync_s) as writer:
            writer.add_topic("/a", "std_msgs/msg/Empty")
            for i in range(40):
                writer.write("/a", b"\0\1\0\0\0", i)
                time.sleep(0.01)
        assert least <= len(calls) <= most


def test_many_threads_write_one_log(tmp_path: Path) -> None:
    """Every message of every thread, each thread's in its own order, while topics are being added and flushed."""
    with LogWriter(tmp_path / "log", flush_s=0.005) as writer:

        def work(k: int) -> None:
            writer.add_topic(f"/thread{k}", "std_msgs/msg/String")
            for i in range(1500):
                writer.write(f"/thread{k}", i.to_bytes(4, "little"), START_NS + i)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        assert writer.messages == 9000
    found = by_ours(tmp_path / "log")
    for k in range(6):
        assert [int.from_bytes(m.cdr, "little") for m in found if m.topic == f"/thread{k}"] == list(range(1500))


def test_what_a_writer_refuses(tmp_path: Path) -> None:
    """Bad input: one line each, and the log stays good."""
    with LogWriter(tmp_path / "log") as writer:
        writer.add_topic("/a", "std_msgs/msg/Empty")
        writer.add_topic("/a", "std_msgs/msg/Empty")
        for call, message in [
            (lambda: writer.write("/b", b"", 0), "'/b' has not been added to the log; topics: /a"),
            (lambda: writer.write("/a", b"", -1), "do not fit"),
            (lambda: writer.write("/a", b"", 2**63), "do not fit"),
            (lambda: writer.add_topic("/a", "std_msgs/msg/Bool"), "already recorded as std_msgs/msg/Empty"),
            (lambda: writer.add_topic("/c", "acme/msg/Nothing"), "not a standard type"),
            (lambda: writer.add_topic("", "std_msgs/msg/Bool"), "needs a name"),
        ]:
            with pytest.raises(BadInput, match=message):
                call()
        writer.write("/a", b"\0\1\0\0\0", START_NS)
    with pytest.raises(BadInput, match="is closed"):
        writer.write("/a", b"", 0)
    assert writer.close().message_count == 1
    assert Log(tmp_path / "log").count == 1
    with pytest.raises(BadInput, match="must be positive"):
        LogWriter(tmp_path / "other", flush_s=0.0)


MEMORY = """
import os, resource, sys
from pathlib import Path
from hardware.log.reader import Log
from hardware.log.writer import LogWriter
from hardware.log.types import encode, new_message
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
path = Path(sys.argv[1])
image, odometry = new_message("sensor_msgs/msg/CompressedImage"), encode(new_message("nav_msgs/msg/Odometry"))
import numpy as np
rng = np.random.default_rng(0)
with LogWriter(path / "warm") as writer:
    writer.write_message("/camera", image, 0)
list(Log(path / "warm").messages())
base = peak()
with LogWriter(path / "log") as writer:
    writer.add_topic("/odom", "nav_msgs/msg/Odometry")
    for i in range(3000):
        image.data = np.frombuffer(rng.bytes(60_000), dtype=np.uint8)
        writer.write_message("/camera", image, i * 1_000_000)
        writer.write("/odom", odometry, i * 1_000_000)
written = peak()
log = Log(path / "log")
count = sum(1 for _ in log.messages())
positions = log.channels["/odom.pose.pose.position.x"]
print(base, written, peak(), count, log.files[0].stat().st_size / 1e6)
"""


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """Peak resident memory of a process that writes and reads 180 MB of pictures: a few chunks, not the log."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=environment,
    )
    base, written, read, count, size = map(float, done.stdout.split())
    print(f"{size:.0f} MB log: base {base:.0f} MB, after writing {written:.0f} MB, after reading {read:.0f} MB")
    assert count == 6000
    assert size > 170
    assert written - base < 40
    assert read - base < 60
