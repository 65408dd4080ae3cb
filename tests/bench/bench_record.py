"""The recorder under load and under fire: messages lost at 1 kHz per topic, and what SIGKILL costs.

Run: `python tests/bench/bench_record.py rate [TOPICS] [SECONDS]` or `python tests/bench/bench_record.py kill [TIMES]`.
`rate`: a process publishes JointStates of 6 joints at 1 kHz on each topic, another records; every message is numbered.
`kill`: a recorder of two topics at 500 Hz is killed at a random instant while episodes are being marked (every 1.5 s,
since each mark is forced to the disk with all that came before); the loss is the time between the kill and the last
message that recovery brings back. Nothing is asserted.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger

from hardware.annotation.recorded import recorded_marks
from hardware.log.reader import Log
from hardware.log.recover import recover

DOMAIN = {"ROS_DOMAIN_ID": str(1 + os.getpid() % 100), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def publish(topics: int, rate_hz: float, seconds: float) -> None:
    """The publishing process: numbered messages, `stamp.nanosec` is the number; says when it began and what it sent."""
    rclpy.init()
    node = rclpy.create_node("bench_talker")
    publishers = [node.create_publisher(JointState, f"/bench/t{i}", QoSProfile(depth=5000)) for i in range(topics)]
    while any(p.get_subscription_count() == 0 for p in publishers):
        time.sleep(0.02)
    message = JointState(name=[f"joint_{i}" for i in range(6)])
    message.position = message.velocity = message.effort = [0.1 * i for i in range(6)]
    print("began", flush=True)
    due = time.monotonic()
    for number in range(int(rate_hz * seconds)):
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(number, 10**9)
        for p in publishers:
            p.publish(message)
        due += 1.0 / rate_hz
        time.sleep(max(0.0, due - time.monotonic()))
    late = time.monotonic() - due
    time.sleep(1.0)
    print(f"sent {int(rate_hz * seconds)} on each topic, {late:.3f} s behind schedule at the end", flush=True)


def rate(topics: int, seconds: float) -> None:
    """Records at 1 kHz per topic and counts."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        recorder = _start("-m", "robo_rl", "log", "record", str(log), "--regex", "/bench/.*")
        talker = _start(__file__, "publish", str(topics), "1000", str(seconds))
        said, _ = talker.communicate()
        used = os.times()
        recorder.send_signal(signal.SIGINT)
        recorder.communicate()
        cpu = os.times().children_user - used.children_user + os.times().children_system - used.children_system
        size = sum(f.stat().st_size for f in log.glob("*.mcap")) / 1e6
        counts = {t.name: t.count for t in Log(log).topics.values()}
        expected = int(1000 * seconds)
        print(said.splitlines()[-1])
        for name in sorted(counts):
            print(f"  {name}: {counts[name]} of {expected}, {expected - counts[name]} lost")
        print(f"recorder: {cpu:.2f} s of CPU for {seconds:g} s, {size:.1f} MB; load {os.getloadavg()[0]:.2f}")


def kill(times: int) -> None:
    """Kills the recorder at random instants, rescues and compares."""
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    losses, missing, acknowledged = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for i in range(times):
            loss, ids, kept = _one_kill(Path(folder) / f"log{i}", rng.uniform(0.7, 3.0))
            losses.append(loss)
            acknowledged += len(ids)
            missing += len(ids - kept)
            print(
                f"kill {i + 1}: lost {loss:.3f} s, {len(ids)} marks acknowledged, {len(ids - kept)} missing", flush=True
            )
    losses.sort()
    print(
        f"{times} kills (seed {seed}): lost median {losses[len(losses) // 2]:.3f} s, most {losses[-1]:.3f} s; "
        f"{missing} of {acknowledged} acknowledged marks missing; load {os.getloadavg()[0]:.2f}"
    )


def _one_kill(log: Path, alive_s: float) -> tuple[float, set[str], set[str]]:
    """Seconds lost, the ids of marks that were acknowledged, the ids that are there afterwards."""
    recorder = _start("-m", "robo_rl", "log", "record", str(log), "--regex", "/bench/.*")
    talker = _start(__file__, "publish", "2", "500", "60")
    marks: set[str] = set()
    stop = threading.Event()
    _line(talker, "began")
    marker = threading.Thread(target=_mark, args=(marks, stop))
    marker.start()
    time.sleep(alive_s)
    recorder.kill()
    killed_ns = time.time_ns()
    stop.set()
    marker.join()
    for process in (talker, recorder):
        process.kill()
        process.communicate()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rescued = Log(recover(log).output, time_base="publish")
        last_ns = max(m.publish_ns for m in rescued.messages(raw=True))
        kept = {m.id for m in recorded_marks(rescued)}
    return (killed_ns - last_ns) / 1e9, marks, kept


def _mark(marks: set[str], stop: threading.Event) -> None:
    """Begins or ends an episode every 1.5 s."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("bench_operator", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    start = node.create_client(Trigger, "/log_recorder/start_episode")
    end = node.create_client(SetBool, "/log_recorder/end_episode")
    start.wait_for_service(timeout_sec=5.0)
    begin = True
    while not stop.is_set():
        future = start.call_async(Trigger.Request()) if begin else end.call_async(SetBool.Request(data=True))
        while not future.done() and not stop.is_set():
            executor.spin_once(timeout_sec=0.02)
        answer = future.result() if future.done() else None
        if answer is not None and answer.success:
            marks.add(answer.message)
            begin = not begin
        stop.wait(1.5)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def _start(*argv: str) -> subprocess.Popen[str]:
    environment = os.environ | DOMAIN
    return subprocess.Popen([sys.executable, *argv], stdout=subprocess.PIPE, text=True, env=environment)


def _line(process: subprocess.Popen[str], wanted: str) -> None:
    for line in process.stdout or ():
        if wanted in line:
            return


if __name__ == "__main__":
    os.environ.update(DOMAIN if sys.argv[1:2] != ["publish"] else {})
    with contextlib.suppress(KeyboardInterrupt):
        match sys.argv[1:]:
            case ["publish", topics, rate_hz, seconds]:
                publish(int(topics), float(rate_hz), float(seconds))
            case ["rate", *rest]:
                rate(int(rest[0]) if rest else 1, float(rest[1]) if len(rest) > 1 else 10.0)
            case ["kill", *rest]:
                kill(int(rest[0]) if rest else 50)
            case _:
                print(__doc__)
