"""What the hover task would have paid for recorded steps, from the signals alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sim.scenes.quadrotor.hover import GOAL, HoverTask
from sim.spec import SceneSpec


def hover_reward(
    task: HoverTask,
    spec: SceneSpec,
    after: Mapping[str, NDArray[Any]],
    goal: Mapping[str, NDArray[Any]],
    action: NDArray[Any],
    last_action: NDArray[Any],
) -> NDArray[np.float64]:
    """Reward (T,) of steps that ended in the states `after`; measured positions stand for true ones.

    `task` has T worlds. The goal may lie anywhere: states are moved so that it is the task's.
    """
    names = ("velocity_world", "quat_wxyz", "angular_velocity_body")
    position = np.asarray(GOAL) - goal["position_world"] + after["position_world"]
    rotor = np.full((len(action), 4), spec.action[-1].offset)  # the reward does not look at them
    planes = np.concatenate([position, *(after[n] for n in names), rotor], axis=1).T
    task.state["body"] = torch.tensor(planes, dtype=torch.float32).contiguous()
    now, before = (torch.tensor(a, dtype=torch.float32) for a in (action, last_action))
    verdict = task.judge(now, before, torch.zeros(len(action), dtype=torch.long))
    return verdict.reward.double().numpy()
