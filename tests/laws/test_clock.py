"""Clocks: never back, scaled, stepped, and as a log tells it."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.clock import MonotonicClock, ReplayedClock, SteppedClock
from hardware.errors import BadInput

INSTANTS = st.lists(st.integers(0, 10**18), min_size=1, max_size=50)


@pytest.mark.parametrize("scale", [1.0, 0.1, 50.0])
def test_real_time_never_goes_back_and_runs_at_its_scale(scale: float) -> None:
    clock = MonotonicClock(scale)
    before, real_before = clock.now_ns(), time.monotonic_ns()
    readings = [clock.now_ns() for _ in range(2000)]
    assert readings == sorted(readings)
    time.sleep(0.02)
    passed, real_at_most = clock.now_ns() - before, time.monotonic_ns() - real_before
    assert 0.02e9 * scale <= passed <= real_at_most * scale + 1


def test_real_time_counts_from_the_epoch() -> None:
    assert abs(MonotonicClock().now_ns() - time.time_ns()) < 5e9


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_sleeping_ends_at_or_after_the_instant(scale: float) -> None:
    clock = MonotonicClock(scale)
    for ahead_ns in (0, -(10**9), 1_234_567, 20_000_001):
        target = clock.now_ns() + ahead_ns
        clock.sleep_until_ns(target)
        assert clock.now_ns() >= target


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_scale_must_be_positive(scale: float) -> None:
    with pytest.raises(BadInput, match="expected a positive number"):
        MonotonicClock(scale)


@given(steps=st.lists(st.floats(0.0, 1e6), max_size=20))
def test_stepped_time_moves_only_when_told(steps: list[float]) -> None:
    clock = SteppedClock(5)
    expected = 5
    for step in steps:
        clock.advance_s(step)
        expected += round(step * 1e9)
        assert clock.now_ns() == expected
    clock.sleep_until_ns(expected - 1)
    assert clock.now_ns() == expected
    clock.sleep_until_ns(expected + 7)
    assert clock.now_ns() == expected + 7


@pytest.mark.parametrize("step", [-1e-9, float("nan"), float("inf")])
def test_stepped_time_refuses_to_go_back(step: float) -> None:
    with pytest.raises(BadInput, match="cannot move on by"):
        SteppedClock().advance_s(step)


@given(instants=INSTANTS)
def test_replayed_time_is_the_running_maximum_of_the_log(instants: list[int]) -> None:
    """Also for a log that goes back in time: it is held there, not followed."""
    clock = ReplayedClock(instants)
    told = [clock.now_ns()]
    while clock.tick():
        told.append(clock.now_ns())
    assert told == [max(instants[: i + 1]) for i in range(len(instants))]
    assert not clock.tick()
    assert clock.now_ns() == max(instants)


@given(instants=INSTANTS, target=st.integers(0, 10**18))
def test_sleeping_in_a_replay_ends_at_the_first_later_instant(instants: list[int], target: int) -> None:
    clock = ReplayedClock(iter(instants))
    clock.sleep_until_ns(target)
    later = [t for t in instants if t >= target]
    assert clock.now_ns() == (later[0] if later else max(instants))


def test_empty_log_tells_no_time() -> None:
    with pytest.raises(BadInput, match="tells no time"):
        ReplayedClock([])


def test_stepped_time_may_be_read_by_another_thread() -> None:
    clock = SteppedClock()
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.extend(clock.now_ns() for _ in range(5000)))
    reader.start()
    for _ in range(5000):
        clock.advance_s(1e-3)
    reader.join()
    assert seen == sorted(seen)


def test_clocks_of_different_makers_agree_on_the_instant() -> None:
    clocks = [MonotonicClock() for _ in range(50)]
    begin = time.monotonic_ns()
    readings = [c.now_ns() for c in clocks]
    took = time.monotonic_ns() - begin
    assert max(readings) - min(readings) < took + 1_000_000


def test_scaled_clocks_of_several_processes_agree_by_their_origin() -> None:
    """Made at different times, they show the same instant; without an origin they would be apart by the scale."""
    origin = time.time_ns()
    first = MonotonicClock(1000.0, origin)
    time.sleep(0.02)
    second = MonotonicClock(1000.0, origin)
    before, between, after = first.now_ns(), second.now_ns(), first.now_ns()
    slack = 50_000_000_000  # 50 ms of real time: two wall clock readings on a busy machine
    assert before - slack <= between <= after + slack
    assert before >= origin + 15_000_000_000
