"""A policy that runs inside the robot: from here it gets its goals, and gives way to the robot's own control.

To a control loop this is a law like others, whose commands are set points of position. The robot's firmware flies
them with its own controller, except between hand-over and take-back, when the policy on board does.
"""

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from controllers.fallback import PositionHold
from controllers.policy import NOTHING, Decision, Signals
from hardware.errors import RoboError
from hardware.spec import RobotSpec

MODE = "position"


class OnboardPilot:
    """`switch(True)` makes the policy on board fly, `switch(False)` the firmware; it waits for the robot's answer.

    In flight it is called in a thread of its own; until it has worked, the robot holds its place.
    """

    def __init__(self, robot: RobotSpec, switch: Callable[[bool], None]) -> None:
        self.mode, self.rate_hz = MODE, robot.mode(MODE).rate_hz
        self.needs = frozenset({"position_world", "quat_wxyz"})
        self.goals = ("position_world",)
        self._switch, self._law = switch, PositionHold(MODE)
        self._wanted = False
        self._flown_by_policy: bool | None = False
        """None: not known."""
        self._failure = ""
        self._here: Signals = NOTHING
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None

    def start(self, state: Signals | None = None) -> None:
        """Before arming, the firmware gets the word; at the hand-over (with a state), the policy on board."""
        if state is None:
            self._switch(False)
            self._wanted = self._flown_by_policy = False
            return
        self._here, self._failure = {"position_world": state["position_world"]}, ""
        self._want(True)

    def decide(self, state: Signals, goal: Signals, perceived: Signals = NOTHING) -> Decision:
        """The goal as a set point; the place of the hand-over until the policy flies. Raises RoboError if it cannot."""
        if self._failure:
            raise RoboError(self._failure)
        return Decision({}, self._law.command(state, goal if self._flown_by_policy else self._here))

    def sent(self, values: NDArray[np.float64]) -> None:
        """Nothing to remember."""

    def stop(self) -> None:
        """The firmware flies again."""
        if self._wanted or self._flown_by_policy is not False:
            self._want(False)

    def _want(self, policy: bool) -> None:
        with self._lock:
            self._wanted = policy
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="onboard-switch", daemon=True)
                self._worker.start()

    def _work(self) -> None:
        """Switches until what is wanted is so; a robot that does not obey is to be flown by its firmware."""
        while True:
            with self._lock:
                wanted = self._wanted
                if wanted is self._flown_by_policy:
                    self._worker = None
                    return
            try:
                self._switch(wanted)
                self._flown_by_policy = wanted
            except RoboError as e:
                self._flown_by_policy = None  # it may have heard, and its answer been lost
                with self._lock:
                    if not wanted:
                        self._worker = None
                        return
                    self._failure, self._wanted = str(e), False
