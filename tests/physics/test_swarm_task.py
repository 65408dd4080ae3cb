"""The swarm task: what drones perceive, how flights are judged, restarts of rooms and of single drones."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from controllers.interface import Interface
from controllers.surroundings import Around, perceive
from hardware.spec import load_spec
from sim.registry import make_env, scene_entry
from sim.scenes.quadrotor.swarm import records, reward
from sim.scenes.quadrotor.swarm.config import PUBLISHED, Curriculum, Weights

A, E = 4, 6


def swarm(rooms: int = E, *, family: str = "train", seed: int = 0, **changes: Any) -> Any:
    changes = {"drones": A, "engine": "eager"} | changes
    config = dataclasses.replace(scene_entry("quadrotor/swarm").config, **changes)
    return make_env("quadrotor/swarm", rooms * config.drones, family=family, seed=seed, config=config)


def actions(rows: int, steps: int, seed: int = 1) -> Tensor:
    return 0.2 + 0.3 * torch.randn((steps, rows, 4), generator=torch.Generator().manual_seed(seed))


def around(env: Any) -> Around:
    """What each drone could know, from the task's own state: all others of its room, all obstacles."""
    task, agents = env.task, env.spec.agents
    n, rooms = env.num_envs, env.num_envs // agents
    shared = task.state["shared"].reshape(6, agents, rooms)
    room = torch.arange(n) % rooms
    others = shared[:, :, room]  # (6, A, N)
    itself = torch.arange(agents)[:, None] == torch.arange(n) // rooms
    known = ~itself & task.state["flying"].reshape(agents, rooms)[:, room]
    bank, maps = task.bank, task.state["map"]
    return Around(
        others[:3].permute(2, 1, 0),
        others[3:].permute(2, 1, 0),
        known.T,
        bank.axes[maps],
        bank.present[maps],
        bank.radius[maps][:, None].expand(n, bank.axes.shape[1]),
    )


@pytest.mark.parametrize("frame", ["yaw", "world"])
def test_observations_are_what_the_robots_side_would_make_of_the_same_signals(frame: str) -> None:
    """Through flights, contacts, restarts of single drones and of rooms."""
    env = swarm(frame=frame, contact_ends=True, dropout=0.2, episode_s=2.0, density=0.5, seed=3)
    env.stagger()
    interface = Interface(load_spec("crazyflie"), env.spec.mode, env.spec.observation, env.spec.action)
    ended = 0
    for action in actions(env.num_envs, 120):
        step = env.step(action)
        over = step.terminated | step.truncated
        ended += int(over.sum())
        view = env.task.view(None)
        measured = env.task.measured(view)
        own = [measured[k] for k in ("position_world", "velocity_world", "quat_wxyz")]
        seen = perceive(own[0], own[1], own[2], around(env), neighbours=2, obstacles=2)
        fresh = over if over.any() else slice(None)  # after a restart, only those begun anew see the newcomers
        for name, values in seen.items():
            if name in measured:
                difference = (values - measured[name])[fresh]
                # Equally near ones may come in either order: then nothing of them can be compared.
                assert difference.abs().max() < 2e-5 or name.startswith(("neighbour", "obstacle_dir")), name
        memory = interface.start((env.num_envs,), torch.zeros(1))
        expected, _ = interface.observe(measured, env.task.goal(view), memory)
        width = sum(f.size for f in env.spec.observation if f.history == 1)
        assert expected["policy"].shape[1] == step.obs["policy"].shape[1] >= width
    assert ended > 10


@pytest.mark.parametrize("turn", [0.5, 2.0, -3.0])
def test_the_turned_observation_does_not_change_when_the_world_turns_about_z(turn: float) -> None:
    """Equivariance of positions, velocities, attitude, goals, neighbours and obstacles; to rounding of float64."""
    env = swarm(1)
    spec = load_spec("crazyflie")
    interface = Interface(spec, env.spec.mode, env.spec.observation, env.spec.action)
    generator = torch.Generator().manual_seed(7)
    rand = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    n = 50
    c, s = math.cos(turn), math.sin(turn)
    matrix = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    half = torch.tensor([math.cos(turn / 2), 0.0, 0.0, math.sin(turn / 2)], dtype=torch.float64)
    quat = torch.nn.functional.normalize(rand(n, 4), dim=1)

    def multiplied(b: Tensor) -> Tensor:
        w, z = half[0], half[3]
        return torch.stack(
            [
                w * b[:, 0] - z * b[:, 3],
                w * b[:, 1] - z * b[:, 2],
                w * b[:, 2] + z * b[:, 1],
                w * b[:, 3] + z * b[:, 0],
            ],
            1,
        )

    world = {
        "position_world": rand(n, 3),
        "velocity_world": rand(n, 3),
        "angular_velocity_body": rand(n, 3),
        "battery_voltage": rand(n, 1),
    }
    goal, others, speeds, poles = rand(n, 3), rand(n, 3, 3), rand(n, 3, 3), 2.0 * rand(n, 6, 2)
    flags, radius = torch.ones(n, 3, dtype=torch.bool), torch.full((n, 6), 0.3, dtype=torch.float64)

    def seen(turned: bool) -> Tensor:
        move = (lambda v: v @ matrix.T) if turned else (lambda v: v)
        flat = (lambda v: v @ matrix[:2, :2].T) if turned else (lambda v: v)
        state = {k: move(v) if k.endswith("_world") else v for k, v in world.items()}
        state["quat_wxyz"] = multiplied(quat) if turned else quat
        near = Around(move(others), move(speeds), flags, flat(poles), torch.ones(n, 6, dtype=torch.bool), radius)
        own = [state[k] for k in ("position_world", "velocity_world", "quat_wxyz")]
        state |= perceive(own[0], own[1], own[2], near, neighbours=2, obstacles=2)
        memory = interface.start((n,), torch.zeros(1, dtype=torch.float64))
        return interface.observe(state, {"position_world": move(goal)}, memory)[0]["policy"]

    torch.testing.assert_close(seen(True), seen(False), rtol=0, atol=1e-9)


def test_the_published_observation_has_its_forty_numbers() -> None:
    spec = scene_entry("quadrotor/swarm").spec(
        dataclasses.replace(scene_entry("quadrotor/swarm").config, frame="world", neighbours=2)
    )
    assert sum(f.size * f.history for f in spec.observation) == 40


@pytest.mark.parametrize("agents", [2, 8])
def test_compiled_traced_and_eager_steps_agree(agents: int) -> None:
    """Traced bit for bit; compiled to rounding, over the steps before a contact, which magnifies it."""
    engines = ("eager", "traced", "compiled") if agents == 2 else ("eager", "traced")
    envs = [swarm(8, drones=agents, engine=e, seed=4) for e in engines]
    for action in actions(8 * agents, 25):
        eager, *others = (env.step(action) for env in envs)
        for name, step in zip(engines[1:], others, strict=True):
            bound = 0.0 if name == "traced" else 1e-4
            assert (step.obs["policy"] - eager.obs["policy"]).abs().max() <= bound, name
            assert (step.reward - eager.reward).abs().max() <= bound, name


def test_published_reward_by_hand() -> None:
    """A level drone at 2 m from its goal, at rest but for a spin of 1 rad/s, all rotors at action 0.5; new contact.

    -0.005 (2 + 0.05 x 1 - 1 + 0.1 x 1) - 5 - 0.04 (1 - 0.092 / 0.184) = -5.02575.
    """
    state = torch.zeros(17, 1)
    state[6], state[12] = 1.0, 1.0
    facts = torch.zeros(len(reward.FACTS), 1)
    facts[0], facts[8], facts[9], facts[10] = 1.0, 0.092, 0.5, 10.0
    action = torch.full((1, 4), 0.5)
    one = torch.ones(1)
    paid = reward.reward(state, facts, 2.0 * one, 0 * one, 0 * one, action, action, one[0], weights=PUBLISHED)
    assert paid.item() == pytest.approx(-0.005 * (2.0 + 0.05 - 1.0 + 0.1) - 5.0 - 0.02, abs=1e-6)
    halved = reward.reward(state, facts, 2.0 * one, 0 * one, 0 * one, action, action, 0.5 * one[0], weights=PUBLISHED)
    assert halved.item() == pytest.approx(paid.item() + 2.5, abs=1e-6)


def test_every_weight_pays_and_only_contacts_pay_once() -> None:
    generator = torch.Generator().manual_seed(2)
    state = torch.randn(17, 5, generator=generator)
    facts = torch.rand(len(reward.FACTS), 5, generator=generator)
    one, action = torch.ones(5), torch.randn(5, 4, generator=generator)
    args = (state, facts, 0.5 * one, one, 0.3 * one, action, 0.1 * action, one[0])
    none = Weights(**{f.name: 0.0 for f in dataclasses.fields(Weights)})
    assert not reward.reward(*args, weights=none).any()
    for f in dataclasses.fields(Weights):
        alone = reward.reward(*args, weights=dataclasses.replace(none, **{f.name: 1.0}))
        assert (alone != 0.0).all(), f.name


def test_both_notions_of_success_by_hand() -> None:
    """Four flights of 3 s at 100 Hz: perfect; contact in the grace; contact after it; perfect but 0.5 m away."""
    kept = records.begin(4, torch.zeros(1))
    distance = torch.tensor([0.1, 0.1, 0.1, 0.5])
    for t in range(1, 301):
        began = torch.zeros(4, 4, dtype=torch.bool)
        began[1, 1] = t == 100
        began[0, 2] = t == 200
        began[3, 3] = t == 250  # the floor does not count in the published metric
        clock = torch.full((4,), t)
        kept = records.keep(
            kept, began, distance, torch.ones(4), torch.full((4,), 2.0), clock, clock, dt_s=0.01, end=300
        )
    told = records.standing(kept, dt_s=0.01)
    flag = torch.ones(4, dtype=torch.bool)
    found = records.metrics(told, distance, torch.full((4,), 0.25), flag, flag)
    assert found["success"].tolist() == [True, False, False, False]
    assert found["published_success"].tolist() == [True, True, False, True]
    assert found["published_collision"].tolist() == [False, False, True, False]
    assert found["hit_floor"].tolist() == [False, False, False, True]
    torch.testing.assert_close(found["last_second_m"], distance)
    torch.testing.assert_close(found["path_m"], torch.full((4,), 3.0))
    assert found["arrival_s"][0] == pytest.approx(0.01)
    assert math.isnan(found["arrival_s"][3])
    assert found["separation_m"].tolist() == [2.0] * 4


def test_a_contact_ends_one_flight_and_the_others_fly_on() -> None:
    env = swarm(contact_ends=True, seed=1, density=0.0, downwash=False)
    before = env.task.state["map"].clone()
    down = -torch.ones(env.num_envs, 4)
    down[: E * (A - 1)] = 0.2  # only the last drone of each room falls
    fallen = torch.zeros(env.num_envs, dtype=torch.bool)
    for _ in range(150):
        step = env.step(down)
        fallen |= step.terminated
    assert fallen[E * (A - 1) :].all()
    assert torch.equal(env.task.state["map"], before), "the room stays"
    assert (env.task.clock == 150).all(), "and so does its clock"
    assert (env.age[fallen] < 150).all()
    assert not step.truncated.any()


def test_when_the_clock_runs_out_whole_rooms_begin_anew() -> None:
    env = swarm(episode_s=2.0, seed=1)
    before = env.task.state["goal"].clone()
    for action in actions(env.num_envs, 199):
        assert not env.step(action).truncated.any()
    step = env.step(actions(env.num_envs, 1)[0])
    assert step.truncated.all()
    assert not torch.equal(env.task.state["goal"], before)
    assert not env.task.clock.any()
    assert not env.task.state["records"][:4].any()


def test_drones_that_do_not_fly_are_masked_unseen_and_untouched() -> None:
    k = Curriculum(gate="steps", steps=10**9, drones=1)
    env = swarm(curriculum=k, seed=2)
    flying = env.task.state["flying"].reshape(A, E)
    assert flying.sum(0).tolist() == [1] * E
    step = env.step(actions(env.num_envs, 1)[0])
    assert step.alive is not None
    assert torch.equal(step.alive, flying.reshape(-1))
    seen = env.task.measured(env.task.view(None))["neighbour_present"]
    assert not seen[flying.reshape(-1)].any(), "nobody else is there"


def test_the_level_rises_by_steps_and_the_maps_fill_with_it() -> None:
    k = Curriculum(gate="steps", steps=2000, contact=0.1)
    env = swarm(20, curriculum=k, density=0.5, drones=2, episode_s=2.0, seed=0)
    assert env.task.level.contact_factor.item() == pytest.approx(0.1)
    full = env.task.bank.count[env.task.state["map"]].float().mean()
    assert full < 10  # of 32
    for action in actions(env.num_envs, 200):
        env.step(action)
    assert env.task.shared["level"].item() == 1.0
    assert (env.task.bank.count[env.task.state["map"]] == 32).all()
    assert env.task.level.contact_factor.item() == 1.0


def test_the_level_waits_for_success() -> None:
    k = Curriculum(gate="success", steps=1000, enough=0.5)
    env = swarm(8, curriculum=k, drones=2, episode_s=2.0, contact_ends=True, seed=0)
    for _ in range(150):
        env.step(-torch.ones(env.num_envs, 4))  # everybody falls
    assert env.task.shared["level"].item() == 0.0
    env.task.shared["share"] = torch.tensor(0.9)
    env.step(0.2 * torch.ones(env.num_envs, 4))
    assert env.task.shared["level"].item() > 0.0
