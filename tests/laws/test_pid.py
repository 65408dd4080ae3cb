"""The PID step against numbers worked out by hand, a first-order plant with a known answer, and its own promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.pid import PidGains, pid_start, pid_step


def test_three_steps_by_hand() -> None:
    gains = PidGains(kp=2.0, ki=1.0, kd=0.5)
    state = pid_start(np.array(0.0))
    out, state = pid_step(np.array(1.0), np.array(0.0), state, gains=gains, dt_s=0.1)
    assert out == pytest.approx(2.0 + 0.1)  # P 2, I 1 x 1 x 0.1, D 0
    out, state = pid_step(np.array(1.0), np.array(0.2), state, gains=gains, dt_s=0.1)
    assert out == pytest.approx(1.6 - 0.5 * 2.0 + 0.18)  # P 2 x 0.8, D 0.5 x 0.2/0.1, I 0.1 + 0.08
    out, _ = pid_step(np.array(5.0), np.array(0.2), state, gains=gains, dt_s=0.1)
    assert out == pytest.approx(9.6 + 0.66)  # a jump of the set point moves P and I; D stays zero


def test_the_derivative_is_filtered_as_a_first_order_low_pass() -> None:
    gains = PidGains(kp=0.0, kd=1.0, derivative_cutoff_hz=1.0)
    out, _ = pid_step(np.array(0.0), np.array(1.0), pid_start(np.array(0.0)), gains=gains, dt_s=0.01)
    assert out == pytest.approx(-100 * (1 - np.exp(-2 * np.pi * 0.01)))


def test_a_bounded_actuator_leaves_no_wound_up_integral() -> None:
    """Plant x' = u - 0.5 with u <= 1: after 10 s out of reach, the loop returns with little overshoot."""
    gains = PidGains(kp=4.0, ki=2.0, low=0.0, high=1.0)
    x, state, highest = np.array(-5.0), pid_start(np.array(-5.0)), -5.0
    for _ in range(6000):
        u, state = pid_step(np.array(0.0), x, state, gains=gains, dt_s=0.01)
        x = x + (u - 0.5) * 0.01
        highest = max(highest, float(x))
    assert abs(x) < 1e-3  # the integral carries the load of 0.5
    assert state.integral == pytest.approx(0.5, abs=1e-3)
    assert highest < 0.2


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=40))
def test_output_stays_in_bounds_and_saturation_never_feeds_the_integral(errors: list[float]) -> None:
    gains = PidGains(kp=1.0, ki=3.0, low=-1.0, high=2.0)
    state = pid_start(np.array(0.0))
    for e in errors:
        before = float(state.integral)
        out, state = pid_step(np.array(e), np.array(0.0), state, gains=gains, dt_s=0.05)
        assert -1.0 <= out <= 2.0
        if out in (-1.0, 2.0) and np.sign(e) == np.sign(out - 0.5):
            assert abs(float(state.integral)) <= max(abs(before), 2.0) + 3.0 * 10 * 0.05
