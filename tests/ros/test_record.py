"""The recorder over real rclpy, in real processes: exact bytes, every kind of publisher, clean ends."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String
from support.log_samples import by_mcap, by_ours, by_rosbags
from support.ros_talker import known_odometry

from controllers.nodes.definitions import definition_of
from controllers.nodes.profile import VARIABLE, profile_path
from controllers.nodes.record_node import request_for
from controllers.nodes.selection import Selection
from hardware.annotation import annotations
from hardware.errors import BadInput
from hardware.log.reader import Log
from hardware.log.recover import recover
from hardware.log.types import store_of

pytestmark = pytest.mark.ros
TESTS = Path(__file__).resolve().parents[1]
COUNT = 400


@pytest.fixture
def environment() -> dict[str, str]:
    """Processes that see only one another: other tests' nodes in this process use the domain beside theirs."""
    return os.environ | {
        "ROS_DOMAIN_ID": str(1 + (os.getpid() + 50) % 100),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        VARIABLE: str(profile_path()),
        "PYTHONPATH": str(TESTS),
    }


class Processes:
    """Started processes, ended at the latest with the test."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment, self._all = environment, []

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Starts a Python process whose output is kept."""
        process = subprocess.Popen(
            [sys.executable, *argv],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._all.append(process)
        return process

    def end(self) -> None:
        """Kills what still runs."""
        for process in self._all:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


@pytest.fixture
def processes(environment: dict[str, str]) -> Iterator[Processes]:
    """See Processes."""
    started = Processes(environment)
    yield started
    started.end()


def _line(process: subprocess.Popen[str], wanted: str) -> str:
    """Reads the process's output up to a line that holds `wanted`."""
    seen = []
    for line in process.stdout or ():
        seen.append(line)
        if wanted in line:
            return line
    raise AssertionError(f"{wanted!r} was never said; output:\n{''.join(seen)}")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_records_exact_bytes_of_every_kind_of_publisher(
    processes: Processes, tmp_path: Path, ending: signal.Signals
) -> None:
    """Reliable: every byte. Latched: heard though published before. Best effort: in order. Late: found. Hidden: not."""
    seed = int(ending)
    talker = processes.start(str(TESTS / "support" / "ros_talker.py"), str(seed), str(COUNT))
    recorder = processes.start(
        *("-m", "robo_rl", "log", "record", str(tmp_path / "log"), "--json", str(tmp_path / "result.json"))
    )
    _line(recorder, "recording to")
    _line(talker, "done")
    talker.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    recorder.send_signal(ending)
    shown, _ = recorder.communicate(timeout=30)
    assert recorder.returncode == 0, shown
    assert talker.wait(timeout=30) == 0

    log = Log(tmp_path / "log")
    by_topic = {name: [m for m in by_ours(tmp_path / "log") if m.topic == name] for name in log.topics}
    assert [m.cdr for m in by_topic["/robot/odom"]] == known_odometry(seed, COUNT + 1)
    assert log.channels["/robot/policy/card.data"].values.tolist() == ["before anybody listened"]
    assert log.channels["/late.data"].values.tolist() == [[float(i), -1.0] for i in range(20)]
    readings = [int(v.removeprefix("reading ")) for v in log.channels["/sensor.data"].values]
    assert readings == sorted(set(readings))
    assert len(readings) > COUNT // 2
    assert not any("hidden" in name or "reset" in name for name in log.topics)

    qos = {name: (t.qos[0].reliability, t.qos[0].durability) for name, t in log.topics.items() if t.qos}
    assert qos["/robot/odom"] == ("reliable", "volatile")
    assert qos["/robot/policy/card"] == ("reliable", "transient_local")
    assert qos["/sensor"] == ("best_effort", "volatile")
    for name, published in {"/robot/odom": "RIHS01_3cc97dc7", "/late": "RIHS01_1025ddc6"}.items():
        assert log.topics[name].type.hash.startswith(published)
    for m in by_topic["/robot/odom"]:
        assert 0 <= m.log_ns - m.publish_ns < 5 * 10**9  # sent before it was received, by the same clock

    result = json.loads((tmp_path / "result.json").read_text())
    assert result["messages"] == log.count == len(by_mcap(tmp_path / "log")) == len(by_rosbags(tmp_path / "log"))
    assert result["channels"]["/robot/odom"] == COUNT + 1


def test_a_killed_recorder_leaves_a_log_that_can_be_rescued(processes: Processes, tmp_path: Path) -> None:
    """SIGKILL well after the last message: everything that was received is there."""
    talker = processes.start(str(TESTS / "support" / "ros_talker.py"), "5", str(COUNT))
    recorder = processes.start("-m", "robo_rl", "log", "record", str(tmp_path / "log"), "--exclude", "/rosout|/param.*")
    _line(recorder, "recording to")
    _line(talker, "done")
    time.sleep(1.2)
    recorder.kill()
    recorder.wait()
    done = recover(tmp_path / "log")
    assert [m.cdr for m in by_ours(done.output) if m.topic == "/robot/odom"] == known_odometry(5, COUNT)
    assert set(done.counts) == {"/robot/odom", "/robot/policy/card", "/sensor", "/late"}


@pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")  # lark's, when rclpy first makes a message
def test_a_weaker_publisher_that_joins_later_is_heard_too(
    processes: Processes, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A reliable subscription does not match a best-effort publisher: the recorder subscribes anew."""
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", VARIABLE):
        monkeypatch.setenv(name, environment[name])
    recorder = processes.start("-m", "robo_rl", "log", "record", str(tmp_path / "log"), "--topics", "/mixed")
    _line(recorder, "recording to")
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("two_kinds", context=context)
    strong = node.create_publisher(String, "/mixed", QoSProfile(depth=100))
    _line(recorder, "recording /mixed (std_msgs/msg/String, reliable)")
    strong.publish(String(data="strong"))
    time.sleep(0.5)
    weak = node.create_publisher(String, "/mixed", QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT))
    _line(recorder, "recording /mixed (std_msgs/msg/String, best_effort)")
    last = time.monotonic() + 20.0
    while not weak.get_subscription_count() or not strong.get_subscription_count():
        assert time.monotonic() < last
        time.sleep(0.02)
    for _ in range(20):
        weak.publish(String(data="weak"))
        strong.publish(String(data="strong again"))
        time.sleep(0.02)
    recorder.send_signal(signal.SIGINT)
    shown, _ = recorder.communicate(timeout=30)
    node.destroy_node()
    rclpy.try_shutdown(context=context)
    assert recorder.returncode == 0, shown
    heard = Log(tmp_path / "log").channels["/mixed.data"].values.tolist()
    assert heard[0] == "strong"
    assert {"weak", "strong again"} <= set(heard)


OPERATOR = """
import json, sys, rclpy
from std_srvs.srv import SetBool, Trigger
rclpy.init()
node = rclpy.create_node("operator")
for name, data in json.loads(sys.argv[1]):
    kind = Trigger if data is None else SetBool
    client = node.create_client(kind, "/log_recorder/" + name)
    assert client.wait_for_service(timeout_sec=20.0)
    future = client.call_async(Trigger.Request() if data is None else SetBool.Request(data=data))
    rclpy.spin_until_future_complete(node, future)
    print(future.result().success, future.result().message)
"""


def _operate(environment: dict[str, str], *calls: tuple[str, bool | None]) -> list[str]:
    """Calls services of the recorder from a process of its own; their answers."""
    done = subprocess.run(
        [sys.executable, "-c", OPERATOR, json.dumps(calls)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("killed", [False, True])
def test_marks_set_while_recording_outlive_it(
    processes: Processes, environment: dict[str, str], tmp_path: Path, killed: bool
) -> None:
    """What a service has acknowledged is an annotation with that id: after a clean end, and after SIGKILL at once."""
    path = tmp_path / "log"
    recorder = processes.start("-m", "robo_rl", "log", "record", str(path), "--exclude", ".*", "--flush", "600")
    _line(recorder, "recording to")
    answers = _operate(
        environment,
        *(("end_episode", True), ("start_episode", None), ("start_episode", None), ("end_episode", True)),
        *(("mark", None), ("start_episode", None)),
    )
    first, event, second = (answers[i].removeprefix("True ") for i in (1, 4, 5))
    assert answers == [
        "False no episode has been started", f"True {first}", f"False episode {first} has not ended yet",
        f"True {first}", f"True {event}", f"True {second}",
    ]  # fmt: skip
    if killed:
        recorder.kill()
        recorder.wait()
        done = subprocess.run(
            [sys.executable, "-m", "robo_rl", "log", "recover", str(path)], capture_output=True, text=True, timeout=60
        )
        assert "4 marks that were set while recording" in done.stdout
        path = tmp_path / "log-recovered"
    else:
        recorder.send_signal(signal.SIGINT)
        shown, _ = recorder.communicate(timeout=30)
        assert "4 marks" in shown
    marks = annotations(path)
    assert {m.id for m in marks if m.kind != "outcome"} == {first, event, second}
    [outcome] = [m for m in marks if m.kind == "outcome"]
    assert (outcome.episode, outcome.label, outcome.by.type) == (first, "success", "robot")
    [cut] = [m for m in marks if m.id == second]
    assert cut.value == {"end": "the recording ended"}


def test_several_files_by_size(processes: Processes, tmp_path: Path) -> None:
    """Every byte over all files."""
    talker = processes.start(str(TESTS / "support" / "ros_talker.py"), "9", str(COUNT))
    recorder = processes.start(
        *("-m", "robo_rl", "log", "record", str(tmp_path / "log"), "--max-size", "0.03", "--flush", "0.05")
    )
    _line(talker, "done")
    time.sleep(0.5)
    recorder.send_signal(signal.SIGINT)
    shown, _ = recorder.communicate(timeout=30)
    assert recorder.returncode == 0, shown
    log = Log(tmp_path / "log")
    assert len(log.files) > 2
    assert [m.cdr for m in by_ours(tmp_path / "log") if m.topic == "/robot/odom"] == known_odometry(9, COUNT)


BIG = """
import array, os, time, rclpy
from std_msgs.msg import UInt8MultiArray
rclpy.init()
publisher = rclpy.create_node("big").create_publisher(UInt8MultiArray, "/big", 100)
while True:
    if publisher.get_subscription_count():
        publisher.publish(UInt8MultiArray(data=array.array("B", os.urandom(50_000))))
    time.sleep(0.02)
"""


def test_a_full_disk_ends_the_recording_with_one_line(
    processes: Processes, environment: dict[str, str], tmp_path: Path
) -> None:
    """A real file system of 8 MiB: exit status 1, one line that says why, and a log that reads to its end."""
    mount = f"mount -t tmpfs -o size=8m tmpfs {tmp_path}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount in a user namespace")
    processes.start("-c", BIG)
    log = ("-m", "robo_rl", "log")
    record = shlex.join([sys.executable, *log, "record", str(tmp_path / "log"), "--topics", "/big"])
    look = shlex.join([sys.executable, *log, "info", str(tmp_path / "log")])
    command = f"{mount} && {record}; echo status $?; {look}"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command], env=environment, capture_output=True, text=True, timeout=90
    )
    assert done.stderr.count("\n") == 1
    assert "the disk is full; recording ends here, what was written is complete" in done.stderr
    assert "status 1\n" in done.stdout
    assert re.search(r"/big +std_msgs/msg/UInt8MultiArray +\d{2,3} ", done.stdout)


def test_a_directory_with_a_recording_is_refused(processes: Processes, tmp_path: Path) -> None:
    """One line, non-zero exit, nothing overwritten."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "old_0.mcap").write_bytes(b"precious")
    recorder = processes.start("-m", "robo_rl", "log", "record", str(tmp_path / "log"), "--duration", "5")
    shown, _ = recorder.communicate(timeout=30)
    assert recorder.returncode == 1
    assert shown.count("\n") == 1
    assert "already holds a recording" in shown
    assert (tmp_path / "log" / "old_0.mcap").read_bytes() == b"precious"


def test_which_topics_are_wanted() -> None:
    """Names, expressions, exclusions; hidden ones only by name."""
    everything = Selection((), "", "")
    assert everything.wants("/cf/odom")
    assert not everything.wants("/cf/_action/feedback")
    named = Selection(("cf/odom", "/_hidden"), "", "")
    assert [named.wants(t) for t in ("/cf/odom", "/_hidden", "/other")] == [True, True, False]
    some = Selection((), "/cf/.*", ".*camera.*")
    assert [some.wants(t) for t in ("/cf/odom", "/cf/camera/image", "/x/cf/odom")] == [True, False, False]
    with pytest.raises(BadInput, match="'\\(' is not a regular expression"):
        Selection((), "(", "")


def test_the_subscription_matches_every_publisher() -> None:
    """Reliable or latched only where all offer it: otherwise some publisher would not be heard."""
    strong = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    weak = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    for offers, reliability, durability in [
        ([strong], ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL),
        ([strong, weak], ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE),
    ]:
        asked = request_for(offers)
        assert (asked.reliability, asked.durability) == (reliability, durability)


def test_definitions_of_types_that_are_not_standard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken from the installed .msg files with what they refer to; without them the bytes are kept undecoded."""
    share = tmp_path / "share"
    for package, name, text in [
        ("acme_msgs", "Arm", "std_msgs/Header header\nJoint[3] joints # three of them\nstring<=5 name\n"),
        ("acme_msgs", "Joint", "float64 angle\nother_msgs/Kind kind\n"),
        ("other_msgs", "Kind", "uint8 A=1\nuint8 value\n"),
        ("std_msgs", "Header", "builtin_interfaces/Time stamp\nstring frame_id\n"),
        ("builtin_interfaces", "Time", "int32 sec\nuint32 nanosec\n"),
    ]:
        (share / package / "msg").mkdir(parents=True, exist_ok=True)
        (share / package / "msg" / f"{name}.msg").write_text(text)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    found = definition_of("acme_msgs/msg/Arm", "RIHS01_ab")
    assert (found.name, found.encoding, found.hash) == ("acme_msgs/msg/Arm", "ros2msg", "RIHS01_ab")
    assert [p.splitlines()[0] for p in found.definition.split("=" * 80 + "\n")[1:]] == [
        *("MSG: std_msgs/Header", "MSG: acme_msgs/Joint", "MSG: builtin_interfaces/Time", "MSG: other_msgs/Kind")
    ]
    assert "other_msgs/msg/Kind" in store_of(found).fielddefs
    assert definition_of("nowhere_msgs/msg/Thing").definition == ""
    assert definition_of("std_msgs/msg/String").hash.startswith("RIHS01_df668c74")
