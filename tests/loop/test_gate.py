"""What `robot_node`'s gate lets through, and what it does when whoever commands falls silent; on a stepped clock."""

import numpy as np
import pytest
from support.stepped_crazyflie import SteppedCrazyflie
from support.stepped_plc import make_driver

from controllers.flight import FlightPlan
from controllers.gate import Gate
from hardware.clock import SteppedClock
from hardware.errors import RoboError
from hardware.guard import GuardedRobot
from hardware.robot import Command, RobotIO
from hardware.robots.greenhouse_plc.emulator import Compartments
from hardware.robots.greenhouse_plc.plc import LOCAL, REMOTE_DIRECT

DIRECT = Command("direct", np.array([0.1, 0.7, 14.0]))


class Bench:
    """A gate around a robot, watched at every step of the clock."""

    def __init__(self, robot: RobotIO, clock: SteppedClock, timeout_s: float) -> None:
        self.clock, self.faults = clock, list[str]()
        robot.open()
        self.gate = Gate(
            robot.spec, FlightPlan(), clock, timeout_s=timeout_s, report=self.faults.append, label=lambda: "inactive"
        )
        self.gate.robot = GuardedRobot(robot, clock)
        self.gate.state = self.gate.read()

    def run(self, seconds: float, step_s: float, *, heard: bool = True) -> None:
        for _ in range(round(seconds / step_s)):
            self.clock.advance_s(step_s)
            if heard:
                self.gate.heard()
            self.gate.state = self.gate.read()
            self.gate.watch(self.gate.state)


def greenhouse() -> tuple[Bench, Compartments]:
    house, clock = Compartments(), SteppedClock(1_000_000_000)
    driver, _ = make_driver(house, clock)
    return Bench(driver, clock, 900.0), house


def test_nothing_passes_a_gate_that_is_shut_or_a_robot_that_is_not_armed() -> None:
    bench, house = greenhouse()
    gate = bench.gate
    with pytest.raises(RoboError, match="cannot arm: the node is inactive"):
        gate.arm()
    with pytest.raises(RoboError, match="ignored: the node is inactive"):
        gate.pass_on(DIRECT)
    gate.is_open = True
    with pytest.raises(RoboError, match="ignored: the robot is not armed; call service arm"):
        gate.pass_on(DIRECT)
    assert gate.ignored == 2
    gate.estop_on = True
    with pytest.raises(RoboError, match="e-stop is on"):
        gate.arm()
    gate.estop_on = False
    gate.arm()
    gate.pass_on(DIRECT)
    bench.run(120, 10)
    assert house.plcs[0].mode == REMOTE_DIRECT


def test_half_an_hour_between_commands_is_no_silence_for_a_greenhouse_but_lost_heartbeats_are() -> None:
    bench, house = greenhouse()
    bench.gate.is_open = True
    bench.gate.arm()
    for _ in range(3):
        bench.gate.pass_on(DIRECT)
        bench.run(1800, 10)
    assert bench.faults == []
    bench.run(880, 10, heard=False)
    assert bench.faults == []
    bench.run(100, 10, heard=False)
    assert bench.faults == ["the peer's heartbeat is gone: last heartbeat 910.00 s ago"]
    assert house.plcs[0].mode == LOCAL
    assert bench.gate.at_rest


def test_a_stream_that_ends_is_silence() -> None:
    bench, house = greenhouse()
    bench.gate.is_open = True
    bench.gate.arm()
    bench.gate.pass_on(DIRECT)
    bench.run(2690, 10)
    assert bench.faults == []
    bench.run(30, 10)
    assert bench.faults == ["the peer's heartbeat is gone: last set point 2710.00 s ago"]
    assert house.plcs[0].mode == LOCAL


def test_one_shot_commands_are_for_robots_that_have_them() -> None:
    bench, _ = greenhouse()
    bench.gate.is_open = True
    bench.gate.arm()
    with pytest.raises(RoboError, match="command mode of robot greenhouse_plc 'takeoff' not found"):
        bench.gate.one_shot("takeoff")


def test_a_drone_takes_off_lands_when_the_gate_shuts_and_refuses_afterwards() -> None:
    clock = SteppedClock(1_000_000_000)
    robot = SteppedCrazyflie(clock)
    bench = Bench(robot, clock, 0.4)
    gate = bench.gate
    gate.is_open = True
    gate.arm()
    assert gate.one_shot("takeoff") == "takeoff to 0.50 m in 2.0 s"
    bench.run(3.0, 0.01)
    assert robot.position[2] > 0.4
    gate.shut()
    assert not gate.at_rest
    bench.run(5.0, 0.01)
    assert gate.at_rest
    assert robot.position[2] < 0.05
    with pytest.raises(RoboError, match="ignored: the node is inactive"):
        gate.pass_on(Command("attitude_thrust", np.zeros(4)))
    with pytest.raises(RoboError, match="cannot arm"):
        gate.arm()


def test_an_error_while_coming_down_stops_the_motors() -> None:
    clock = SteppedClock(1_000_000_000)
    robot = SteppedCrazyflie(clock)
    bench = Bench(robot, clock, 0.4)
    bench.gate.is_open = True
    bench.gate.arm()
    bench.gate.broken("no memory")
    assert bench.faults == ["the control loop failed: no memory"]
    bench.gate.broken("again", on_the_way_down=True)
    assert robot.stops
    assert bench.gate.at_rest
