"""Starts in states that were met before: whole rooms come back, and go on as they went on."""

import dataclasses
from typing import Any

import pytest
import torch

from hardware.errors import BadInput
from sim.registry import make_env, scene_entry
from sim.starts import CollisionReplay, SnapshotStarts, members, whole

A, E = 2, 6


def swarm(rooms: int = E, seed: int = 0, **changes: Any) -> Any:
    changes = {"drones": A, "engine": "eager", "density": 0.0, "episode_s": 3.0} | changes
    config = dataclasses.replace(scene_entry("quadrotor/swarm").config, **changes)
    return make_env("quadrotor/swarm", rooms * A, family="nominal", seed=seed, config=config)


def test_rooms_and_their_rows() -> None:
    assert members(torch.tensor([0, 2]), 3, 2).tolist() == [0, 2, 3, 5]
    assert whole(torch.tensor([0, 1, 3, 5]), 6, 2).tolist() == [0]


def test_a_collision_brings_its_room_back_to_before_it() -> None:
    """All drones fall from hover after 2 s and hit the floor: rooms then begin in the air, 1.5 s to 2 s earlier."""
    env = swarm(replay=0.99, contact_ends=True, episode_s=4.0)
    assert isinstance(env.starts, CollisionReplay)
    hover = 0.2 * torch.ones(env.num_envs, 4)
    saved = None
    for t in range(1, 400):
        if t == 150:
            saved = env.get_state()
        env.step(hover if t < 200 else -torch.ones_like(hover))
    kept = env.starts.state()
    taken = [k for k in kept if k.startswith("kept.") and k.endswith("task.clock")]
    assert len(taken) == E
    assert saved is not None
    clocks = [int(kept[k][0]) for k in taken]
    assert all(50 <= c <= 150 for c in clocks), clocks
    env.step(-torch.ones_like(hover))  # the clock runs out: rooms begin anew
    assert set(env.task.clock.tolist()) <= set(clocks)
    again = env.task.state["body"][:, :E]
    assert (again[2] > 0.5).all(), "in the air"


def test_a_state_is_dropped_after_ten_uses_and_the_buffer_holds_twenty() -> None:
    env = swarm(replay=0.99, contact_ends=True)
    replay = env.starts
    for t in range(1, 290):
        env.step((0.2 if t < 170 else -1.0) * torch.ones(env.num_envs, 4))
    first = len(replay.state()["uses"])
    assert 0 < first <= CollisionReplay.SIZE
    generator = torch.Generator().manual_seed(0)
    everyone = torch.arange(env.num_envs)
    for _ in range(200):
        replay.begin(env, everyone, generator)
    assert len(replay.state()["uses"]) == 0
    replay.begin(env, everyone, generator)


def test_replay_resumes_bit_for_bit() -> None:
    env = swarm(replay=0.75, contact_ends=True, seed=1)
    env.stagger()
    generator = torch.Generator().manual_seed(5)
    script = 0.1 + 0.5 * torch.randn((500, env.num_envs, 4), generator=generator)
    for action in script[:250]:
        env.step(action)
    state = {k: v.clone() for k, v in env.get_state().items()}
    onward = [env.step(a).obs["policy"].clone() for a in script[250:]]
    other = swarm(replay=0.75, contact_ends=True, seed=9)
    other.set_state(None, state)
    for a, b in zip(script[250:], onward, strict=True):
        assert torch.equal(other.step(a).obs["policy"], b)


def test_snapshots_of_a_teacher_are_where_episodes_begin() -> None:
    """In any scene: here hover, whose stored states are the only ones to start from."""
    make = lambda n, seed: make_env("quadrotor/hover", n, family="nominal", seed=seed)  # noqa: E731
    teacher = make(5, 1)
    for _ in range(30):
        teacher.step(torch.zeros(5, 4))
    snapshots = teacher.get_state()
    env = make(3, 2)
    env.starts = SnapshotStarts(snapshots, 1, 1.0)
    env.age += env.episode_steps - 1
    step = env.step(torch.zeros(3, 4))
    assert step.truncated.all()
    known = {tuple(row) for row in snapshots["task.body"].tolist()}
    assert {tuple(row) for row in env.get_state()["task.body"].tolist()} <= known
    assert (env.age == 30).all()


def test_shares_and_rows_that_cannot_be() -> None:
    rows = {"age": torch.zeros(5)}
    with pytest.raises(BadInput, match=r"share of snapshot starts 0\.0; expected above 0 and at most 1"):
        SnapshotStarts(rows, 1, 0.0)
    with pytest.raises(BadInput, match="5 rows of snapshots do not make environments of 2"):
        SnapshotStarts(rows, 2, 0.5)
