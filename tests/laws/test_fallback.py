"""Which classical law takes over, and what robots without one get."""

from dataclasses import replace

import numpy as np
import pytest

from controllers.fallback import GeometricHold, SafeHold, fallback_law
from controllers.goals import checked_goal, fence_of, parse_goal
from hardware.errors import BadInput
from hardware.spec import load_spec

SPEC = load_spec("crazyflie")
STATE = {
    "position_world": np.array([0.0, 0.0, 1.0]),
    "quat_wxyz": np.array([1.0, 0.0, 0.0, 0.0]),
    "velocity_world": np.zeros(3),
    "angular_velocity_body": np.zeros(3),
}


def test_a_quadrotor_is_held_by_geometric_control_elsewhere_by_the_safe_command() -> None:
    assert isinstance(fallback_law(SPEC, "attitude_thrust"), GeometricHold)
    assert isinstance(fallback_law(SPEC, "rotor_thrust"), GeometricHold)
    other = fallback_law(SPEC, "hover")
    assert isinstance(other, SafeHold)
    np.testing.assert_array_equal(other.command(STATE, {}), SPEC.mode("hover").safe)
    assert isinstance(fallback_law(replace(SPEC, name="stranger"), "attitude_thrust"), SafeHold)


def test_the_law_learns_from_what_others_sent() -> None:
    """A craft that hovers although its thrust is 10 % above nominal has 10 % less force: the law must ask for it."""
    law = GeometricHold(SPEC, "attitude_thrust")
    nominal = law.command(STATE, STATE)[3]
    law.start(STATE)
    for _ in range(400):
        law.sent(STATE, np.array([0.0, 0.0, 0.0, 1.1 * nominal]), 0.01)
    assert law.command(STATE, STATE)[3] == pytest.approx(1.1 * nominal, rel=0.01)


def test_goals_are_checked_before_anything_flies_there() -> None:
    fence = fence_of(SPEC)
    assert fence is not None
    assert fence.holds(np.array([10.0, -10.0, 5.0]))
    assert not fence.holds(np.array([0.0, 0.0, 5.01]))
    np.testing.assert_array_equal(parse_goal("1,-2,0.5", "position_world", SPEC, fence)["position_world"], [1, -2, 0.5])
    for values, words in (([0, 0], "has 2 values"), ([0, 0, np.nan], "not finite"), ([0, 0, 6], "outside the fence")):
        with pytest.raises(BadInput, match=words):
            checked_goal("position_world", values, SPEC, fence)
    with pytest.raises(BadInput, match="has signals position_world, quat"):
        checked_goal("altitude", [1.0], SPEC, fence)
