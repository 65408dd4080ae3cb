"""N copies of a task stepped as one batch: the guard, the interpreter's memory, autoreset and exact resume.

A task owns the world's physics; this class owns what is the same for every task. Batches lie on the last axis of a
task's tensors (planes), on the first axis of everything that leaves the environment (rows).
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from controllers.interface import Interface, Memory
from hardware.errors import BadInput
from hardware.guard import limit_command
from sim.engine import Engine, prepared
from sim.spec import SceneSpec, Step


class Verdict(NamedTuple):
    """How one control step went, per environment."""

    reward: Tensor
    cost: Tensor
    terminated: Tensor
    metrics: dict[str, Tensor]


class Task(Protocol):
    """One task in N worlds; `measured`, `goal` and `privileged` are pure functions of a view."""

    spec: SceneSpec
    interface: Interface
    num_envs: int
    device: torch.device
    state: dict[str, Tensor]
    """Everything that evolves or was drawn, batch on the last axis."""
    shared: dict[str, Tensor]
    """Evolving tensors that belong to no single environment."""

    def restart(self, ids: Tensor | None, generator: torch.Generator) -> None:
        """New worlds and new starts for rows `ids` (None: all)."""
        ...

    def advance(self, command: Tensor, generator: torch.Generator) -> None:
        """One control period under commands (N, J) that the guard has passed; draws the new sensor noise."""
        ...

    def judge(self, action: Tensor, last_action: Tensor, age: Tensor) -> Verdict:
        """Reward, cost, termination and metrics; `action` (N, A) is what was sent, `age` (N,) steps since the start."""
        ...

    def view(self, ids: Tensor | None) -> dict[str, Tensor]:
        """The planes that signals are made of, for rows `ids`: copies, unless `ids` is None."""
        ...

    def measured(self, view: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Signals as the robot reports them, name -> (n, k)."""
        ...

    def goal(self, view: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Goal signals, name -> (n, k)."""
        ...

    def privileged(self, view: Mapping[str, Tensor]) -> Tensor:
        """The critic's observation (n, C): noiseless state and true parameters."""
        ...


class BatchEnv:
    """A VecEnv over a Task."""

    def __init__(self, task: Task, *, seed: int = 0, engine: Engine = "eager") -> None:
        self.task, self.spec = task, task.spec
        self.num_envs, self.device = task.num_envs, task.device
        self.interface = task.interface
        """Action and observation layout; an environment and an exporter share it."""
        self.episode_steps = round(task.spec.episode_s * task.spec.rate_hz)
        self._dt_s = 1.0 / task.spec.rate_hz
        self._generator = torch.Generator(device=self.device)
        like = torch.zeros(1, device=self.device)
        self._limits = task.interface.mode.limits.on(like)
        self._scale = torch.tensor([f.scale for f in task.interface.action], device=self.device)
        self._start = task.interface.start((self.num_envs,), like)
        self._memory = self._start
        self._groups = [*task.interface.group_sizes, "critic"]
        # Numbers of rows change with every end of an episode, and torch.compile would start anew for each.
        self._watch = prepared(self._watch_flat, "traced" if engine == "compiled" else engine)
        self.age = torch.zeros(self.num_envs, dtype=torch.long, device=self.device)
        """(N,) steps since each episode began."""
        self.reset(seed)

    def reset(self, seed: int | None = None) -> dict[str, Tensor]:
        """Starts every environment anew and returns the observation groups; a seed restarts the random numbers too."""
        if seed is not None:
            self._generator.manual_seed(seed)
        with torch.no_grad():
            self.task.restart(None, self._generator)
            self._memory = self._start
            self.age = torch.zeros_like(self.age)
            return self._observe(self.task.view(None))

    @property
    def command(self) -> Tensor:
        """(N, J) command last sent behind the guard."""
        return self._memory.command

    def stagger(self) -> None:
        """Spreads the first time-outs evenly over an episode, so that environments do not end in step."""
        self.age = torch.randint(0, self.episode_steps, (self.num_envs,), generator=self._generator, device=self.device)

    @torch.no_grad()
    def step(self, action: Tensor) -> Step:
        """Applies actions (N, A) in -1..1; episodes that end start anew in the same step."""
        if action.shape != (self.num_envs, self.interface.action_size):
            raise BadInput(
                f"action has shape {tuple(action.shape)}; expected ({self.num_envs}, {self.interface.action_size})"
            )
        last = self._memory.command
        sent = limit_command(self.interface.command(action), last, self._limits, self._dt_s)
        self._memory = self.interface.remember(self._memory, sent)
        self.task.advance(sent, self._generator)
        self.age = self.age + 1
        offset = self._start.command
        verdict = self.task.judge((sent - offset) / self._scale, (last - offset) / self._scale, self.age)
        truncated = (self.age >= self.episode_steps) & ~verdict.terminated
        ids = (verdict.terminated | truncated).nonzero()[:, 0]
        if len(ids) == 0:
            obs = final = self._observe(self.task.view(None))
        else:
            obs, final = self._restart_ended(ids)
        return Step(obs, verdict.reward, verdict.cost, verdict.terminated, truncated, final, verdict.metrics)

    def _observe(self, view: Mapping[str, Tensor]) -> dict[str, Tensor]:
        m = self._memory
        *groups, fresh = self._watch(*view.values(), *m.past.values(), m.command, m.fresh)
        past = dict(zip(m.past, groups[len(self._groups) :], strict=True))
        self._memory = Memory(m.command, past, fresh)
        return dict(zip(self._groups, groups, strict=False))

    def _watch_flat(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Observation groups, histories and freshness of a view and a memory: a pure function of tensors."""
        names, kept = list(self.task.view(None)), list(self._start.past)
        view = dict(zip(names, tensors, strict=False))
        past = dict(zip(kept, tensors[len(names) :], strict=False))
        memory = Memory(tensors[-2], past, tensors[-1])
        obs, memory = self.interface.observe(self.task.measured(view), self.task.goal(view), memory)
        obs["critic"] = self.task.privileged(view)
        return (*(obs[g] for g in self._groups), *(memory.past[k] for k in kept), memory.fresh)

    def _restart_ended(self, ids: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Observations after the restart of rows `ids`, and the same with those rows' last ones before it.

        The ended rows are appended to the batch, so that one pass observes both.
        """
        ended = self.task.view(ids)
        old, first = self._memory, self._start
        self.task.restart(ids, self._generator)
        self.age[ids] = 0
        view = {k: torch.cat([v, ended[k]], -1) for k, v in self.task.view(None).items()}

        def extended(now: Tensor, new: Tensor) -> Tensor:
            return torch.cat([now.index_copy(0, ids, new[ids]), now[ids]])

        past = {k: extended(v, first.past[k]) for k, v in old.past.items()}
        self._memory = Memory(extended(old.command, first.command), past, extended(old.fresh, first.fresh))
        both = self._observe(view)
        n, m = self.num_envs, self._memory
        self._memory = Memory(m.command[:n], {k: v[:n] for k, v in m.past.items()}, m.fresh[:n])
        obs = {name: value[:n] for name, value in both.items()}
        return obs, {name: value[:n].index_copy(0, ids, value[n:]) for name, value in both.items()}

    def get_state(self) -> dict[str, Tensor]:
        """Everything that evolves, (N, ...) rows by name; `generator` (its bytes) and `shared.*` belong to no row."""
        state = {f"task.{k}": v.movedim(-1, 0).clone() for k, v in self.task.state.items()}
        state |= {f"shared.{k}": v.clone() for k, v in self.task.shared.items()}
        state |= {f"past.{k}": v.clone() for k, v in self._memory.past.items()}
        state |= {"command": self._memory.command.clone(), "fresh": self._memory.fresh.clone()}
        return state | {"age": self.age.clone(), "generator": self._generator.get_state()}

    def set_state(self, ids: Tensor | None, state: Mapping[str, Tensor]) -> None:
        """Puts rows `ids` into a state from get_state; None means all rows, generator and shared too: exact resume.

        The state holds as many rows as `ids`. Raises BadInput where it does not belong to this environment.
        """
        expected = set(self.get_state())
        if set(state) != expected:
            raise BadInput(f"environment state has {sorted(set(state) ^ expected)} too much or too little")
        rows = torch.arange(self.num_envs, device=self.device) if ids is None else ids
        if len(state["age"]) != len(rows):
            raise BadInput(f"environment state has {len(state['age'])} rows; expected {len(rows)}")
        for k in list(self.task.state):
            planes = self.task.state[k].clone()
            planes[..., rows] = state[f"task.{k}"].movedim(0, -1).to(planes)
            self.task.state[k] = planes
        past = {k: v.index_copy(0, rows, state[f"past.{k}"].to(v)) for k, v in self._memory.past.items()}
        command = self._memory.command.index_copy(0, rows, state["command"].to(self._memory.command))
        self._memory = Memory(command, past, self._memory.fresh.index_copy(0, rows, state["fresh"].to(self.device)))
        self.age = self.age.index_copy(0, rows, state["age"].to(self.age))
        if ids is None:
            self._generator.set_state(state["generator"].cpu())
            self.task.shared |= {k: state[f"shared.{k}"].to(v, copy=True) for k, v in self.task.shared.items()}
