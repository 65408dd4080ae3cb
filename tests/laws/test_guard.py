"""Laws of `limit_command`: for every input within the limits, idempotent, monotone in time, the same everywhere."""

import math
import shutil
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.clock import SteppedClock
from hardware.errors import RoboError
from hardware.guard import GuardedRobot, limit_command
from hardware.spec import LimitArrays, Limits, load_spec

NASTY = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, -5e-324, 1.8e308, -1.8e308, 1e-310])
ANY_FLOAT = st.one_of(NASTY, st.floats(width=64), st.floats(-3.0, 3.0))
ANY_DT = st.one_of(NASTY, st.floats(width=64), st.floats(0.0, 0.1))


@st.composite
def limits_of(draw: st.DrawFn) -> LimitArrays:
    """Limits of four components: finite bounds, rates from zero to endless."""
    low = [draw(st.floats(-1e3, 1e3)) for _ in range(4)]
    high = [v + draw(st.floats(0.0, 1e3)) for v in low]
    rate = [draw(st.one_of(st.just(math.inf), st.just(0.0), st.floats(0.0, 1e4))) for _ in range(4)]
    return LimitArrays(np.array(low), np.array(high), np.array(rate))


VECTOR = st.lists(ANY_FLOAT, min_size=4, max_size=4).map(np.array)


def _bits(x: np.ndarray) -> bytes:
    """The vector's bits, with the two zeros taken as one."""
    return struct.pack("4d", *(x + 0.0))


@settings(max_examples=400)
@given(command=VECTOR, last=VECTOR, limits=limits_of(), dt_s=ANY_DT)
def test_never_outside_the_limits(command: np.ndarray, last: np.ndarray, limits: LimitArrays, dt_s: float) -> None:
    allowed = limit_command(command, last, limits, dt_s)
    assert np.all(np.isfinite(allowed))
    assert np.all((limits.low <= allowed) & (allowed <= limits.high))


@settings(max_examples=300)
@given(command=VECTOR, last=VECTOR, limits=limits_of(), dt_s=ANY_DT)
def test_idempotent(command: np.ndarray, last: np.ndarray, limits: LimitArrays, dt_s: float) -> None:
    once = limit_command(command, last, limits, dt_s)
    assert _bits(limit_command(once, last, limits, dt_s)) == _bits(once)


@settings(max_examples=300)
@given(command=VECTOR, last=VECTOR, limits=limits_of(), dts=st.tuples(ANY_DT, ANY_DT))
def test_monotone_in_time(command: np.ndarray, last: np.ndarray, limits: LimitArrays, dts: tuple[float, float]) -> None:
    """More time never brings the command further from the wanted one."""
    short, long = sorted((d if d > 0 else 0.0) for d in dts)
    start = limit_command(last, last, limits, math.inf)
    near = limit_command(command, last, limits, short)
    far = limit_command(command, last, limits, long)
    assert np.all(np.abs(near - start) <= np.abs(far - start))
    assert np.all((near - start) * (far - start) >= 0.0)


@given(command=VECTOR, limits=limits_of(), dt_s=st.floats(0.0, 0.1), data=st.data())
def test_slew_is_bounded_by_the_rate(
    command: np.ndarray, limits: LimitArrays, dt_s: float, data: st.DataObject
) -> None:
    share = np.array(data.draw(st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4)))
    last = np.clip(limits.low + share * (limits.high - limits.low), limits.low, limits.high)
    moved = np.abs(limit_command(command, last, limits, dt_s) - last)
    bound = limits.rate * max(dt_s, 1e-30)
    assert np.all(moved <= bound + 4 * np.finfo(float).eps * np.maximum(np.abs(last), bound) + 1e-26)


@given(limits=limits_of(), command=VECTOR, last=VECTOR)
def test_infinite_rate_is_a_plain_clamp(limits: LimitArrays, command: np.ndarray, last: np.ndarray) -> None:
    """numpy's own clip is the witness."""
    endless = limits._replace(rate=np.full(4, np.inf))
    finite = np.isfinite(command)
    expected = np.clip(command, limits.low, limits.high)
    assert np.array_equal(limit_command(command, last, endless, 0.0)[finite], expected[finite])


@settings(max_examples=200)
@given(command=VECTOR, last=VECTOR, limits=limits_of(), dt_s=ANY_DT)
def test_numpy_equals_torch_bit_for_bit(
    command: np.ndarray, last: np.ndarray, limits: LimitArrays, dt_s: float
) -> None:
    on_torch = LimitArrays(*(torch.from_numpy(v.copy()) for v in limits))
    allowed = limit_command(torch.from_numpy(command), torch.from_numpy(last), on_torch, dt_s)
    assert _bits(allowed.numpy()) == _bits(limit_command(command, last, limits, dt_s))


def _hand_limits() -> Limits:
    return Limits(
        position=((-1.0, 1.0), (0.0, 2.0), (-5.0, 5.0)),
        rate=(10.0, math.inf, math.inf),
        effort=(math.inf, math.inf, 3.0),
    )


def test_hand_computed() -> None:
    """One row per rule: slew, clamp, effort; hold on NaN; a start outside the limits comes back at once."""
    limits = _hand_limits().on(np.zeros(1))
    last = np.array([0.0, 1.0, 0.0])
    rows = [
        ([1.0, 5.0, 5.0], [0.1, 2.0, 3.0]),
        ([-1.0, -5.0, -5.0], [-0.1, 0.0, -3.0]),
        ([0.05, 1.5, 1.0], [0.05, 1.5, 1.0]),
        ([math.nan, math.inf, -math.inf], [0.0, 1.0, 0.0]),
    ]
    for wanted, expected in rows:
        assert limit_command(np.array(wanted), last, limits, 0.01) == pytest.approx(expected, abs=1e-15)
    outside = limit_command(np.array([0.0, 0.0, 0.0]), np.array([4.0, 9.0, -9.0]), limits, 0.01)
    assert outside == pytest.approx([0.9, 0.0, 0.0], abs=1e-15)


def test_float32_stays_float32() -> None:
    limits = _hand_limits().on(np.zeros(1, np.float32))
    allowed = limit_command(np.zeros(3, np.float32), np.zeros(3, np.float32), limits, 0.01)
    assert allowed.dtype == np.float32


def test_leading_dimensions_are_free() -> None:
    rng = np.random.default_rng(1)
    limits = _hand_limits().on(np.zeros(1))
    command, last = rng.normal(size=(2, 5, 3)) * 3, rng.normal(size=(2, 5, 3))
    batch = limit_command(command, last, limits, 0.01)
    for i in np.ndindex(2, 5):
        assert np.array_equal(batch[i], limit_command(command[i], last[i], limits, 0.01))


BACKENDS = [
    "eager",
    pytest.param(
        "inductor", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
    ),
]


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_to_one_graph_that_equals_eager(backend: str) -> None:
    """Full graph, no warning (a warning is an error here), values and gradients equal to eager's."""
    torch._dynamo.reset()
    limits = _hand_limits().on(torch.zeros(1))
    compiled = torch.compile(lambda c, last: limit_command(c, last, limits, 0.01), fullgraph=True, backend=backend)
    generator = torch.Generator().manual_seed(3)
    command = 3 * torch.randn(64, 3, generator=generator)
    command[::7] = torch.nan
    command[1::7] = -torch.inf
    last = torch.randn(64, 3, generator=generator)
    results = []
    for law in (compiled, lambda c, last: limit_command(c, last, limits, 0.01)):
        leaf, start = command.clone().requires_grad_(), last.clone().requires_grad_()
        allowed = law(leaf, start)
        allowed.square().sum().backward()
        results.append((allowed.detach(), leaf.grad, start.grad))
    for ours, eager in zip(*results, strict=True):
        assert torch.allclose(ours, eager, rtol=0.0, atol=1e-6)
        assert torch.isfinite(ours).all()


def test_gradients_inside_and_outside() -> None:
    """Inside the window the law is the identity (finite differences agree); outside, the command has no influence."""
    limits = _hand_limits().on(torch.zeros(1, dtype=torch.float64))
    last = torch.tensor([0.3, 1.0, 0.5], dtype=torch.float64, requires_grad=True)
    inside = torch.tensor([0.35, 0.4, -1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c, s: limit_command(c, s, limits, 0.01), (inside, last))
    outside = torch.tensor([0.9, 7.0, -4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c, s: limit_command(c, s, limits, 0.01), (outside, last))
    (to_command, to_last) = torch.autograd.grad(limit_command(outside, last, limits, 0.01).sum(), (outside, last))
    assert to_command.tolist() == [0.0, 0.0, 0.0]
    assert to_last.tolist() == [1.0, 0.0, 0.0]  # at the slew limit the command moves with the last one


@settings(max_examples=100)
@given(command=VECTOR, last=VECTOR, limits=limits_of(), dt_s=st.floats(0.0, 1.0))
def test_gradients_are_always_finite(command: np.ndarray, last: np.ndarray, limits: LimitArrays, dt_s: float) -> None:
    on_torch = LimitArrays(*(torch.from_numpy(v.copy()) for v in limits))
    leaf, start = torch.from_numpy(command).requires_grad_(), torch.from_numpy(last).requires_grad_()
    grads = torch.autograd.grad(limit_command(leaf, start, on_torch, dt_s).sum(), (leaf, start))
    assert all(torch.isfinite(g).all() for g in grads)


def test_parameters_pass_to_robots_that_have_some() -> None:
    class Adjustable:
        spec = load_spec("crazyflie")
        written: list[tuple[str, float, str]] = []

        def set_parameter(self, name: str, value: float, kind: str) -> None:
            self.written.append((name, value, kind))

    class Fixed:
        spec = load_spec("crazyflie")

    GuardedRobot(Adjustable(), SteppedClock()).set_parameter("a.b", 6.0, "uint8")  # type: ignore[arg-type]
    assert Adjustable.written == [("a.b", 6.0, "uint8")]
    with pytest.raises(RoboError, match="robot crazyflie has no parameters"):
        GuardedRobot(Fixed(), SteppedClock()).set_parameter("a.b", 6.0, "uint8")  # type: ignore[arg-type]
