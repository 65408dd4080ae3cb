"""Draws of physical parameters: within their ranges, uniform, independent, reproducible."""

from itertools import pairwise

import pytest
import torch
from scipy import stats

from hardware.errors import BadInput
from sim.param import Param
from sim.randomization import draw, draw_bounds, draw_range
from sim.ranges import read_ranges
from sim.registry import ranges_path, scene_ids


def param(**changes: object) -> Param:
    values: dict[str, object] = {
        "name": "x",
        "nominal": 2.0,
        "unit": "m",
        "low": 0.5,
        "high": 1.5,
        "how": "scale",
        "source": "guess",
        "reference": "r",
    }
    return Param(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "family", "expected"),
    [
        ({}, "nominal", (2.0, 2.0)),
        ({}, "train", (1.0, 3.0)),
        ({}, "wide", (0.5, 3.5)),
        ({"how": "add"}, "train", (2.5, 3.5)),
        ({"how": "set"}, "train", (0.5, 1.5)),
        ({"how": "set"}, "wide", (0.25, 1.75)),
        ({"how": "set", "minimum": 0.4, "maximum": 1.6}, "wide", (0.4, 1.6)),
        ({"nominal": -2.0}, "train", (-3.0, -1.0)),
        ({"group": "gusts"}, "train", (2.0, 2.0)),
    ],
)
def test_range_by_hand(changes: dict[str, object], family: str, expected: tuple[float, float]) -> None:
    assert draw_range(param(**changes), family) == pytest.approx(expected)  # type: ignore[arg-type]


def test_a_group_is_drawn_where_it_is_switched_on() -> None:
    assert draw_range(param(group="gusts"), "train", {"gusts"}) == (1.0, 3.0)


def test_unknown_family_names_the_families() -> None:
    with pytest.raises(BadInput, match="family 'wild' not found; families: nominal, train, wide"):
        draw_range(param(), "wild")  # type: ignore[arg-type]


@pytest.mark.parametrize("scene", scene_ids())
@pytest.mark.parametrize("family", ["train", "wide"])
def test_draws_fill_their_ranges_uniformly(scene: str, family: str) -> None:
    params = read_ranges(ranges_path(scene)).params
    groups = {p.group for p in params.values()}
    bounds = draw_bounds(params, family, groups)  # type: ignore[arg-type]
    values = draw(bounds, 4000, torch.Generator().manual_seed(11)).double()
    for name, row, (low, high) in zip(params, values, bounds.double(), strict=True):
        assert row.min() >= low, name
        assert row.max() <= high, name
        if high > low:
            result = stats.kstest(row.numpy(), stats.uniform(low.item(), (high - low).item()).cdf)
            assert result.pvalue > 1e-4, (name, result)
    moving = values[(bounds[:, 1] > bounds[:, 0])]
    correlation = torch.corrcoef(moving) - torch.eye(len(moving), dtype=torch.float64)
    assert correlation.abs().max() < 0.08  # five standard deviations of independent draws


def test_families_contain_one_another_and_seeds_repeat() -> None:
    params = read_ranges(ranges_path("quadrotor/hover")).params
    nested = [draw_bounds(params, family, {"disturbances"}) for family in ("wide", "train")]
    for outer, inner in pairwise(nested):
        assert (outer[:, 0] <= inner[:, 0]).all()
        assert (outer[:, 1] >= inner[:, 1]).all()
    first = draw(nested[0], 5, torch.Generator().manual_seed(3))
    assert torch.equal(first, draw(nested[0], 5, torch.Generator().manual_seed(3)))
    assert not torch.equal(first, draw(nested[0], 5, torch.Generator().manual_seed(4)))
