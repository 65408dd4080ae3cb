"""The interpreter: equal on numpy and torch, frames against scipy, symmetries, history, and clear refusals."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from controllers.interface import Field, Interface, Memory, check_members, fields_from_json, fields_to_json
from hardware.errors import BadInput, NotFoundError
from hardware.geometry import quat_from_euler, quat_multiply, rotate
from hardware.spec import load_spec

Array = NDArray[np.float64]
State = dict[str, Array]
SPEC = load_spec("crazyflie")
ACTION = (
    Field("roll", "roll", 1, "rad", scale=0.5),
    Field("pitch", "pitch", 1, "rad", scale=0.5),
    Field("yaw_rate", "yaw_rate", 1, "rad/s", scale=1.5),
    Field("thrust", "thrust", 1, "1", offset=0.55, scale=0.35),
)
OBSERVATION = (
    Field("error", "error:position_world", 3, "m", "yaw", scale=0.5, clip=1.25),
    Field("goal", "goal:position_world", 3, "m", "world", offset=1.0),
    Field("velocity_body", "velocity_world", 3, "m/s", "body", scale=0.5),
    Field("velocity_yaw", "velocity_world", 3, "m/s", "yaw", history=3),
    Field("gravity", "gravity", 3, "1", "body"),
    Field("rate", "angular_velocity_body", 3, "rad/s", "body", scale=0.2, history=2),
    Field("command", "command", 4, "1", history=3),
    Field("battery", "battery_voltage", 1, "V", offset=3.7, scale=2.0, group="critic"),
    Field("attitude", "quat_wxyz", 4, "1", group="critic"),
)


def make(*observation: Field) -> Interface:
    """An interface with these fields and the usual action."""
    return Interface(SPEC, "attitude_thrust", observation or OBSERVATION, ACTION)


def random_state(rng: np.random.Generator, batch: tuple[int, ...]) -> tuple[State, State]:
    """A state and a goal of random numbers."""
    quat = rng.normal(size=(*batch, 4))
    state = {
        "position_world": rng.normal(size=(*batch, 3)),
        "quat_wxyz": quat / np.linalg.norm(quat, axis=-1, keepdims=True),
        "velocity_world": 3 * rng.normal(size=(*batch, 3)),
        "angular_velocity_body": 5 * rng.normal(size=(*batch, 3)),
        "battery_voltage": 3.7 + 0.3 * rng.normal(size=batch),
    }
    return state, {"position_world": rng.normal(size=(*batch, 3))}


def _torch(values: Mapping[str, Array], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {k: torch.as_tensor(v, dtype=dtype) for k, v in values.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-5)])
def test_numpy_one_robot_equals_torch_batch_over_an_episode(dtype: torch.dtype, tolerance: float) -> None:
    """Ten ticks: the batch of 32 in torch against 32 single robots in numpy, memory carried along."""
    rng = np.random.default_rng(11)
    face = make()
    batch = face.start((32,), torch.zeros(1, dtype=dtype))
    single = [face.start((), np.zeros(1)) for _ in range(32)]
    for _ in range(10):
        state, goal = random_state(rng, (32,))
        action = 1.5 * rng.normal(size=(32, 4))
        obs, batch = face.observe(_torch(state, dtype), _torch(goal, dtype), batch)
        command = face.command(torch.as_tensor(action, dtype=dtype))
        batch = face.remember(batch, command)
        assert {k: v.shape for k, v in obs.items()} == {k: (32, d) for k, d in face.group_sizes.items()}
        for i in range(32):
            own = {k: v[i] for k, v in state.items()}
            one, single[i] = face.observe(own, {k: v[i] for k, v in goal.items()}, single[i])
            sent = face.command(action[i])
            single[i] = face.remember(single[i], sent)
            assert command[i].numpy() == pytest.approx(sent, abs=tolerance)
            for group, value in one.items():
                assert obs[group][i].numpy() == pytest.approx(value, abs=tolerance)


def _observe(face: Interface, state: State, goal: State, memory: Memory | None = None) -> dict[str, Any]:
    return face.observe(state, goal, memory or face.start((), np.zeros(1)))[0]


@given(seed=st.integers(0, 2**32 - 1))
def test_frames_are_scipys(seed: int) -> None:
    state, goal = random_state(np.random.default_rng(seed), ())
    attitude = Rotation.from_quat(state["quat_wxyz"], scalar_first=True)
    heading = Rotation.from_euler("Z", attitude.as_euler("ZYX")[0])
    frames = {"world": Rotation.identity(), "body": attitude, "yaw": heading}
    for name, frame in frames.items():
        face = make(
            Field("v", "velocity_world", 3, "m/s", name),
            Field("e", "error:position_world", 3, "m", name),
            Field("g", "goal:position_world", 3, "m", name),
            Field("down", "gravity", 3, "1", name),
        )
        error = goal["position_world"] - state["position_world"]
        down = np.array([0.0, 0.0, -1.0])
        expected = [frame.inv().apply(v) for v in (state["velocity_world"], error, goal["position_world"], down)]
        assert _observe(face, state, goal)["policy"] == pytest.approx(np.concatenate(expected), abs=1e-9)


@given(seed=st.integers(0, 2**32 - 1), angle=st.floats(-math.pi, math.pi))
def test_heading_frame_does_not_know_where_north_is(seed: int, angle: float) -> None:
    """Turn the whole world about the vertical: every field in the frame 'yaw' or 'body' stays as it is."""
    state, goal = random_state(np.random.default_rng(seed), ())
    turn = quat_from_euler(np.array(0.0), np.array(0.0), np.array(angle))
    turned = dict(state)
    for name in ("position_world", "velocity_world"):
        turned[name] = rotate(turn, state[name])
    turned["quat_wxyz"] = quat_multiply(turn, state["quat_wxyz"])
    fields = tuple(
        Field(f"{source}/{frame}", source, 3, "1", frame)
        for source in ("velocity_world", "error:position_world", "goal:position_world", "gravity")
        for frame in ("yaw", "body")
    )
    face = make(*fields)
    goal_turned = {"position_world": rotate(turn, goal["position_world"])}
    before, after = _observe(face, state, goal)["policy"], _observe(face, turned, goal_turned)["policy"]
    assert after == pytest.approx(before, abs=1e-9)


def test_history_shows_the_newest_first_and_starts_full() -> None:
    face = make(Field("battery", "battery_voltage", 1, "V", history=3), Field("command", "command", 4, "1", history=2))
    memory = face.start((), np.zeros(1))
    shown = []
    for tick in range(4):
        obs, memory = face.observe({"battery_voltage": np.array(float(tick + 1))}, {}, memory)
        shown.append(obs["policy"].tolist())
        memory = face.remember(memory, face.command(np.full(4, 0.1 * (tick + 1))))
    assert [row[:3] for row in shown] == [[1, 1, 1], [2, 1, 1], [3, 2, 1], [4, 3, 2]]
    assert [row[3] for row in shown] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert [row[7] for row in shown] == pytest.approx([0.0, 0.0, 0.1, 0.2])


def test_after_a_partial_reset_only_those_rows_start_full_again() -> None:
    face = make(Field("battery", "battery_voltage", 1, "V", history=3))
    memory = face.start((3,), torch.zeros(1))
    for tick in range(3):
        _, memory = face.observe({"battery_voltage": torch.full((3,), float(tick))}, {}, memory)
    ended = torch.tensor([[False], [True], [False]])
    memory = memory._replace(fresh=ended)
    obs, memory = face.observe({"battery_voltage": torch.full((3,), 9.0)}, {}, memory)
    assert obs["policy"].tolist() == [[9.0, 2.0, 1.0], [9.0, 9.0, 9.0], [9.0, 2.0, 1.0]]
    assert not memory.fresh.any()


@given(action=st.lists(st.floats(-3.0, 3.0), min_size=4, max_size=4))
def test_the_command_field_is_the_inverse_of_the_action(action: list[float]) -> None:
    """What is remembered comes back in action units, clipped to +-1, with the numbers of the fields done by hand."""
    face = make(Field("command", "command", 4, "1"))
    command = face.command(np.array(action))
    clipped = np.clip(action, -1.0, 1.0)
    assert command == pytest.approx(np.array([0.0, 0.0, 0.0, 0.55]) + np.array([0.5, 0.5, 1.5, 0.35]) * clipped)
    memory = face.remember(face.start((), np.zeros(1)), command)
    assert _observe(face, {}, {}, memory)["policy"] == pytest.approx(clipped, abs=1e-12)


def test_memory_holds_what_the_guard_let_through() -> None:
    """The interpreter shows the remembered command, not the action that asked for it."""
    face = make(Field("command", "command", 4, "1"))
    memory = face.remember(face.start((), np.zeros(1)), np.array([0.25, 0.0, 0.0, 0.2]))
    assert _observe(face, {}, {}, memory)["policy"] == pytest.approx([0.5, 0.0, 0.0, -1.0])


def test_scale_offset_and_clip_by_hand() -> None:
    face = make(
        Field("a", "battery_voltage", 1, "V", offset=3.0, scale=2.0),
        Field("b", "battery_voltage", 1, "V", offset=3.0, scale=2.0, clip=1.5),
        Field("c", "battery_voltage", 1, "V", offset=5.0, scale=2.0, clip=1.5),
    )
    assert _observe(face, {"battery_voltage": np.array(4.0)}, {})["policy"].tolist() == [2.0, 1.5, -1.5]


def test_interpreter_compiles_to_one_graph() -> None:
    face = make()
    rng = np.random.default_rng(2)
    state, goal = (_torch(v, torch.float32) for v in random_state(rng, (8,)))
    memory = face.start((8,), torch.zeros(1))
    torch._dynamo.reset()
    compiled = torch.compile(face.observe, fullgraph=True, backend="aot_eager")
    for group, value in compiled(state, goal, memory)[0].items():
        assert torch.allclose(value, face.observe(state, goal, memory)[0][group], atol=1e-6)


GOOD = Field("velocity", "velocity_world", 3, "m/s", "body")
BAD = [
    ({"frame": "tip"}, "field velocity: frame 'tip' unknown; frames: world, body, yaw"),
    ({"source": "past:velocity_world"}, "source 'past:velocity_world' unknown; kinds: goal:SIGNAL, error:SIGNAL"),
    ({"source": "speed"}, "robot crazyflie has no signal 'speed'; signals: position_world, quat_wxyz"),
    ({"source": "error:speed"}, "robot crazyflie has no signal 'speed'"),
    ({"size": 2}, "size 2, but 'velocity_world' has 3 components"),
    ({"source": "gravity", "size": 4}, "size 4, but 'gravity' has 3 components"),
    ({"source": "command", "frame": ""}, "size 3, but 'command' has 4 components"),
    ({"source": "angular_velocity_body", "frame": "yaw"}, "is given in frame 'body', not 'yaw'"),
    ({"source": "angular_velocity_body", "frame": "world"}, "is given in frame 'body', not 'world'"),
    ({"source": "battery_voltage", "size": 1}, "is given in frame '', not 'body'"),
    ({"scale": 0.0}, "scale 0.0, offset 0.0; expected finite and scale not 0"),
    ({"scale": math.nan}, "expected finite"),
    ({"offset": math.inf}, "expected finite"),
    ({"history": 0}, "history 0, clip inf; expected at least 1 and positive"),
    ({"clip": -1.0}, "history 1, clip -1.0; expected at least 1 and positive"),
    ({"clip": math.nan}, "expected at least 1 and positive"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_a_field_the_robot_cannot_serve_is_refused(change: dict[str, Any], message: str) -> None:
    make(GOOD)
    with pytest.raises(BadInput) as caught:
        make(dataclasses.replace(GOOD, **change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_members_of_an_entity_are_equal_parts_and_equally_many() -> None:
    three = Field("p", "p", 9, "m", entity="neighbour", members=3)
    two = Field("v", "v", 6, "m/s", entity="neighbour", members=2)
    grid = Field("grid", "grid", 9, "m", entity="obstacle")
    check_members((GOOD, three, dataclasses.replace(two, size=9, members=3), grid))
    check_members((three, dataclasses.replace(two, entity="obstacle"), grid))
    bad = [
        ((dataclasses.replace(three, size=8),), "field p: size 8 does not split into 3 members"),
        ((dataclasses.replace(three, members=0),), "field p: size 9 does not split into 0 members"),
        ((dataclasses.replace(three, entity=""),), "field p: 3 members of no entity"),
        ((three, two), "field v: 2 members of 'neighbour', but field p has 3"),
    ]
    for fields, message in bad:
        with pytest.raises(BadInput, match=message):
            check_members(fields)
    with pytest.raises(BadInput, match="field velocity: 3 members of no entity"):
        make(dataclasses.replace(GOOD, members=3))


def test_a_card_from_before_entities_loads() -> None:
    old = [{k: v for k, v in f.items() if k not in ("entity", "members")} for f in fields_to_json((GOOD,))]
    assert fields_from_json(old) == (GOOD,)


def test_names_are_used_once_and_actions_match_the_mode() -> None:
    with pytest.raises(BadInput, match="field names velocity are used more than once"):
        make(GOOD, GOOD)
    with pytest.raises(BadInput, match="do not match mode rotor_thrust"):
        Interface(SPEC, "rotor_thrust", (GOOD,), ACTION)
    with pytest.raises(BadInput, match="do not match mode attitude_thrust"):
        Interface(SPEC, "attitude_thrust", (GOOD,), ACTION[::-1])
    with pytest.raises(NotFoundError, match="command mode of robot crazyflie 'warp' not found; known: attitude_thrust"):
        Interface(SPEC, "warp", (GOOD,), ACTION)


@given(scale=st.floats(allow_nan=False, allow_infinity=False), clip=st.one_of(st.just(math.inf), st.floats(0.1, 9)))
def test_fields_survive_the_card_exactly(scale: float, clip: float) -> None:
    import json

    fields = (Field("f", "gravity", 3, "1", "body", scale=scale, clip=clip, history=2, group="critic"),)
    assert fields_from_json(json.loads(json.dumps(fields_to_json(fields), allow_nan=False))) == fields


@pytest.mark.parametrize("raw", [[{"name": "f"}], [{"nome": "f"}], ["f"], [None]])
def test_a_card_with_foreign_fields_is_refused(raw: list[Any]) -> None:
    with pytest.raises(BadInput, match="card holds a field that this version does not know"):
        fields_from_json(raw)
