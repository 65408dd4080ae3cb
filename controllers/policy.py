"""A policy at work on one robot: observation from the newest state, command from the graph, memory of what was sent."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controllers.artifact import PolicyArtifact
from controllers.interface import Interface
from controllers.standing import standing


class Decision(NamedTuple):
    """What the policy saw and what it wants."""

    observation: Mapping[str, NDArray[np.float64]]
    """Group -> (D,) as the graph took it: values of float32."""
    command: NDArray[np.float64]
    """(J,) in the mode's units, before the guard; not finite where the network is broken."""


class Policy:
    """A loaded policy with its memory; `start` begins a flight, `sent` closes each tick."""

    def __init__(self, artifact: PolicyArtifact) -> None:
        self.artifact = artifact
        self.interface: Interface = artifact.interface
        self.groups = [g for g in self.interface.group_sizes if g in artifact.graph.input_sizes]
        self._like = np.zeros(1)
        self.start()
        artifact.run({g: np.zeros((1, n), dtype=np.float32) for g, n in artifact.graph.input_sizes.items()})  # warm-up

    def start(self, state: Mapping[str, NDArray[np.float64]] | None = None) -> None:
        """Forgets the past: the next observation fills the history with itself.

        On a robot that measures where its actuators stand, that counts as the last command.
        """
        self._memory = self.interface.start((), self._like)
        now = None if state is None else standing(self.interface.robot, self.interface.mode.name, state)
        if now is not None:
            self.sent(now)

    def decide(self, state: Mapping[str, NDArray[np.float64]], goal: Mapping[str, NDArray[np.float64]]) -> Decision:
        """The command for a state and a goal (signal name -> value)."""
        groups, self._memory = self.interface.observe(state, goal, self._memory)
        batch = {g: groups[g].astype(np.float32)[None] for g in self.groups}
        command = self.artifact.run(batch)[0].astype(np.float64)
        return Decision({g: batch[g][0].astype(np.float64) for g in self.groups}, command)

    def sent(self, values: NDArray[np.float64]) -> None:
        """Remembers the command (J,) that really left the guard."""
        self._memory = self.interface.remember(self._memory, values)


def signals_needed(interface: Interface) -> frozenset[str]:
    """Signals of the robot's state that the observation is made of."""
    needed = set()
    for f in interface.observation:
        kind, _, signal = f.source.rpartition(":")
        if f.source == "gravity" or f.frame in ("body", "yaw"):
            needed.add("quat_wxyz")
        if kind != "goal" and f.source not in ("gravity", "command"):
            needed.add(signal)
    return frozenset(needed)


def goal_signals(interface: Interface) -> tuple[str, ...]:
    """Signals for which the policy must be given a goal, in the order of the card."""
    names = [f.source.rpartition(":")[2] for f in interface.observation if f.source.startswith(("goal:", "error:"))]
    return tuple(dict.fromkeys(names))
