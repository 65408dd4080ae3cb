"""A policy at work on one robot: observation from the newest state, command from the graph, memory of what was sent."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from controllers.artifact import PolicyArtifact
from controllers.interface import Interface
from controllers.standing import standing
from controllers.surroundings import PERCEIVED

Signals = Mapping[str, NDArray[np.float64]]
NOTHING: Signals = MappingProxyType({})


class Decision(NamedTuple):
    """What the policy saw and what it wants."""

    observation: Signals
    """Group -> (D,) as the graph took it: values of float32."""
    command: NDArray[np.float64]
    """(J,) in the mode's units, before the guard; not finite where the network is broken."""
    perceived: Signals = NOTHING
    """Signals of the surroundings that the observation was made of."""


class Law(Protocol):
    """What a control loop asks for commands."""

    @property
    def mode(self) -> str:
        """Command mode of its decisions."""
        ...

    @property
    def rate_hz(self) -> float:
        """Decisions per second."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """Signals of the robot's own state that it needs."""
        ...

    @property
    def goals(self) -> tuple[str, ...]:
        """Signals for which it must be given a goal."""
        ...

    def start(self, state: Signals | None = None) -> None:
        """Begins: forgets the past, at a state where one is given."""
        ...

    def decide(self, state: Signals, goal: Signals, perceived: Signals = NOTHING) -> Decision:
        """The command for a state, a goal and what is perceived of the surroundings (signal name -> value)."""
        ...

    def sent(self, values: NDArray[np.float64]) -> None:
        """What (J,) really left the guard."""
        ...

    def stop(self) -> None:
        """It is asked no more: another law takes over, or the robot goes to its safe state. May come repeatedly."""
        ...


class Policy:
    """A loaded policy with its memory; `start` begins a flight, `sent` closes each tick."""

    def __init__(self, artifact: PolicyArtifact) -> None:
        self.artifact = artifact
        self.interface: Interface = artifact.interface
        self.groups = [g for g in self.interface.group_sizes if g in artifact.graph.input_sizes]
        self.mode, self.rate_hz = artifact.card.mode, artifact.card.rate_hz
        self.needs, self.goals = signals_needed(self.interface), goal_signals(self.interface)
        self._like = np.zeros(1)
        self.start()
        artifact.run({g: np.zeros((1, n), dtype=np.float32) for g, n in artifact.graph.input_sizes.items()})  # warm-up

    def start(self, state: Signals | None = None) -> None:
        """Forgets the past: the next observation fills the history with itself.

        On a robot that measures where its actuators stand, that counts as the last command.
        """
        self._memory = self.interface.start((), self._like)
        now = None if state is None else standing(self.interface.robot, self.interface.mode.name, state)
        if now is not None:
            self.sent(now)

    def decide(self, state: Signals, goal: Signals, perceived: Signals = NOTHING) -> Decision:
        """The command for a state, a goal and what is perceived of the surroundings (signal name -> value)."""
        groups, self._memory = self.interface.observe({**state, **perceived}, goal, self._memory)
        batch = {g: groups[g].astype(np.float32)[None] for g in self.groups}
        command = self.artifact.run(batch)[0].astype(np.float64)
        return Decision({g: batch[g][0].astype(np.float64) for g in self.groups}, command, perceived)

    def sent(self, values: NDArray[np.float64]) -> None:
        """Remembers the command (J,) that really left the guard."""
        self._memory = self.interface.remember(self._memory, values)

    def stop(self) -> None:
        """Nothing to give back."""


def signals_needed(interface: Interface) -> frozenset[str]:
    """Signals of the robot's own state that the observation is made of."""
    needed = set()
    for f in interface.observation:
        kind, _, signal = f.source.rpartition(":")
        if f.source in PERCEIVED:
            needed |= {"position_world", "velocity_world", "quat_wxyz"}
        elif kind != "goal" and f.source not in ("gravity", "rotation", "command"):
            needed.add(signal)
        if f.source in ("gravity", "rotation") or f.frame in ("body", "yaw"):
            needed.add("quat_wxyz")
    return frozenset(needed)


def signals_perceived(interface: Interface) -> tuple[str, ...]:
    """Signals of the surroundings that the observation is made of, in the order of the card."""
    return tuple(dict.fromkeys(f.source for f in interface.observation if f.source in PERCEIVED))


def goal_signals(interface: Interface) -> tuple[str, ...]:
    """Signals for which the policy must be given a goal, in the order of the card."""
    names = [f.source.rpartition(":")[2] for f in interface.observation if f.source.startswith(("goal:", "error:"))]
    return tuple(dict.fromkeys(names))
