"""Contacts and downwash: momentum, restitution, friction, published numbers, and rooms that nobody leaves."""

import math

import pytest
import torch
from torch import Tensor

from sim.dynamics import quadrotor as body
from sim.scenes.quadrotor.swarm import contacts

ROOM = (10.0, 10.0, 10.0)
A = 2


def states(position: list, velocity: list) -> Tensor:
    """Level drones of one room (17, A), one per row of the lists."""
    state = body.rest_state((len(position),), torch.zeros(1))
    state[:3], state[3:6] = torch.tensor(position).T, torch.tensor(velocity).T
    return state


def after(
    state: Tensor, *, clearance: float = 5.0, direction: tuple[float, float] = (0.0, 0.0), physical: bool = True
) -> Tensor:
    agents = state.shape[1]
    pairs = contacts.pairs_of(state[:3], agents)
    touch = contacts.touching(state[:3], pairs, torch.full((agents,), clearance), ROOM)
    return contacts.respond(
        state,
        touch,
        pairs,
        torch.tensor(direction)[:, None].expand(2, agents),
        torch.full((agents,), 0.03),
        torch.rand(contacts.RANDOM_ROWS, agents, generator=torch.Generator().manual_seed(0)),
        torch.full((3, agents), 1.6e-5),
        agents=agents,
        room=ROOM,
        physical=physical,
    )


def test_head_on_the_relative_speed_is_reversed_times_the_restitution() -> None:
    state = states([[0.0, 0.0, 2.0], [0.09, 0.0, 2.0]], [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    velocity = after(state)[3:6]
    torch.testing.assert_close(velocity[0], torch.tensor([-0.5, 0.5]))  # e = 0.5
    assert velocity[1:].abs().max() < 1e-6


def test_contacts_between_drones_keep_momentum_and_never_make_energy() -> None:
    generator = torch.Generator().manual_seed(3)
    for _ in range(200):
        direction = torch.nn.functional.normalize(torch.randn(3, generator=generator), dim=0)
        velocity = torch.randn(2, 3, generator=generator)
        state = states(
            [[0.0, 0.0, 3.0], (torch.tensor([0.0, 0.0, 3.0]) + 0.08 * direction).tolist()], velocity.tolist()
        )
        new = after(state)[3:6]
        torch.testing.assert_close(new.sum(1), velocity.sum(0), rtol=0, atol=1e-5)
        assert (new**2).sum() <= (velocity**2).sum() + 1e-5
        approaching = ((velocity[0] - velocity[1]) @ direction) > 0
        assert approaching or torch.equal(new, state[3:6]), "bodies that part are left alone"


def test_an_obstacle_throws_back_and_brakes_along_its_surface() -> None:
    """45 degrees at 2 m/s: normal speed 1.414 -> 0.707 back; friction takes 0.3 x 1.5 x 1.414 of the tangential."""
    v = math.sqrt(2.0)
    state = states([[0.0, 0.0, 2.0]], [[v, v, 0.0]])
    velocity = after(state, clearance=0.04, direction=(1.0, 0.0))[3:6, 0]
    torch.testing.assert_close(velocity, torch.tensor([-0.5 * v, v - 0.3 * 1.5 * v, 0.0]))


@pytest.mark.parametrize("physical", [True, False])
def test_walls_and_ceiling_hold(physical: bool) -> None:
    state = states(
        [[5.2, 0.0, 2.0], [0.0, -5.1, 2.0], [1.0, 1.0, 10.2]], [[3.0, 1.0, 0.0], [0.0, -2.0, 0.0], [0.0, 0.0, 4.0]]
    )
    new = after(state, physical=physical)
    position, velocity = new[:3], new[3:6]
    assert position[0, 0] <= 5.0 - contacts.ARM_M + 1e-6
    assert position[1, 1] >= -5.0 + contacts.ARM_M - 1e-6
    assert position[2, 2] <= 10.0 - contacts.ARM_M + 1e-6
    assert velocity[0, 0] <= 0.0
    assert velocity[1, 1] >= 0.0
    assert velocity[2, 2] <= 0.0


@pytest.mark.parametrize("physical", [True, False])
def test_on_the_floor_a_drone_stands_upright_with_its_heading(physical: bool) -> None:
    state = states([[0.0, 0.0, 0.02]], [[1.0, 0.0, -2.0]])
    turn = torch.tensor([0.3, 0.4, 0.0])
    half_yaw = 0.4
    state[6:10, 0] = torch.tensor([math.cos(half_yaw), 0.0, 0.0, math.sin(half_yaw)])
    state[6:10] = body.turn_small(state[6:10], turn[:, None])
    new = after(state, physical=physical)
    assert new[2, 0] == pytest.approx(contacts.ARM_M)
    assert new[5, 0] == 0.0
    assert new[3, 0] == pytest.approx(1.0 - 0.6 * 9.81 * 0.01, abs=1e-5)
    assert new[7:9].abs().max() == 0.0
    assert not new[10:13].any()


def test_random_bounces_have_the_published_strength() -> None:
    """Reflection at an obstacle keeps the speed and adds pi/2 to pi rad/s; drones are kicked by 10 pi to 20 pi."""
    hit = after(states([[0.0, 0.0, 2.0]], [[1.0, 0.5, 0.0]]), clearance=0.04, direction=(1.0, 0.0), physical=False)
    torch.testing.assert_close(hit[3:6, 0], torch.tensor([-1.0, 0.5, 0.0]))
    assert 0.5 * math.pi <= hit[10:13, 0].norm() <= math.pi
    both = after(states([[0.0, 0.0, 2.0], [0.09, 0.0, 2.0]], [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]), physical=False)
    assert (both[10:13].norm(dim=0) >= 10.0 * math.pi - 1e-3).all()
    assert both[3, 0] < 0.0 < both[3, 1]


def test_who_touches_what() -> None:
    position = torch.tensor([[0.0, 0.09, 4.97, 2.0], [0.0, 0.0, 0.0, 2.0], [2.0, 2.0, 2.0, 0.04]])
    pairs = contacts.pairs_of(position, 4)
    clearance = torch.tensor([1.0, 0.04, 1.0, 1.0])
    touch = contacts.touching(position, pairs, clearance, ROOM)
    assert touch.tolist() == [
        [True, True, False, False],
        [False, True, False, False],
        [False, False, True, False],
        [False, False, False, True],
    ]


@pytest.mark.parametrize(("below", "push"), [(0.2, 6 / 17 * 5.0), (0.5, 6 / 17 * 2.0), (0.75, 0.0), (-0.2, 0.0)])
def test_downwash_pushes_as_published(below: float, push: float) -> None:
    """6/17 (7 - 10 z) m/s^2 within 0.7 m below, +-0.1 by chance, and nothing above or aside."""
    position = torch.tensor([[0.0, 0.05], [0.0, 0.0], [2.0, 2.0 - below]])
    pairs = contacts.pairs_of(position, A)
    forms = body.rotation_forms(body.rest_state((A,), position)[6:10])
    random = torch.full((4, A), 0.5)
    down, turn = contacts.downwash(position, forms, pairs, random + 0.1, A)
    assert down[1].item() == pytest.approx(-push - (0.02 if push else 0.0), abs=1e-3)
    assert (turn[:, 1].norm() > 0.0) == (push > 0.0)
    if below > 0:
        assert down[0] == 0.0
    aside = position + torch.tensor([[0.0, 0.2], [0.0, 0.0], [0.0, 0.0]])
    assert not contacts.downwash(aside, forms, contacts.pairs_of(aside, A), random, A)[0].any()
