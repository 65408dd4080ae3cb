"""The whole loop in a few minutes: train, evaluate, export, fly an emulated Crazyflie, record, replay, report."""

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from hardware.errors import BadInput
from robo_rl.cli import Outcome

SHORTEST_S = 12.0
"""Two goals are flown to, half of the time each, and a flight is judged from 5 s after each of them."""


@dataclass(frozen=True)
class Args:
    """Arguments of `robo-rl demo`."""

    out: Path | None = None
    """Folder of the run; by default runs/demo/<utc>."""
    seed: int = 0
    """Seed of training and evaluation."""
    steps: int | None = None
    """Budget of training in environment steps; by default the scene's own."""
    episodes: int = 1000
    """Episodes of the evaluation."""
    duration: float = 20.0
    """Seconds for which the policy flies, at least 12."""
    transport: Literal["auto", "ros2", "direct"] = "auto"
    """How policy and robot talk; auto takes ROS 2 where rclpy is installed."""


def run(args: Args) -> Outcome:
    """Runs every stage as the command a user would type, then writes the report; status 1 if a target is missed."""
    from robo_rl.report.demo import Plan, run_stages, write_report

    if not SHORTEST_S <= args.duration < math.inf:
        raise BadInput(f"--duration {args.duration:g}: expected at least {SHORTEST_S:g} s")
    if args.episodes < 1 or args.seed < 0:
        raise BadInput(f"--episodes {args.episodes} --seed {args.seed}: expected at least 1 and at least 0")
    out = args.out or Path("runs/demo") / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    if (out / "report.html").exists():
        raise BadInput(f"--out {out} holds a finished demo; give a folder that does not exist yet")
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    plan = Plan(out, args.seed, args.steps, args.episodes, args.duration, args.transport)
    results = run_stages(plan)
    results["wall_s"] = round(time.monotonic() - started, 1)
    verdict, ok = write_report(plan, results)
    print(f"{verdict}\nreport: {out / 'report.html'}")
    return Outcome(results, 0 if ok else 1)
