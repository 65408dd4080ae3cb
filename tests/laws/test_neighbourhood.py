"""What robots share and perceive of one another, and one policy that decides for several of them."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.pd_policy import write_pd_policy, write_perceiving_policy

from controllers.artifact import PolicyArtifact
from controllers.crew import Crew, Question
from controllers.formation import formation, nearest_pair
from controllers.graph import Graph
from controllers.neighbourhood import DARK_S, Dropouts, Neighbourhood, SharedPositions
from controllers.policy import Policy, signals_needed, signals_perceived
from controllers.surroundings import FAR_M, Around, perceive
from hardware.errors import BadInput
from hardware.robot import RobotState
from hardware.robots.crazyflie.obstacles import Obstacles

MS = 1_000_000


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> PolicyArtifact:
    return PolicyArtifact.load(write_perceiving_policy(tmp_path_factory.mktemp("crew") / "p.onnx"))


def state_of(rng: np.random.Generator, t_ns: int = 0) -> RobotState:
    quat = rng.normal(size=4) * [0.2, 0.1, 0.1, 1.0] + [1.0, 0.0, 0.0, 0.0]
    signals = {
        "position_world": rng.uniform(-2.0, 2.0, 3),
        "velocity_world": rng.normal(size=3),
        "quat_wxyz": quat / np.linalg.norm(quat),
        "angular_velocity_body": rng.normal(size=3),
        "battery_voltage": np.array(4.0),
    }
    return RobotState(t_ns, signals)


def test_velocities_of_two_positions_settle_at_the_true_one() -> None:
    """First-order low pass of differences: after five time constants less than 1 % is missing."""
    shared = SharedPositions(1, low_pass_s=0.03)
    velocity = np.array([1.0, -2.0, 0.5])
    for k in range(16):
        shared.put(0, k * 10 * MS, velocity * k * 0.01)
    _, found, known = shared.at(np.array(150 * MS))
    assert known.all()
    np.testing.assert_allclose(found[0], velocity, rtol=0.015)


def test_one_low_pass_step_is_the_one_computed_by_hand() -> None:
    shared = SharedPositions(1, low_pass_s=0.03)
    shared.put(0, 0, np.zeros(3))
    shared.put(0, 10 * MS, np.array([0.02, 0.0, 0.0]))  # 2 m/s; weight 10 / (30 + 10)
    np.testing.assert_allclose(shared.at(np.array(10 * MS))[1][0], [0.5, 0.0, 0.0])


def test_a_robot_moves_on_through_a_dropout_and_is_unknown_after_the_limit() -> None:
    shared = SharedPositions(2, age_limit_s=0.3)
    shared.put(0, 0, np.array([1.0, 0.0, 1.0]), np.array([0.5, 0.0, 0.0]))
    position, _, known = shared.at(np.array([200 * MS, 301 * MS]))
    assert known.tolist() == [[True, False], [False, False]]
    np.testing.assert_allclose(position[0, 0], [1.1, 0.0, 1.0])


def test_old_and_broken_samples_change_nothing() -> None:
    shared = SharedPositions(1)
    shared.put(0, 20 * MS, np.ones(3), np.zeros(3))
    shared.put(0, 10 * MS, np.zeros(3), np.zeros(3))
    shared.put(0, 30 * MS, np.array([np.nan, 0.0, 0.0]), np.zeros(3))
    assert shared.at(np.array(20 * MS))[0][0].tolist() == [1.0, 1.0, 1.0]


def test_a_long_gap_leaves_no_velocity_behind() -> None:
    shared = SharedPositions(1, age_limit_s=0.3)
    shared.put(0, 0, np.zeros(3))
    shared.put(0, 1000 * MS, np.ones(3))
    assert shared.at(np.array(1000 * MS))[1][0].tolist() == [0.0, 0.0, 0.0]


def test_dropouts_take_their_share_of_the_time_in_bursts() -> None:
    """Two-state process: the share of dark time is given, the mean dark spell is `DARK_S`."""
    dropouts = Dropouts(0.3, 64, seed=4)
    dark = np.array([dropouts.dark(k * 10 * MS) for k in range(4000)])
    assert abs(dark.mean() - 0.3) < 0.01
    ends = dark[:-1] & ~dark[1:]
    spell_s = 0.01 * dark.sum() / ends.sum()
    assert spell_s == pytest.approx(DARK_S, rel=0.1)
    with pytest.raises(BadInput, match="dropouts of 1 of the time"):
        Dropouts(1.0, 2)


def test_each_robot_perceives_what_the_definition_says(artifact: PolicyArtifact) -> None:
    rng = np.random.default_rng(2)
    states = {i: state_of(rng, t_ns=i * MS) for i in range(4)}
    shared = SharedPositions(4)
    for i, s in states.items():
        shared.put(i, s.t_ns, s.signals["position_world"], s.signals["velocity_world"])
    obstacles = Obstacles(rng.uniform(-2, 2, (3, 2)), np.array([0.1, 0.2, 0.3]))
    found = Neighbourhood(artifact.interface, shared, obstacles).perceived(states)
    assert found[1].keys() == set(signals_perceived(artifact.interface))
    for i, s in states.items():
        others = [j for j in range(4) if j != i]
        position, velocity, known = (v[others] for v in shared.at(np.array(s.t_ns)))
        around = Around(position, velocity, known, obstacles.centre, np.ones(3, bool), obstacles.radius)
        own = (s.signals[n] for n in ("position_world", "velocity_world", "quat_wxyz"))
        wanted = perceive(*own, around, neighbours=2, obstacles=2)
        for name, value in found[i].items():
            np.testing.assert_array_equal(value, wanted[name])


def test_alone_in_an_empty_room_everything_is_far(artifact: PolicyArtifact) -> None:
    state = state_of(np.random.default_rng(0))
    found = Neighbourhood(artifact.interface, SharedPositions(1)).perceived({0: state})[0]
    assert found["neighbour_present"].tolist() == [0.0, 0.0]
    assert found["obstacle_clearance"].tolist() == [FAR_M, FAR_M]


def test_what_is_perceived_is_not_asked_of_the_robot(artifact: PolicyArtifact) -> None:
    assert signals_needed(artifact.interface) == {"position_world", "velocity_world", "quat_wxyz"}


def test_a_crew_decides_what_each_robots_own_policy_would_to_the_last_bit(artifact: PolicyArtifact) -> None:
    """Robots begin at different times and not all ask in every tick; commands go back into the memories."""
    rng = np.random.default_rng(7)
    crew, alone = Crew(artifact, 5), [Policy(artifact) for _ in range(5)]
    hood = Neighbourhood(artifact.interface, SharedPositions(5))
    for tick in range(12):
        asking = [i for i in range(5) if rng.random() < 0.7]
        states = {i: state_of(rng, tick * 10 * MS) for i in asking}
        for i, s in states.items():
            hood.shared.put(i, s.t_ns, s.signals["position_world"], s.signals["velocity_world"])
        goal = {"position_world": rng.normal(size=3)}
        perceived = hood.perceived(states)
        if tick == 6:
            crew.members[2].start()
            alone[2].start()
        decisions = crew.decide({i: Question(s.signals, goal, perceived[i]) for i, s in states.items()})
        assert list(decisions) == asking
        for i in asking:
            wanted = alone[i].decide(states[i].signals, goal, perceived[i])
            np.testing.assert_array_equal(decisions[i].observation["policy"], wanted.observation["policy"])
            np.testing.assert_array_equal(decisions[i].command, wanted.command)
            sent = np.clip(wanted.command + 0.01 * rng.normal(size=4), -0.5, 0.9)
            crew.members[i].sent(sent)
            alone[i].sent(sent)


@pytest.mark.parametrize("rows", [2, 3, 8, 17])
def test_a_row_gives_the_same_bits_alone_and_in_company(rows: int) -> None:
    """Weights from the left, the batch on the last axis, as attention over entities is exported."""
    weight = np.random.default_rng(0).normal(size=(4, 48)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["policy"], ["columns"]),
            helper.make_node("MatMul", ["weight", "columns"], ["product"]),
            helper.make_node("Transpose", ["product"], ["command"]),
        ],
        "columns",
        [helper.make_tensor_value_info("policy", TensorProto.FLOAT, ["N", 48])],
        [helper.make_tensor_value_info("command", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    run = Graph(model.SerializeToString(), "test").run
    batch = np.random.default_rng(1).normal(size=(rows, 48)).astype(np.float32)
    alone = np.concatenate([run({"policy": row[None]}) for row in batch])
    np.testing.assert_array_equal(run({"policy": batch}), alone)


def test_a_crew_of_a_policy_that_perceives_nothing(tmp_path: Path) -> None:
    artifact = PolicyArtifact.load(write_pd_policy(tmp_path / "p.onnx"))
    state, goal = state_of(np.random.default_rng(1)), {"position_world": np.zeros(3)}
    assert Neighbourhood(artifact.interface, SharedPositions(2)).perceived({1: state}) == {1: {}}
    decision = Crew(artifact, 2).decide({1: Question(state.signals, goal)})[1]
    np.testing.assert_array_equal(decision.command, Policy(artifact).decide(state.signals, goal).command)


@pytest.mark.parametrize("name", ["circle", "grid", "line"])
@pytest.mark.parametrize("num", [1, 2, 5, 8])
def test_formations_keep_their_spacing_around_the_middle(name: str, num: int) -> None:
    starts = np.random.default_rng(num).uniform(-1, 1, (num, 3))
    goals = formation(name, starts, spacing_m=0.8, height_m=1.2)  # type: ignore[arg-type]
    assert goals.shape == (num, 3)
    assert (goals[:, 2] == 1.2).all()
    np.testing.assert_allclose(goals[:, :2].mean(axis=0), starts[:, :2].mean(axis=0), atol=1e-12)
    if num > 1:
        assert nearest_pair(list(goals))[0] == pytest.approx(0.8)


def test_a_swap_sends_everyone_to_the_opposite_place() -> None:
    starts = np.array([[0.0, y, 0.0] for y in (-1.5, -0.5, 0.5, 1.5)])
    goals = formation("swap", starts, spacing_m=1.0, height_m=1.0)
    np.testing.assert_allclose(goals[:, 1], [1.5, 0.5, -0.5, -1.5])
