"""ROS 2 node `log_player`: publishes a log's messages again, byte for byte, at their recorded pace.

Services (std_srvs/Trigger): `~/pause`, `~/resume`, `~/play_next` (one message while paused) and `~/seek` (to parameter
`position_s`). Parameter `rate` may be changed while it plays.
"""

import re
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor, SetParametersResult
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_srvs.srv import Trigger

from controllers.channels import ESTOP, GOAL, HEARTBEAT, STOP, command_topic
from controllers.nodes.messages import message_class
from controllers.nodes.session import session
from hardware.errors import BadInput, RoboError
from hardware.log.qos import Qos
from hardware.log.reader import Log, LogMessage, LogTopic
from hardware.log.timeline import Timeline
from hardware.messages import state_topics
from hardware.spec import load_spec, robot_names

NODE_NAME = "log_player"
REPLAY_PREFIX = "/replay"
ACKNOWLEDGE_S = 2.0
WATCH_S = 0.5


@dataclass(frozen=True)
class Playing:
    """What to play, and how."""

    log: Path
    rate: float = 1.0
    start_s: float = 0.0
    """Offset from the log's start; latched messages from before it are published first."""
    duration_s: float | None = None
    regex: str = ""
    """Only topics whose whole name matches."""
    allow_commands: bool = False
    """Commands, goals, e-stop and heartbeats of known robots go to their own topics instead of `/replay/...`."""
    clock_hz: float = 0.0
    """Publishes /clock at this rate; 0: not at all."""
    paused: bool = False
    delay_s: float = 1.0
    """Between making the publishers and the first message, so that subscribers can find them."""


@dataclass(frozen=True)
class Played:
    """What a player did."""

    counts: dict[str, int]
    """Topic it was published on -> messages."""
    skipped: dict[str, str]
    """Recorded topic -> why it was not played."""
    duration_s: float
    lateness_ms: dict[str, float]
    """p50, p99 and max of publishing behind schedule."""


def command_topics_of(log: Log) -> dict[str, str]:
    """Topics of a log that move a known robot, or hide that nobody does -> the namespace of that robot.

    Commands of every mode, goals, stop and e-stop, and heartbeats (a replayed one would stand in for a dead peer).
    """
    found = {}
    for spec in map(load_spec, robot_names()):
        kinds = [*map(command_topic, spec.modes.values()), GOAL, ESTOP, STOP, HEARTBEAT]
        for name, kind in kinds:
            for t in log.topics.values():
                if t.name.endswith(f"/{name}") and t.type.name == kind:
                    found[t.name] = t.name.removesuffix(f"/{name}")
    return found


def publisher_qos(recorded: Sequence[Qos]) -> QoSProfile:
    """QoS to offer: what every recorded publisher offered; reliable and volatile where they differ."""
    best_effort = bool(recorded) and all(q.reliability == "best_effort" for q in recorded)
    latched = bool(recorded) and all(q.durability == "transient_local" for q in recorded)
    return QoSProfile(
        depth=max([100, *(q.depth for q in recorded)]),
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


class Player:
    """Publishes a log on a node. The main thread runs `play`; services arrive on the executor's thread."""

    def __init__(self, node: Node, log: Log, playing: Playing, stop: threading.Event) -> None:
        self._node, self._log, self._stop = node, log, stop
        self._end_ns = None if playing.duration_s is None else self._at(playing.start_s + playing.duration_s) + 1
        self._wake = threading.Condition()
        self._seek: int | None = self._at(playing.start_s)
        self._single = 0
        self._paused: bool | None = playing.paused
        """How to begin; None once it has begun."""
        self.timeline = Timeline(self._at(playing.start_s), playing.rate, time.monotonic(), paused=True)
        self.refusal: RoboError | None = None
        """Why playing was broken off."""
        self.skipped: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.lateness_s = array("d")
        self._commands = command_topics_of(log)
        self._publishers: dict[str, tuple[str, Any]] = {}
        for t in log.topics.values():
            if not playing.regex or re.fullmatch(playing.regex, t.name):
                self._advertise(t, playing.allow_commands)
        self._serve(playing)

    def play(self) -> None:
        """Publishes until the end of the log or until stopped."""
        with self._wake:
            if not self._paused:
                self.timeline.resume(time.monotonic())
            self._paused = None
        while self._seek is not None and not self._stop.is_set():
            start, self._seek = self._seek, None
            self._publish_latched(start)
            for m in self._log.messages(self._publishers, start, self._end_ns, raw=True):
                if not self._wait_for(m):
                    break
                self._publish(m)

    def finish(self) -> None:
        """Waits until reliable subscribers have what was published, but not for long."""
        last = time.monotonic() + ACKNOWLEDGE_S
        for _, publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=max(0.0, last - time.monotonic())))

    def watch_for_live_robots(self) -> None:
        """Raises RoboError where a robot that the log commands publishes its state; stops playing when one appears."""
        self._refuse_live_robots()

        def look() -> None:
            try:
                self._refuse_live_robots()
            except RoboError as e:
                self.refusal = e
                self._stop.set()

        self._node.create_timer(WATCH_S, look)

    def _refuse_live_robots(self) -> None:
        for topic, space in self._commands.items():
            for spec in map(load_spec, robot_names()):
                for name in (f"{space}/{t}" for t in state_topics(spec)):
                    infos = self._node.get_publishers_info_by_topic(name)
                    others = [i.node_name for i in infos if i.node_name != NODE_NAME]
                    if others:
                        raise RoboError(f"will not play {topic}: a live robot publishes {name} ({', '.join(others)})")

    def _advertise(self, topic: LogTopic, allow_commands: bool) -> None:
        name = topic.name if topic.name.startswith("/") else f"/{topic.name}"
        if topic.name in self._commands and not allow_commands:
            name = REPLAY_PREFIX + name
        try:
            cls = message_class(topic.type.name)
        except BadInput as e:
            self.skipped[topic.name] = str(e)
            return
        self._publishers[topic.name] = (name, self._node.create_publisher(cls, name, publisher_qos(topic.qos)))
        self.counts[name] = 0

    def _publish(self, m: LogMessage) -> None:
        name, publisher = self._publishers[m.topic]
        publisher.publish(m.cdr)
        self.counts[name] += 1

    def _publish_latched(self, before_ns: int) -> None:
        """The last message before `before_ns` of every latched topic: what a late subscriber would have seen."""
        latched = [
            t for t in self._publishers if any(q.durability == "transient_local" for q in self._log.topics[t].qos)
        ]
        last = {m.topic: m for m in self._log.messages(latched, None, before_ns, raw=True)}
        for m in last.values():
            self._publish(m)

    def _wait_for(self, m: LogMessage) -> bool:
        """Returns True when the message is due; False where the player stops or seeks instead."""
        with self._wake:
            while not self._stop.is_set() and self._seek is None:
                if self._single > 0:
                    self._single -= 1
                    self.timeline.seek(m.log_ns, time.monotonic())
                    return True
                due, now = self.timeline.due_s(m.log_ns), time.monotonic()
                if due is not None and now >= due:
                    self.lateness_s.append(now - due)
                    return True
                # A signal handler cannot notify: look for it ten times a second.
                self._wake.wait(0.1 if due is None else min(due - now, 0.1))
        return False

    def _serve(self, playing: Playing) -> None:
        node, longest = self._node, max(self._log.duration_s, 0.0)
        span = FloatingPointRange(from_value=0.0, to_value=longest)
        about = ParameterDescriptor(description="where ~/seek goes, s from the start", floating_point_range=[span])
        node.declare_parameter("position_s", min(max(playing.start_s, 0.0), longest), about)
        speeds = FloatingPointRange(from_value=1e-3, to_value=1e3)
        node.declare_parameter("rate", playing.rate, ParameterDescriptor(floating_point_range=[speeds]))
        node.add_on_set_parameters_callback(self._on_parameters)
        for name, act in {
            "pause": self._pause,
            "resume": self._resume,
            "seek": self._go,
            "play_next": self._next,
        }.items():
            node.create_service(Trigger, f"~/{name}", self._answering(act))
        if playing.clock_hz > 0:
            from rosgraph_msgs.msg import Clock

            publisher = node.create_publisher(Clock, "/clock", 10)

            def tick() -> None:
                message: Any = Clock()
                message.clock.sec, message.clock.nanosec = divmod(self.timeline.now_ns(time.monotonic()), 1_000_000_000)
                publisher.publish(message)

            node.create_timer(1.0 / playing.clock_hz, tick)

    def _answering(self, act: Callable[[], str]) -> Callable[[Any, Any], Any]:
        def answer(request: Any, response: Any) -> Any:
            with self._wake:
                response.message = act()
                response.success = True
                self._wake.notify_all()
            return response

        return answer

    def _pause(self) -> str:
        if self._paused is not None:
            self._paused = True
        self.timeline.pause(time.monotonic())
        return f"paused at {(self.timeline.position_ns - self._log.start_ns) / 1e9:.3f} s"

    def _resume(self) -> str:
        if self._paused is not None:
            self._paused = False
        else:
            self.timeline.resume(time.monotonic())
        return f"playing at rate {self.timeline.rate:g}"

    def _next(self) -> str:
        if not self.timeline.paused:
            self.timeline.pause(time.monotonic())
        self._single += 1
        return "one message"

    def _go(self) -> str:
        position_s = float(self._node.get_parameter("position_s").value or 0.0)
        self._seek = self._at(position_s)
        self.timeline.seek(self._seek, time.monotonic())
        return f"at {position_s:.3f} s"

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        for p in parameters:
            if p.name == "rate" and p.value is not None:
                with self._wake:
                    self.timeline.set_rate(float(p.value), time.monotonic())
                    self._wake.notify_all()
        return SetParametersResult(successful=True)

    def _at(self, offset_s: float) -> int:
        return self._log.start_ns + round(offset_s * 1e9)


def play(
    playing: Playing,
    *,
    stop: threading.Event | None = None,
    ros_args: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Played:
    """Plays a log to its end, or until `stop`, SIGINT or SIGTERM; returns what was published and how late.

    Raises BadInput for a bad option or log, RoboError where commands would reach a live robot.
    """
    if not 1e-3 <= playing.rate <= 1e3 or playing.start_s < 0:
        raise BadInput(f"rate {playing.rate:g} must lie in 0.001..1000 and start {playing.start_s:g} s at 0 or later")
    try:
        re.compile(playing.regex)
    except re.error as e:
        raise BadInput(f"'{playing.regex}' is not a regular expression: {e.msg}") from e
    stop = stop or threading.Event()
    log = Log(playing.log, time_base="log")
    with session(NODE_NAME, stop, ros_args) as (node, executor):
        player = Player(node, log, playing, stop)
        spinner = threading.Thread(target=executor.spin, name="log-player-executor", daemon=True)
        spinner.start()
        for topic, why in player.skipped.items():
            say(f"not playing {topic}: {why}")
        say(f"playing {playing.log}: {log.count} messages, {log.duration_s:.1f} s, at rate {playing.rate:g}")
        stop.wait(playing.delay_s)
        player.watch_for_live_robots()  # without commands too: two sources of one state would both be believed
        started = time.monotonic()
        player.play()
        took = time.monotonic() - started
        if player.refusal is not None:
            raise player.refusal
        if not stop.is_set():
            player.finish()
        executor.shutdown()
        spinner.join(timeout=5.0)
    late = np.frombuffer(player.lateness_s, dtype=np.float64) * 1e3 if player.lateness_s else np.zeros(1)
    p50, p99 = np.percentile(late, [50, 99])
    figures = {"p50": float(p50), "p99": float(p99), "max": float(late.max())}
    return Played(player.counts, player.skipped, took, figures)
