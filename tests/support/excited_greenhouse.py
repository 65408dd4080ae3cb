"""Days in an emulated greenhouse that show its parameters: every actuator moves by itself, at random times."""

from pathlib import Path

import numpy as np
from support.stepped_plc import make_driver

from hardware.clock import SteppedClock
from hardware.guard import GuardedRobot
from hardware.log.writer import LogWriter
from hardware.messages import RosbagsMessages, absolute, command_message, primary_topic, state_messages
from hardware.robot import Command
from hardware.robots.greenhouse_plc.emulator import Compartments
from hardware.robots.greenhouse_plc.plant import GreenhousePlant, Parameters

LARGEST = np.array([1.2, 7.5, 150.0])
READ_S, COMMAND_S = 60.0, 1800.0
NAMESPACE = "greenhouse_plc"


def random_house(rng: np.random.Generator) -> dict[str, float]:
    """Parameters of one house, by their names in ranges.toml, drawn from the scene's structural ranges."""
    return {
        "leak": float(10.0 ** rng.uniform(np.log10(7.5e-6), np.log10(1.4e-4))),
        "heat_transfer": 6.1 * rng.uniform(0.7, 1.3),
        "solar_gain": 0.2 * rng.uniform(0.8, 2.5),
        "heat_capacity": 3.0e4 * rng.uniform(0.75, 1.9),
        "transpiration": 3.6e-3 * rng.uniform(0.6, 1.4),
        "gain_ventilation": rng.uniform(0.7, 1.3),
    }


def plant_of(truth: dict[str, float], seed: int) -> GreenhousePlant:
    """The emulator's own world with these parameters."""
    parameters = Parameters(
        leak=truth["leak"],
        heat_transfer=truth["heat_transfer"],
        solar_gain=truth["solar_gain"],
        heat_capacity=truth["heat_capacity"],
        transpiration=truth["transpiration"],
        ventilation_gain=truth["gain_ventilation"],
    )
    return GreenhousePlant(1, parameters, seed=seed)


def record_days(directory: Path, truth: dict[str, float], *, days: float, seed: int = 0) -> Path:
    """Runs the PLC in direct mode for some days, and returns the recording."""
    rng, clock, make = np.random.default_rng(seed), SteppedClock(1_700_000_000_000_000_000), RosbagsMessages()
    house = Compartments(plant_of(truth, seed), seed=seed)
    driver, _ = make_driver(house, clock)
    robot = GuardedRobot(driver, clock)
    spec = driver.spec
    share, until = np.array([0.2, 0.1, 0.4]), np.zeros(3)
    with LogWriter(directory) as writer:
        robot.open()
        for _ in range(12):
            clock.advance_s(10.0)
            robot.read()
        robot.arm()
        for step in range(round(days * 86400.0 / COMMAND_S)):
            for j in range(3):
                if step >= until[j]:
                    share[j] = rng.uniform(0.0, 1.0) * rng.choice([0.0, 1.0], p=[0.3, 0.7])
                    until[j] = step + rng.integers(6, 20)
            wanted = share * np.array([0.2, 0.35, 0.9]) * LARGEST
            robot.write(Command("direct", wanted))
            assert robot.sent is not None
            topic, message = command_message(spec, robot.sent, make)
            writer.write_message(absolute(NAMESPACE, topic), message, clock.now_ns())
            for _ in range(round(COMMAND_S / READ_S)):
                state = robot.read()
                messages = state_messages(spec, state, make)
                last = primary_topic(spec)  # which completes a state
                for name, message in sorted(messages.items(), key=lambda m: m[0] == last):
                    writer.write_message(absolute(NAMESPACE, name), message, clock.now_ns())
                for _ in range(round(READ_S / 10.0)):  # the heartbeat
                    clock.advance_s(10.0)
                    robot.read()
        robot.stop()
    return directory
