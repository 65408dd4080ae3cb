"""States, commands and policy steps through messages and back, and the robot that is made of a recording."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.log_samples import START_NS

from hardware.clock import ReplayedClock, SteppedClock
from hardware.errors import BadInput, LinkLost, RoboError
from hardware.guard import GuardedRobot
from hardware.log.reader import Log
from hardware.log.types import decoder, encode, standard_store
from hardware.log.writer import LogWriter
from hardware.messages import (
    STATUS_TOPIC,
    TICK_TOPIC,
    RosbagsMessages,
    Tick,
    absolute,
    command_from_message,
    command_message,
    command_topics,
    pack_tick,
    primary_topic,
    stamp_ns,
    state_messages,
    state_topics,
    status_message,
    unpack_tick,
    update_state,
)
from hardware.replay import (
    SILENCE_S,
    ReplayRobot,
    namespaces,
    recorded_commands,
    recorded_states,
    recorded_ticks,
)
from hardware.robot import Command, RobotIO, RobotState
from hardware.spec import load_spec, robot_names

MAKE = RosbagsMessages()
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64)
DELAY_NS = 4_000_000


def _over_the_wire(message):
    return decoder(standard_store(), message.__msgtype__)(encode(message))


@pytest.mark.parametrize("robot", robot_names())
@given(data=st.data())
@settings(max_examples=40)
def test_states_survive_messages(robot: str, data: st.DataObject) -> None:
    """Round trip of every signal of every robot through CDR; single-precision fields to their precision."""
    spec = load_spec(robot)
    signals = {
        s.name: np.array(
            data.draw(st.lists(st.floats(-1e3, 1e3), min_size=int(np.prod(s.shape)), max_size=int(np.prod(s.shape))))
        ).reshape(s.shape)
        for s in spec.signals.values()
        if s.topic is not None
    }
    t_ns = data.draw(st.integers(1, 2**31 * 10**9 - 1))
    state = RobotState(t_ns, signals, frozenset({"flying", "armed"}))
    back = RobotState(0, {})
    for topic, message in {**state_messages(spec, state, MAKE), STATUS_TOPIC: status_message(state, MAKE)}.items():
        back = update_state(spec, back, topic, _over_the_wire(message), received_ns=7)
    assert back.t_ns == t_ns
    assert back.status == state.status
    assert back.signals.keys() == signals.keys()
    for name, value in signals.items():
        assert back.signals[name].shape == value.shape
        np.testing.assert_allclose(back.signals[name], value, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("robot", robot_names())
def test_commands_survive_messages(robot: str) -> None:
    """Round trip of every command mode with a topic, to the last bit or one unit of rounding in the scale."""
    spec, rng = load_spec(robot), np.random.default_rng(0)
    for topic, mode in command_topics(spec).items():
        for _ in range(50):
            values = rng.normal(size=len(mode.components))
            name, message = command_message(spec, Command(mode.name, values), MAKE)
            assert name == topic
            np.testing.assert_allclose(command_from_message(mode, _over_the_wire(message)).values, values, rtol=4e-16)


def test_crazyflie_messages_say_what_crazyswarm2_expects() -> None:
    """Hand-computed, from Crazyswarm2's convention: degrees, linear.x for pitch, thrust of 65535."""
    spec = load_spec("crazyflie")
    command = Command("attitude_thrust", np.array([np.pi / 6, np.pi / 12, np.pi / 2, 0.5]))
    topic, twist = command_message(spec, command, MAKE)
    assert topic == "cmd_vel_legacy"
    assert twist.linear.y == pytest.approx(30.0)
    assert twist.linear.x == pytest.approx(15.0)
    assert twist.angular.z == pytest.approx(90.0)
    assert twist.linear.z == pytest.approx(32767.5)
    state = RobotState(
        1_500_000_000, {"quat_wxyz": np.array([0.5, 0.1, 0.2, 0.3]), "battery_voltage": np.array(3.7)}, frozenset()
    )
    messages = state_messages(spec, state, MAKE, body_frame="cf7")
    odometry, battery = messages["odom"], messages["battery"]
    o = odometry.pose.pose.orientation
    assert (o.w, o.x, o.y, o.z) == (0.5, 0.1, 0.2, 0.3)
    assert (odometry.header.stamp.sec, odometry.header.stamp.nanosec) == (1, 500_000_000)
    assert odometry.child_frame_id == "cf7"
    assert battery.voltage == 3.7
    assert np.isnan(battery.current)


def test_a_battery_message_does_not_make_an_old_position_fresh() -> None:
    """Only the primary topic moves the state's instant."""
    spec = load_spec("crazyflie")
    assert primary_topic(spec) == "odom"
    old = RobotState(5, {"position_world": np.zeros(3)})
    message = state_messages(spec, RobotState(9, {"battery_voltage": np.array(4.0)}), MAKE)["battery"]
    assert update_state(spec, old, "battery", message, 9).t_ns == 5
    assert update_state(spec, old, "unrelated", message, 9) is old


def test_an_unstamped_primary_message_counts_from_its_reception() -> None:
    """A stamp of zero was never filled in."""
    spec = load_spec("crazyflie")
    message = MAKE.new(state_topics(spec)["odom"])
    assert stamp_ns(message) is None
    assert update_state(spec, RobotState(0, {}), "odom", message, 123).t_ns == 123


@given(
    sequence=st.integers(0, 2**32 - 1),
    t_ns=st.integers(0, 2**31 * 10**9),
    goal=st.lists(FLOATS, max_size=4),
    observation=st.lists(FLOATS, max_size=40),
    command=st.lists(FLOATS, min_size=1, max_size=7),
)
def test_ticks_survive_messages_exactly(
    sequence: int, t_ns: int, goal: list[float], observation: list[float], command: list[float]
) -> None:
    """Round trip through CDR, bit for bit: parity of replayed actions rests on it."""
    tick = Tick(
        sequence, t_ns, {"position_world": np.array(goal)}, {"policy": np.array(observation), "extra": np.zeros(0)},
        np.array(command), -np.array(command),
    )  # fmt: skip
    back = unpack_tick(_over_the_wire(pack_tick(tick, MAKE)))
    assert (back.sequence, back.state_t_ns) == (sequence, t_ns)
    for ours, theirs in ((tick.goal, back.goal), (tick.observation, back.observation)):
        assert ours.keys() == theirs.keys()
        assert all(ours[k].tobytes() == theirs[k].tobytes() for k in ours)
    assert back.command.tobytes() == tick.command.tobytes()
    assert back.sent.tobytes() == tick.sent.tobytes()


def test_a_broken_tick_is_refused() -> None:
    """Labels that do not fit the data, and labels that are missing."""
    tick = Tick(0, 1, {}, {"policy": np.zeros(3)}, np.zeros(2), np.zeros(2))
    message = pack_tick(tick, MAKE)
    message.data = message.data[:-1]
    with pytest.raises(BadInput, match="labels announce 9 values, the message holds 8"):
        unpack_tick(message)
    message = pack_tick(tick, MAKE)
    message.layout.dim[-1].label = "nonsense"
    with pytest.raises(BadInput, match="no sent in"):
        unpack_tick(message)


def _recording(directory: Path, count: int = 100, namespaces_: tuple[str, ...] = ("crazyflie",)) -> list[RobotState]:
    """A log of states at 100 Hz, received 4 ms late, with commands, ticks and a status that changes half-way."""
    spec, rng, states = load_spec("crazyflie"), np.random.default_rng(3), []
    with LogWriter(directory) as writer:
        for i in range(count):
            t_ns = START_NS + i * 10_000_000
            signals = {
                name: rng.normal(size=spec.signals[name].shape)
                for name in ("position_world", "quat_wxyz", "velocity_world", "angular_velocity_body")
            }
            state = RobotState(t_ns, signals, frozenset({"armed", "flying"} if i >= count // 2 else ()))
            states.append(state)
            for space in namespaces_:
                for topic, message in state_messages(spec, state, MAKE, space).items():
                    writer.write_message(absolute(space, topic), message, t_ns + DELAY_NS)
                if i in (0, count // 2):
                    writer.write_message(absolute(space, STATUS_TOPIC), status_message(state, MAKE), t_ns + DELAY_NS)
                command = Command("rotor_thrust", np.full(4, i / count))
                topic, message = command_message(spec, command, MAKE)
                writer.write_message(absolute(space, topic), message, t_ns + DELAY_NS + 1)
                tick = Tick(i, t_ns, {}, {"policy": np.full(3, float(i))}, command.values, command.values)
                writer.write_message(absolute(space, TICK_TOPIC), pack_tick(tick, MAKE), t_ns + DELAY_NS + 1)
    return states


def test_a_recording_gives_back_its_states_commands_and_ticks(tmp_path: Path) -> None:
    """What went in comes out, in order, with the instants of reception."""
    states = _recording(tmp_path / "log")
    log, spec = Log(tmp_path / "log"), load_spec("crazyflie")
    assert namespaces(log, spec) == ["/crazyflie"]
    found = [r for r in recorded_states(log, spec) if r.received_ns - r.value.t_ns == DELAY_NS]
    by_instant = {r.value.t_ns: r.value for r in found}
    assert list(by_instant) == [s.t_ns for s in states]
    for state in states:
        back = by_instant[state.t_ns]
        assert all(np.array_equal(back.signals[k], v) for k, v in state.signals.items())
        assert back.status == state.status
    commands = list(recorded_commands(log, spec))
    assert [c.value.values[0] for c in commands] == [i / 100 for i in range(100)]
    assert [c.received_ns for c in commands] == [s.t_ns + DELAY_NS + 1 for s in states]
    assert [t.value.sequence for t in recorded_ticks(log, spec)] == list(range(100))


def test_a_replayed_robot_on_the_logs_own_clock(tmp_path: Path) -> None:
    """Nothing is shifted; each tick of the clock brings the state that was received then."""
    states = _recording(tmp_path / "log")
    log, spec = Log(tmp_path / "log"), load_spec("crazyflie")
    clock = ReplayedClock([s.t_ns + DELAY_NS for s in states])
    robot: RobotIO = ReplayRobot(log, spec, clock)
    robot.open()
    seen = [robot.read()]
    while clock.tick():
        seen.append(robot.read())
    assert [s.t_ns for s in seen] == [s.t_ns for s in states]
    for served, recorded in zip(seen, states, strict=True):
        assert np.array_equal(served.signals["position_world"], recorded.signals["position_world"])
    assert ["flying" in s.status for s in seen] == [i >= 50 for i in range(100)]
    assert not any("armed" in s.status for s in seen)  # armed is what this caller did, not what the recording's did


def test_a_replayed_robot_on_another_clock(tmp_path: Path) -> None:
    """Shifted to the opening; the newest state that has been received by now; silence at the end is a lost link."""
    states = _recording(tmp_path / "log")
    clock = SteppedClock(start_ns=50_000_000_000)
    robot = ReplayRobot(Log(tmp_path / "log"), load_spec("crazyflie"), clock)
    with pytest.raises(LinkLost, match="not open"):
        robot.read()
    robot.open()
    shift = 50_000_000_000 - states[0].t_ns - DELAY_NS
    for elapsed_ms in (0, 3, 9, 10, 11, 400, 402, 989, 990):
        clock.sleep_until_ns(50_000_000_000 + elapsed_ms * 1_000_000)
        assert robot.read().t_ns == states[elapsed_ms // 10].t_ns + shift
        assert robot.read().t_ns == states[elapsed_ms // 10].t_ns + shift
    assert robot.ended
    clock.advance_s(SILENCE_S)
    robot.read()
    clock.advance_s(0.001)
    with pytest.raises(LinkLost, match="ends here"):
        robot.read()
    robot.open()
    assert robot.read().t_ns == clock.now_ns() - DELAY_NS


def test_a_replayed_robot_behind_the_guard(tmp_path: Path) -> None:
    """Keeps what the guard lets through; refuses what a real driver refuses."""
    _recording(tmp_path / "log")
    clock = SteppedClock()
    robot = ReplayRobot(Log(tmp_path / "log"), load_spec("crazyflie"), clock)
    guarded = GuardedRobot(robot, clock)
    guarded.open()
    with pytest.raises(RoboError, match="not armed"):
        guarded.write(Command("rotor_thrust", np.zeros(4)))
    guarded.arm()
    assert "armed" in guarded.read().status
    guarded.write(Command("rotor_thrust", np.array([9.0, -9.0, np.nan, 0.5])))
    assert robot.written[-1][0] == clock.now_ns()
    assert np.all((robot.written[-1][1].values >= 0.0) & (robot.written[-1][1].values <= 1.0))
    guarded.write(Command("land", np.array([0.0, 2.0])))
    with pytest.raises(RoboError, match=r"'warp' not found; known: .*rotor_thrust"):
        robot.write(Command("warp", np.zeros(4)))
    with pytest.raises(BadInput, match=r"shape \(3,\); expected \(4,\)"):
        robot.write(Command("rotor_thrust", np.zeros(3)))
    guarded.stop()
    guarded.stop()
    with pytest.raises(RoboError, match="not armed"):
        guarded.write(Command("rotor_thrust", np.zeros(4)))
    guarded.close()
    guarded.close()
    assert [c.mode for _, c in robot.written] == ["rotor_thrust", "land"]


def test_which_robot_of_a_log(tmp_path: Path) -> None:
    """One: found. Several: must be named. None: says what there is."""
    spec = load_spec("crazyflie")
    _recording(tmp_path / "two", 4, ("cf1", "/lab/cf2/"))
    log = Log(tmp_path / "two")
    assert namespaces(log, spec) == ["/cf1", "/lab/cf2"]
    with pytest.raises(BadInput, match=r"expected one robot .* namespaces /cf1, /lab/cf2"):
        next(recorded_states(log, spec))
    assert next(recorded_states(log, spec, "lab/cf2")).value.t_ns == START_NS
    with pytest.raises(BadInput, match="in namespace /cf3"):
        ReplayRobot(log, spec, SteppedClock(), "cf3")
    with LogWriter(tmp_path / "none") as writer:
        writer.add_topic("/chatter", "std_msgs/msg/String")
    with pytest.raises(BadInput, match="the log holds topics /chatter"):
        ReplayRobot(Log(tmp_path / "none"), spec, SteppedClock())
