"""Flags of a deployment that its command and its order share."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SwarmFlags:
    """Several robots."""

    num: int = 1
    """Number of robots, at consecutive addresses from --uri on; or give them all to --uri, separated by commas."""
    formation: Literal["circle", "grid", "line", "swap"] | None = None
    """Where to go, instead of one --goal per robot; swap: through the middle to the place opposite."""
    spacing: float = 1.0
    """Distance between next places of the formation, m."""
    height: float = 1.0
    """Height of the formation, m."""
    on_fault: Literal["one", "all"] = "one"
    """Whether a fault of one robot lands that one, or all."""
    mocap: str | None = None
    """Take positions from motion capture at this address, or `emulated`; by default from the robots' telemetry."""
    share_dropout: float = 0.0
    """Share of the time in which a robot's position does not reach the others; for trials."""
    onboard: bool = False
    """The policy runs inside the robots: they get goals, and are armed, watched and landed from here."""
