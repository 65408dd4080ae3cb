"""Who flies a robot whose policy runs on board: its firmware, except between hand-over and take-back."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from controllers.onboard import OnboardPilot
from hardware.errors import LinkLost, RoboError
from hardware.spec import load_spec

HERE = {"position_world": np.array([0.0, 0.0, 0.5]), "quat_wxyz": np.array([1.0, 0.0, 0.0, 0.0])}
GOAL = {"position_world": np.array([1.0, 2.0, 1.5])}


class Firmware:
    """Answers switches as it is told to."""

    def __init__(self, answer: Callable[[bool], None] = lambda policy: None) -> None:
        self.asked: list[bool] = []
        self.answer = answer

    def __call__(self, policy: bool) -> None:
        self.asked.append(policy)
        self.answer(policy)


def pilot(firmware: Firmware) -> OnboardPilot:
    return OnboardPilot(load_spec("crazyflie"), firmware)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def decided(law: OnboardPilot) -> list[float]:
    return law.decide(HERE, GOAL).command.tolist()


def test_the_robot_holds_its_place_until_the_policy_flies_and_then_gets_the_goal() -> None:
    let_go = threading.Event()
    firmware = Firmware(lambda policy: None if not policy else (let_go.wait(10.0), None)[1])
    law = pilot(firmware)
    law.start()
    assert firmware.asked == [False]  # before arming: a firmware with such a controller starts with it
    law.start(HERE)
    until(lambda: firmware.asked == [False, True])
    assert decided(law) == [0.0, 0.0, 0.5, 0.0]
    let_go.set()
    until(lambda: decided(law) == [1.0, 2.0, 1.5, 0.0])
    for _ in range(3):
        law.stop()
    until(lambda: firmware.asked == [False, True, False])
    law.stop()
    time.sleep(0.02)
    assert firmware.asked == [False, True, False]


def test_the_heading_stays() -> None:
    turned = HERE | {"quat_wxyz": np.array([np.cos(0.4), 0.0, 0.0, np.sin(0.4)])}
    law = pilot(Firmware())
    law.start(turned)
    until(lambda: law.decide(turned, GOAL).command[0] == 1.0)
    assert law.decide(turned, GOAL).command[3] == pytest.approx(0.8)


def test_a_robot_that_does_not_obey_is_given_back_to_its_firmware() -> None:
    def refuse(policy: bool) -> None:
        if policy:
            raise RoboError("refuses parameter 'stabilizer.controller'")

    firmware = Firmware(refuse)
    law = pilot(firmware)
    law.start(HERE)
    until(lambda: firmware.asked == [True, False])  # the answer alone may have been lost
    with pytest.raises(RoboError, match="refuses parameter"):
        law.decide(HERE, GOAL)


def test_a_robot_that_does_not_answer_is_asked_again_with_every_stop() -> None:
    deaf = True

    def answer(policy: bool) -> None:
        if not policy and deaf:
            raise LinkLost("no answer")

    firmware = Firmware(answer)
    law = pilot(firmware)
    law.start(HERE)
    until(lambda: decided(law)[0] == 1.0)
    law.stop()
    until(lambda: firmware.asked == [True, False])
    time.sleep(0.02)
    law.stop()
    until(lambda: firmware.asked == [True, False, False])
    time.sleep(0.02)
    deaf = False
    law.stop()
    until(lambda: firmware.asked == [True, False, False, False])
    time.sleep(0.02)
    law.stop()
    time.sleep(0.02)
    assert len(firmware.asked) == 4


def test_a_robot_that_refuses_on_the_ground_is_not_armed() -> None:
    def refuse(_: bool) -> None:
        raise LinkLost("no answer")

    with pytest.raises(LinkLost):
        pilot(Firmware(refuse)).start()
