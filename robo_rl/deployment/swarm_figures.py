"""What the flight of a swarm came to, for each robot and for all."""

import math
from typing import Any

import numpy as np

from controllers.goals import Goal
from controllers.results import outcome
from controllers.swarm import Swarm
from robo_rl.deployment.order import Order

TOLERANCE_M = 0.25
"""Mean distance to the goal over the last second that counts as success: the swarm scene's strict metric."""


def drone_figures(
    order: Order, swarm: Swarm, names: list[str], uris: list[str], goals: list[Goal | None]
) -> list[dict[str, Any]]:
    """Figures of each robot's flight."""
    rows = []
    for i, loop in enumerate(swarm.loops):
        figures = outcome(loop, swarm.failures[i], tolerance_m=TOLERANCE_M, at_end=True)
        apart = float(swarm.separation_m[i])
        rows.append(
            {"name": names[i], "uri": uris[i], "goal": plain_goal(goals[i])}
            | figures
            | {"min_separation_m": apart if math.isfinite(apart) else None, "log": str(order.log / names[i])}
        )
    return rows


def swarm_figures(swarm: Swarm, drones: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of the swarm: sums, worst cases, and the first thing that went wrong."""
    apart = [d["min_separation_m"] for d in drones if d["min_separation_m"] is not None]
    means = [d["distance_m_mean"] for d in drones if d["distance_m_mean"] is not None]
    wrong = next((d for d in drones if d["reason"]), None)
    worst = lambda key: max((d[key] for d in drones if d[key] is not None), default=None)  # noqa: E731
    return {
        "success": all(d["success"] for d in drones),
        "num": len(drones),
        "at_goal": sum(d["success"] for d in drones),
        "fault": None if wrong is None else wrong["fault"],
        "reason": "" if wrong is None else f"{wrong['name']}: {wrong['reason']}",
        "ticks": max(d["ticks"] for d in drones),
        "policy_ticks": sum(d["policy_ticks"] for d in drones),
        "overruns": max(d["overruns"] for d in drones),
        "latency_ms_p50": worst("latency_ms_p50"),
        "latency_ms_p99": worst("latency_ms_p99"),
        "observation_to_command_ms_p99": worst("observation_to_command_ms_p99"),
        "tick_ms_p50": swarm.work.percentile_ms(50),
        "tick_ms_p99": swarm.work.percentile_ms(99),
        "guard_interventions": sum(d["guard_interventions"] for d in drones),
        "distance_m_max": worst("distance_m_max"),
        "distance_m_end": worst("distance_m_end"),
        "distance_m_mean": float(np.mean(means)) if means else None,
        "tolerance_m": TOLERANCE_M,
        "min_separation_m": min(apart, default=None),
        "drones": drones,
    }


def plain_goal(goal: Goal | None) -> dict[str, list[float]] | None:
    """A goal as plain values."""
    return None if goal is None else {k: np.asarray(v).tolist() for k, v in goal.items()}
