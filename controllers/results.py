"""What a deployment came to, as plain values: one reading of a loop's summary for both transports."""

from typing import Any

import numpy as np

from controllers.flight import Phase
from controllers.loop import Loop

TOLERANCE_M = 0.15
"""Distance to the goal, from 5 s after the handover on, that counts as success."""


def outcome(
    loop: Loop, failure: str = "", *, moves: bool = True, tolerance_m: float = TOLERANCE_M, at_end: bool = False
) -> dict[str, Any]:
    """Figures of a run that is over; `failure` says why it could not even begin.

    Success is a distance to the goal of at most `tolerance_m` throughout or, `at_end`, on average over the last second.
    Where nothing `moves` by the policy's commands, as in a replay, the distance to the goal is no matter of success.
    """
    s = loop.summary
    distance = np.array(s.distance_settled_m or [])
    settled = {
        "distance_m_mean": float(distance.mean()) if distance.size else None,
        "distance_m_p95": float(np.percentile(distance, 95)) if distance.size else None,
        "distance_m_max": float(distance.max()) if distance.size else None,
        "distance_m_end": float(distance[-round(loop.policy.rate_hz) :].mean()) if distance.size else None,
    }
    done = loop.flight.phase is Phase.DONE and s.fault is None and s.policy_ticks > 0
    off = settled["distance_m_end" if at_end else "distance_m_max"]
    close = not moves or off is None or off <= tolerance_m
    error = str(loop.error or loop.sink.failure or "")
    return {
        "success": bool(done and close and not failure and not error),
        "phase": str(loop.flight.phase),
        "fault": None if s.fault is None else s.fault.name,
        "reason": failure or error or ("" if s.fault is None else s.fault.reason),
        "ticks": s.ticks,
        "policy_ticks": s.policy_ticks,
        "stale_ticks": s.stale_ticks,
        "overruns": s.overruns,
        "overrun_share": s.overruns / max(s.ticks + s.overruns, 1),
        "latency_ms_p50": loop.policy_latency.percentile_ms(50),
        "latency_ms_p99": loop.policy_latency.percentile_ms(99),
        "observation_to_command_ms_p50": loop.command_latency.percentile_ms(50),
        "observation_to_command_ms_p99": loop.command_latency.percentile_ms(99),
        "guard_interventions": s.guard_interventions,
        **settled,
    }
