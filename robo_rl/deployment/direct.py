"""Direct transport: driver, guard, policy and log writer in this process, without ROS."""

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from controllers.logsink import LogSink
from controllers.loop import Loop
from controllers.neighbourhood import Neighbourhood, SharedPositions
from controllers.policy import Policy
from controllers.realtime import real_time
from controllers.results import outcome
from controllers.sinks import Level
from controllers.supervisor import Supervisor
from hardware.clock import Clock, MonotonicClock, SteppedClock
from hardware.errors import BadInput, RoboError
from hardware.guard import GuardedRobot
from hardware.log.reader import Log
from hardware.replay import ReplayRobot
from hardware.robots import connect
from robo_rl.deployment.order import Order
from robo_rl.deployment.processes import start_emulator

SWITCH_S = 1e-4
"""Python's thread switch interval; with its default of 5 ms the driver's thread could delay the loop by as much."""


class Telling(LogSink):
    """The recording, and one printed line per event."""

    def event(self, level: Level, text: str, values: dict[str, str], now_ns: int) -> None:
        """See Sink.event."""
        super().event(level, text, values, now_ns)
        print(text if level == "ok" else f"{level}: {text}", flush=True)


def fly(order: Order) -> dict[str, Any]:
    """Runs the order to the end; returns its figures. Raises RoboError where it cannot even begin."""
    sys.setswitchinterval(SWITCH_S)
    clock = _clock(order)
    with ExitStack() as stack:
        robot, replay = _robot(order, clock, stack)
        loop = _loop(order, robot, clock, stack)
        interrupts: list[int] = []
        stack.enter_context(handling_signals(loop, order, interrupts))
        failure = ""
        try:
            stack.enter_context(real_time())
            loop.run(lambda: loop.finish() if replay is not None and replay.ended else None)
        except RoboError as e:
            failure = str(e)
        return outcome(loop, failure, moves=replay is None) | {"log": str(order.log), "interrupted": bool(interrupts)}


def rehearse(order: Order) -> dict[str, Any]:
    """Checks everything up to the first command: connection, state, one inference. Arms nothing, moves nothing."""
    clock = _clock(order)
    with ExitStack() as stack:
        robot, _ = _robot(order, clock, stack)
        state = robot.read()
        policy = Policy(order.artifact)
        missing = policy.needs - state.signals.keys()
        if missing:
            raise BadInput(f"the policy needs {', '.join(sorted(missing))}, which the robot does not send")
        goal = order.goals[0] if order.goals else dict(state.signals)
        decision = policy.decide(state.signals, goal, _alone(order).perceived({0: state})[0])
        if not np.isfinite(decision.command).all():
            raise BadInput(f"{order.artifact.path}: the policy's command is not finite in the present state")
        command = dict(zip(policy.interface.mode.components, decision.command.tolist(), strict=True))
        print(f"dry run: {policy.interface.robot.name} answers; the first command would be {command}")
        signals = {k: np.asarray(v).tolist() for k, v in state.signals.items()}
        return {"success": True, "dry_run": True, "state": signals, "status": sorted(state.status), "command": command}


def _clock(order: Order) -> Clock:
    """Real time for robots that move; a recording needs none, so it is replayed as fast as this machine can."""
    return SteppedClock(time.time_ns()) if order.kind == "replay" else MonotonicClock(order.time_scale)


def _robot(order: Order, clock: Clock, stack: ExitStack) -> tuple[GuardedRobot, ReplayRobot | None]:
    """The robot, open; closed with the stack. The second value is the replayed robot, if it is one."""
    spec = order.artifact.interface.robot
    uri, replay = order.uri, None
    if order.kind == "replay":
        if uri is None:
            raise BadInput("--mode replay needs --uri LOG: the recording whose states are to be replayed")
        replay = ReplayRobot(Log(Path(uri)), spec, clock)
        robot = GuardedRobot(replay, clock)
    else:
        if order.kind == "emulated" and uri is None:
            child, uri = start_emulator(spec.name, order.time_scale, order.faults, order.scene)
            stack.enter_context(child)
            print(f"emulated {spec.name} at {uri}")
        robot = connect(spec.name, uri, clock=clock)
    robot.open()
    stack.callback(robot.close)
    if "dry_run" in robot.read().status:
        print(f"{uri or spec.address}: opened for reading only; nothing will be written")
    return robot, replay


def _loop(order: Order, robot: GuardedRobot, clock: Clock, stack: ExitStack) -> Loop:
    artifact = order.artifact
    supervisor = Supervisor(robot.spec, artifact.card.rate_hz, order.bounds)
    supervisor.configure()
    policy = Policy(artifact)
    sink = stack.enter_context(Telling(order.log, robot.spec, order.name, artifact, clock.now_ns()))
    hood = _alone(order)
    loop = Loop(
        robot, policy, supervisor, order.plan, clock, sink, surroundings=lambda state: hood.perceived({0: state})[0]
    )
    if order.goals:
        loop.tour(order.goals, order.goal_s)
    return loop


def _alone(order: Order) -> Neighbourhood:
    """Obstacles, and nobody else."""
    return Neighbourhood(order.artifact.interface, SharedPositions(1), order.obstacles)


class Stoppable(Protocol):
    """A control loop, of one robot or several."""

    def finish(self) -> None:
        """Asks for an orderly end."""
        ...

    def estop(self, reason: str) -> None:
        """Asks for the emergency stop."""
        ...


@contextmanager
def handling_signals(loop: Stoppable, order: Order, interrupts: list[int]) -> Iterator[None]:
    """The first SIGINT or SIGTERM lands, the second one stops at once."""

    def handle(number: int, _: object) -> None:
        interrupts.append(number)
        if len(interrupts) == 1:
            print(f"{order.ending}; once more for an emergency stop", flush=True)
            loop.finish()
        else:
            loop.estop("second signal")

    before = {}
    with contextlib.suppress(ValueError):  # not in the main thread: the caller has the signals
        before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
