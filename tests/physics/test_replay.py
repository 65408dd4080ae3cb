"""Recordings through the simulator: which command counts for which period, and what drives a world beside it."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from hardware.replay import Recorded
from hardware.robot import Command, RobotState
from sim.replay import Track, diverge, resample

PERIOD_NS = 1_800 * 10**9


def test_a_command_counts_for_its_whole_period_however_it_jitters() -> None:
    late_ns = np.random.default_rng(3).integers(-(10**9), 10**9, 20)
    late_ns[0] = -(10**9)  # all that follow are later than the grid, which begins with the first
    commands = [
        Recorded(i * PERIOD_NS + int(late), Command("direct", np.array([float(i)]))) for i, late in enumerate(late_ns)
    ]
    states = [
        Recorded(t, RobotState(t, {"air_temperature": np.array(0.0)}, frozenset()))
        for t in range(-PERIOD_NS, 20 * PERIOD_NS, 60 * 10**9)
    ]
    track = resample(states, commands, "direct", 1.0 / 1800.0)
    assert track.commands[:, 0].tolist() == list(range(20))


class Kettle:
    """Warms by its command and by the weather, once each per period."""

    inputs: tuple[str, ...] = ("outdoor",)

    def place(self, signals: Mapping[str, Tensor], commands: Tensor) -> None:
        self._level = signals["level"]

    def advance(self, command: Tensor, given: Mapping[str, Tensor]) -> None:
        assert set(given) == {"outdoor"}
        self._level = self._level + command + given["outdoor"]

    def signals(self) -> Mapping[str, Tensor]:
        return {"level": self._level}


def test_worlds_run_under_the_weather_that_was_logged() -> None:
    rng = np.random.default_rng(5)
    outdoor, commands = rng.normal(size=(60, 1)), rng.normal(size=(60, 1))
    gains = commands[:-1] + 0.5 * (outdoor[:-1] + outdoor[1:])
    level = np.concatenate([np.zeros((1, 1)), np.cumsum(gains, axis=0)])
    found = diverge(lambda num: Kettle(), Track(1800.0, {"level": level, "outdoor": outdoor}, commands))
    assert found.aligned_steps == 0
    assert max(found.rmse["level"].values()) < 1e-5
    assert found.free_run["level"] < 1e-5
