"""What happens when drones of the built-in world touch one another or an obstacle: they bounce off.

Drones are spheres of the arm's length, equal in mass, without friction: an impulse along the line of contact, no spin.
(The scene `quadrotor/swarm` has tumbling drones, walls and downwash.) Planes: (3, R), drones last.
"""

import numpy as np
from numpy.typing import NDArray

from hardware.robots.crazyflie.obstacles import Obstacles

Array = NDArray[np.float64]
RESTITUTION = 0.5
"""Of plastic against plastic: a guess, that of the scene."""


KINDS = ("drone", "obstacle")
"""Rows of what `bounce` says is touched."""


def bounce(position: Array, velocity: Array, obstacles: Obstacles, radius_m: float) -> tuple[Array, NDArray[np.bool_]]:
    """New velocities (3, R) of drones at positions (3, R), and who touches a drone, an obstacle (2, R)."""
    change, touched = np.zeros_like(velocity), np.zeros((2, velocity.shape[1]), dtype=bool)
    to = position[:, None, :] - position[:, :, None]  # [:, i, j]: j seen from i
    close = (to * to).sum(axis=0) < (2.0 * radius_m) ** 2
    if close.sum() > len(close):  # everybody is close to himself
        for i, j in np.argwhere(np.triu(close, 1)).tolist():
            normal = _unit(to[:, i, j])
            approach = float(normal @ (velocity[:, i] - velocity[:, j]))
            impulse = 0.5 * (1.0 + RESTITUTION) * max(approach, 0.0) * normal
            change[:, i] -= impulse
            change[:, j] += impulse
            touched[0, [i, j]] = True
    away = position[:2, :, None] - obstacles.centre.T[:, None, :]  # (2, R, L)
    touching = (away * away).sum(axis=0) < (obstacles.radius + radius_m) ** 2
    if touching.any():
        for i, k in np.argwhere(touching).tolist():
            normal = np.append(_unit(away[:, i, k]), 0.0)
            approach = -float(normal @ velocity[:, i])
            change[:, i] += (1.0 + RESTITUTION) * max(approach, 0.0) * normal
            touched[1, i] = True
    return velocity + change, touched


def _unit(v: Array) -> Array:
    length = float(np.sqrt(v @ v))
    return v / length if length > 1e-9 else np.eye(len(v))[0]
