"""What a run of the control loop came to, counted while it goes on."""

from dataclasses import dataclass

from controllers.flight import Phase
from controllers.supervisor import Fault


@dataclass
class Summary:
    """What a run came to."""

    ticks: int = 0
    """Ticks of the loop."""
    policy_ticks: int = 0
    """Ticks in which the policy decided."""
    stale_ticks: int = 0
    """Ticks in which the state was too old to act on."""
    fallback_ticks: int = 0
    """Of these, ticks in which the classical law stood in."""
    overruns: int = 0
    """Deadlines missed."""
    guard_interventions: int = 0
    """Commands of the policy that the guard changed."""
    phase: str = Phase.IDLE
    fault: Fault | None = None
    distance_settled_m: list[float] | None = None
    """Distance to the goal, m, per policy tick from 5 s after the handover on or after a change of the goal."""
