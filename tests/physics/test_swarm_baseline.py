"""The swarm's classical pilots in the scene: what they know, that they arrive, and that they filter others' actions."""

import dataclasses
import math

import pytest
import torch

from hardware.errors import BadInput
from sim.registry import make_env, scene_entry
from sim.scenes.quadrotor.swarm.baseline import BASELINES, SwarmBaseline, nominal_airframe
from sim.scenes.quadrotor.swarm.config import SwarmConfig

CONFIG = SwarmConfig(drones=4, engine="eager", episode_s=6.5)


def rooms(count: int = 2, **settings):
    config = dataclasses.replace(CONFIG, **settings)
    return make_env("quadrotor/swarm", count * config.drones, family="nominal", seed=3, config=config)


@pytest.mark.parametrize(("mode", "airframe"), [("rotor_thrust", "cf21"), ("attitude_thrust", "quad_swarm")])
def test_certified_drones_reach_their_goals_untouched(mode: str, airframe: str) -> None:
    env = rooms(mode=mode, airframe=airframe)
    pilot = SwarmBaseline(env)
    for _ in range(650):
        step = env.step(pilot())
    assert step.metrics["success"].all()
    assert pilot.decisions == 650 * 8
    assert 0 < int(pilot.active) < 0.3 * pilot.decisions
    assert int(pilot.infeasible) == 0


def test_the_field_leads_to_most_goals() -> None:
    env = rooms(2, mode="attitude_thrust")
    pilot = SwarmBaseline(env, "potential")
    for _ in range(650):
        step = env.step(pilot())
    assert step.metrics["success"].float().mean() > 0.8


def test_a_drone_knows_all_others_and_all_cylinders_of_its_map() -> None:
    env = rooms()
    pilot, task = SwarmBaseline(env), env.task
    seen = pilot._around()
    place = task.state["shared"][:3].T
    for row in range(8):
        agent, room = divmod(row, 2)
        for other in range(4):
            torch.testing.assert_close(seen.positions[row, other], place[other * 2 + room])
            assert bool(seen.known[row, other]) == (other != agent)
        axes = task.bank.axes[task.state["map"][row]][task.bank.present[task.state["map"][row]]]
        assert {tuple(a) for a in seen.obstacles[row][seen.present[row]].tolist()} == {tuple(a) for a in axes.tolist()}
        assert int(seen.present[row].sum()) == 12


def test_certificates_turn_a_flight_into_the_wall_back() -> None:
    # Roll and pitch kept level, then tilted for good: without a filter a drone leaves the room within 3 s.
    env = rooms(mode="attitude_thrust", density=0.0, drones=1, downwash=False)
    pilot = SwarmBaseline(env)
    hover = nominal_airframe(env.spec.params).hover_fraction
    command = torch.tensor([[0.0, 0.4, 0.0, hover / math.cos(0.4)]]).expand(2, 4)
    action = (command - pilot._offset) / pilot._scale
    assert torch.equal(pilot.guard(action), action)
    for _ in range(350):
        env.step(pilot.guard(action))
    assert env.task.state["body"][:2].abs().max() < 4.95
    assert int(pilot.active) > 0
    with pytest.raises(BadInput, match="filter the mode attitude_thrust, not rotor_thrust"):
        SwarmBaseline(rooms()).guard(action)


def test_the_nominal_thrust_curve_is_inverted() -> None:
    pilot = SwarmBaseline(rooms(airframe="l2f"))
    force = torch.linspace(0.0, 1.0, 11)
    assert pilot.curve > 0.8
    torch.testing.assert_close(pilot._force(pilot._rotor(force)), force)


def test_the_scene_offers_both_by_name() -> None:
    entry = scene_entry("quadrotor/swarm")
    assert tuple(entry.baselines) == BASELINES == ("barrier", "potential")
    with pytest.raises(BadInput, match="baseline 'orca' not found; baselines: barrier, potential"):
        SwarmBaseline(rooms(), "orca")  # pyright: ignore[reportArgumentType]
