"""What the critic sees of a swarm's drone: the truth, which no drone can measure."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sim.dynamics import quadrotor as body

MOST = 3.0
"""Bound of what is perceived, m or m/s: what is farther is far."""


def truth(state: Tensor, goal: Tensor, command: Tensor, perceived: Mapping[str, Tensor], drone: Tensor) -> Tensor:
    """(n, C): error and velocity in the heading's frame, attitude, rates, rotors, command, perception, drone.

    `state` (17, n); `goal` (3, n) m; `command` (4, n); `perceived` signal -> its planes (k, n); `drone` (P, n)
    parameters scaled to about -1..1.
    """
    position, velocity, quat, rate, rotor = state.split(body.STATE_PARTS)
    forms = body.rotation_forms(quat)
    heading = forms[[6, 4]]
    cosine, sine = heading * torch.rsqrt((heading * heading).sum(0) + 1e-12)
    turn = lambda x, y: [cosine * x + sine * y, cosine * y - sine * x]  # noqa: E731
    error = goal - position
    planes = [
        torch.stack([*turn(error[0], error[1]), error[2], *turn(velocity[0], velocity[1]), velocity[2]]),
        torch.clamp(4.0 * error, -1.0, 1.0),
        forms[[7, 8, 2]],
        0.2 * rate,
        rotor,
        command,
    ]
    for name, given in perceived.items():
        values = given
        if name in ("neighbour_position", "neighbour_velocity"):
            v = given.reshape(-1, 3, given.shape[1])
            values = torch.stack([*turn(v[:, 0], v[:, 1]), v[:, 2]], 1).reshape(given.shape)
        elif name == "obstacle_direction":
            v = given.reshape(-1, 2, given.shape[1])
            values = torch.stack(turn(v[:, 0], v[:, 1]), 1).reshape(given.shape)
        planes.append(values.clamp(-MOST, MOST))
    return torch.cat([*planes, drone]).T.contiguous()
