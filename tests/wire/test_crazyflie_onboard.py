"""Policies on board: when they fly, what they are told, what becomes of forces that make no sense, and faults."""

import numpy as np
import pytest
from support.crazyflie_client import Client
from support.onboard_fakes import HOVER, Scripted

from hardware.robots.crazyflie import wire_commands as w
from hardware.robots.crazyflie.motion_capture import Capture
from hardware.robots.crazyflie.onboard import OUT_OF_TREE
from hardware.robots.crazyflie.supervisor import State
from hardware.robots.crazyflie.swarm import EmulatedSwarm

CONTROLLER = "stabilizer.controller"


def armed(policy: Scripted, **options: object) -> Client:
    client = Client(EmulatedSwarm(seed=4, onboard=policy, **options))  # type: ignore[arg-type]
    client.advance(0.1)
    assert client.arm() == (True, True)
    return client


def flying(policy: Scripted) -> Client:
    """In the air by the firmware's own controllers, before the policy takes over."""
    client = Client(EmulatedSwarm(seed=4, onboard=policy))
    client.set_parameter(CONTROLLER, 1)
    client.take_off()
    return client


def test_a_drone_with_a_policy_starts_with_it_and_without_one_does_not() -> None:
    assert Client(EmulatedSwarm(onboard=Scripted())).pilot.parameters[CONTROLLER] == OUT_OF_TREE
    assert Client(EmulatedSwarm()).pilot.parameters[CONTROLLER] == 1


def test_position_set_points_go_to_the_policy_as_goals_and_its_forces_to_the_motors() -> None:
    policy = Scripted(force=0.3)
    client = armed(policy)
    assert not policy.asked
    client.advance(0.05, w.Position(0.5, -0.25, 0.75, 0.0))
    assert client.motors == pytest.approx([0.3] * 4)
    assert policy.restarts == [0]
    assert policy.asked[-1] == ([True], [0.5, -0.25, 0.75])
    before = len(policy.asked)
    client.advance(0.1, w.Position(0.5, -0.25, 0.75, 0.0))
    assert len(policy.asked) - before == 50  # every 2 ms


@pytest.mark.parametrize("message", [w.FullState((1, 2, 3), (0, 0, 0), (0, 0, 0), (1, 0, 0, 0), (0, 0, 0))])
def test_full_states_are_goals_too(message: w.Setpoint) -> None:
    policy = Scripted()
    armed(policy).advance(0.05, message)
    assert policy.asked[-1] == ([True], [1.0, 2.0, 3.0])


def test_the_high_level_commander_moves_the_goal() -> None:
    policy = Scripted()
    client = armed(policy)
    client.send(w.Takeoff(1.0, 1.0))
    client.advance(1.2)
    heights = [goal[2] for _, goal in policy.asked]
    assert heights[0] < 0.01
    assert heights[-1] == pytest.approx(1.0)
    assert max(np.diff(heights)) < 0.05  # a smooth climb
    client.send(w.GoTo((0.4, 0.3, 1.2), 0.0, 0.5))
    client.advance(0.6)
    assert policy.asked[-1][1] == pytest.approx([0.4, 0.3, 1.2])
    client.send(w.Land(0.0, 0.5))
    client.advance(0.6)
    before = len(policy.asked)
    client.advance(0.1)
    assert len(policy.asked) == before  # the plan has ended: motors off
    assert client.motors.max() == 0.0


@pytest.mark.parametrize(
    "message",
    [
        w.Hover(0.0, 0.0, 0.0, 1.0),
        w.VelocityWorld(0.0, 0.0, 0.0, 0.0),
        w.ZDistance(0.0, 0.0, 0.0, 1.0),
        w.RotorThrust((0.6, 0.6, 0.6, 0.6)),
        w.Manual(0.0, 0.0, 0.0, 0.6, False),
    ],
)
def test_everything_but_positions_is_flown_by_the_firmware(message: w.Setpoint) -> None:
    policy = Scripted(force=0.123)
    client = flying(policy)
    client.set_parameter(CONTROLLER, OUT_OF_TREE)
    client.advance(0.1, w.Position(0.0, 0.0, 1.0, 0.0))
    assert client.motors == pytest.approx([0.123] * 4)
    client.advance(0.1, message)
    assert client.motors != pytest.approx([0.123] * 4)
    assert client.motors.min() > 0.2


def test_the_parameter_changes_who_flies_in_the_air_and_each_takeover_is_a_restart() -> None:
    policy = Scripted(force=HOVER)
    client = flying(policy)
    assert not policy.asked
    for take in (1, 2):
        client.set_parameter(CONTROLLER, OUT_OF_TREE)
        client.advance(0.2)
        assert client.motors == pytest.approx([HOVER] * 4)
        assert policy.restarts == [0] * take
        client.set_parameter(CONTROLLER, 1)
        client.advance(0.5)
        assert client.motors.std() > 1e-4
    assert client.position[2] == pytest.approx(1.0, abs=0.2)


def test_the_peer_table_is_as_long_as_the_swarm_needs_where_a_policy_is_on_board() -> None:
    assert EmulatedSwarm(num=33, onboard=Scripted(33)).autopilot.peers.ids.shape == (33, 32)
    assert EmulatedSwarm(num=33).autopilot.peers.ids.shape == (33, 10)


def test_a_lost_link_levels_out_by_the_firmware_then_locks() -> None:
    policy = Scripted(force=HOVER)
    client = armed(policy)
    client.advance(0.5, w.Position(0.0, 0.0, 1.0, 0.0))
    client.until(lambda: client.state is State.LEVEL_OUT, within_s=0.7)
    client.advance(0.02)
    before = len(policy.asked)
    client.advance(0.2)
    assert len(policy.asked) == before
    client.until(lambda: client.state is State.LOCKED, within_s=2.0)
    client.advance(0.02)
    assert client.motors.max() == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_force_that_is_not_finite_stops_all_four_motors(value: float) -> None:
    policy = Scripted(2)
    swarm = EmulatedSwarm(num=2, onboard=policy)
    clients = [Client(swarm, i) for i in range(2)]
    swarm.advance(0.1)
    for client in clients:
        assert client.arm() == (True, True)
        client.send(w.Position(0.0, 0.0, 1.0, 0.0))
    swarm.advance(0.02)
    policy.forces[2, 0] = value
    swarm.tick()
    assert clients[0].motors.tolist() == [0.0] * 4
    assert clients[1].motors == pytest.approx([HOVER] * 4)  # the other drone does not notice
    assert swarm.autopilot.onboard is not None
    assert swarm.autopilot.onboard.broken.tolist() == [1, 0]


def test_broken_forces_in_the_air_end_on_the_floor_with_the_motors_off() -> None:
    policy = Scripted(force=np.nan)
    client = flying(policy)
    client.set_parameter(CONTROLLER, OUT_OF_TREE)
    client.advance(0.02)
    assert client.motors.max() == 0.0
    client.advance(3.0)
    assert client.motors.max() == 0.0
    assert client.position[2] < 0.1
    assert client.state in (State.LANDED, State.CRASHED)


def test_forces_are_cut_to_what_a_motor_can_do() -> None:
    policy = Scripted()
    policy.forces[:, 0] = (2.0, -1.0, 0.5, 1.0)
    client = armed(policy)
    client.advance(0.05, w.Position(0.0, 0.0, 1.0, 0.0))
    assert client.motors.tolist() == [1.0, 0.0, 0.5, 1.0]


def test_a_policy_that_tumbles_the_drone_is_stopped_by_the_supervisor() -> None:
    policy = Scripted(force=HOVER)
    client = flying(policy)
    policy.forces[:, 0] = (0.9, 0.9, 0.1, 0.1)
    client.set_parameter(CONTROLLER, OUT_OF_TREE)
    client.until(lambda: client.state is State.CRASHED, within_s=4.0)
    before = len(policy.asked)
    client.advance(0.1)
    assert client.motors.max() == 0.0
    assert len(policy.asked) <= before + 5


def test_disarming_an_emergency_and_a_reboot_end_its_flight() -> None:
    policy = Scripted(force=HOVER)
    client = flying(policy)
    client.set_parameter(CONTROLLER, OUT_OF_TREE)
    client.advance(0.1)
    client.set_parameter("stabilizer.stop", 1)
    client.advance(0.05)
    assert client.motors.max() == 0.0
    client.set_parameter("fault.reboot", 1)
    assert client.swarm.autopilot.onboard is not None
    assert not client.swarm.autopilot.onboard.active.any()
    assert client.pilot.parameters[CONTROLLER] == OUT_OF_TREE


def test_it_is_told_what_the_drone_knows_and_the_logs_say_so() -> None:
    policy = Scripted(3, force=0.2)
    swarm = EmulatedSwarm(num=3, onboard=policy, capture=Capture(noise_m=0.0))
    client = Client(swarm, 1)
    swarm.advance(0.1)
    client.arm()
    client.advance(0.1, w.Position(0.0, 0.0, 1.0, 0.0))
    senses = policy.senses
    assert senses is not None
    np.testing.assert_array_equal(senses.estimate.position, swarm.autopilot.estimate.position)
    np.testing.assert_array_equal(senses.estimate.gyro, swarm.autopilot.estimate.gyro)
    assert senses.battery_v[1] == swarm.autopilot.battery_v[1]
    assert senses.now_ms == swarm.autopilot.now_ms
    assert senses.peers.ids[1].tolist()[:3] == [1, 3, 0]
    assert policy.asked[-1][0] == [False, True, False]
    from hardware.robots.crazyflie.logs import VARIABLES

    values = {name: VARIABLES[name][1](swarm.autopilot, 1) for name in VARIABLES if name.startswith("policy.")}
    assert values == {
        "policy.active": 1,
        "policy.broken": 0,
        "policy.peers": 2,
        "policy.peerAge": pytest.approx(5, abs=6),
    }
