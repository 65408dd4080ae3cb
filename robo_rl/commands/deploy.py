"""Run a policy on an emulated, real or replayed robot, behind guard and supervisor, and record everything.

The robot takes off by itself, the policy takes over, flies to the goals for the duration, and hands back for the
landing. The first Ctrl-C lands, the second one stops at once. The exit status is 0 only if the flight went through
all its phases without a fault and, from 5 s after each goal was set, stayed within 0.15 m of it. Robots that do not
fly are armed, run by the policy, and given back to their own control; durations are theirs, whatever the time scale.

With --num, one process flies a swarm: robots on consecutive addresses, each behind its own guard and supervisor, with
a recording of its own below --log. Success then is at most 0.25 m from the goal in the last second, for every robot.
"""

import math
import re
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional, UseAppendAction

from controllers.supervisor import LARGEST_BOUND, Bounds
from hardware.errors import BadInput
from robo_rl.cli import Outcome
from robo_rl.deployment.flags import SwarmFlags

_NAMESPACE = re.compile(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)


@dataclass(frozen=True)
class Args:
    """What to deploy, on what, and how."""

    policy: Positional[str]
    """A .onnx file, a run directory, or zoo:NAME."""
    robot: str | None = None
    """Name of the robot; by default the one in the policy's card."""
    mode: Literal["emulated", "real", "replay"] = "emulated"
    """Kind of robot; emulated without --uri starts an emulator of its own."""
    uri: str | None = None
    """Address of the robot, or the recording for --mode replay."""
    transport: Literal["auto", "ros2", "direct"] = "auto"
    """auto takes ROS 2 where it is installed and the mode allows it; of a swarm, ros2 makes goals and poses topics."""
    goal: tuple[str, ...] = ()
    """Where to go, as x,y,z in metres; several are flown one after the other, or are those of several robots. Behind a
    leading minus, quoted: --goal='-1,0,1 1,0,1'."""
    duration: float | None = None
    """Seconds for which the policy acts; 0: until Ctrl-C. By default 10 s, or what the robot's spec says."""
    takeoff_height: float = 0.5
    """Height of the take-off, m."""
    handover: float = 1.0
    """Seconds during which the classical law is blended into the policy."""
    time_scale: float = 1.0
    """Emulated seconds per real second; over ROS 2 for slow robots only."""
    name: str | None = None
    """Namespace of the robot's topics; by default its name."""
    fault: UseAppendAction[tuple[str, ...]] = ()
    """A fault for the emulator that is started here, as robo-rl emulate takes it; may be given repeatedly."""
    scene: str | None = None
    """Scene whose simulator is the world of the emulator that is started here; by default the built-in one."""
    obstacles: Path | None = None
    """TOML file of upright cylinders for the policy to avoid: centres_m = [[x, y], ...], radius_m = R or [R, ...]."""
    swarm: SwarmFlags = field(default_factory=SwarmFlags)
    """Several robots."""
    dry_run: bool = False
    """Check everything, connect, compute one command; arm nothing and move nothing."""
    log: Path | None = None
    """Directory for the recording; by default a new one below runs/deploy."""
    bounds: Bounds = field(default_factory=Bounds)
    """What the supervisor counts as a fault."""


def run(args: Args) -> Outcome:
    """Flies; the result holds the figures, the status tells the truth."""
    from robo_rl.deployment import direct, ros, swarm
    from robo_rl.deployment.order import judged

    order = _order(args)
    transport = args.transport
    if transport == "auto" and (order.swarm is not None or order.perceives):
        transport = "direct"
    if transport == "auto":
        slow = order.artifact.interface.robot.rate_hz <= ros.FASTEST_SCALED_HZ
        fits = args.mode != "replay" and (args.time_scale == 1.0 or slow)
        transport = "ros2" if fits and ros.available() else "direct"
    if args.dry_run:
        way = direct if order.swarm is None else swarm
        return Outcome(_shared(args, transport) | way.rehearse(order))
    print(f"transport {transport}; recording to {order.log}")
    if order.swarm is not None:
        flown = swarm.fly(order, topics=transport == "ros2")
    else:
        flown = ros.fly(order) if transport == "ros2" else direct.fly(order)
    figures = _shared(args, transport) | flown
    if figures["interrupted"] and order.plan.duration_s > 0:
        figures["success"] = False
    figures = judged(order, figures)
    print(_summary(order, figures))
    return Outcome(figures, _status(order, figures))


def _order(args: Args) -> Any:
    """Everything that can be checked before anything starts."""
    from controllers.artifact import PolicyArtifact
    from controllers.flight import FlightPlan
    from hardware.robots.crazyflie.obstacles import read_obstacles
    from hardware.spec import load_spec
    from robo_rl.deployment.order import DURATION_S, Order, check_link, goals_of, swarm_order
    from robo_rl.zoo import resolve

    robot = load_spec(args.robot) if args.robot else None
    artifact = PolicyArtifact.load(resolve(args.policy), robot)
    spec = artifact.interface.robot
    if args.mode == "real" and args.uri is None:
        raise BadInput(f"--mode real needs --uri: the address of the {spec.name}, such as {spec.address}")
    swarm = swarm_order(args.swarm, args.mode, args.goal, artifact)
    check_link(args.uri, artifact, onboard=args.swarm.onboard)
    if args.obstacles is not None:
        read_obstacles(args.obstacles)
    duration_s = args.duration
    if duration_s is None:
        duration_s = float(spec.parameters.get("duration_s", DURATION_S))
    _check_numbers(args, duration_s)
    name = args.name or (spec.name if swarm is None else "cf" if spec.name == "crazyflie" else spec.name)
    if not _NAMESPACE.fullmatch(name):
        raise BadInput(f"--name '{name}': expected letters, digits and underscores, as in ROS names")
    replay = args.mode == "replay"
    plan = FlightPlan(
        flies=not replay,
        takeoff_height_m=args.takeoff_height,
        handover_s=0.0 if replay else args.handover,
        duration_s=0.0 if replay else duration_s,
        take_back_s=0.0 if replay else 1.0,
    )
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")[:-3]
    log = args.log or Path("runs/deploy") / f"{stamp}-{spec.name}"
    if log.exists() and not (log.is_dir() and not any(log.iterdir())):
        raise BadInput(f"--log {log} is not an empty directory; give a new one")
    goals = goals_of(args.goal, artifact)
    return Order(
        artifact,
        args.mode,
        args.uri,
        name,
        goals,
        plan,
        args.bounds,
        args.time_scale,
        log,
        args.fault,
        args.scene,
        args.obstacles,
        swarm,
    )


def _check_numbers(args: Args, duration_s: float) -> None:
    """Raises BadInput for flags out of range, or for another kind of robot."""
    for flag, value, lowest in (("duration", duration_s, 0.0), ("handover", args.handover, 0.0)):
        if not (math.isfinite(value) and value >= lowest):
            raise BadInput(f"--{flag} {value:g}: expected seconds, at least {lowest:g}")
    if not (math.isfinite(args.time_scale) and args.time_scale > 0):
        raise BadInput(f"--time-scale {args.time_scale:g}: expected a number above 0")
    if args.time_scale != 1.0 and args.mode != "emulated":
        raise BadInput("--time-scale is for emulated robots: a real one lives in real time, a recording in none")
    for flag, value in (("fault", args.fault), ("scene", args.scene)):
        if value and (args.mode != "emulated" or args.uri is not None):
            raise BadInput(f"--{flag} is for the emulator that deploy starts itself: --mode emulated without --uri")
    for field_name, value in asdict(args.bounds).items():
        if not 0.0 <= value <= LARGEST_BOUND:  # as policy_node declares them; NaN would never be a fault
            raise BadInput(f"--{field_name.replace('_', '-')} {value:g}: expected a number from 0 to {LARGEST_BOUND:g}")
    if not 0.2 <= args.takeoff_height <= 2.0:
        raise BadInput(f"--takeoff-height {args.takeoff_height:g}: expected 0.2..2 m")


def _shared(args: Args, transport: str) -> dict[str, Any]:
    return {"policy": args.policy, "mode": args.mode, "transport": transport}


def _summary(order: Any, f: dict[str, Any]) -> str:
    words = [f"{f['ticks']} ticks, {f['overruns']} overruns"]
    if f["latency_ms_p50"] is not None:
        words.append(f"policy {f['latency_ms_p50']:.2f} ms (p99 {f['latency_ms_p99']:.2f})")
        words.append(f"observation to command p99 {f['observation_to_command_ms_p99']:.1f} ms")
    words.append(f"guard changed {f['guard_interventions']} commands")
    if f["distance_m_max"] is not None:
        words.append(f"distance to the goal {f['distance_m_mean']:.3f} m, at most {f['distance_m_max']:.3f} m")
    elif f["mode"] != "replay" and order.flies:
        words.append("the distance to the goal was not judged: that begins 5 s after each goal")
    if "drones" in f:
        apart = f["min_separation_m"]
        words.append(f"{f['at_goal']} of {f['num']} robots at their goals")
        words.append("never two in the air" if apart is None else f"least separation {apart:.2f} m")
        words.append(f"tick p50 {f['tick_ms_p50']:.2f} ms, p99 {f['tick_ms_p99']:.2f} ms")
    if "check" in f:
        acted = ", ".join(f"{name} {count}x" for name, count in f["check"]["interlocks"].items()) or "none"
        words.append(f"interlocks: {acted}; {len(f['check']['failsafe'])} stays in fail-safe")
    return "; ".join(words)


def _status(order: Any, figures: dict[str, Any]) -> int:
    """0 success, 1 failure with its reason, 130 for a flight that was interrupted and brought down safely."""
    from controllers.results import TOLERANCE_M

    landed = figures["fault"] is None and not figures["reason"]
    if figures["interrupted"] and landed:
        end = "has landed" if order.flies else "is back at its own control"
        print(f"interrupted; the robot {end}", file=sys.stderr)
        return 0 if order.plan.duration_s == 0 else 130
    if figures["success"]:
        return 0
    off, allowed = figures["distance_m_max"], TOLERANCE_M
    if order.swarm is not None:
        off, allowed = figures["distance_m_end"], figures["tolerance_m"]
    reason = figures["reason"] or f"at most {off:.3f} m from the goal; expected {allowed:g} m"
    print(f"robo-rl: deploy: {reason}", file=sys.stderr)
    return 1
