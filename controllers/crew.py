"""One policy at work on several robots: one observation and one run of the graph for all that ask in a tick."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controllers.artifact import PolicyArtifact
from controllers.interface import Memory
from controllers.policy import NOTHING, Decision, Policy, Signals, goal_signals, signals_needed, signals_perceived


class Question(NamedTuple):
    """What one robot's decision is made of."""

    state: Signals
    goal: Signals
    perceived: Signals = NOTHING


class Member(Policy):
    """The policy of one robot of a crew: `Policy` with its memory in the crew's."""

    def __init__(self, crew: "Crew", index: int) -> None:
        self._crew, self._index = crew, index
        super().__init__(crew.artifact)

    @property
    def _memory(self) -> Memory:
        return self._crew.memory_of(self._index)

    @_memory.setter
    def _memory(self, memory: Memory) -> None:
        self._crew.remember(self._index, memory)


class Crew:
    """Decides for N robots; their memories lie in one batch."""

    def __init__(self, artifact: PolicyArtifact, num: int) -> None:
        self.artifact = artifact
        interface = artifact.interface
        self._memory = interface.start((num,), np.zeros(1))
        self._signals = (*sorted(signals_needed(interface)), *signals_perceived(interface))
        self._goals = goal_signals(interface)
        self.members = [Member(self, i) for i in range(num)]

    def decide(self, questions: Mapping[int, Question]) -> dict[int, Decision]:
        """A decision for each robot that asks, by its index; the others' memories stay as they are."""
        if not questions:
            return {}
        rows = np.array(list(questions))
        asked = [{**q.state, **q.perceived} for q in questions.values()]
        state = {name: np.stack([a[name] for a in asked]) for name in self._signals}
        goal = {name: np.stack([q.goal[name] for q in questions.values()]) for name in self._goals}
        groups, memory = self.artifact.interface.observe(state, goal, self.memory_of(rows))
        self.remember(rows, memory)
        batch = {g: groups[g].astype(np.float32) for g in self.members[0].groups}
        commands = self.artifact.run(batch).astype(np.float64)
        return {
            i: Decision({g: v[k].astype(np.float64) for g, v in batch.items()}, commands[k], q.perceived)
            for k, (i, q) in enumerate(questions.items())
        }

    def memory_of(self, rows: int | NDArray[np.intp]) -> Memory:
        """The memory of one robot, or of several (R, ...)."""
        m = self._memory
        return Memory(m.command[rows], {name: v[rows] for name, v in m.past.items()}, m.fresh[rows])

    def remember(self, rows: int | NDArray[np.intp], memory: Memory) -> None:
        """Takes a memory over, for one robot or several."""
        self._memory.command[rows] = memory.command
        self._memory.fresh[rows] = memory.fresh
        for name, values in memory.past.items():
            self._memory.past[name][rows] = values
