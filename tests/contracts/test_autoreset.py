"""Same-step autoreset of the batched environment against a single environment written out by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from controllers.interface import Field, Interface
from hardware.spec import parse_spec
from sim.env import BatchEnv, Verdict
from sim.spec import SceneSpec

ROBOT = parse_spec(
    {
        "name": "cart",
        "summary": "a point on a line",
        "rate_hz": 10.0,
        "address": "none",
        "signals": {"position": {"shape": [1], "unit": "m"}},
        "modes": {"push": {"rate_hz": 10.0, "components": [{"name": "step", "unit": "m", "low": -0.75, "high": 1.0}]}},
        "safe_states": {"default": {"mode": "stop"}},
    },
    source="test",
)
FIELDS = (Field("position", "position", 1, "m"), Field("command", "command", 1, "m", history=2))
SPEC = SceneSpec(
    id="cart/line",
    summary="",
    robot="cart",
    mode="push",
    params={},
    observation=FIELDS,
    action=(Field("step", "step", 1, "m"),),
    rate_hz=10.0,
    episode_s=0.5,
    rewards={},
    terminations=("edge",),
    success="",
)
CPU = torch.device("cpu")
STARTS = [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0]
"""Start of the k-th episode that begins anywhere; an episode ends beyond 2.2 m from its start."""


@dataclass
class Line:
    """Position moves by the command; starts are dealt from STARTS in the order in which episodes begin."""

    num_envs: int
    spec: SceneSpec = SPEC
    device: torch.device = CPU
    state: dict[str, Tensor] = field(default_factory=dict)
    shared: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.interface = Interface(ROBOT, "push", FIELDS, SPEC.action)
        self.state = {"x": torch.zeros(1, self.num_envs), "start": torch.zeros(1, self.num_envs)}
        self.begun = 0

    def restart(self, ids: Tensor | None, generator: torch.Generator) -> None:
        rows = torch.arange(self.num_envs) if ids is None else ids
        self.begun = 0 if ids is None else self.begun
        fresh = torch.tensor(STARTS[self.begun : self.begun + len(rows)])
        self.begun += len(rows)
        self.state = {k: v.clone() for k, v in self.state.items()}
        self.state["x"][:, rows] = fresh
        self.state["start"][:, rows] = fresh

    def advance(self, command: Tensor, generator: torch.Generator) -> None:
        self.state["x"] = self.state["x"] + command.T

    def judge(self, action: Tensor, last_action: Tensor, age: Tensor) -> Verdict:
        travelled = self.state["x"][0] - self.state["start"][0]
        terminated = travelled > 2.2
        return Verdict(self.state["x"][0].clone(), torch.zeros(self.num_envs), terminated, {"age": age.clone()})

    def view(self, ids: Tensor | None) -> dict[str, Tensor]:
        return {"x": self.state["x"] if ids is None else self.state["x"][:, ids]}

    def measured(self, view: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"position": view["x"].T}

    def goal(self, view: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {}

    def privileged(self, view: Mapping[str, Tensor]) -> Tensor:
        return 2.0 * view["x"].T

    def refresh(self) -> None:
        pass


class ByHand:
    """One environment in plain Python; observation = position, last command, the command before."""

    def __init__(self, starts: list[float]) -> None:
        self.starts, self.episode = starts, 0
        self.begin()

    def begin(self) -> None:
        self.start = self.x = self.starts[self.episode]
        self.episode += 1
        self.age, self.commands = 0, [0.0, 0.0]

    def obs(self) -> list[float]:
        return [self.x, *self.commands]

    def step(self, action: float) -> tuple[list[float], float, bool, bool, list[float]]:
        sent = min(max(action, -0.75), 1.0)
        self.commands = [sent, self.commands[0]]
        self.x += sent
        self.age += 1
        terminated = self.x - self.start > 2.2
        truncated = self.age == 5 and not terminated
        reward, final = self.x, self.obs()
        if terminated or truncated:
            self.begin()
        return self.obs(), reward, terminated, truncated, final


def test_batch_follows_the_single_environment_through_both_kinds_of_end() -> None:
    env = BatchEnv(Line(2))
    # Environment 0 drives to the edge in 3 steps, environment 1 runs out of time after 5; starts are dealt in turn.
    drives = torch.tensor(
        [[1.0, -2.0], [0.9, 0.5], [0.8, 0.25], [1.0, 0.0], [1.0, -0.5], [1.0, 1.0], [0.1, 1.0], [0.2, 1.0]]
    )
    singles = [ByHand([0.0, 20.0, 40.0]), ByHand([10.0, 30.0, 50.0])]
    kinds = []
    for actions in drives:
        step = env.step(actions[:, None])
        for i, single in enumerate(singles):
            obs, reward, terminated, truncated, final = single.step(actions[i].item())
            assert step.obs["policy"][i].tolist() == pytest.approx(obs)
            assert step.obs["critic"][i].item() == pytest.approx(2 * obs[0])
            assert step.reward[i].item() == pytest.approx(reward)
            assert (bool(step.terminated[i]), bool(step.truncated[i])) == (terminated, truncated)
            assert step.final_obs["policy"][i].tolist() == pytest.approx(final if terminated or truncated else obs)
            assert step.final_obs["critic"][i].item() == pytest.approx(
                2 * (final if terminated or truncated else obs)[0]
            )
            kinds += [("terminated", i)] * terminated + [("truncated", i)] * truncated
    assert kinds == [("terminated", 0), ("truncated", 1), ("terminated", 0), ("terminated", 1)]


def test_an_end_by_the_task_on_the_last_step_is_no_time_out() -> None:
    env = BatchEnv(Line(1))
    for action in (0.5, 0.5, 0.5, 0.5, 0.9):
        step = env.step(torch.tensor([[action]]))
    assert bool(step.terminated[0])
    assert not bool(step.truncated[0])


def test_staggered_first_episodes_end_at_different_steps() -> None:
    env = BatchEnv(Line(5))
    env.stagger()
    assert env.age.min() >= 0
    assert env.age.max() < env.episode_steps
    ages = env.age.clone()
    ended = torch.full((5,), -1)
    for t in range(5):
        step = env.step(torch.zeros(5, 1))
        ended = torch.where((ended < 0) & step.truncated, t, ended)
        if len(STARTS) - env.task.begun < 5:
            env.task.begun = 0
    assert torch.equal(ended, env.episode_steps - 1 - ages)
