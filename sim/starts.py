"""Where episodes begin other than where the task would have them begin: in states that were met before.

A `Starts` may replace the state of environments that have just been restarted, before they are observed. An environment
is the unit: where several robots share one, its A rows (row = a E + e) are saved and put back together.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from hardware.errors import BadInput

State = Mapping[str, Tensor]
"""Rows of `BatchEnv.get_state`: name -> (rows, ...)."""


class Starts(Protocol):
    """What an environment asks before and after its steps."""

    def begin(self, env: Any, ids: Tensor, generator: torch.Generator) -> None:
        """May put environments whose rows are all among `ids`, and have just been restarted, into another state."""
        ...

    def after(self, env: Any, terminated: Tensor) -> None:
        """Called after every step, before restarts; `terminated` (N,) bool."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that evolves."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Puts a saved state back."""
        ...


class SnapshotStarts:
    """Starts from stored states, for instance those along a teacher's flights, with a given probability."""

    def __init__(self, snapshots: State, agents: int, share: float) -> None:
        """`snapshots` hold M environments of `agents` rows each, agent-major like the environment's own rows."""
        rows = len(snapshots["age"])
        if not 0.0 < share <= 1.0:
            raise BadInput(f"share of snapshot starts {share}; expected above 0 and at most 1")
        if rows == 0 or rows % agents:
            raise BadInput(f"{rows} rows of snapshots do not make environments of {agents}; expected a multiple")
        self._snapshots, self._agents, self._share = snapshots, agents, share
        self._count = rows // agents

    def begin(self, env: Any, ids: Tensor, generator: torch.Generator) -> None:
        """See Starts."""
        rooms = whole(ids, env.num_envs, self._agents)
        chosen = rooms[torch.rand(len(rooms), generator=generator, device=rooms.device) < self._share]
        if len(chosen) == 0:
            return
        pick = torch.randint(self._count, (len(chosen),), generator=generator, device=rooms.device)
        rows = members(pick, self._count, self._agents)
        env.set_state(members(chosen, env.num_envs // self._agents, self._agents), _rows(self._snapshots, rows))

    def after(self, env: Any, terminated: Tensor) -> None:
        """See Starts."""

    def state(self) -> dict[str, Tensor]:
        """See Starts."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See Starts."""


class CollisionReplay:
    """Starts from 1.5 s before earlier failures (Huang et al. 2024, arXiv 2309.13285, section III-D).

    Every 0.5 s the states of all environments are saved, and those of the last two seconds kept. Where a row terminates
    more than 1.5 s into an episode, and no state of that environment was taken in the 5 s before, the state of 1.5 to
    2 s earlier enters a buffer of 20. An environment that begins anew takes a state of the buffer with the given
    probability; after 10 uses a state is dropped.
    """

    GRID_S, REWIND_S, BETWEEN_S, SIZE, USES = 0.5, 1.5, 5.0, 20, 10

    def __init__(self, agents: int, rate_hz: float, share: float) -> None:
        self._agents, self._share = agents, share
        self._every = round(self.GRID_S * rate_hz)
        self._slots = round(self.REWIND_S / self.GRID_S) + 1
        self._between = round(self.BETWEEN_S * rate_hz)
        self._ring: list[dict[str, Tensor]] = []
        self._kept: list[dict[str, Tensor]] = []
        self._uses: list[int] = []
        self._step = 0
        self._last: Tensor | None = None
        """(E,) step at which a state of each environment was taken last."""

    def begin(self, env: Any, ids: Tensor, generator: torch.Generator) -> None:
        """See Starts."""
        for room in whole(ids, env.num_envs, self._agents).tolist():
            draw, pick = torch.rand(2, generator=generator, device=env.device).tolist()
            if not self._kept or draw >= self._share:
                continue
            i = int(pick * len(self._kept))
            one = torch.tensor([room], device=env.device)
            env.set_state(members(one, env.num_envs // self._agents, self._agents), self._kept[i])
            self._uses[i] += 1
            if self._uses[i] >= self.USES:
                del self._kept[i], self._uses[i]

    def after(self, env: Any, terminated: Tensor) -> None:
        """See Starts."""
        rooms = env.num_envs // self._agents
        if self._last is None:
            self._last = torch.full((rooms,), -self._between, device=env.device)
        self._step += 1
        if len(self._ring) == self._slots:
            failed = terminated.view(self._agents, rooms).any(0) & (self._step - self._last >= self._between)
            for room in failed.nonzero()[:, 0].tolist():
                self._take(env, room, rooms)
        if self._step % self._every == 0:
            rows = {k: v for k, v in env.get_state().items() if k != "generator" and not k.startswith("shared.")}
            self._ring = [*self._ring[1 - self._slots :], rows]

    def state(self) -> dict[str, Tensor]:
        """See Starts."""
        saved = {f"ring.{i}.{k}": v for i, rows in enumerate(self._ring) for k, v in rows.items()}
        saved |= {f"kept.{i}.{k}": v for i, rows in enumerate(self._kept) for k, v in rows.items()}
        last = torch.zeros(0) if self._last is None else self._last
        return saved | {"uses": torch.tensor(self._uses), "step": torch.tensor(self._step), "last": last}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See Starts."""

        def part(name: str) -> list[dict[str, Tensor]]:
            found: dict[int, dict[str, Tensor]] = {}
            for key, value in state.items():
                if key.startswith(name):
                    number, _, rest = key[len(name) :].partition(".")
                    found.setdefault(int(number), {})[rest] = value.clone()
            return [found[i] for i in sorted(found)]

        self._ring, self._kept = part("ring."), part("kept.")
        self._uses, self._step = [int(n) for n in state["uses"]], int(state["step"])
        self._last = state["last"].clone() if len(state["last"]) else None

    def _take(self, env: Any, room: int, rooms: int) -> None:
        """Keeps the state of one environment at the oldest point of the ring, if that is of the same episode."""
        rows = members(torch.tensor([room], device=env.device), rooms, self._agents)
        clock = getattr(env.task, "clock", env.age)[room]
        name = "task.clock" if "task.clock" in self._ring[0] else "age"
        passed = (self._slots - 1) * self._every + self._step % self._every
        if int(clock) - int(self._ring[0][name][room]) != passed:
            return
        self._kept.append(_rows(self._ring[0], rows))
        self._uses.append(0)
        if len(self._kept) > self.SIZE:
            del self._kept[0], self._uses[0]
        if self._last is not None:
            self._last[room] = self._step


def whole(ids: Tensor, rows: int, agents: int) -> Tensor:
    """Environments all of whose rows are among `ids`."""
    rooms = rows // agents
    return (torch.bincount(ids % rooms, minlength=rooms) == agents).nonzero()[:, 0]


def members(rooms: Tensor, count: int, agents: int) -> Tensor:
    """The rows of some of `count` environments, agent-major."""
    return (rooms + count * torch.arange(agents, device=rooms.device)[:, None]).reshape(-1)


def _rows(state: State, rows: Tensor) -> dict[str, Tensor]:
    return {k: v[rows] for k, v in state.items() if k != "generator" and not k.startswith("shared.")}
