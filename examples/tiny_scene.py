"""A complete scene in one page: keep a mass of unknown weight at a height with the thrust command of a Crazyflie.

Shows what a task is (see docs/how-to/add-a-scene.md). Run: python examples/tiny_scene.py
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from controllers.interface import Field, Interface
from hardware.spec import load_spec
from sim.env import BatchEnv, Verdict
from sim.param import Param
from sim.randomization import draw, draw_bounds
from sim.spec import SceneSpec

GRAVITY = 9.81  # m/s^2
PARAMS = {
    "thrust_to_weight": Param("thrust_to_weight", 1.7, "1", 1.4, 2.2, "set", "guess", "only an example"),
}
SPEC = SceneSpec(
    id="tiny/height",
    summary="keep a mass at a height",
    robot="crazyflie",
    mode="attitude_thrust",
    params=PARAMS,
    observation=(
        Field("error", "error:position_world", 3, "m", "world", scale=1.0, clip=2.0),
        Field("velocity", "velocity_world", 3, "m/s", "world", scale=0.5),
        Field("command", "command", 4, "1"),
    ),
    action=tuple(
        Field(name, name, 1, unit, scale=scale, offset=offset)
        for name, unit, scale, offset in (
            ("roll", "rad", 0.5, 0.0),
            ("pitch", "rad", 0.5, 0.0),
            ("yaw_rate", "rad/s", 1.5, 0.0),
            ("thrust", "1", 0.3655, 0.55),
        )
    ),
    rate_hz=100.0,
    episode_s=2.0,
    rewards={"near": 1.0},
    terminations=("away",),
    success="within 0.1 m of the height at the end",
)


class HeightTask:
    """The task in N worlds; batches lie on the last axis. See sim.env.Task."""

    def __init__(self, num_envs: int) -> None:
        self.spec, self.num_envs, self.device = SPEC, num_envs, torch.device("cpu")
        self.interface = Interface(load_spec(SPEC.robot), SPEC.mode, SPEC.observation, SPEC.action)
        self._bounds = draw_bounds(PARAMS, "train")
        self.state = {name: torch.zeros(num_envs) for name in ("height", "speed", "thrust_to_weight")}
        self.shared: dict[str, Tensor] = {}

    def restart(self, ids: Tensor | None, generator: torch.Generator) -> None:
        """New masses, at rest, up to a metre below or above the goal."""
        rows = torch.arange(self.num_envs) if ids is None else ids
        self.state["thrust_to_weight"][rows] = draw(self._bounds, len(rows), generator)[0]
        self.state["height"][rows] = 2.0 * torch.rand(len(rows), generator=generator) - 1.0
        self.state["speed"][rows] = 0.0

    def advance(self, command: Tensor, generator: torch.Generator) -> None:
        """One control period: m z'' = thrust - m g."""
        acceleration = GRAVITY * (self.state["thrust_to_weight"] * command[:, 3] - 1.0)
        self.state["speed"] += acceleration / SPEC.rate_hz
        self.state["height"] += self.state["speed"] / SPEC.rate_hz

    def judge(self, action: Tensor, last_action: Tensor, age: Tensor) -> Verdict:
        """Near pays; farther away than two metres ends the episode."""
        distance = self.state["height"].abs()
        away = distance > 2.0
        last = age >= round(SPEC.episode_s * SPEC.rate_hz)
        metrics = {"distance": distance.clone(), "success": last & (distance < 0.1)}
        return Verdict(torch.exp(-distance) * SPEC.rewards["near"], torch.zeros_like(distance), away, metrics)

    def view(self, ids: Tensor | None) -> dict[str, Tensor]:
        """All planes, for rows `ids`."""
        return self.state if ids is None else {name: plane[ids] for name, plane in self.state.items()}

    def measured(self, view: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Signals as the robot reports them, (n, k); nothing is noisy here."""
        zero = torch.zeros_like(view["height"])
        return {
            "position_world": torch.stack([zero, zero, view["height"]], 1),
            "velocity_world": torch.stack([zero, zero, view["speed"]], 1),
            "quat_wxyz": torch.stack([zero + 1.0, zero, zero, zero], 1),
        }

    def goal(self, view: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Always height 0."""
        return {"position_world": torch.zeros(len(view["height"]), 3)}

    def privileged(self, view: Mapping[str, Tensor]) -> Tensor:
        """What only the critic sees: height, speed and the drawn parameter, (n, 3)."""
        return torch.stack([view["height"], view["speed"], view["thrust_to_weight"]], 1)


def main() -> None:
    """Steps 256 worlds with a proportional law and says how it went."""
    env = BatchEnv(HeightTask(256), seed=0)
    obs = env.reset(seed=0)
    successes, ended = 0, 0
    for _ in range(round(SPEC.episode_s * SPEC.rate_hz)):
        error, speed, thrust = obs["policy"][:, 2], obs["policy"][:, 5], obs["policy"][:, 9]
        action = torch.zeros(256, 4)
        action[:, 3] = thrust + 0.3 * error - 0.5 * speed  # the last command carries the unknown weight
        step = env.step(action.clamp(-1.0, 1.0))
        obs = step.obs
        successes += int(step.metrics["success"].sum())
        ended += int((step.terminated | step.truncated).sum())
    print(f"{ended} episodes, {successes} within 0.1 m; mean distance {step.metrics['distance'].mean():.3f} m")
    if ended == 0 or not math.isfinite(float(step.reward.mean())):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
