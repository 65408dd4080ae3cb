"""What touches what, and what that does: drones, cylinders, walls and floor, for A x E drones as planes.

Two ways to respond. `stochastic` is quad-swarm-rl's (Huang et al. 2023, arXiv 2306.09537): velocities are exchanged or
reflected with random losses, and the drones tumble. `physical` is an impulse with restitution and Coulomb friction
between spheres of one size and mass, cylinders and planes; friction turns the drones too. Drones are spheres of the
arm's length; N = A E rows, row = a E + e.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sim.dynamics import quadrotor as body

ARM_M = 0.046
"""Radius of a drone as a sphere."""
TOUCH_M = 2.0 * ARM_M
RESTITUTION, FRICTION = 0.5, 0.3
"""Of plastic propellers and frames against one another and against a padded wall: guesses."""
FLOOR_FRICTION = 0.6
"""Of the published model."""
RANDOM_ROWS = 11
"""Uniform random numbers per drone and step that the stochastic response needs."""
KINDS = ("drone", "obstacle", "wall", "floor")
"""Rows of `touching`; the ceiling counts as a wall."""
KICK_DRONE, KICK_OBSTACLE = (10.0 * math.pi, 20.0 * math.pi), (0.5 * math.pi, math.pi)
"""Least and largest body rate (rad/s) that a random contact adds; walls kick like drones."""


class Pairs(NamedTuple):
    """All pairs (j, i) of drones of a room: j seen from i, and infinitely far from oneself."""

    to: Tensor
    """(3, A, A, E) m: position of j minus position of i."""
    distance: Tensor
    """(A, A, E) m."""


def pairs_of(position: Tensor, agents: int) -> Pairs:
    """Pairs of drones at positions (3, N)."""
    p = position.reshape(3, agents, -1)
    to = p[:, :, None] - p[:, None]
    distance = torch.sqrt((to * to).sum(0) + 1e-12)
    itself = torch.eye(agents, dtype=torch.bool, device=position.device)[..., None]
    return Pairs(to, torch.where(itself, torch.inf, distance))


def touching(position: Tensor, pairs: Pairs, clearance: Tensor, room: tuple[float, ...]) -> Tensor:
    """(4, N) bool: who touches a drone, an obstacle (`clearance` (N,) from its surface), a wall, the floor."""
    half_x, half_y, height = 0.5 * room[0] - ARM_M, 0.5 * room[1] - ARM_M, room[2] - ARM_M
    x, y, z = position
    wall = (x.abs() >= half_x) | (y.abs() >= half_y) | (z >= height)
    drone = (pairs.distance <= TOUCH_M).any(0).reshape(-1)
    return torch.stack([drone, clearance <= ARM_M, wall, z <= ARM_M])


def respond(
    state: Tensor,
    touch: Tensor,
    pairs: Pairs,
    direction: Tensor,
    mass: Tensor,
    random: Tensor,
    inertia: Tensor,
    *,
    agents: int,
    room: tuple[float, ...],
    physical: bool,
) -> Tensor:
    """The state (17, N) after what touches has bounced off.

    `direction` (2, N) points to the nearest obstacle's axis; `random` (11, N) is uniform in 0..1 (unused where
    `physical`); `mass` (N,) kg and `inertia` (3, N) kg m^2.
    """
    position, velocity, quat, rate, rotor = state.split(body.STATE_PARTS)
    normal = torch.cat([-direction, torch.zeros_like(direction[:1])])  # out of the obstacle
    inward = _inward(position, room)
    if physical:
        change = _pair_impulses(velocity, pairs, mass, agents)
        change = change + _impulse(velocity, normal) * touch[1]
        change = change + _impulse(velocity, inward) * touch[2]
        contact = normal * touch[1] + inward * touch[2] + _towards_others(pairs, agents)
        rate = rate + _spin(quat, contact, change, mass, inertia)
        velocity = velocity + change
    else:
        velocity, rate = _bounce_randomly(velocity, rate, touch, pairs, normal, inward, random, agents)
    velocity, quat, rate = _stand(position, velocity, quat, rate, touch[3])
    position = torch.stack(
        [
            position[0].clamp(-0.5 * room[0] + ARM_M, 0.5 * room[0] - ARM_M),
            position[1].clamp(-0.5 * room[1] + ARM_M, 0.5 * room[1] - ARM_M),
            position[2].clamp(ARM_M, room[2] - ARM_M),
        ]
    )
    return torch.cat([position, velocity, quat, rate, rotor])


def downwash(position: Tensor, forms: Tensor, pairs: Pairs, random: Tensor, agents: int) -> tuple[Tensor, Tensor]:
    """Acceleration along the world's z (N,), m/s^2, and random angular acceleration (3, N), rad/s^2, below others.

    quad-swarm-rl: within 0.1 m of the axis of a drone at most 0.7 m above, 6/17 (7 - 10 z) m/s^2 +- 0.1 downwards,
    and 0.3 (z - 1)^2 about a random axis. `forms` are `rotation_forms` (9, N); `random` (4, N) is uniform in 0..1.
    """
    up = forms[:3].reshape(3, agents, 1, -1)  # of the drone above, j
    along = (pairs.to * up).sum(0)  # how far i lies below j, along the thrust of j
    across = (pairs.distance * pairs.distance - along * along).clamp(min=0.0)
    below = (along > 0.0) & (along < 0.7) & (across < 0.1**2)
    noise = (random[0] - 0.5).reshape(agents, -1) * 0.2
    push = torch.where(below, (6.0 / 17.0 * (7.0 - 10.0 * along) + noise).clamp(min=0.0), 0.0).sum(0)
    turn = torch.where(below, 0.3 * (along - 1.0) ** 2, 0.0).sum(0)
    return -push.reshape(-1), turn.reshape(-1) * _unit(random[1:4] - 0.5)


def _inward(position: Tensor, room: tuple[float, ...]) -> Tensor:
    """Unit normals (3, N) of the walls and the ceiling that a drone touches, into the room; 0 where it touches none."""
    x, y, z = position
    nx = torch.where(x.abs() >= 0.5 * room[0] - ARM_M, -x.sign(), 0.0)
    ny = torch.where(y.abs() >= 0.5 * room[1] - ARM_M, -y.sign(), 0.0)
    nz = torch.where(z >= room[2] - ARM_M, -1.0, 0.0)
    return _unit(torch.stack([nx, ny, nz]))


def _impulse(velocity: Tensor, normal: Tensor) -> Tensor:
    """Change of velocity (3, N) of bodies that hit something fixed with this normal."""
    into = (velocity * normal).sum(0)
    hit = (-into).clamp(min=0.0)
    slide = velocity - into * normal
    speed = torch.sqrt((slide * slide).sum(0) + 1e-12)
    brake = torch.minimum(FRICTION * (1.0 + RESTITUTION) * hit, speed) / speed
    return (1.0 + RESTITUTION) * hit * normal - brake * slide


def _pair_impulses(velocity: Tensor, pairs: Pairs, mass: Tensor, agents: int) -> Tensor:
    """Change of velocity (3, N) by contacts with other drones; momentum is conserved pair by pair."""
    v = velocity.reshape(3, agents, -1)
    m = mass.reshape(agents, -1)
    normal = -pairs.to / pairs.distance.clamp(max=1e6)  # from j to i
    relative = v[:, None] - v[:, :, None]  # of i against j
    into = (relative * normal).sum(0)
    hit = torch.where(pairs.distance <= TOUCH_M, (-into).clamp(min=0.0), 0.0)
    slide = relative - into * normal
    speed = torch.sqrt((slide * slide).sum(0) + 1e-12)
    brake = torch.minimum(FRICTION * (1.0 + RESTITUTION) * hit, speed) / speed
    share = m[:, None] / (m[:, None] + m[None])  # of the change that falls to i
    change = share * ((1.0 + RESTITUTION) * hit * normal - brake * slide)
    return change.sum(1).reshape(3, -1)


def _towards_others(pairs: Pairs, agents: int) -> Tensor:
    """Sum of normals (3, N) from the drones that a drone touches to itself."""
    normal = torch.where(pairs.distance <= TOUCH_M, -pairs.to / TOUCH_M, 0.0)
    return normal.sum(1).reshape(3, -1)


def _spin(quat: Tensor, contact: Tensor, change: Tensor, mass: Tensor, inertia: Tensor) -> Tensor:
    """Change of body rate (3, N): the impulse acts one radius from the centre, opposite to the contact's normal."""
    arm, push = -ARM_M * contact, mass * change
    torque = torch.stack(
        [
            arm[1] * push[2] - arm[2] * push[1],
            arm[2] * push[0] - arm[0] * push[2],
            arm[0] * push[1] - arm[1] * push[0],
        ]
    )
    return body.into_body(quat, torque) / inertia


def _bounce_randomly(
    velocity: Tensor,
    rate: Tensor,
    touch: Tensor,
    pairs: Pairs,
    normal: Tensor,
    inward: Tensor,
    random: Tensor,
    agents: int,
) -> tuple[Tensor, Tensor]:
    """Velocity and body rate (3, N) after quad-swarm-rl's contacts; only approaching bodies bounce."""
    r = random
    decay = 0.2 + 0.6 * r[0]
    # The nearest drone of each decides: both exchange the components along the line between them.
    closest, index = pairs.distance.min(0)
    v = velocity.reshape(3, agents, -1)
    other = v.gather(1, index.expand(3, *index.shape)).reshape(3, -1)
    away = -pairs.to.gather(1, index.expand(3, 1, *index.shape))[:, 0].reshape(3, -1) / closest.reshape(-1).clamp(
        max=1e6
    )
    into = ((velocity - other) * away).sum(0)
    swapped = decay * (velocity - into * away) + 0.1 * (r[1] - 0.5) * away
    reflected = velocity - 2.0 * (velocity * normal).sum(0) * normal
    scattered = _unit(r[2:5] - 0.5)
    scattered = scattered + (inward * scattered).sum(0).neg().clamp(min=0.0) * 2.0 * inward
    speed = torch.sqrt((velocity * velocity).sum(0))
    from_wall = decay * speed * scattered
    hits = (
        touch[0] & (into < 0.0),
        touch[1] & ((velocity * normal).sum(0) < 0.0),
        touch[2] & ((velocity * inward).sum(0) < 0.0),
    )
    kick = _unit(r[5:8] - 0.5)
    for hit, after, (low, high) in zip(
        hits, (swapped, reflected, from_wall), (KICK_DRONE, KICK_OBSTACLE, KICK_DRONE), strict=True
    ):
        velocity = torch.where(hit, after, velocity)
        rate = torch.where(hit, rate + (low + (high - low) * r[8]) * kick, rate)
    return velocity, rate.clamp(-40.0, 40.0)


def _stand(
    position: Tensor, velocity: Tensor, quat: Tensor, rate: Tensor, on_floor: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A drone on the floor stands upright with its heading; it slides against friction and leaves when it is lifted."""
    half_yaw = 0.5 * torch.atan2(
        2.0 * (quat[0] * quat[3] + quat[1] * quat[2]), 1.0 - 2.0 * (quat[2] ** 2 + quat[3] ** 2)
    )
    zero = torch.zeros_like(half_yaw)
    upright = torch.stack([half_yaw.cos(), zero, zero, half_yaw.sin()])
    speed = torch.sqrt(velocity[0] ** 2 + velocity[1] ** 2 + 1e-12)
    kept = (1.0 - FLOOR_FRICTION * body.GRAVITY * 0.01 / speed).clamp(min=0.0)
    resting = torch.stack([velocity[0] * kept, velocity[1] * kept, velocity[2].clamp(min=0.0)])
    return (
        torch.where(on_floor, resting, velocity),
        torch.where(on_floor, upright, quat),
        torch.where(on_floor, 0.0, rate),
    )


def _unit(v: Tensor) -> Tensor:
    """(3, ...) scaled to length 1; zero stays zero."""
    return v * torch.rsqrt((v * v).sum(0) + 1e-12)
