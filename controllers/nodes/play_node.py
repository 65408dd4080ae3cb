"""ROS 2 node `log_player`: publishes a log's messages again, byte for byte, at their recorded pace.

Services (std_srvs/Trigger): `~/pause`, `~/resume`, `~/play_next` (one message while paused) and `~/seek` (to parameter
`position_s`). Parameter `rate` may be changed while it plays. A jump of the clock is announced on `~/jump` (the new
time) before `/clock` shows it; otherwise `/clock` never goes back.
"""

import threading
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor, SetParametersResult
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_srvs.srv import Trigger

from controllers.channels import ESTOP, GOAL, HEARTBEAT, STOP, command_topic
from controllers.nodes.messages import message_class
from controllers.nodes.selection import Selection
from controllers.nodes.session import session
from hardware.errors import BadInput, NotFoundError, RoboError
from hardware.log.qos import Qos
from hardware.log.reader import Log, LogMessage, LogTopic
from hardware.log.timeline import Timeline
from hardware.messages import state_topics
from hardware.spec import load_spec, robot_names

NODE_NAME = "log_player"
REPLAY_PREFIX = "/replay"
ACKNOWLEDGE_S = 2.0
WATCH_S = 0.5
LATENESS_MS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Bounds of the histogram."""


@dataclass(frozen=True)
class Playing:
    """What to play, and how."""

    log: Path
    rate: float = 1.0
    start_s: float = 0.0
    """Offset from the log's start; latched messages from before it are published first."""
    duration_s: float | None = None
    topics: tuple[str, ...] = ()
    """Only these; empty: all."""
    regex: str = ""
    """Only topics whose whole name matches."""
    exclude: str = ""
    """No topic whose whole name matches."""
    remap: Mapping[str, str] = field(default_factory=dict)
    """Recorded topic -> where it is published instead. Commands may only go where no known robot listens."""
    loop: bool = False
    """Begins again at the start when the end is reached."""
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
    histogram: dict[str, int]
    """How late, in words -> messages."""


def command_topics_of(log: Log) -> dict[str, str]:
    """Topics of a log that move a known robot, or hide that nobody does -> the namespace of that robot.

    Commands of every mode, goals, stop and e-stop, and heartbeats (a replayed one would stand in for a dead peer).
    """
    found = {t.name: robot_moved_by(t.name, t.type.name) for t in log.topics.values()}
    return {topic: space for topic, space in found.items() if space is not None}


def robot_moved_by(topic: str, message_type: str) -> str | None:
    """The namespace of the known robot that messages on this topic move; None where they move none."""
    for spec in map(load_spec, robot_names()):
        for name, kind in [*map(command_topic, spec.modes.values()), GOAL, ESTOP, STOP, HEARTBEAT]:
            if topic.endswith(f"/{name}") and message_type == kind:
                return topic.removesuffix(f"/{name}")
    return None


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
        self._start_ns = self._at(playing.start_s)
        self._end_ns = None if playing.duration_s is None else self._at(playing.start_s + playing.duration_s) + 1
        self._loop = playing.loop
        self._wake = threading.Condition()
        self._seek: int | None = self._start_ns
        self._single = 0
        self._paused: bool | None = playing.paused
        """How to begin; None once it has begun."""
        self.timeline = Timeline(self._start_ns, playing.rate, time.monotonic(), paused=True)
        self._clock: _ClockOut | None = None
        self.refusal: RoboError | None = None
        """Why playing was broken off."""
        self.skipped: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.lateness_s = array("d")
        self._commands = command_topics_of(log)
        self._watched = dict(self._commands)
        """Topic that is or would be a command -> namespace of the robot that it would move."""
        self._publishers: dict[str, tuple[str, Any]] = {}
        selection = Selection(playing.topics, playing.regex, playing.exclude, hidden=True)
        unknown = set(playing.topics) | set(playing.remap)
        for t in log.topics.values():
            unknown -= {t.name, t.name.removeprefix("/")}
            if playing.clock_hz > 0 and t.name == "/clock":
                self.skipped[t.name] = "the player itself publishes the time"
            elif selection.wants(t.name if t.name.startswith("/") else f"/{t.name}"):
                self._advertise(t, playing)
        if unknown:
            raise NotFoundError(f"topic of {log.path}", sorted(unknown)[0], log.topics)
        self._serve(playing)

    def play(self) -> None:
        """Publishes until the end of the log or until stopped."""
        with self._wake:
            if not self._paused:
                self.timeline.resume(time.monotonic())
            self._paused = None
        while self._seek is not None and not self._stop.is_set():
            start, self._seek = self._seek, None
            before = sum(self.counts.values())
            self._publish_latched(start)
            for m in self._log.messages(self._publishers, start, self._end_ns, raw=True):
                if not self._wait_for(m):
                    break
                self._publish(m)
            else:
                if self._loop and not self._stop.is_set() and sum(self.counts.values()) > before:
                    with self._wake:
                        self._jump(self._start_ns)

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
        for topic, space in self._watched.items():
            for spec in map(load_spec, robot_names()):
                for name in (f"{space}/{t}" for t in state_topics(spec)):
                    infos = self._node.get_publishers_info_by_topic(name)
                    others = [i.node_name for i in infos if i.node_name != NODE_NAME]
                    if others:
                        raise RoboError(f"will not play {topic}: a live robot publishes {name} ({', '.join(others)})")

    def _advertise(self, topic: LogTopic, playing: Playing) -> None:
        name = topic.name if topic.name.startswith("/") else f"/{topic.name}"
        name = playing.remap.get(topic.name, playing.remap.get(name, name))
        moved = robot_moved_by(name, topic.type.name)
        if moved is not None:
            self._watched[topic.name] = moved
        if (moved is not None or topic.name in self._commands) and not playing.allow_commands:
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
            self._clock = clock = _ClockOut(node, self.timeline.position_ns)

            def tick() -> None:
                with self._wake:
                    clock.show(self.timeline.now_ns(time.monotonic()))

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
        self._jump(self._at(position_s))
        return f"at {position_s:.3f} s"

    def _jump(self, to_ns: int) -> None:
        """Goes on from another instant, once that is announced. The caller holds the lock."""
        self._seek = to_ns
        if self._clock is not None:
            self._clock.announce(to_ns)
        self.timeline.seek(to_ns, time.monotonic())

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
    Selection(playing.topics, playing.regex, playing.exclude)
    stop = stop or threading.Event()
    log = Log(playing.log, time_base="log")
    with session(NODE_NAME, stop, ros_args) as (node, executor):
        player = Player(node, log, playing, stop)
        spinner = threading.Thread(target=executor.spin, name="log-player-executor", daemon=True)
        spinner.start()
        try:
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
        finally:  # a thread that still spins when the node goes aborts the process
            executor.shutdown()
            spinner.join(timeout=5.0)
    late = np.frombuffer(player.lateness_s, dtype=np.float64) * 1e3 if player.lateness_s else np.zeros(0)
    p50, p99, most = np.percentile(late, [50, 99, 100]) if len(late) else (0.0, 0.0, 0.0)
    figures = {"p50": float(p50), "p99": float(p99), "max": float(most)}
    return Played(player.counts, player.skipped, took, figures, lateness_histogram(late))


def lateness_histogram(late_ms: NDArray[np.float64]) -> dict[str, int]:
    """How many messages were how late, between the bounds of `LATENESS_MS`."""
    counts, _ = np.histogram(late_ms, bins=[-np.inf, *LATENESS_MS, np.inf])
    names = [*(f"up to {b:g} ms" for b in LATENESS_MS), f"over {LATENESS_MS[-1]:g} ms"]
    return dict(zip(names, counts.tolist(), strict=True))


class _ClockOut:
    """`/clock`, which goes back only after that was announced on `~/jump`."""

    def __init__(self, node: Node, start_ns: int) -> None:
        from rosgraph_msgs.msg import Clock

        self._type: Any = Clock
        self._clock = node.create_publisher(Clock, "/clock", 10)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._jumps = node.create_publisher(Clock, "~/jump", latched)
        self._shown_ns = start_ns

    def show(self, t_ns: int) -> None:
        """Publishes the time; never less than the last one."""
        self._shown_ns = max(self._shown_ns, t_ns)
        self._clock.publish(self._message(self._shown_ns))

    def announce(self, t_ns: int) -> None:
        """Says that the next time will be `t_ns`."""
        self._jumps.publish(self._message(t_ns))
        self._shown_ns = t_ns

    def _message(self, t_ns: int) -> Any:
        message = self._type()
        message.clock.sec, message.clock.nanosec = divmod(t_ns, 1_000_000_000)
        return message
