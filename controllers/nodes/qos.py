"""Quality of service of every kind of topic; see the topic contract in docs."""

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

HEARTBEAT_S = 0.1
"""Deadline offered on the heartbeat."""
LEASE_S = 0.5
"""Liveliness lease offered on the heartbeat."""

COMMAND = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""Commands: reliable, because that matches every subscriber; only the newest counts."""
ONE_SHOT = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""Take-off, landing, stop, goals: none may be overwritten."""
STATE_OUT = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""States as published; reliable, so that subscribers of either kind match."""
STATE_IN = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""States as subscribed: best effort matches every publisher; only the newest counts."""
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""E-stop, status, policy card: late subscribers get the last one."""
HEARTBEAT_OUT = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    deadline=Duration(seconds=HEARTBEAT_S),
    liveliness=LivelinessPolicy.AUTOMATIC,
    liveliness_lease_duration=Duration(seconds=LEASE_S),
)
"""Heartbeats as published: with a deadline and a lease, for whoever wants to be told by the middleware."""
HEARTBEAT_IN = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""Heartbeats as subscribed: asking for a deadline that another node does not offer would give no data at all, so the
age is checked in software."""
