"""Every documented fault of a command stream has its test here, written before the guard handled it.

| fault | where it is documented | what the guard does |
|---|---|---|
| NaN or infinite component | ros2_control forward_command_controller drops such messages | holds that component |
| NaN before any good command | the same, at start | the mode's safe command |
| value out of range | clamps of position and effort in the safety layers of nav2 and Autoware | clamps |
| jump between two commands | Autoware vehicle_cmd_gate's rate filters, nav2_velocity_smoother | slews |
| first command far from the machine | vehicle_cmd_gate's "on transition" limits | ramps from the measured state |
| lost samples (reliable, depth 1, late reader) | ROS 2 QoS keep-last | grants at most three periods |
| sender restarted after kill -9 (2.1 s of silence) | DDS discovery time | the same |
| burst of queued commands after SIGCONT | executor backlog | no more change than time has passed |
| sender faster than the mode's rate | no rate check in forward_command_controller | the same |
| clock set back (simulated time restarted, NTP) | use_sim_time, /clock | holds, and earns no credit |
| wrong number of components | Float64MultiArray carries no contract | BadInput |
| unknown mode | - | BadInput's sibling NotFoundError, with the modes there are |
| two modes in turn | a fresh mode has no history of its own | starts from its safe command |
| one-shot command with NaN (takeoff to NaN) | custom services take any float | the safe value of that component |
| command changed or lost on the way | - | `sent` is what was handed to the robot, not what was wished |
"""

import math
import tomllib
from dataclasses import dataclass, field

import numpy as np
import pytest

from hardware.clock import SteppedClock
from hardware.errors import BadInput, LinkLost, NotFoundError
from hardware.guard import GuardedRobot
from hardware.robot import Command, RobotState
from hardware.spec import RobotSpec, parse_spec

SPEC = parse_spec(
    tomllib.loads("""
name = "cart"
summary = "a cart on a rail"
rate_hz = 100.0
address = "udp://127.0.0.1:0"
[signals.position]
unit = "m"
[modes.servo]
rate_hz = 100.0
components = [
  { name = "position", unit = "m", low = -1.0, high = 1.0, rate = 2.0, safe = 0.1 },
  { name = "force", unit = "N", low = -9.0, high = 9.0, effort = 4.0 },
]
[modes.speed]
rate_hz = 50.0
components = [{ name = "speed", unit = "m/s", low = -1.0, high = 1.0, rate = 5.0 }]
[modes.lift]
components = [{ name = "height", unit = "m", low = 0.2, high = 2.0, safe = 0.5 }]
[safe_states]
default = { mode = "stop" }
"""),
    source="cart",
)
PERIOD_S = 0.01
STEP = 2.0 * PERIOD_S


@dataclass
class Rail:
    """A machine that notes what reaches it; the far end of the guard."""

    spec: RobotSpec = SPEC
    seen: list[Command] = field(default_factory=list)
    broken: bool = False

    def open(self) -> None: ...

    def read(self) -> RobotState:
        return RobotState(0, {})

    def write(self, command: Command) -> None:
        if self.broken:
            raise LinkLost("the rail is gone")
        self.seen.append(command)

    def arm(self) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


class Bench:
    """A guarded rail on a stepped clock."""

    def __init__(self) -> None:
        self.clock, self.rail = SteppedClock(10**9), Rail()
        self.robot = GuardedRobot(self.rail, self.clock)

    def send(self, *values: float, mode: str = "servo", after_s: float = PERIOD_S) -> list[float]:
        """Sends after a while and returns what reached the machine."""
        self.clock.advance_s(after_s)
        self.robot.write(Command(mode, np.array(values)))
        return self.rail.seen[-1].values.tolist()


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_component_that_is_not_finite_is_held(bench: Bench, bad: float) -> None:
    bench.send(0.1, 3.0)
    assert bench.send(bad, 2.0) == [0.1, 2.0]
    assert bench.send(0.1, bad) == [0.1, 2.0]
    assert bench.robot.interventions == 2


def test_nothing_finite_before_any_good_command_gives_the_safe_command(bench: Bench) -> None:
    assert bench.send(math.nan, math.nan) == [0.1, 0.0]


def test_values_out_of_range_are_clamped_also_by_effort(bench: Bench) -> None:
    bench.robot.ramp_from("servo", np.array([0.99, 0.0]))
    assert bench.send(1e300, 1e300) == [1.0, 4.0]
    assert bench.send(1.0, -1e300) == [1.0, -4.0]


def test_jump_is_slewed(bench: Bench) -> None:
    positions = [bench.send(1.0, 0.0)[0] for _ in range(3)]
    assert positions == pytest.approx([0.1 + STEP, 0.1 + 2 * STEP, 0.1 + 3 * STEP])


def test_first_command_ramps_from_the_measured_state(bench: Bench) -> None:
    bench.robot.arm()
    bench.robot.ramp_from("servo", np.array([-0.8, 0.0]))
    assert bench.send(1.0, 0.0)[0] == pytest.approx(-0.8 + STEP)


@pytest.mark.parametrize("measured", [[math.nan, 0.0], [0.0], [0.0, math.inf]])
def test_ramp_refuses_a_measurement_that_is_none(bench: Bench, measured: list[float]) -> None:
    with pytest.raises(BadInput):
        bench.robot.ramp_from("servo", np.array(measured))


@pytest.mark.parametrize("silence_s", [0.03, 0.1, 2.1, 3600.0])
def test_silence_grants_no_jump(bench: Bench, silence_s: float) -> None:
    bench.send(0.1, 0.0)
    assert bench.send(1.0, 0.0, after_s=silence_s)[0] <= 0.1 + 3 * STEP + 1e-12


@pytest.mark.parametrize("interval_s", [0.0, 1e-4, 1e-3, 3e-3])
def test_fast_or_queued_commands_gain_nothing(bench: Bench, interval_s: float) -> None:
    """Over any span of T a component moves at most rate * (T + three periods), however often it is commanded."""
    bench.send(-1.0, 0.0)
    start = bench.rail.seen[-1].values[0]
    count = 200
    for _ in range(count):
        reached = bench.send(1.0, 0.0, after_s=interval_s)[0]
    assert reached <= start + 2.0 * (count * interval_s + 3 * PERIOD_S) + 1e-12


def test_sender_at_the_modes_rate_gets_the_full_rate_despite_jitter(bench: Bench) -> None:
    """Alternating 8 and 12 ms: over a second, the command has moved by rate times time (within three periods)."""
    bench.robot.ramp_from("servo", np.array([-1.0, 0.0]))
    for i in range(40):
        reached = bench.send(1.0, 0.0, after_s=0.008 if i % 2 else 0.012)[0]
    assert reached == pytest.approx(-1.0 + 2.0 * 0.4, abs=3 * STEP)


def test_slower_sender_gets_its_own_period(bench: Bench) -> None:
    """A policy at 50 Hz in a mode of 100 Hz trained with windows of 20 ms, and gets them."""
    bench.robot.ramp_from("servo", np.array([-1.0, 0.0]))
    reached = [bench.send(1.0, 0.0, after_s=0.02)[0] for _ in range(5)]
    assert np.diff(reached) == pytest.approx([2 * STEP] * 4)


class _BackwardsClock(SteppedClock):
    def back(self, by_s: float) -> None:
        self._now_ns -= int(by_s * 1e9)


def test_clock_that_goes_back_holds_and_earns_nothing() -> None:
    clock, rail = _BackwardsClock(10**12), Rail()
    robot = GuardedRobot(rail, clock)
    for _ in range(5):
        clock.advance_s(PERIOD_S)
        robot.write(Command("servo", np.array([1.0, 0.0])))
    before = rail.seen[-1].values[0]
    for _ in range(20):  # twenty commands, each a second before the one before it
        clock.back(1.0)
        robot.write(Command("servo", np.array([-1.0, 0.0])))
    assert rail.seen[-1].values[0] >= before - 3 * STEP - 1e-12


def test_clock_that_swings_earns_nothing() -> None:
    """A second back and a second forth, twenty times: no time has passed, so no more than three periods are granted."""
    clock, rail = _BackwardsClock(10**12), Rail()
    robot = GuardedRobot(rail, clock)
    robot.ramp_from("servo", np.array([-1.0, 0.0]))
    for _ in range(20):
        clock.back(1.0)
        robot.write(Command("servo", np.array([1.0, 0.0])))
        clock.advance_s(1.0)
        robot.write(Command("servo", np.array([1.0, 0.0])))
    assert rail.seen[-1].values[0] <= -1.0 + 3 * STEP + 1e-12


@pytest.mark.parametrize("values", [[], [0.0], [0.0, 0.0, 0.0], [[0.0, 0.0]]])
def test_wrong_number_of_components(bench: Bench, values: list[float]) -> None:
    with pytest.raises(BadInput, match=r"command of mode servo has shape .*; expected \(2,\)"):
        bench.robot.write(Command("servo", np.array(values)))
    assert bench.rail.seen == []


def test_unknown_mode(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match="command mode of robot cart 'warp' not found; known: lift, servo, speed"):
        bench.robot.write(Command("warp", np.zeros(2)))


def test_modes_in_turn_start_from_their_safe_command(bench: Bench) -> None:
    for _ in range(20):
        bench.send(1.0, 0.0)
    assert bench.send(1.0, mode="speed") == pytest.approx([5.0 / 50.0])
    assert bench.send(1.0, 0.0)[0] == pytest.approx(0.1 + STEP)


def test_stop_and_arm_forget_the_last_command(bench: Bench) -> None:
    for forget in (bench.robot.stop, bench.robot.arm):
        bench.robot.ramp_from("servo", np.array([0.9, 0.0]))
        forget()
        assert bench.send(1.0, 0.0)[0] == pytest.approx(0.1 + STEP)


@pytest.mark.parametrize(("wanted", "given"), [(1.5, 1.5), (99.0, 2.0), (-1.0, 0.2), (math.nan, 0.5), (math.inf, 0.5)])
def test_one_shot_command(bench: Bench, wanted: float, given: float) -> None:
    """Clamped, never slewed; what is not finite becomes the safe value."""
    assert bench.send(0.2, mode="lift") == [0.2]
    assert bench.send(wanted, mode="lift", after_s=0.0) == [given]


def test_sent_is_what_was_handed_to_the_robot(bench: Bench) -> None:
    """Not what was wished; and of the commanded mode also where the link breaks."""
    bench.send(1.0, 9.0)
    assert bench.robot.sent is bench.rail.seen[-1]
    bench.rail.broken = True
    with pytest.raises(LinkLost):
        bench.send(9.0, mode="speed")
    assert bench.robot.sent == Command("speed", pytest.approx([0.1]))


def test_untouched_commands_are_no_interventions(bench: Bench) -> None:
    for i in range(10):
        bench.send(0.1 + 0.001 * i, 0.5)
    assert bench.robot.interventions == 0
