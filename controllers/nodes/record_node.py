"""ROS 2 node `log_recorder`: every message of the chosen topics goes, byte for byte, into a log.

Its services (see `episode_marks`) set marks; those and what others publish on `/annotation` become annotations.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

from controllers.nodes.definitions import definition_of
from controllers.nodes.episode_marks import EpisodeMarks
from controllers.nodes.messages import message_class
from controllers.nodes.selection import Selection
from controllers.nodes.session import session
from hardware.annotation.recorded import TOPIC as MARKS
from hardware.annotation.recorded import keep_recorded
from hardware.errors import BadInput
from hardware.log.qos import Qos
from hardware.log.reader import Log
from hardware.log.writer import FLUSH_S, LogWriter

DEPTH = 1000
"""Messages that wait in the middleware while the recorder is busy."""
DISCOVERY_S = 0.2
DRAIN_S = 0.3
SILENCE_S = 1.0
"""A lingering recorder takes everybody to have stopped after this time without a message."""
NODE_NAME = "log_recorder"


@dataclass(frozen=True)
class Recording:
    """What to record, and where."""

    out: Path
    topics: tuple[str, ...] = ()
    """Absolute names; empty: every topic that is not hidden."""
    regex: str = ""
    """Also every topic whose whole name matches."""
    exclude: str = ""
    """Never a topic whose whole name matches."""
    flush_s: float = FLUSH_S
    fsync_s: float | None = None
    max_bytes: int | None = None
    """Begins another file once one is that large."""
    duration_s: float | None = None
    """Stops by itself after this time."""
    linger_s: float = 0.0
    """Once asked to stop, goes on for so long at most while messages still come."""


@dataclass(frozen=True)
class Recorded:
    """What a recorder did."""

    out: Path
    counts: dict[str, int]
    lost: dict[str, int]
    """Topic -> messages that the middleware reported as lost."""
    duration_s: float
    marks: int = 0
    """Marks that became annotations."""


class Recorder:
    """Subscribes to wanted topics as they appear, with QoS that every publisher can serve, and writes what comes."""

    def __init__(self, node: Node, writer: LogWriter, selection: Selection, say: Callable[[str], None]) -> None:
        self._node, self._writer, self._selection, self._say = node, writer, selection, say
        self._subscriptions: dict[str, tuple[Any, QoSProfile]] = {}
        self._refused: set[str] = set()
        self.lost: dict[str, int] = {}
        self.failure: Exception | None = None
        self._timer = node.create_timer(DISCOVERY_S, self.discover)

    def discover(self) -> None:
        """Looks for new topics, and for publishers that an existing subscription does not match."""
        for topic, _ in self._node.get_topic_names_and_types():
            if topic in self._refused or not (topic == MARKS or self._selection.wants(topic)):
                continue
            offers = self._node.get_publishers_info_by_topic(topic)
            if offers:
                self._follow(topic, offers)

    def _follow(self, topic: str, offers: list[TopicEndpointInfo]) -> None:
        wanted = request_for([o.qos_profile for o in offers])
        known = self._subscriptions.get(topic)
        if known is not None:
            if _serves(known[1], wanted):
                return
            self._node.destroy_subscription(known[0])  # a publisher with weaker QoS has joined
        kind = offers[0].topic_type
        try:
            cls = message_class(kind)
            if known is None:
                announced = str(offers[0].topic_type_hash)
                definition = definition_of(kind, announced if announced.startswith("RIHS01_") else "")
                self._writer.add_topic(topic, definition, _unique(qos_of(o.qos_profile) for o in offers))
        except BadInput as e:
            self._refused.add(topic)
            self._say(f"not recording {topic}: {e}")
            return
        subscription = self._node.create_subscription(
            cls, topic, self._writing(topic), wanted, raw=True, event_callbacks=self._events(topic)
        )
        self._subscriptions[topic] = (subscription, wanted)
        self._say(f"recording {topic} ({kind}, {wanted.reliability.name.lower()})")

    def _writing(self, topic: str) -> Callable[[bytes, Any], None]:
        def write(cdr: bytes, info: Any) -> None:
            received = info["received_timestamp"] or time.time_ns()
            try:
                self._writer.write(topic, cdr, received, info["source_timestamp"] or received)
            except Exception as e:  # noqa: BLE001 - raised again by record(), out of the executor
                self.failure = self.failure or e

        return write

    def _events(self, topic: str) -> SubscriptionEventCallbacks:
        def lost(info: Any) -> None:
            self.lost[topic] = info.total_count

        def incompatible(info: Any) -> None:
            self._say(f"a publisher of {topic} offers other QoS than is asked for ({info.last_policy_kind})")

        return SubscriptionEventCallbacks(message_lost=lost, incompatible_qos=incompatible)


def record(
    recording: Recording,
    *,
    stop: threading.Event | None = None,
    ros_args: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Recorded:
    """Records until `stop`, SIGINT or SIGTERM, or the end of the duration; returns the counts.

    Raises BadInput for a directory that holds a recording already, RoboError where the log cannot be written.
    """
    stop = stop or threading.Event()
    selection = Selection(recording.topics, recording.regex, recording.exclude)
    writer = LogWriter(
        recording.out, flush_s=recording.flush_s, fsync_s=recording.fsync_s, max_bytes=recording.max_bytes
    )
    started = time.monotonic()
    with writer, session(NODE_NAME, stop, ros_args) as (node, executor):
        recorder = Recorder(node, writer, selection, say)
        EpisodeMarks(node, writer)
        say(f"recording to {writer.path}")
        while not stop.is_set() and recorder.failure is None:
            executor.spin_once(timeout_sec=0.1)
            if recording.duration_s is not None and time.monotonic() - started >= recording.duration_s:
                break
        # What other nodes say while they stop belongs to the log too.
        asked = heard = time.monotonic()
        count = writer.messages
        while recorder.failure is None and time.monotonic() < min(
            asked + max(recording.linger_s, DRAIN_S), heard + SILENCE_S
        ):
            executor.spin_once(timeout_sec=0.05)
            if writer.messages > count:
                heard, count = time.monotonic(), writer.messages
        if recorder.failure is not None:
            raise recorder.failure
    duration_s = time.monotonic() - started
    marks = keep_recorded(Log(recording.out)) if MARKS in writer.counts else []
    return Recorded(recording.out, writer.counts, recorder.lost, duration_s, len(marks))


def request_for(offers: Sequence[QoSProfile]) -> QoSProfile:
    """The strongest QoS that matches every publisher: reliable or latched only where all of them are."""
    reliable = all(o.reliability == ReliabilityPolicy.RELIABLE for o in offers)
    latched = all(o.durability == DurabilityPolicy.TRANSIENT_LOCAL for o in offers)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def qos_of(profile: QoSProfile) -> Qos:
    """What a publisher offers, as the log stores it (DDS does not announce history and depth)."""
    return Qos(
        history=profile.history.name.lower(),
        depth=profile.depth,
        reliability=profile.reliability.name.lower(),
        durability=profile.durability.name.lower(),
        deadline_ns=profile.deadline.nanoseconds,
        lifespan_ns=profile.lifespan.nanoseconds,
        liveliness=profile.liveliness.name.lower(),
        liveliness_lease_duration_ns=profile.liveliness_lease_duration.nanoseconds,
        avoid_ros_namespace_conventions=profile.avoid_ros_namespace_conventions,
    )


def _serves(active: QoSProfile, wanted: QoSProfile) -> bool:
    """Whether a subscription asks for no more than `wanted` does."""
    return (active.reliability == wanted.reliability or active.reliability == ReliabilityPolicy.BEST_EFFORT) and (
        active.durability == wanted.durability or active.durability == DurabilityPolicy.VOLATILE
    )


def _unique(profiles: Iterator[Qos]) -> tuple[Qos, ...]:
    return tuple(dict.fromkeys(profiles))
