"""The classical controller in the hover task: geometric tracking with a disturbance observer, batched."""

from collections.abc import Callable

import torch
from torch import Tensor

from controllers import geometric
from hardware.spec import load_spec
from sim.env import BatchEnv


def hover_baseline(env: BatchEnv) -> Callable[[], Tensor]:
    """A function that gives the actions (N, A) for the environment's present state.

    The law sees what a policy sees: the same noisy signals, the goal and the commands really sent; it knows the nominal
    drone only. Its observer starts anew wherever an episode does.
    """
    robot = load_spec(env.spec.robot)
    airframe, gains = geometric.airframe_of(robot), geometric.TrackingGains()
    law = geometric.attitude_thrust if env.spec.mode == "attitude_thrust" else geometric.rotor_thrust
    offset = torch.tensor([f.offset for f in env.interface.action], device=env.device)
    scale = torch.tensor([f.scale for f in env.interface.action], device=env.device)
    dt_s = 1.0 / env.spec.rate_hz
    estimate: geometric.Estimate | None = None

    def act() -> Tensor:
        nonlocal estimate
        view = env.task.view(None)
        state, goal = env.task.measured(view), env.task.goal(view)
        if estimate is None:
            estimate = geometric.start(state)
        else:
            sent = env.command
            thrust = sent[:, 3] if env.spec.mode == "attitude_thrust" else sent.mean(1)
            advanced = geometric.observe(state, estimate, thrust, airframe=airframe, gains=gains, dt_s=dt_s)
            begun = (env.age == 0)[:, None]
            estimate = geometric.Estimate(
                *(torch.where(begun, a, b) for a, b in zip(geometric.start(state), advanced, strict=True))
            )
        command = law(state, goal, estimate, airframe=airframe, gains=gains)
        return ((command - offset) / scale).clamp(-1.0, 1.0)

    return act
