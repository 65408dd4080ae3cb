"""Fly an emulated Crazyflie from Python, without ROS: connect, take off, step to the side, land.

Run: python examples/fly_emulated.py
Driver, guard and the firmware's watchdog are at work here, no supervisor: fly policies and real drones with
`robo-rl deploy`, which adds it.
"""

import time

import numpy as np

from hardware.clock import MonotonicClock
from hardware.guard import GuardedRobot
from hardware.robot import Command
from hardware.robots import connect
from hardware.robots.crazyflie.emulator import make_emulator


def main() -> None:
    emulator = make_emulator(port=0)
    emulator.start()
    robot = connect("crazyflie", emulator.addresses[0])
    robot.open()
    try:
        fly(robot)
    finally:
        robot.close()  # stops first, if it is still armed
        emulator.stop()


def fly(robot: GuardedRobot) -> None:
    """Take off by the robot's own command, stream positions for two seconds, land."""
    clock = MonotonicClock()
    robot.arm()
    robot.write(Command("takeoff", np.array([0.5, 1.5])))
    time.sleep(2.0)
    print(f"height after take-off: {robot.read().signals['position_world'][2]:.2f} m")
    rate_hz = robot.spec.mode("position").rate_hz
    deadline_ns = clock.now_ns()
    for i in range(round(2.0 * rate_hz)):
        side_m = 0.5 * min(i / rate_hz, 1.0)
        robot.write(Command("position", np.array([side_m, 0.0, 0.5, 0.0])))
        deadline_ns += round(1e9 / rate_hz)
        clock.sleep_until_ns(deadline_ns)
    x, y, z = robot.read().signals["position_world"]
    print(f"position after the step: {x:.2f} {y:.2f} {z:.2f} m")
    robot.write(Command("land", np.array([0.0, 1.5])))
    time.sleep(2.5)
    robot.stop()
    height = robot.read().signals["position_world"][2]
    print(f"height after landing: {height:.2f} m; the guard changed {robot.interventions} commands")
    if abs(x - 0.5) > 0.2 or height > 0.1:
        raise SystemExit("that was not the flight it should have been")


if __name__ == "__main__":
    main()
