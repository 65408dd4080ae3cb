"""Draws the physical parameters of many worlds at once, from a scene's ranges, for one of three families."""

from collections.abc import Mapping, Set
from typing import Literal, get_args

import torch
from torch import Tensor

from hardware.errors import BadInput
from sim.param import Param

Family = Literal["nominal", "train", "wide"]
FAMILIES: tuple[str, ...] = get_args(Family)
"""nominal: no randomization; train: the ranges; wide: the ranges stretched by half about their middle."""


def draw_range(param: Param, family: Family, groups: Set[str] = frozenset()) -> tuple[float, float]:
    """Lowest and highest value, in the parameter's unit, that a world of this family may have."""
    if family not in FAMILIES:
        raise BadInput(f"family '{family}' not found; families: {', '.join(FAMILIES)}")
    if family == "nominal" or (param.group and param.group not in groups):
        return param.nominal, param.nominal
    low, high = param.low, param.high
    if family == "wide":
        quarter = 0.25 * (high - low)
        low, high = max(low - quarter, param.minimum), min(high + quarter, param.maximum)
    if param.how == "scale":
        low, high = sorted((param.nominal * low, param.nominal * high))
    elif param.how == "add":
        low, high = param.nominal + low, param.nominal + high
    return low, high


def draw_bounds(
    params: Mapping[str, Param], family: Family, groups: Set[str] = frozenset(), device: str | torch.device = "cpu"
) -> Tensor:
    """`draw_range` of every parameter, (P, 2), in the mapping's order."""
    return torch.tensor([draw_range(p, family, groups) for p in params.values()], device=device)


def draw(bounds: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Parameters of `count` worlds, (P, count), each uniform within its bounds (P, 2), independent of the others."""
    unit = torch.rand((bounds.shape[0], count), generator=generator, device=generator.device)
    low, high = bounds[:, :1], bounds[:, 1:]
    return torch.lerp(low.expand_as(unit), high.expand_as(unit), unit)
