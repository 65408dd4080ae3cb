"""Potential field and barrier certificates: gradient, symmetries, hand-computed set points, forward invariance."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers import avoidance, geometric
from controllers.avoidance import AvoidanceGains, Room
from controllers.surroundings import Around, nowhere
from hardware.geometry import quat_from_euler
from hardware.spec import load_spec

GAINS = AvoidanceGains(delay_s=0.0)
ROOM = Room((-5.0, -5.0, 0.0), (5.0, 5.0, 10.0))
DT = 0.01
KEPT = 2 * GAINS.radius_m + GAINS.apart_m


def around(others=(), velocities=None, obstacles=(), radius=0.3) -> Around:
    positions = np.array(others, dtype=float).reshape(-1, 3)
    axes = np.array(obstacles, dtype=float).reshape(-1, 2)
    moving = np.zeros_like(positions) if velocities is None else np.array(velocities, dtype=float).reshape(-1, 3)
    known, present = np.ones(len(positions), dtype=bool), np.ones(len(axes), dtype=bool)
    return Around(positions, moving, known, axes, present, np.full(len(axes), radius))


def some_place(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Around]:
    """A position, velocity and goal among three robots and three cylinders that are near."""
    rng = np.random.default_rng(seed)
    up = np.array([0.0, 0.0, 3.0])
    position, velocity, goal = up + rng.normal(size=3), rng.normal(size=3), up + 2.0 * rng.normal(size=3)
    others = position + (0.5 + rng.random((3, 1))) * unit(rng.normal(size=(3, 3)))
    axes = position[:2] + (0.6 + rng.random((3, 1))) * unit(rng.normal(size=(3, 2)))
    return position, velocity, goal, around(others, rng.normal(size=(3, 3)), axes)


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def fly(p, v, goal, axes, law, gains, *, seconds=7.0, late=0, room=ROOM):
    """E rooms of A double integrators under one law; the least distances seen, and where they end.

    p, v, goal (E, A, 3); axes (E, L, 2). Commands act `late` periods after the state that they were made for.
    """
    worlds, agents, _ = p.shape
    count = axes.shape[1]
    known = ~torch.eye(agents, dtype=torch.bool).expand(worlds, agents, agents)
    spread = lambda x: x[:, None].expand(worlds, agents, *x.shape[1:])  # noqa: E731
    present, radius = (
        torch.ones(worlds, agents, count, dtype=torch.bool),
        torch.full((worlds, agents, count), 0.3).double(),
    )
    apart = torch.full((worlds,), torch.inf).double()
    clear, inside, infeasible = apart.clone(), apart.clone(), 0
    waiting = [torch.zeros_like(p)] * late
    for _ in range(round(seconds / DT)):
        seen = Around(spread(p), spread(v), known, spread(axes), present, radius)
        if law == "barrier":
            found = avoidance.barrier(p, v, goal, seen, room, gains=gains)
            infeasible += int(found.infeasible.sum())
            waiting.append(found.acceleration)
        else:
            waiting.append(avoidance.potential_field(p, v, goal, seen, room, gains=gains))
        a = waiting.pop(0)
        p, v = p + v * DT + 0.5 * a * DT**2, v + a * DT
        pairs = torch.cdist(p, p) + torch.diag(torch.full((agents,), torch.inf))
        apart = torch.minimum(apart, pairs.amin((1, 2)))
        if count:
            clear = torch.minimum(clear, torch.cdist(p[..., :2], axes).amin((1, 2)))
        inside = torch.minimum(inside, torch.minimum(5.0 - p[..., :2].abs().amax((1, 2)), p[..., 2].amin(1)))
    return p, apart, clear, inside, infeasible


@pytest.mark.parametrize("seed", range(20))
def test_velocities_are_the_downward_gradient_of_the_potential(seed: int) -> None:
    position, velocity, goal, seen = some_place(seed)
    point = torch.tensor(position, requires_grad=True)
    members = Around(*(torch.from_numpy(a) for a in seen))
    room = Room((-2.0, -2.0, 0.0), (2.0, 2.0, 4.0))
    look = lambda p: avoidance.near(p, torch.from_numpy(velocity), members, room, gains=GAINS)  # noqa: E731
    avoidance.potential(point, torch.from_numpy(goal), look(point), gains=GAINS).backward()
    field = avoidance.goal_velocity(position, goal, gains=GAINS) + avoidance.repulsion(
        avoidance.near(position, velocity, seen, room, gains=GAINS), gains=GAINS
    )
    np.testing.assert_allclose(field, -point.grad.numpy(), atol=1e-10)


def test_velocities_by_hand() -> None:
    # 0.5 m to go: 1.4 / s x 0.5 m. A far goal: 1.7 m/s, along 3-4-0.
    start = np.zeros(3)
    np.testing.assert_allclose(avoidance.goal_velocity(start, np.array([0.5, 0, 0]), gains=GAINS), [0.7, 0, 0])
    np.testing.assert_allclose(avoidance.goal_velocity(start, np.array([3.0, 4, 0]), gains=GAINS), [1.02, 1.36, 0])
    # A cylinder 0.7 m ahead: 0.7 - 0.3 - 0.05 - 0.05 = 0.3 m of 0.6 m range: 4 / s x 0.3 m away.
    seen = avoidance.near(start, start, around(obstacles=[(0.7, 0)]), Room(), gains=GAINS)
    np.testing.assert_allclose(avoidance.repulsion(seen, gains=GAINS), [-1.2, 0, 0], atol=1e-12)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("law", ["barrier", "potential"])
def test_turning_the_world_about_the_vertical_turns_the_acceleration(law: str, seed: int) -> None:
    position, velocity, goal, seen = some_place(seed)
    c, s = math.cos(0.3 + seed), math.sin(0.3 + seed)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    turned = seen._replace(
        positions=seen.positions @ turn.T,
        velocities=seen.velocities @ turn.T,
        obstacles=seen.obstacles @ turn[:2, :2].T,
    )

    def act(*where) -> np.ndarray:
        if law == "barrier":
            return avoidance.barrier(*where, Room(), gains=GAINS).acceleration
        return avoidance.potential_field(*where, Room(), gains=GAINS)

    before, after = act(position, velocity, goal, seen), act(turn @ position, turn @ velocity, turn @ goal, turned)
    np.testing.assert_allclose(after, turn @ before, atol=1e-6)


def test_numpy_one_by_one_is_torch_in_a_batch() -> None:
    places = [some_place(seed) for seed in range(12)]
    stacked = [torch.from_numpy(np.stack([p[i] for p in places])) for i in range(3)]
    seen = Around(*(torch.from_numpy(np.stack(part)) for part in zip(*(p[3] for p in places), strict=True)))
    together = avoidance.barrier(*stacked, seen, ROOM, gains=GAINS)
    fields = avoidance.potential_field(*stacked, seen, ROOM, gains=GAINS)
    for i, place in enumerate(places):
        alone = avoidance.barrier(*place, ROOM, gains=GAINS)
        np.testing.assert_allclose(together.acceleration[i], alone.acceleration, atol=1e-9)
        assert bool(together.infeasible[i]) == bool(alone.infeasible)
        np.testing.assert_allclose(fields[i], avoidance.potential_field(*place, ROOM, gains=GAINS), atol=1e-9)


def test_alone_the_certificates_change_nothing() -> None:
    position, goal = np.array([0.0, 0.0, 2.0]), np.array([0.9, 0.45, 2.4])
    wish = avoidance.barrier(position, np.zeros(3), goal, nowhere(position), Room(), gains=GAINS)
    assert not wish.active
    toward = GAINS.position * (goal - position)
    wanted = GAINS.velocity * toward  # 5.07 m/s^2 on the level, of which 4 are allowed
    wanted[:2] *= 4 / np.hypot(*wanted[:2])
    np.testing.assert_allclose(wish.acceleration, wanted)


def test_what_contradicts_itself_is_counted_and_brakes() -> None:
    # Squeezed: robots inside the kept distance on both sides, each asks for the full braking away from it.
    velocity = np.array([0.0, 0.5, 0.0])
    seen = around([(0.12, 0, 2), (-0.12, 0, 2)])
    found = avoidance.barrier(np.array([0.0, 0, 2]), velocity, np.array([0.0, 3, 2]), seen, ROOM, gains=GAINS)
    assert found.infeasible
    np.testing.assert_allclose(found.acceleration, [0, -GAINS.velocity * 0.5, 0])


@settings(max_examples=3)
@given(st.integers(0, 2**31))
def test_certified_robots_never_come_closer_than_what_is_kept(seed: int) -> None:
    # Pairs at rest, then a hostile pilot who pushes them together: the certificates of a pair prove invariance, up to
    # the sampling of 10 ms (those of more robots may contradict one another).
    generator = torch.Generator().manual_seed(seed)
    p = 2.0 * torch.rand(64, 2, 3, generator=generator).double() + torch.tensor([0.0, 0.0, 3.0])
    p[:, 1, 0] = p[:, 0, 0] + 0.4 + p[:, 1, 0]
    v = torch.zeros_like(p)
    nothing = torch.zeros(64, 2, 0)
    other = ~torch.eye(2, dtype=torch.bool).expand(64, 2, 2)

    def seen() -> avoidance.Near:
        rows = (x[:, None].expand(64, 2, 2, 3) for x in (p, v))
        members = Around(*rows, other, torch.zeros(64, 2, 0, 2), nothing.bool(), nothing)
        return avoidance.near(p, v, members, Room(), gains=GAINS)

    least, most = torch.inf, 0.0
    for _ in range(300):
        wish = 8.0 * unit_towards(p.flip(1) - p) + 4.0 * torch.randn(p.shape, generator=generator).double()
        found = avoidance.certified(wish, v, seen(), gains=GAINS)
        assert not found.infeasible.any()
        p, v = p + v * DT + 0.5 * found.acceleration * DT**2, v + found.acceleration * DT
        least = min(least, float((p[:, 0] - p[:, 1]).norm(dim=-1).min()))
        most = max(most, float(found.acceleration.abs().max()))
    assert least > KEPT - 0.005
    assert least < KEPT + 0.1  # they did come close
    assert most <= math.sqrt(2) * GAINS.acceleration_max + 1e-4  # a corner of the box


def unit_towards(v: torch.Tensor) -> torch.Tensor:
    return v / v.norm(dim=-1, keepdim=True)


def scattered(worlds: int, agents: int, cylinders: int, seed: int, *, swap: bool = False):
    """Starts, goals (E, A, 3) and axes (E, L, 2) on the scene's cells and heights."""
    rng = np.random.default_rng(seed)
    cells = np.stack(np.meshgrid(np.arange(8), np.arange(8), indexing="ij"), -1).reshape(-1, 2) - 3.5
    starts, goals, axes = [], [], []
    for _ in range(worlds):
        order = rng.permutation(64)
        axes.append(cells[order[:cylinders]])
        free = np.repeat(cells[order[cylinders:]], 5, axis=0)
        places = np.concatenate([free, np.tile([1.0, 1.5, 2.0, 2.5, 3.0], 64 - cylinders)[:, None]], 1)
        chosen = places[rng.permutation(len(places))[: 2 * agents]]
        starts.append(chosen[:agents])
        goals.append(np.roll(chosen[:agents], agents // 2, axis=0) if swap else chosen[agents:])
    return (torch.tensor(np.stack(x)) for x in (starts, goals, axes))


@pytest.mark.parametrize(("agents", "cylinders", "swap"), [(8, 12, False), (8, 12, True), (16, 40, False)])
def test_certified_double_integrators_arrive_without_a_contact(agents: int, cylinders: int, swap: bool) -> None:
    # Sampling and predictions cost a little of what is kept (0.25 m, 0.40 m from an axis): contact is at 0.10, 0.35 m.
    starts, goals, axes = scattered(2, agents, cylinders, 7, swap=swap)
    end, apart, clear, inside, infeasible = fly(starts, torch.zeros_like(starts), goals, axes, "barrier", GAINS)
    assert apart.min() > KEPT - 0.05
    assert clear.min() > 0.40 - 0.01
    assert inside.min() > 0.1
    assert infeasible < 0.001 * 2 * agents * 700
    assert (end - goals).norm(dim=-1).max() < 0.25


def test_the_margin_carries_a_delay_of_fifty_milliseconds() -> None:
    # Commands act 50 ms late and positions are predicted by as much; what is kept shrinks by less than the margin.
    starts, goals, axes = scattered(2, 8, 12, 8, swap=True)
    gains = replace(GAINS, delay_s=0.05)
    _, apart, clear, _, _ = fly(starts, torch.zeros_like(starts), goals, axes, "barrier", gains, late=5)
    assert apart.min() > KEPT - GAINS.apart_m / 2
    assert clear.min() > 0.40 - GAINS.clear_m / 2


@pytest.mark.parametrize("law", ["barrier", "potential"])
def test_two_robots_head_on_pass_on_the_right(law: str) -> None:
    starts = torch.tensor([[[-2.0, 0.0, 2.0], [2.0, 0.0, 2.0]]]).double()
    end, apart, *_ = fly(starts, torch.zeros_like(starts), starts.flip(1), torch.zeros(1, 0, 2).double(), law, GAINS)
    assert (end - starts.flip(1)).norm(dim=-1).max() < 0.05
    assert apart.min() > 2 * GAINS.radius_m


def test_without_the_sidestep_two_certified_robots_block_one_another() -> None:
    starts = torch.tensor([[[-2.0, 0.0, 2.0], [2.0, 0.0, 2.0]]]).double()
    gains = replace(GAINS, side=0.0)
    end, apart, *_ = fly(
        starts, torch.zeros_like(starts), starts.flip(1), torch.zeros(1, 0, 2).double(), "barrier", gains
    )
    assert apart.min() > KEPT - 0.005
    assert (end - starts.flip(1)).norm(dim=-1).min() > 1.5  # the known deadlock of the method


@pytest.mark.parametrize("law", ["barrier", "potential"])
def test_a_wall_with_a_hollow_is_a_deadlock_for_both(law: str) -> None:
    # Cylinders in a U open towards the start; the goal lies behind it. Neither looks ahead: no contact, no arrival.
    hollow = [(1.5, y) for y in np.arange(-1.5, 1.6, 0.5)] + [(x, y) for x in (0.5, 1.0) for y in (-1.5, 1.5)]
    start, goal = torch.tensor([[[-2.0, 0.0, 2.0]]]).double(), torch.tensor([[[3.5, 0.0, 2.0]]]).double()
    axes = torch.tensor(np.array(hollow))[None]
    end, _, clear, *_ = fly(start, torch.zeros_like(start), goal, axes, law, GAINS)
    assert clear.min() > 0.35
    assert (end - goal).norm() > 1.0


def test_set_points_pass_unless_they_lead_into_something() -> None:
    airframe = geometric.airframe_of(load_spec("crazyflie"))
    state = {
        "position_world": np.array([0.0, 0.0, 2.0]),
        "velocity_world": np.array([0.0, 0.0, 0.0]),
        "quat_wxyz": quat_from_euler(np.array(0.0), np.array(0.0), np.array(0.7)),
        "angular_velocity_body": np.zeros(3),
    }
    estimate = geometric.start(state)
    forward = np.array([0.0, 0.3, 0.4, airframe.hover_fraction / math.cos(0.3)])
    tracking = geometric.TrackingGains()

    def through(seen: Around):
        return avoidance.certified_set_points(
            forward, state, estimate, seen, ROOM, airframe=airframe, tracking=tracking, gains=GAINS
        )

    free, found = through(nowhere(state["position_world"]))
    np.testing.assert_array_equal(free, forward)
    assert not found.active
    ahead = np.array([math.cos(0.7), math.sin(0.7)])
    blocked, found = through(around(obstacles=[0.41 * ahead]))
    assert found.active
    assert blocked[1] < 0.05  # the nose comes up again
    assert blocked[2] == 0.4
    assert found.acceleration[:2] @ ahead < 0.35  # h = 6 / s x 0.01 m: acceleration ahead at most 4 / s x 0.06 m/s
