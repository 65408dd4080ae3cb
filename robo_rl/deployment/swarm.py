"""Several robots flown from this process over their own links: one policy, one clock, one recording for each robot."""

import math
import os
import resource
import sys
import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.crew import Crew
from controllers.formation import formation, nearest_pair
from controllers.goals import Goal, checked_goal, fence_of
from controllers.logsink import LogSink
from controllers.loop import Loop
from controllers.neighbourhood import Dropouts, Neighbourhood, SharedPositions
from controllers.onboard import OnboardPilot
from controllers.policy import Law, goal_signals, signals_perceived
from controllers.realtime import real_time
from controllers.results import outcome
from controllers.sinks import Level
from controllers.supervisor import Supervisor
from controllers.swarm import Feed, Swarm
from hardware.clock import MonotonicClock
from hardware.errors import BadInput, RoboError, Unreachable
from hardware.guard import GuardedRobot
from hardware.robots import connect
from robo_rl.deployment import ros
from robo_rl.deployment.direct import SWITCH_S, handling_signals
from robo_rl.deployment.flags import SwarmFlags
from robo_rl.deployment.order import Order
from robo_rl.deployment.processes import start_emulators

TOLERANCE_M = 0.25
"""Distance to the goal that counts as success, from 5 s after the handover on: the swarm scene's strict metric."""
PID = 1
"""`stabilizer.controller` of the Crazyflie's own controller."""
WAIT_S = 30.0
"""Patience with an emulator that was started at the same time."""
BLIND_SPACING_M = 0.3
"""Goals of a policy that does not see other robots must be so far apart."""


@dataclass
class Chorus:
    """What a swarm prints: phases when the first robot reaches them, and every warning with its robot's name."""

    said: set[str] = field(default_factory=set)

    def say(self, name: str, level: Level, text: str) -> None:
        """One event of one robot."""
        if level != "ok":
            print(f"{level}: {name}: {text}", flush=True)
        elif text not in self.said:
            self.said.add(text)
            print(text, flush=True)


class Telling(LogSink):
    """A robot's recording, and its voice in the chorus."""

    def __init__(self, order: Order, name: str, now_ns: int, chorus: Chorus) -> None:
        super().__init__(order.log / name, order.artifact.interface.robot, name, order.artifact, now_ns)
        self._said_by, self._chorus = name, chorus

    def event(self, level: Level, text: str, values: dict[str, str], now_ns: int) -> None:
        """See Sink.event."""
        super().event(level, text, values, now_ns)
        self._chorus.say(self._said_by, level, text)


def fly(order: Order, *, topics: bool = False) -> dict[str, Any]:
    """Runs the order to the end, with `topics` for goals and poses over ROS 2; returns its figures.

    Raises RoboError where it cannot even begin.
    """
    wanted = _swarm_of(order)
    sys.setswitchinterval(SWITCH_S)
    clock = MonotonicClock(order.time_scale)
    with ExitStack() as stack:
        uris, mocap = _addresses(order, wanted, stack)
        robots = _open(order, uris, clock, stack)
        goals = goals_of_swarm(order, wanted, np.stack([r.read().signals["position_world"] for r in robots]))
        crew = None if wanted.onboard else Crew(order.artifact, wanted.num)
        laws = [_pilot(robot) for robot in robots] if crew is None else crew.members
        names = [f"{order.name}{i + 1}" for i in range(wanted.num)]
        chorus = Chorus()
        loops = [
            _loop(order, robot, law, name, goal, clock, chorus, stack)
            for robot, law, name, goal in zip(robots, laws, names, goals, strict=True)
        ]
        swarm = Swarm(
            loops,
            crew,
            Neighbourhood(order.artifact.interface, SharedPositions(wanted.num), order.obstacles),
            clock,
            on_fault=wanted.on_fault,
            feed=None if mocap is None else _feed(mocap, clock, stack),
            dropouts=Dropouts(wanted.share_dropout, wanted.num) if wanted.share_dropout > 0.0 else None,
        )
        if topics:
            stack.enter_context(_topics(order, swarm, names, clock))
        interrupts: list[int] = []
        stack.enter_context(handling_signals(swarm, order, interrupts))
        stack.enter_context(real_time())
        before = _cpu_s()
        swarm.run()
        cpu_s = _cpu_s() - before
        drones = _drones(order, swarm, names, uris, goals)
        return _overall(swarm, drones) | {"cpu_s": cpu_s, "log": str(order.log), "interrupted": bool(interrupts)}


def rehearse(order: Order) -> dict[str, Any]:
    """Connects to all, computes one command for each; arms nothing, moves nothing."""
    wanted = _swarm_of(order)
    clock = MonotonicClock(order.time_scale)
    with ExitStack() as stack:
        uris, _ = _addresses(order, wanted, stack)
        robots = _open(order, uris, clock, stack)
        positions = np.stack([r.read().signals["position_world"] for r in robots])
        goals = goals_of_swarm(order, wanted, positions)
        shown = [
            {"name": f"{order.name}{i + 1}", "uri": uri, "start": p.tolist(), "goal": _plain(goal)}
            for i, (uri, p, goal) in enumerate(zip(uris, positions, goals, strict=True))
        ]
        print(f"dry run: {len(robots)} robots answer")
        return {"success": True, "dry_run": True, "drones": shown}


def addresses_of(uri: str, num: int) -> list[str]:
    """The addresses of a swarm: given one by one with commas, or counted on from the first one.

    UDP and TCP count ports, the radio counts its hexadecimal addresses as Crazyswarm numbers drones; raises BadInput.
    """
    given = uri.split(",")
    if len(given) == num:
        return given
    if len(given) > 1:
        raise BadInput(f"--uri has {len(given)} addresses for {num} robots; give one each, or the first one")
    head, separator, last = uri.rpartition("/" if uri.startswith("radio:") else ":")
    hexadecimal = uri.startswith("radio:")
    try:
        first = int(last, 16 if hexadecimal else 10)
    except ValueError:
        raise BadInput(f"--uri {uri}: cannot count on from it; give {num} addresses, separated by commas") from None
    shown = (lambda n: f"{n:0{len(last)}X}") if hexadecimal else str
    return [f"{head}{separator}{shown(first + i)}" for i in range(num)]


def goals_of_swarm(order: Order, wanted: SwarmFlags, starts: NDArray[np.float64]) -> list[Goal | None]:
    """A goal for each robot, or None where it is to stay where it takes over; raises BadInput."""
    if wanted.formation is None and not order.goals:
        return [None] * wanted.num
    signal = goal_signals(order.artifact.interface)[0]
    goals = list(order.goals)
    if wanted.formation is not None:
        places = formation(wanted.formation, starts, spacing_m=wanted.spacing, height_m=wanted.height)
        robot = order.artifact.interface.robot
        goals = [checked_goal(signal, place, robot, fence_of(robot)) for place in places]
    sees = any(name.startswith("neighbour") for name in signals_perceived(order.artifact.interface))
    apart, i, j = nearest_pair([g[signal] for g in goals])
    if not sees and apart < BLIND_SPACING_M:
        raise BadInput(
            f"goals of robots {i + 1} and {j + 1} are {apart:.2f} m apart, and this policy does not see other robots; "
            f"expected at least {BLIND_SPACING_M:g} m"
        )
    if not sees and wanted.formation == "swap":
        print("warning: this policy does not see other robots, and their paths cross", flush=True)
    return list(goals)


def _swarm_of(order: Order) -> SwarmFlags:
    if order.swarm is None:
        raise BadInput("this order is for one robot")
    return order.swarm


def _addresses(order: Order, wanted: SwarmFlags, stack: ExitStack) -> tuple[list[str], str | None]:
    """One address per robot, and that of motion capture; starts an emulator where none is named."""
    robot = order.artifact.interface.robot
    if order.kind == "emulated" and order.uri is None:
        more = ["--num", str(wanted.num)]
        if wanted.mocap == "emulated" or wanted.onboard:  # drones on their own hear of the others by motion capture
            more += ["--mocap", "--mocap-port", "0"]
        if wanted.onboard:
            more += ["--onboard", str(order.artifact.path), "--mocap-dropout", str(wanted.share_dropout)]
        if order.obstacles_file is not None:
            more += ["--obstacles", str(order.obstacles_file)]
        child, ready = start_emulators(robot.name, order.time_scale, order.faults, order.scene, more)
        stack.enter_context(child)
        print(f"emulated {robot.name} x {wanted.num} from {ready['addresses'][0]} on")
        return ready["addresses"], ready["mocap"] if wanted.mocap == "emulated" else wanted.mocap
    return addresses_of(order.uri or robot.address, wanted.num), wanted.mocap


def _open(order: Order, uris: list[str], clock: MonotonicClock, stack: ExitStack) -> list[GuardedRobot]:
    robots = []
    until = time.monotonic() + (WAIT_S if order.kind == "emulated" else 0.0)
    for uri in uris:
        robot = connect(order.artifact.interface.robot.name, uri, clock=clock)
        while True:
            try:
                robot.open()
                break
            except Unreachable:
                if time.monotonic() >= until:
                    raise
        stack.callback(robot.close)
        robots.append(robot)
    return robots


def _loop(
    order: Order,
    robot: GuardedRobot,
    law: Law,
    name: str,
    goal: Goal | None,
    clock: MonotonicClock,
    chorus: Chorus,
    stack: ExitStack,
) -> Loop:
    supervisor = Supervisor(robot.spec, law.rate_hz, order.bounds)
    supervisor.configure()
    sink = stack.enter_context(Telling(order, name, clock.now_ns(), chorus))
    loop = Loop(robot, law, supervisor, order.plan, clock, sink)
    if goal is not None:
        loop.goal(goal)
    return loop


def _topics(order: Order, swarm: Swarm, names: list[str], clock: MonotonicClock) -> AbstractContextManager[None]:
    if not ros.available():
        raise RoboError(ros.MISSING)
    os.environ.update(ros.environment(order))
    from controllers.nodes.swarm_topics import swarm_topics

    return swarm_topics(swarm, names, clock)


def _pilot(robot: GuardedRobot) -> Law:
    """Flies a Crazyflie whose firmware holds the policy as its out-of-tree controller."""
    from hardware.robots.crazyflie.onboard import OUT_OF_TREE

    def switch(policy: bool) -> None:
        robot.set_parameter("stabilizer.controller", OUT_OF_TREE if policy else PID, "uint8")

    return OnboardPilot(robot.spec, switch)


def _feed(address: str, clock: MonotonicClock, stack: ExitStack) -> Feed:
    """Positions as motion capture sees them; its ids count from 1."""
    from hardware.robots.crazyflie.mocap import Mocap

    cameras = Mocap(address, clock=clock)
    cameras.open()
    stack.callback(cameras.close)
    return lambda: {i - 1: (t_ns, np.array(p)) for i, (t_ns, p) in cameras.latest().items() if i >= 1}


def _drones(
    order: Order, swarm: Swarm, names: list[str], uris: list[str], goals: list[Goal | None]
) -> list[dict[str, Any]]:
    rows = []
    for i, loop in enumerate(swarm.loops):
        figures = outcome(loop, swarm.failures[i], tolerance_m=TOLERANCE_M)
        apart = float(swarm.separation_m[i])
        rows.append(
            {"name": names[i], "uri": uris[i], "goal": _plain(goals[i])}
            | figures
            | {"min_separation_m": apart if math.isfinite(apart) else None, "log": str(order.log / names[i])}
        )
    return rows


def _overall(swarm: Swarm, drones: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of the swarm: sums, worst cases, and the first thing that went wrong."""
    apart = [d["min_separation_m"] for d in drones if d["min_separation_m"] is not None]
    distances = [d["distance_m_max"] for d in drones if d["distance_m_max"] is not None]
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
        "distance_m_max": max(distances, default=None),
        "distance_m_mean": float(np.mean(means)) if means else None,
        "tolerance_m": TOLERANCE_M,
        "min_separation_m": min(apart, default=None),
        "drones": drones,
    }


def _plain(goal: Goal | None) -> dict[str, list[float]] | None:
    return None if goal is None else {k: np.asarray(v).tolist() for k, v in goal.items()}


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
