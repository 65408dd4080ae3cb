"""Several robots flown from this process over their own links: one policy, one clock, one recording for each robot."""

import os
import resource
import sys
import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from controllers.crew import Crew
from controllers.goals import Goal
from controllers.logsink import LogSink
from controllers.loop import Loop
from controllers.neighbourhood import Dropouts, Neighbourhood, SharedPositions
from controllers.onboard import OnboardPilot
from controllers.policy import Law, signals_perceived
from controllers.realtime import real_time
from controllers.sinks import Level
from controllers.supervisor import Supervisor
from controllers.surroundings import PERCEIVED
from controllers.swarm import Feed, Swarm
from hardware.clock import MonotonicClock
from hardware.errors import BadInput, RoboError, Unreachable
from hardware.guard import GuardedRobot
from hardware.robots import connect
from hardware.robots.crazyflie.obstacles import Obstacles
from robo_rl.deployment import ros
from robo_rl.deployment.direct import SWITCH_S, handling_signals
from robo_rl.deployment.flags import SwarmFlags
from robo_rl.deployment.order import Order
from robo_rl.deployment.places import addresses_of, goals_of_swarm
from robo_rl.deployment.processes import start_emulators
from robo_rl.deployment.swarm_figures import drone_figures, plain_goal, swarm_figures

PID = 1
"""`stabilizer.controller` of the Crazyflie's own controller."""
WAIT_S = 30.0
"""Patience with an emulator that was started at the same time."""


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
        spec, ticks = order.artifact.interface.robot, not _swarm_of(order).onboard
        super().__init__(order.log / name, spec, name, order.artifact, now_ns, ticks=ticks)
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
        room = _room(order, wanted, stack)
        _warn_of_empty_room(order, room)
        robots = _open(order, room.uris, clock, stack)
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
            Neighbourhood(order.artifact.interface, SharedPositions(wanted.num), room.obstacles),
            clock,
            on_fault=wanted.on_fault,
            feed=None if room.mocap is None else _feed(room.mocap, clock, stack),
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
        drones = drone_figures(order, swarm, names, room.uris, goals)
        return swarm_figures(swarm, drones) | {"cpu_s": cpu_s, "log": str(order.log), "interrupted": bool(interrupts)}


def rehearse(order: Order) -> dict[str, Any]:
    """Connects to all and says where each one stands and would go; arms nothing, moves nothing."""
    wanted = _swarm_of(order)
    clock = MonotonicClock(order.time_scale)
    with ExitStack() as stack:
        uris = _room(order, wanted, stack).uris
        robots = _open(order, uris, clock, stack)
        positions = np.stack([r.read().signals["position_world"] for r in robots])
        goals = goals_of_swarm(order, wanted, positions)
        shown = [
            {"name": f"{order.name}{i + 1}", "uri": uri, "start": p.tolist(), "goal": plain_goal(goal)}
            for i, (uri, p, goal) in enumerate(zip(uris, positions, goals, strict=True))
        ]
        print(f"dry run: {len(robots)} robots answer")
        return {"success": True, "dry_run": True, "drones": shown}


def _swarm_of(order: Order) -> SwarmFlags:
    if order.swarm is None:
        raise BadInput("this order is for one robot")
    return order.swarm


class Room(NamedTuple):
    """Where the robots are."""

    uris: list[str]
    mocap: str | None
    """Address of motion capture, where positions come from there."""
    obstacles: Obstacles


def _room(order: Order, wanted: SwarmFlags, stack: ExitStack) -> Room:
    """Starts an emulator where none is named; it knows the obstacles of its world."""
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
        cylinders = np.array(ready.get("obstacles", []), dtype=np.float64).reshape(-1, 3)
        mocap = ready["mocap"] if wanted.mocap == "emulated" else wanted.mocap
        return Room(ready["addresses"], mocap, Obstacles(cylinders[:, :2], cylinders[:, 2]))
    return Room(addresses_of(order.uri or robot.address, wanted.num), wanted.mocap, order.obstacles)


def _warn_of_empty_room(order: Order, room: Room) -> None:
    """An empty room is nothing that a policy trained among obstacles has ever seen."""
    sees = any(PERCEIVED[name].entity == "obstacle" for name in signals_perceived(order.artifact.interface))
    if sees and not len(room.obstacles.radius):
        print("warning: this policy sees obstacles, and none are known (--obstacles FILE)", flush=True)


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


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
