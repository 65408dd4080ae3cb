"""N copies of a task stepped as one batch: the guard, the interpreter's memory, autoreset and exact resume.

A task owns the world's physics; this class owns what is the same for every task. Batches lie on the last axis of a
task's tensors (planes), on the first axis of everything that leaves the environment (rows).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from controllers.interface import Interface, Memory
from hardware.errors import BadInput
from hardware.guard import limit_command
from sim.engine import Engine, prepared
from sim.spec import SceneSpec, Step
from sim.starts import Starts


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

    def __init__(self, task: Task, *, seed: int = 0, engine: Engine = "eager", differentiable: bool = False) -> None:
        self.task, self.spec = task, task.spec
        self.num_envs, self.device = task.num_envs, task.device
        self.interface = task.interface
        """Action and observation layout; an environment and an exporter share it."""
        self.differentiable = differentiable
        """Whether steps are recorded for gradients (where torch records at all): observations, rewards and states then
        depend on earlier actions until `detach` cuts them off. The task's functions must replace its planes."""
        self.episode_steps = round(task.spec.episode_s * task.spec.rate_hz)
        self._dt_s = 1.0 / task.spec.rate_hz
        self._generator = torch.Generator(device=self.device)
        like = torch.zeros(1, device=self.device)
        self._limits = task.interface.mode.limits.on(like)
        self._scale = torch.tensor([f.scale for f in task.interface.action], device=self.device)
        self._offset = torch.tensor([f.offset for f in task.interface.action], device=self.device)
        self._start = task.interface.start((self.num_envs,), like)
        if (first := getattr(task, "start_command", None)) is not None:
            self._start = self._start._replace(command=first.expand_as(self._start.command).clone())
        self._memory = self._start
        self.boundary: Callable[..., tuple[Tensor, ...]] | None = None
        """What tensors (N, K) that carry gradients pass through after every step, for instance to bound adjoints."""
        self.starts: Starts | None = None
        """What may begin episodes elsewhere than the task does."""
        self._groups = [*task.interface.group_sizes, "critic"]
        # Numbers of rows change with every end of an episode, and torch.compile would start anew for each.
        recorded = "traced" if engine == "compiled" else engine
        self._watch_some = prepared(self._watch_flat, recorded)
        self._watch_all = prepared(self._watch_flat, engine) if engine == "compiled" else self._watch_some
        self._guard = prepared(self._guard_flat, recorded)
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
        """Spreads the first time-outs evenly over an episode, so that environments do not end in step.

        A task whose state belongs to a time of the episode has a method `stagger(age, generator)` that moves it there.
        """
        self.age = torch.randint(0, self.episode_steps, (self.num_envs,), generator=self._generator, device=self.device)
        if move := getattr(self.task, "stagger", None):
            move(self.age, self._generator)

    def detach(self) -> None:
        """Cuts all gradients off the past: what comes depends on the present state as on a constant."""
        self.task.state |= {name: plane.detach() for name, plane in self.task.state.items()}
        m = self._memory
        past = {name: value.detach() for name, value in m.past.items()}
        self._memory = Memory(m.command.detach(), past, m.fresh)

    def _pass(self, change: Callable[..., tuple[Tensor, ...]]) -> None:
        """Replaces the evolving tensors that carry gradients, as rows (N, K), by what a function makes of them."""
        n, state, m = self.num_envs, self.task.state, self._memory
        kept = {"": m.command, **m.past}
        names, moving = ([k for k, v in d.items() if v.requires_grad] for d in (state, kept))
        rows = [state[k].movedim(-1, 0).reshape(n, -1) for k in names] + [kept[k].reshape(n, -1) for k in moving]
        changed = change(*rows) if rows else ()
        for k, v in zip(names, changed[: len(names)], strict=True):
            state[k] = v.reshape(n, *state[k].shape[:-1]).movedim(0, -1)
        for k, v in zip(moving, changed[len(names) :], strict=True):
            kept[k] = v.reshape(kept[k].shape)
        self._memory = Memory(kept.pop(""), kept, m.fresh)

    def step(self, action: Tensor) -> Step:
        """Applies actions (N, A) in -1..1; episodes that end start anew in the same step."""
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            return self._step(action)

    def _step(self, action: Tensor) -> Step:
        if action.shape != (self.num_envs, self.interface.action_size):
            raise BadInput(
                f"action has shape {tuple(action.shape)}; expected ({self.num_envs}, {self.interface.action_size})"
            )
        return self.renew(*self.move(action))

    def move(self, action: Tensor) -> tuple[Verdict, dict[str, Tensor]]:
        """The part of a step that never branches, so that torch.compile can fuse it with the policy that acts in it.

        Returns the verdict and the observation groups before any restart; `renew` must follow.
        """
        verdict = self._move(action)
        return verdict, self._observe(self.task.view(None))

    def renew(self, verdict: Verdict, final: dict[str, Tensor]) -> Step:
        """Ends a step that `move` began: what is over starts anew, and is observed again."""
        truncated, ids = self._over(verdict)
        alive = getattr(self.task, "alive", None)
        alive = None if alive is None else alive.clone()
        obs = final
        if self.starts is not None:
            self.starts.after(self, verdict.terminated)
        if len(ids) > 0:
            self.task.restart(ids, self._generator)
            self.age = self.age.index_fill(0, ids, 0)
            put = lambda old, new: old.index_copy(0, ids, new)  # noqa: E731
            if self.starts is not None:
                self._memory = _merged(self._memory, _some(self._start, ids), put)
                self.starts.begin(self, ids, self._generator)
            now = self._memory
            self._memory = _some(self._start if self.starts is None else now, ids)
            seen = self._observe(self.task.view(ids))
            self._memory = _merged(now, self._memory, put)
            obs = {name: put(value, seen[name]) for name, value in final.items()}
        return Step(obs, verdict.reward, verdict.cost, verdict.terminated, truncated, final, verdict.metrics, alive)

    def _move(self, action: Tensor) -> Verdict:
        """Guard, dynamics and judgement under actions (N, A)."""
        sent, now, before = self._guard(action, self._memory.command)
        self._memory = self.interface.remember(self._memory, sent)
        self.task.advance(sent, self._generator)
        if self.boundary is not None and torch.is_grad_enabled():
            self._pass(self.boundary)
        self.age = self.age + 1
        return self.task.judge(now, before, self.age)

    def _guard_flat(self, action: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The command that the guard lets through, and it and the last one as actions: a pure function of tensors."""
        sent = limit_command(self.interface.command(action), last, self._limits, self._dt_s)
        return sent, (sent - self._offset) / self._scale, (last - self._offset) / self._scale

    def _over(self, verdict: Verdict) -> tuple[Tensor, Tensor]:
        """(N,) bool: ended by time; and the rows that have ended.

        A task whose episodes belong to groups of rows has the property `clock`, (N,) steps since each group began: it
        ends all rows of the group, whenever their own flights began.
        """
        clock = getattr(self.task, "clock", self.age)
        truncated = (clock >= self.episode_steps) & ~verdict.terminated
        return truncated, (verdict.terminated | truncated).nonzero()[:, 0]

    def _observe(self, view: Mapping[str, Tensor]) -> dict[str, Tensor]:
        m = self._memory
        watch = self._watch_all if len(m.command) == self.num_envs else self._watch_some
        *groups, fresh = watch(*view.values(), *m.past.values(), m.command, m.fresh)
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

    def get_state(self) -> dict[str, Tensor]:
        """Everything that evolves, (N, ...) rows by name; `generator` (its bytes) and `shared.*` belong to no row."""
        state = {f"task.{k}": v.movedim(-1, 0).clone() for k, v in self.task.state.items()}
        state |= {f"shared.{k}": v.clone() for k, v in self.task.shared.items()}
        state |= {f"past.{k}": v.clone() for k, v in self._memory.past.items()}
        state |= {"command": self._memory.command.clone(), "fresh": self._memory.fresh.clone()}
        if self.starts is not None:
            state |= {f"shared.starts.{k}": v.clone() for k, v in self.starts.state().items()}
        return state | {"age": self.age.clone(), "generator": self._generator.get_state()}

    def set_state(self, ids: Tensor | None, state: Mapping[str, Tensor]) -> None:
        """Puts rows `ids` into a state from get_state; None means all rows, generator and shared too: exact resume.

        The state holds as many rows as `ids`, and need not hold what belongs to no row. Raises BadInput where it does
        not belong to this environment.
        """
        expected = {f"task.{k}" for k in self.task.state} | {f"past.{k}" for k in self._memory.past}
        expected |= {"command", "fresh", "age"}
        if ids is None:
            expected |= {"generator", *(f"shared.{k}" for k in self.task.shared)}
        given = {k for k in state if not k.startswith("shared.starts.")}
        if ids is not None:
            given = {k for k in given if k != "generator" and not k.startswith("shared.")}
        if given != expected:
            raise BadInput(f"environment state has {sorted(given ^ expected)} too much or too little")
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
            if self.starts is not None:
                own = "shared.starts."
                self.starts.load({k[len(own) :]: v for k, v in state.items() if k.startswith(own)})


def _some(memory: Memory, ids: Tensor) -> Memory:
    """The memory of rows `ids`."""
    return Memory(memory.command[ids], {k: v[ids] for k, v in memory.past.items()}, memory.fresh[ids])


def _merged(memory: Memory, part: Memory, put: Callable[[Tensor, Tensor], Tensor]) -> Memory:
    """The memory with some rows replaced; put(old, new) replaces them."""
    past = {k: put(v, part.past[k]) for k, v in memory.past.items()}
    return Memory(put(memory.command, part.command), past, put(memory.fresh, part.fresh))
