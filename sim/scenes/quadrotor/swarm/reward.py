"""What a step of a drone in a swarm pays; pure functions of planes, weights in `config.Weights`."""

import torch
from torch import Tensor

from sim.dynamics import quadrotor as body
from sim.scenes.quadrotor.swarm.config import Weights
from sim.scenes.quadrotor.swarm.contacts import TOUCH_M, Pairs

FACTS = (
    *(f"begins_{kind}" for kind in ("drone", "obstacle", "wall", "floor")),
    *(f"touches_{kind}" for kind in ("drone", "obstacle", "wall", "floor")),
    "gap",
    "proximity",
    "clearance",
    "closing",
    "neighbour_closing",
)
"""Planes that a step leaves for its reward: contacts that begin and that last (0 or 1), distance to the nearest drone,
sum of proximities, distance from the nearest obstacle's surface, speed towards it, and towards neighbours, faded."""
PROXIMITY_M = 2.0 * TOUCH_M
"""Four arms: where the published proximity cost begins."""
CRUISE_M_S = 1.5
"""Faster approaches pay no more."""
FADE_M = 0.3
OBSTACLE_FADE_M = 0.5


def gaps(pairs: Pairs, flying: Tensor, agents: int) -> tuple[Tensor, Tensor]:
    """Distance to the nearest drone (N,), and the sum over the others of 1 - distance / 0.184 m where positive (N,)."""
    distance = torch.where(flying.reshape(agents, 1, -1), pairs.distance, torch.inf)
    near = (1.0 - distance * (1.0 / PROXIMITY_M)).clamp(min=0.0)
    return distance.amin(0).reshape(-1), near.sum(0).reshape(-1)


def neighbour_closing(distance: Tensor, closing: Tensor) -> Tensor:
    """(N,) speeds (K, N) towards neighbours at distances (K, N), fading with the gap between the bodies."""
    return (closing.clamp(min=0.0) * torch.exp((TOUCH_M - distance) * (1.0 / FADE_M)).clamp(max=1.0)).sum(0)


def reward(
    state: Tensor,
    facts: Tensor,
    distance: Tensor,
    speed: Tensor,
    progress: Tensor,
    action: Tensor,
    change: Tensor,
    factor: Tensor,
    *,
    weights: Weights,
) -> Tensor:
    """(N,) of a state (17, N), facts (F, N), distance from the goal, speed and speed
    towards the goal (N,), action and its change (N, A).

    `factor` scales the contact weights (curriculum). Terms of weight 0 are left out of the computation.
    """
    w = weights
    rate = state[body.RATE]
    cosine = 1.0 - 2.0 * (state[7] * state[7] + state[8] * state[8])
    turn = rate * rate
    close = torch.exp((distance * (1.0 / 0.3)).square().neg())
    _, _, clearance, closing, others = facts[8:]
    terms = {
        "near": lambda: 1.0 - distance * (1.0 / 6.0),
        "close": lambda: close,
        "exact": lambda: torch.exp(distance * (-1.0 / 0.05)),
        "speed": lambda: close * speed,
        "progress": lambda: progress.clamp(-CRUISE_M_S, CRUISE_M_S),
        "action_change": lambda: (change * change).sum(1),
        "rate_xy": lambda: turn[0] + turn[1],
        "rate_z": lambda: turn[2],
        "tilt": lambda: 1.0 - cosine,
        "obstacle_closing": lambda: (
            closing.clamp(min=0.0) * torch.exp(clearance * (-1.0 / OBSTACLE_FADE_M)).clamp(max=1.0)
        ),
        "neighbour_closing": lambda: others,
    }
    shaped = _weighted(terms, w, distance)
    on_floor = facts[7]
    rest = {
        "proximity": lambda: facts[9],
        "contact_drone": lambda: factor * facts[0],
        "contact_obstacle": lambda: factor * facts[1],
        "contact_room": lambda: factor * (facts[2] + facts[3]),
        "distance": lambda: distance,
        "effort": lambda: torch.sqrt((action * action).sum(1) + 1e-12),
        "floor": lambda: on_floor,
        "upright": lambda: torch.where(on_floor > 0.5, 1.0, -cosine),
        "spin": lambda: torch.sqrt(turn.sum(0) + 1e-12),
    }
    return torch.add(_weighted(rest, w, distance), shaped.clamp(min=-2.0), alpha=0.1)


def _weighted(terms: dict, weights: Weights, like: Tensor) -> Tensor:
    total = torch.zeros_like(like)
    for name, term in terms.items():
        weight = getattr(weights, name)
        if weight != 0.0:
            total = torch.add(total, term(), alpha=weight)
    return total
