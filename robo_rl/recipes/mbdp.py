"""Model-based learning with double dropout, from recorded transitions alone: first the models, then the policy."""

import copy
import dataclasses
import math
from collections.abc import Set
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from controllers.interface import Field
from hardware.errors import BadInput
from robo_rl.algorithms.apg import ApgConfig, TanhPolicy, TrackingPolicy
from robo_rl.algorithms.mbdp import (
    NO_REPEATS,
    MbdpConfig,
    Pay,
    Repeats,
    Units,
    Windows,
    frozen,
    imagine,
    make_models,
    nll,
    predicted,
    survivors,
    tail_mean,
)
from robo_rl.algorithms.ppo import annealed
from robo_rl.config import ACTIVATIONS, RunConfig
from robo_rl.datasets import transitions
from robo_rl.distributed import Group
from robo_rl.nets import MLP, FlatParameters
from robo_rl.norm import RunningNorm
from robo_rl.recipes.apg import policy_over
from robo_rl.seeds import child_seed

CONFIG = MbdpConfig()
DATA: Literal["none", "optional", "required"] = "required"


class Repeat(NamedTuple):
    """A column of the observation that is clip(gain * x + bias), for x as in `Repeats.of`."""

    column: int
    of: int
    gain: float
    bias: float
    clip: float


class Layout(NamedTuple):
    """What of an observation is predicted, and what follows from it."""

    columns: list[int]
    repeats: list[Repeat]


class Record:
    """Recorded transitions as tensors: normalised inputs, targets of the models, and where rollouts may start."""

    def __init__(self, data: Any, layout: Layout, config: MbdpConfig, seed: int) -> None:
        as_tensor = lambda values: torch.as_tensor(values, dtype=torch.float32)  # noqa: E731
        self.obs, self.action = as_tensor(data.obs), as_tensor(data.action)
        self.norm = RunningNorm(self.obs.shape[1], clip=config.obs_clip)
        self.norm.update(self.obs)
        self.seen = self.norm.apply(self.obs)
        self.columns = torch.tensor(layout.columns)
        change = self.norm.apply(as_tensor(data.next_obs))[:, self.columns] - self.seen[:, self.columns]
        target = torch.cat([change, as_tensor(data.reward)[:, None]], -1)
        self.units = Units(self.columns, target.std(0) + 1e-6, target.mean(0), self._repeats(layout.repeats))
        self.target = (target - self.units.shift) / self.units.scale
        self.inputs = torch.cat([self.seen, self.action], -1)
        episode = torch.as_tensor(data.episode)
        # A window needs the action before its first step, so its H + 1 rows must be of one episode.
        same = episode[: -config.horizon] == episode[config.horizon :]
        self.starts = same.nonzero()[:, 0] + 1
        if len(self.starts) == 0:
            raise BadInput(f"no episode is longer than algo.horizon = {config.horizon} steps; imagine shorter")
        draw = torch.Generator().manual_seed(child_seed(seed, "holdout"))
        names = episode.unique()
        shuffled = names[torch.randperm(len(names), generator=draw)]
        kept_back = shuffled[: math.ceil(config.holdout * len(names))] if len(names) > 1 else names[:0]
        held = torch.isin(episode, kept_back)
        if len(names) == 1:
            held = torch.rand(len(episode), generator=draw) < config.holdout
        self.held, train = held.nonzero()[:, 0], (~held).nonzero()[:, 0]
        resample = torch.randint(0, len(train), (config.models, len(train)), generator=draw)
        self.bootstrap = train[resample]
        """(K, T) rows that train each model."""

    def _repeats(self, repeats: list[Repeat]) -> Repeats:
        """The same between normalised values."""
        if not repeats:
            return NO_REPEATS
        column, of, gain, bias, clip = (torch.tensor(values) for values in zip(*repeats, strict=True))
        norm, actions = self.norm, self.action.shape[1]
        mean, span = self.spread()
        mean, span = torch.cat([mean, torch.zeros(actions)])[of], torch.cat([span, torch.ones(actions)])[of]
        shown = lambda value: norm.scale[column] * value + norm.shift[column]  # noqa: E731
        low, high = (shown(bound).clamp(-norm.clip, norm.clip) for bound in (-clip, clip))
        return Repeats(column, of, norm.scale[column] * gain * span, shown(bias + gain * mean), low, high)

    def spread(self) -> tuple[Tensor, Tensor]:
        """(E) mean and unit of what is predicted, before normalisation; 0 is the unit of what never moved."""
        scale = self.norm.scale[self.columns]
        return self.norm.mean[self.columns].float(), torch.where(scale > 0.0, 1.0 / scale, 0.0)

    def windows(self, first: Tensor, horizon: int) -> Windows:
        """The H recorded observations from each of the rows `first` (B), and the action before."""
        rows = first + torch.arange(horizon)[:, None]
        return Windows(self.seen[rows], self.action[first - 1])


class Offline:
    """Everything that evolves while models and policy learn; see robo_rl.recipe.Trainee. Steps are gradient steps."""

    def __init__(self, config: MbdpConfig, record: Record, env: Any, seed: int) -> None:
        self.config, self.record, self.step = config, record, largest_step(env)
        self.pay = scene_pay(env, record)
        weights = torch.Generator().manual_seed(child_seed(seed, "weights"))
        d, a = record.obs.shape[1], record.action.shape[1]
        self.models = make_models(config.models, d + a, record.target.shape[1], config.model_hidden, weights)
        net = MLP((d, *config.hidden, a), config.activation, last_gain=0.01, generator=weights)
        self.actor: TanhPolicy | TrackingPolicy = policy_over(
            net,
            env.interface if hasattr(env, "interface") else None,
            env.spec.rate_hz,
            ApgConfig(track=config.track, tracking_gain=config.tracking_gain),
        )
        if isinstance(self.actor, TrackingPolicy):
            self.actor.use_norm(record.norm.scale, record.norm.shift)
        self.flats = {"models": FlatParameters([self.models]), "actor": FlatParameters([self.actor])}
        rates = {"models": config.model_learning_rate, "actor": config.learning_rate}
        self.optimisers = {
            name: torch.optim.Adam([flat.value], lr=torch.tensor(rates[name]), fused=True)
            for name, flat in self.flats.items()
        }
        self.average = self.flats["actor"].value.detach().clone()
        self.draws = torch.Generator().manual_seed(child_seed(seed, "shuffle"))
        self.env_steps = self.updates = 0
        self.errors = torch.full((config.models,), math.nan)
        """(K) negative log-likelihood of each model on held-out rows, once all are trained."""
        self._model: Any = None

    def iterate(self) -> dict[str, float]:
        """`report_every` gradient steps of the models or, once those are trained, of the policy."""
        config = self.config
        loss, imagined = torch.tensor(0.0), torch.tensor(math.nan)
        for _ in range(config.report_every):
            if self.env_steps < config.model_steps:
                loss = self._fit()
            else:
                imagined = self._improve()
            self.env_steps += 1
            if self.env_steps == config.model_steps:
                self.errors = self.holdout_errors()
        self.updates += 1
        return {
            "update": float(self.updates),
            "return_mean": math.nan,
            "model_loss": loss.item(),
            "holdout_best": self.errors.min().item(),
            "holdout_worst": self.errors.max().item(),
            "imagined_return": imagined.item(),
        }

    def _fit(self) -> Tensor:
        config, record = self.config, self.record
        rate = 0.5 * (1.0 + math.cos(math.pi * self.env_steps / config.model_steps))
        self.optimisers["models"].param_groups[0]["lr"].fill_(config.model_learning_rate * rate)
        shape = (config.models, config.model_batch)
        pick = torch.randint(0, record.bootstrap.shape[1], shape, generator=self.draws)
        rows = record.bootstrap.gather(1, pick)
        self.flats["models"].grad.zero_()
        loss = nll(predicted(self.models(record.inputs[rows])), record.target[rows]).sum()
        loss.backward()
        self.optimisers["models"].step()
        return loss.detach() / config.models

    @torch.no_grad()
    def holdout_errors(self) -> Tensor:
        """Negative log-likelihood (K) of every model on rows that trained none."""
        inputs, target = self.record.inputs[self.record.held], self.record.target[self.record.held]
        return nll(predicted(self.models(inputs)), target.expand(self.config.models, -1, -1))

    def _improve(self) -> Tensor:
        """One step of the policy along the gradient of CVaR_alpha; returns the mean imagined return."""
        config, record, flat = self.config, self.record, self.flats["actor"]
        if self._model is None:
            self._model = frozen(self.models, survivors(self.errors, config.beta))
        pick = torch.randint(0, len(record.starts), (config.starts,), generator=self.draws)
        k = len(survivors(self.errors, config.beta))
        shape = (config.horizon, k, config.rollouts * config.starts, record.target.shape[1])
        flat.grad.zero_()
        returns = imagine(
            self._model,
            self.actor,
            record.windows(record.starts[pick], config.horizon),
            record.units,
            self.step,
            torch.randn(shape, generator=self.draws),
            gamma=config.gamma,
            obs_clip=config.obs_clip,
            pay=self.pay,
        )
        # In units of one step's reward, so that the gradient's size is about that of a mean over steps.
        loss = -tail_mean(returns, config.alpha).mean() / (config.horizon * record.units.scale[-1])
        loss.backward()
        flat.clip_grad_(0, config.max_grad_norm)
        at = self.env_steps - config.model_steps
        self.optimisers["actor"].param_groups[0]["lr"].fill_(annealed(config.learning_rate, at, config.anneal_steps))
        self.optimisers["actor"].step()
        decay = min(config.ema, (at + 1.0) / (at + 10.0))
        self.average.lerp_(flat.value.detach(), 1.0 - decay)
        return returns.detach().mean()

    def state(self) -> dict[str, Any]:
        """Everything needed to go on; the record comes from its folder again."""
        moments = {
            name: {k: v.clone() for k, v in o.state.get(self.flats[name].value, {}).items()}
            for name, o in self.optimisers.items()
        }
        return {
            "parameters": {name: flat.value.detach().clone() for name, flat in self.flats.items()},
            "adam": moments,
            "average": self.average.clone(),
            "errors": self.errors.clone(),
            "draws": self.draws.get_state(),
            "env_steps": self.env_steps,
            "updates": self.updates,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Puts a saved state back, bit for bit."""
        for name, flat in self.flats.items():
            flat.value.data.copy_(state["parameters"][name])
            if state["adam"][name]:
                self.optimisers[name].state[flat.value] = {k: v.clone() for k, v in state["adam"][name].items()}
        self.average.copy_(state["average"])
        self.errors.copy_(state["errors"])
        self.draws.set_state(state["draws"].cpu())
        self.env_steps, self.updates, self._model = state["env_steps"], state["updates"], None

    def policy(self) -> tuple[nn.Module, RunningNorm]:
        """The averaged policy, and the record's normaliser."""
        actor = copy.deepcopy(self.actor)
        FlatParameters([actor]).value.data.copy_(self.average)
        return actor, self.record.norm


def prepare(config: RunConfig, env: Any, group: Group = Group(), data: Path | None = None) -> Offline:  # noqa: B008
    """Reads the record; the environment only says what may be observed and done."""
    if data is None:
        raise BadInput("algorithm mbdp learns from recorded transitions: give --data DIR")
    found = transitions.read(data)
    transitions.check_fits(found.card, env.spec, str(data))
    known = set(env.interface.robot.signals) if hasattr(env, "interface") else set()
    layout = layout_of(env.spec, config.algo.exogenous, known)
    return Offline(config.algo, Record(found, layout, config.algo, config.seed), env, config.seed)


def layout_of(spec: Any, exogenous: tuple[str, ...], known: Set[str] = frozenset()) -> Layout:
    """Of group `policy`, without what is in `exogenous`: one field of each signal, the widest, is to be predicted.

    The last command and other fields of the same signal follow from the action and from what is predicted. Raises
    BadInput for a name that is neither observed nor otherwise a `known` signal.
    """
    fields = [f for f in spec.observation if f.group == "policy"]
    sources = [f.source for f in fields]
    unknown = [name for name in exogenous if name not in sources and name not in known]
    if unknown:
        seen = ", ".join(sorted(set(sources)))
        raise BadInput(f"algo.exogenous: {', '.join(unknown)} not observed; observed signals: {seen}")
    first = dict(zip([f.name for f in fields], accumulate((f.size * f.history for f in fields), initial=0)))  # noqa: B905
    shown: dict[Any, list[Field]] = {}
    for f in fields:
        if f.source not in exogenous:
            shown.setdefault((f.source, f.frame) if f.history == 1 else f.name, []).append(f)
    widest = {key: max(group, key=lambda f: f.clip / abs(f.scale)) for key, group in shown.items()}
    learnt = [f for f in widest.values() if f.source != "command" or f.history > 1]
    columns = [first[f.name] + i for f in learnt for i in range(f.size * f.history)]
    repeats = []
    for key, group in shown.items():
        of, scale, offset = len(columns), 1.0, 0.0  # the last action
        if widest[key] in learnt:
            of, scale, offset = columns.index(first[widest[key].name]), widest[key].scale, widest[key].offset
        repeats += [
            Repeat(first[f.name] + i, of + i, f.scale / scale, f.scale * (offset - f.offset), f.clip)
            for f in group
            if f not in learnt
            for i in range(f.size)
        ]
    return Layout(columns, repeats)


def scene_pay(env: Any, record: Record) -> Pay | None:
    """The task's own reward of what the models predict; None where it has none."""
    pay = getattr(getattr(env, "task", None), "pay", None)
    if pay is None:
        return None
    at, columns, slots = 0, record.columns.tolist(), {}
    mean, span = record.spread()
    for f in env.spec.observation:
        if f.group == "policy" and at in columns:
            slot = slots[f.source] = slice(columns.index(at), columns.index(at) + f.size)
            mean[slot], span[slot] = f.offset + mean[slot] / f.scale, span[slot] / f.scale
        at += f.size * f.history if f.group == "policy" else 0

    def signals(x: Tensor) -> dict[str, Tensor]:
        values = torch.addcmul(mean, span, x)
        return {name: values[..., slot] for name, slot in slots.items()}

    return lambda before, after, action: pay(signals(before), signals(after), action)


def largest_step(env: Any) -> Tensor:
    """(A) largest change of each action within one control period that the guard lets through."""
    scale = torch.tensor([f.scale for f in env.spec.action])
    if not hasattr(env, "interface"):
        return torch.full_like(scale, math.inf)
    return env.interface.mode.limits.on(scale).rate / (env.spec.rate_hz * scale)


def check(config: RunConfig) -> None:
    """Raises BadInput with one line for values that cannot work together."""
    a: MbdpConfig = config.algo
    for name in ("models", "horizon", "rollouts", "starts", "model_steps", "model_batch", "report_every"):
        if getattr(a, name) < 1:
            raise BadInput(f"algo.{name} = {getattr(a, name)}; expected at least 1")
    for field in dataclasses.fields(a):
        value = getattr(a, field.name)
        if isinstance(value, float) and not 0.0 <= value < math.inf:  # NaN fails too
            raise BadInput(f"algo.{field.name} = {value}; expected a finite number, at least 0")
    if not 0.0 < a.alpha <= 1.0 or not a.beta < 1.0 or not 0.0 < a.holdout < 1.0:
        raise BadInput(
            f"algo.alpha = {a.alpha}, algo.beta = {a.beta}, algo.holdout = {a.holdout}; expected shares of 1: "
            "alpha above 0, beta below 1, holdout between"
        )
    if min((*a.hidden, *a.model_hidden), default=1) < 1:
        raise BadInput(f"algo.hidden = {a.hidden}, algo.model_hidden = {a.model_hidden}; expected at least 1")
    if a.activation not in ACTIVATIONS:
        raise BadInput(f"algo.activation = '{a.activation}'; expected one of {', '.join(ACTIVATIONS)}")
    if config.device != "cpu":
        raise BadInput(f"device = '{config.device}': mbdp computes on the cpu")
