"""Bodies in PyBullet: free flight against analysis and our own equations, contacts against mechanics."""

import math

import numpy as np
import pytest
import torch
from quadrotor_params import params
from torch import Tensor

from sim.backends.bullet import GRAVITY, BulletBodies, Contacts, Room
from sim.dynamics import quadrotor as body
from sim.scenes.quadrotor.bullet import BulletStep

RADIUS = 0.046
INERTIA = np.array([1.657e-5, 1.666e-5, 2.926e-5])
NONE = np.zeros((3, 1))


def bodies(room: Room | None = None, envs: int = 1, agents: int = 1) -> BulletBodies:
    made = BulletBodies(envs, agents, room or Room(RADIUS))
    count = envs * agents
    made.weigh(np.arange(count), np.full(count, 0.028), np.tile(INERTIA[:, None], count))
    return made


def at(position: list[list[float]], velocity: list[list[float]] | None = None) -> np.ndarray:
    """States (13, n), level, from rows of positions and velocities."""
    planes = np.zeros((13, len(position)))
    planes[6] = 1.0
    planes[:3] = np.array(position).T
    if velocity is not None:
        planes[3:6] = np.array(velocity).T
    return planes


def test_what_is_placed_is_read_back_in_every_environment() -> None:
    rng = np.random.default_rng(5)
    made = bodies(Room(RADIUS, (10.0, 10.0, 10.0)), envs=40, agents=2)  # two servers
    planes = np.concatenate([rng.uniform(1.0, 4.0, (3, 80)), rng.normal(size=(10, 80))])
    planes[6:10] /= np.sqrt((planes[6:10] ** 2).sum(0))
    made.place(np.arange(80), planes)
    assert np.abs(made.state - planes).max() < 1e-12


def test_free_fall_is_that_of_semi_implicit_steps() -> None:
    made, dt, n = bodies(), 0.0025, 400
    made.place([0], at([[0.0, 0.0, 5.0]], [[1.0, -2.0, 0.5]]))
    for _ in range(n):
        made.step(NONE, NONE, dt)
    fallen = GRAVITY * dt * dt * n * (n + 1) / 2  # g t^2 / 2 and an error of first order
    assert np.abs(made.state[:3, 0] - [1.0, -2.0, 5.5 - fallen]).max() < 1e-10


def test_symmetric_top_precesses_at_the_rate_of_euler() -> None:
    """Free of torque, the rate's horizontal part turns in the body at (Jz - Jx) / Jx w_z."""
    made, dt, spin = bodies(), 1e-4, 20.0
    moments = np.array([[1.6e-5], [1.6e-5], [2.9e-5]])
    made.weigh([0], np.array([0.028]), moments)
    start = at([[0.0, 0.0, 0.0]])
    start[10:13, 0] = [1.0, 0.0, spin]
    made.place([0], start)
    for _ in range(1000):
        made.step(NONE, NONE, dt)
    turned = math.atan2(made.state[11, 0], made.state[10, 0])
    expected = (2.9e-5 - 1.6e-5) / 1.6e-5 * spin * 0.1
    assert turned == pytest.approx(expected, rel=1e-3)
    assert np.hypot(*made.state[10:12, 0]) == pytest.approx(1.0, abs=2e-2)


def test_hover_command_holds_for_ten_seconds() -> None:
    flight = BulletStep(bodies(), lambda: torch.tensor(INERTIA)[:, None])
    known = params()
    c, command = body.coefficients(known), body.hover_command(known).expand(4, 1)
    state = body.rest_state((1,), torch.zeros(1, dtype=torch.float64))
    state[body.ROTOR] = command
    for _ in range(4000):
        state = flight(state, command, c, dt_s=0.0025)
    assert state[:3].abs().max() < 1e-9
    assert state[body.RATE].abs().max() < 1e-9


def start(count: int) -> Tensor:
    state = body.rest_state((count,), torch.zeros(1, dtype=torch.float64))
    state[body.RATE] = torch.tensor([[1.0], [-2.0], [1.5]])
    state[body.ROTOR] = 0.6
    return state


def test_random_commands_for_a_second_agree_and_converge_with_first_order() -> None:
    generator = torch.Generator().manual_seed(4)
    commands = 0.55 + 0.1 * torch.rand((20, 4, 4), generator=generator, dtype=torch.float64)
    c = body.coefficients(params(4, rotor_inertia=3e-8))
    exact = start(4)
    for command in commands.repeat_interleave(25, 0):
        exact = body.step_rk4(exact, command, c, dt_s=0.002)
    ends = []
    for substeps in (20, 40, 80):  # of 2.5 to 0.6 ms
        flight, state = BulletStep(bodies(envs=4), lambda: torch.tensor(INERTIA)[:, None].expand(3, 4)), start(4)
        for command in commands.repeat_interleave(substeps, 0):
            state = flight(state, command, c, dt_s=0.05 / substeps)
        ends.append(state[:3])
    gaps = [float((end - exact[:3]).abs().max()) for end in ends]
    assert gaps[1] / gaps[0] == pytest.approx(0.5, abs=0.05), gaps
    assert gaps[2] / gaps[1] == pytest.approx(0.5, abs=0.05), gaps
    # Richardson: what is left at step 0 is no difference between the two.
    assert float((2.0 * ends[2] - ends[1] - exact[:3]).abs().max()) < 1e-3


@pytest.mark.parametrize("restitution", [0.0, 0.3, 0.5, 0.8])
def test_bounce_height_is_the_square_of_the_restitution(restitution: float) -> None:
    heights = np.linspace(0.9, 1.1, 9)
    made = bodies(Room(RADIUS, (10.0, 10.0, 10.0), restitution, 0.3), envs=9)
    made.place(np.arange(9), at([[0.0, 0.0, h + RADIUS] for h in heights]))
    best, down = np.zeros(9), np.zeros(9, dtype=bool)
    for _ in range(380):  # 0.95 s: past the first apex, before the third landing
        down |= made.step(np.zeros((3, 9)), np.zeros((3, 9)), 0.0025).floor
        best = np.where(down & (made.state[5] > 0.0), np.maximum(best, made.state[2] - RADIUS), best)
    assert down.all()
    assert np.mean(best / heights) == pytest.approx(restitution**2, rel=0.06, abs=0.01)


def test_friction_slows_what_slides_on_the_floor() -> None:
    made = bodies(Room(RADIUS, (10.0, 10.0, 10.0), 0.0, 0.3))
    made.weigh([0], np.array([0.028]), np.full((3, 1), 1e3))  # does not roll
    made.place([0], at([[0.0, 0.0, RADIUS]], [[2.0, 0.0, 0.0]]))
    for _ in range(100):
        made.step(NONE, NONE, 0.0025)
    assert made.state[3, 0] == pytest.approx(2.0 - 0.3 * GRAVITY * 0.25, abs=0.02)


def test_collision_of_two_drones_keeps_momentum_and_obeys_restitution() -> None:
    made = bodies(Room(RADIUS, None, 0.5, 0.0), agents=2)
    mass = np.array([0.028, 0.014])
    made.weigh([0, 1], mass, np.tile(INERTIA[:, None], 2))
    made.place([0, 1], at([[0.0, 0.0, 0.0], [0.3, 0.03, 0.0]], [[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    floating = np.stack([np.zeros(2), np.zeros(2), mass * GRAVITY])
    seen = [made.step(floating, np.zeros((3, 2)), 0.001).pairs.tolist() for _ in range(200)]
    assert [[0, 1]] in seen
    assert np.abs((made.state[3:6] * mass).sum(1) - [0.056, 0.0, 0.0]).max() < 1e-9
    normal = np.array([math.sqrt((2 * RADIUS) ** 2 - 0.03**2), 0.03, 0.0]) / (2 * RADIUS)
    apart = (made.state[3:6, 1] - made.state[3:6, 0]) @ normal
    assert apart == pytest.approx(0.5 * 2.0 * normal[0], rel=0.06)


def fly(made: BulletBodies, seconds: float) -> Contacts:
    """All that touched while bodies fly weightlessly on."""
    lift = np.tile(np.array([[0.0], [0.0], [0.028 * GRAVITY]]), made.num)
    parts = [made.step(lift, 0.0 * lift, 0.0025) for _ in range(round(seconds / 0.0025))]
    pairs = np.unique(np.concatenate([p.pairs for p in parts]), axis=0)
    return Contacts(pairs, *(np.any([getattr(p, k) for p in parts], axis=0) for k in Contacts._fields[1:]))


def test_contacts_are_told_apart_and_stay_in_their_environment() -> None:
    made = bodies(Room(RADIUS, (10.0, 10.0, 10.0), 0.5, 0.2), envs=3, agents=4)
    made.furnish(1, [[2.5, 0.5]], 0.3)
    rows = np.arange(12)
    spots = [[-3.0, -3.0, 2.0], [-3.0, -2.5, 2.0], [2.0, 0.5, 2.0], [4.5, 4.5, 2.0]]
    speeds = [[0.0, 0.5, 0.0], [0.0, -0.5, 0.0], [0.5, 0.0, 0.0], [1.0, 0.0, 0.0]]
    made.place(rows, at([spots[r // 3] for r in rows], [speeds[r // 3] for r in rows]))
    seen = fly(made, 0.7)
    assert seen.pairs.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert np.flatnonzero(seen.obstacle).tolist() == [7]  # only environment 1 has the cylinder
    assert np.flatnonzero(seen.wall).tolist() == [9, 10, 11]
    assert not seen.floor.any()
    assert not seen.ceiling.any()


def test_floor_and_ceiling_and_a_removed_obstacle() -> None:
    made = bodies(Room(RADIUS, (10.0, 10.0, 4.0), 0.5, 0.2), agents=3)
    made.furnish(0, [[0.5, 0.5], [1.5, 0.5]], 0.3)
    made.furnish(0, [], 0.3)
    speeds = [[0.0, 0.0, -2.0], [0.0, 0.0, 2.0], [1.0, 0.0, 0.0]]
    made.place([0, 1, 2], at([[-2.0, 0.0, 0.5], [-3.0, 0.0, 3.5], [0.0, 0.5, 2.0]], speeds))
    seen = fly(made, 0.5)
    assert seen.floor.tolist() == [True, False, False]
    assert seen.ceiling.tolist() == [False, True, False]
    assert not seen.obstacle.any()


def test_near_misses_are_no_contacts() -> None:
    made = bodies(Room(RADIUS, None), agents=2)
    made.place([0, 1], at([[0.0, 0.0, 0.0], [0.3, 2 * RADIUS + 0.001, 0.0]], [[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    seen = fly(made, 0.3)
    assert len(seen.pairs) == 0
    assert made.state[3:6, 0] == pytest.approx([2.0, 0.0, 0.0])


def test_a_drone_that_lay_still_takes_off() -> None:
    made = bodies(Room(RADIUS, (10.0, 10.0, 10.0)))
    made.place([0], at([[0.0, 0.0, RADIUS]]))
    for _ in range(4000):
        made.step(NONE, NONE, 0.0025)
    for _ in range(200):
        made.step(np.array([[0.0], [0.0], [0.056 * GRAVITY]]), NONE, 0.0025)
    assert made.state[2, 0] - RADIUS == pytest.approx(0.5 * GRAVITY * 0.25, rel=0.02)


def test_a_row_that_somebody_moved_is_found_there() -> None:
    flight = BulletStep(bodies(agents=2), lambda: torch.tensor(INERTIA)[:, None].expand(3, 2))
    c = body.coefficients(params(2))
    state = body.rest_state((2,), torch.zeros(1, dtype=torch.float64))
    for _ in range(4):
        state = flight(state, torch.full((4, 2), 0.6, dtype=torch.float64), c, dt_s=0.0025)
    free = state.clone()
    moved = state.clone()
    moved[:, 1] = body.rest_state((), moved)
    moved[0, 1] = 7.0
    after = flight(moved, torch.full((4, 2), 0.6, dtype=torch.float64), c, dt_s=0.0025)
    assert after[0, 1] == pytest.approx(7.0)
    assert torch.equal(after[3:6, 0] > free[3:6, 0], torch.tensor([False, False, False]))
    assert after[5, 1] == pytest.approx(-GRAVITY * 0.0025)


@pytest.mark.parametrize("gap", [0.001, -0.001])
def test_obstacles_and_walls_touch_where_their_surfaces_are(gap: float) -> None:
    """All round a cylinder and at each wall, a millimetre beside it and a millimetre in it."""
    made = bodies(Room(RADIUS, (10.0, 10.0, 10.0), 0.5, 0.2), agents=66)
    made.furnish(0, [[0.5, -0.5]], 0.3)
    angle, away, rim = np.linspace(0.0, 2.0 * math.pi, 60, endpoint=False), 0.3 + RADIUS + gap, 5.0 - RADIUS - gap
    spots = [[0.5 + away * math.cos(a), -0.5 + away * math.sin(a), 1.0 + 0.12 * i] for i, a in enumerate(angle)]
    spots += [[-rim, 2.0, 3.0], [rim, 2.0, 3.0], [3.0, -rim, 3.0], [3.0, rim, 3.0]]
    spots += [[3.0, 3.0, 5.0 - rim], [4.0, 3.0, 5.0 + rim]]
    made.place(np.arange(66), at(spots))
    lift = np.tile(np.array([[0.0], [0.0], [0.028 * GRAVITY]]), 66)
    seen = made.step(lift, 0.0 * lift, 0.0025)
    met = seen.obstacle.astype(int) + 2 * seen.wall + 4 * seen.floor + 8 * seen.ceiling
    assert met.tolist() == ([0] * 66 if gap > 0.0 else [1] * 60 + [2] * 4 + [4, 8])
