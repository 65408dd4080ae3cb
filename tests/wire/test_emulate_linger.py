"""An emulator that is told to stop while a drone flies: it outlasts the landing, and no longer."""

import json
import signal
import subprocess
import sys
import time

import numpy as np

from hardware.robot import Command
from hardware.robots import connect

PATIENCE_S = 60.0


def emulator(linger: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "robo_rl", "emulate", "crazyflie", "--port", "0", "--linger", linger],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    ready = next(line for line in process.stdout if line.startswith("READY"))
    return process, json.loads(ready.removeprefix("READY"))["addresses"][0]


def test_lingers_while_a_drone_flies_and_leaves_once_it_is_down() -> None:
    process, address = emulator("60")
    robot = connect("crazyflie", address)
    robot.open()
    try:
        robot.arm()
        robot.write(Command("takeoff", np.array([0.4, 1.0])))
        end = time.monotonic() + PATIENCE_S
        while robot.read().signals["position_world"][2] < 0.3 and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        robot.write(Command("land", np.array([0.0, 1.0])))
        while robot.read().signals["position_world"][2] > 0.05 and time.monotonic() < end:
            time.sleep(0.05)
        robot.stop()
        assert process.wait(PATIENCE_S) == 0
    finally:
        robot.close()
        process.kill()
        process.communicate()


def test_leaves_at_once_where_nothing_flies() -> None:
    process, _ = emulator("1000")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 0
    process.communicate()
