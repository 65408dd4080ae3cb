"""Policies on board: the observation in C against the interpreter, commands against graph and guard, and nonsense."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.onboard import EVERYTHING, SPEC, Inputs, K, M, Onboard, inputs_of, policy_file
from support.pd_policy import nan_model

from controllers.artifact import PolicyArtifact
from controllers.interface import Field
from controllers.neighbourhood import SharedPositions
from controllers.policy import Policy
from controllers.surroundings import Around, perceive
from hardware.errors import BadInput
from hardware.guard import limit_command
from robo_rl.export_c.onboard import write_onboard
from robo_rl.export_c.report import ONBOARD, STRICT, report

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
needs_board = pytest.mark.skipif(
    not (shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")),
    reason="needs Debian's gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm",
)
HELD, DECIDED, REFUSED = 0, 1, -1
Array = NDArray[np.float64]
Single = NDArray[np.float32]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[PolicyArtifact, Onboard]:
    """A policy that sees every source there is, and its C."""
    folder = tmp_path_factory.mktemp("everything")
    artifact = policy_file(folder / "policy.onnx")
    return artifact, Onboard(artifact, folder / "c")


class Flight:
    """A drone among peers and obstacles, as the C gets them in single precision and the interpreter in double."""

    def __init__(self, seed: int, peers: int, obstacles: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.now_ms = int(self.rng.integers(1, 2**32))
        self.shared = SharedPositions(peers)
        self.peers = self.draw(3.0, peers, 3)
        self.told: dict[int, tuple[int, Single]] = {}
        self.obstacles = np.concatenate([self.draw(4.0, obstacles, 2), 0.15 + self.draw(0.1, obstacles, 1)], axis=1)

    def draw(self, scale: float, *shape: int) -> Single:
        """Uniform numbers within +-scale, exact in single precision."""
        return (scale * (2.0 * self.rng.random(shape) - 1.0)).astype(np.float32)

    def move(self, dt_ms: int) -> tuple[dict[str, Single], Single]:
        """A new state and goal; some of the peers are heard of."""
        self.now_ms += dt_ms
        self.peers = (self.peers + self.draw(0.02, *self.peers.shape)).astype(np.float32)
        for i in np.flatnonzero(self.rng.random(len(self.peers)) < 0.6).tolist():
            stamp = self.now_ms - int(self.rng.integers(0, 8))
            if i in self.told and self.told[i][0] >= stamp:
                continue
            self.told[i] = stamp, self.peers[i].copy()
            self.shared.put(i, stamp * 10**6, self.peers[i].astype(np.float64))
        quat = self.rng.normal(size=4)
        state = {
            "position_world": self.draw(4.0, 3),
            "velocity_world": self.draw(3.0, 3),
            "quat_wxyz": (quat / np.linalg.norm(quat)).astype(np.float32),
            "angular_velocity_body": self.draw(8.0, 3),
            "battery_voltage": np.float32(3.7) + self.draw(0.3),
        }
        return state, self.draw(4.0, 3)

    def inputs(self, state: dict[str, Single], goal: Single) -> Inputs:
        """For the C."""
        told = [(100 + i, stamp, position) for i, (stamp, position) in self.told.items()]
        return inputs_of(state, goal, self.now_ms, told, self.obstacles)

    def seen(self, state: dict[str, Single]) -> dict[str, Array]:
        """The same as the interpreter's signals."""
        own = {name: value.astype(np.float64) for name, value in state.items()}
        own["quat_wxyz"] = own["quat_wxyz"] / np.linalg.norm(own["quat_wxyz"])
        at, by, known = self.shared.at(np.array(self.now_ms * 10**6))
        obstacles = self.obstacles.astype(np.float64)
        around = Around(at, by, known, obstacles[:, :2], np.ones(len(obstacles), bool), obstacles[:, 2])
        where = own["position_world"], own["velocity_world"], own["quat_wxyz"]
        return own | perceive(*where, around, neighbours=K, obstacles=M)


def _single(values: object) -> Single:
    return np.array(values, np.float32)


SIZES = {"m": 10.0, "m/s": 10.0, "rad/s": 10.0}
"""How large values are here: single precision is relative. Without a unit: 2."""


def _tolerance(policy: Policy) -> Array:
    """1e-6 of each number's scale and size."""
    fields = policy.interface.observation
    return np.concatenate([np.full(f.size * f.history, 1e-6 * abs(f.scale) * SIZES.get(f.unit, 2.0)) for f in fields])


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), peers=st.integers(0, 9), obstacles=st.integers(0, 14))
def test_observation_and_command_are_the_interpreters(
    everything: tuple[PolicyArtifact, Onboard], seed: int, peers: int, obstacles: int
) -> None:
    """Eight decisions with histories, peers that fall silent and obstacles: the same numbers, then the same command."""
    artifact, onboard = everything
    policy, flight = Policy(artifact), Flight(seed, peers, obstacles)
    limits = SPEC.mode("rotor_thrust").limits.on(np.zeros(1))
    last = np.array(SPEC.mode("rotor_thrust").safe)
    onboard.start()
    for tick in range(8):
        state, goal = flight.move(700 if tick == 5 else 10)
        said, forces = onboard.step(flight.inputs(state, goal))
        assert said == DECIDED
        decision = policy.decide(flight.seen(state), {"position_world": goal.astype(np.float64)})
        off = np.abs(onboard.observation - decision.observation["policy"])
        assert np.all(off <= _tolerance(policy)), (tick, np.argmax(off / _tolerance(policy)), off.max())
        wish = artifact.run({"policy": onboard.observation[None]})[0].astype(np.float64)
        last = limit_command(wish, last, limits, 0.01)
        np.testing.assert_allclose(forces, last, rtol=0.0, atol=1e-6)
        policy.sent(forces.astype(np.float64))


def test_commands_are_held_between_decisions_and_the_clock_may_wrap(
    everything: tuple[PolicyArtifact, Onboard],
) -> None:
    """Called at 500 Hz the network decides every tenth millisecond; late calls do not shift the grid, a jump does."""
    _, onboard = everything
    flight = Flight(11, 2, 3)
    flight.now_ms = 2**32 - 27
    onboard.start()
    decided, last = [], np.zeros(4)
    for dt in [2] * 20 + [7, 7, 7, 2] + [500, 2, 2]:
        state, goal = flight.move(dt)
        said, forces = onboard.step(flight.inputs(state, goal))
        if said == DECIDED:
            decided.append(flight.now_ms - 2**32)
        else:
            assert said == HELD
            np.testing.assert_array_equal(forces, last)
        last = forces
    assert decided == [-25, -15, -5, 5, 20, 27, 36, 536]  # from 20 on at 15, 25, 35: the first call after each


@pytest.mark.parametrize("what", ["position", "velocity", "quat_wxyz", "gyro", "goal", "battery_v"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -1e7])
def test_a_state_that_is_no_number_stops_the_motors(
    everything: tuple[PolicyArtifact, Onboard], what: str, value: float
) -> None:
    """At once, between two decisions too; the next good state decides as after a start, though peers are remembered."""
    _, onboard = everything
    flight = Flight(12, 0, 3)
    onboard.start()
    state, goal = flight.move(10)
    good = flight.inputs(state, goal)
    fresh = onboard.step(good)[1]
    assert fresh.max() > 0.0
    bad = flight.inputs(state, goal)
    bad.now_ms += 2
    if what == "battery_v":
        bad.battery_v = value
    else:
        getattr(bad, what)[1] = value
    said, forces = onboard.step(bad)
    assert said == REFUSED
    np.testing.assert_array_equal(forces, SPEC.mode("rotor_thrust").safe)
    good.now_ms += 4
    said, forces = onboard.step(good)
    assert said == DECIDED
    np.testing.assert_array_equal(forces, fresh)


def test_a_quaternion_without_direction_is_refused_and_any_other_length_is_not(
    everything: tuple[PolicyArtifact, Onboard],
) -> None:
    _, onboard = everything
    flight = Flight(13, 0, 0)
    state, goal = flight.move(10)
    seen = []
    for length in (1.0, 0.75, 1.5):
        onboard.start()
        said, _ = onboard.step(flight.inputs(state | {"quat_wxyz": np.float32(length) * state["quat_wxyz"]}, goal))
        assert said == DECIDED
        seen.append(onboard.observation)
    np.testing.assert_allclose(seen[1:], [seen[0]] * 2, atol=1e-4)
    assert onboard.step(flight.inputs(state | {"quat_wxyz": np.zeros(4, np.float32)}, goal))[0] == REFUSED


def _neighbours(onboard: Onboard) -> Single:
    """(K, 4) position in the world and presence of the neighbours that were seen."""
    begins = np.cumsum([0, *(f.size * f.history for f in EVERYTHING)])
    at = {f.name: onboard.observation[b : b + f.size] for f, b in zip(EVERYTHING, begins, strict=False)}
    return np.concatenate([at["neighbour_position_world"].reshape(K, 3), at["neighbour_present"][:, None]], axis=1)


def test_peers_come_age_and_go(everything: tuple[PolicyArtifact, Onboard]) -> None:
    """Nobody, a peer that is no number, one that was last heard of 500 ms ago, and the same ten later."""
    _, onboard = everything
    flight = Flight(14, 0, 0)
    state, goal = flight.move(10)
    at = (state["position_world"] + _single([1.0, 0.0, 0.0])).astype(np.float32)
    now = flight.now_ms

    def seen(now_ms: int, *peers: tuple[int, int, Single]) -> Single:
        said, forces = onboard.step(inputs_of(state, goal, now_ms, list(peers), flight.obstacles))
        assert said == DECIDED
        assert np.isfinite(forces).all()
        return _neighbours(onboard)

    onboard.start()
    nobody = np.zeros((K, 4))
    np.testing.assert_array_equal(seen(now), nobody)
    np.testing.assert_array_equal(seen(now + 10, (7, now, _single([0.0, np.nan, 0.0]))), nobody)
    np.testing.assert_array_equal(seen(now + 20, (7, now + 600, at)), nobody)  # from a future that is too far
    there = [[1.0, 0.0, 0.0, 1.0], [0.0] * 4]
    np.testing.assert_allclose(seen(now + 30, (7, now - 460, at)), there, atol=1e-6)
    np.testing.assert_allclose(seen(now + 40), there, atol=1e-6)  # remembered
    np.testing.assert_array_equal(seen(now + 50), nobody)


def test_more_peers_than_places_and_places_that_become_free(everything: tuple[PolicyArtifact, Onboard]) -> None:
    """The first 32 are followed; when they have fallen silent others take their places."""
    _, onboard = everything
    flight = Flight(15, 0, 0)
    state, goal = flight.move(10)
    near, far = _single([0.5, 0.0, 0.0]), _single([2.0, 0.0, 0.0])
    crowd = [(i, flight.now_ms, (state["position_world"] + far).astype(np.float32)) for i in range(onboard.max_peers)]
    late = (99, flight.now_ms, (state["position_world"] + near).astype(np.float32))
    onboard.start()
    onboard.step(inputs_of(state, goal, flight.now_ms, [*crowd, late], flight.obstacles))
    np.testing.assert_allclose(_neighbours(onboard)[:, :3], [far, far], atol=1e-6)
    later = flight.now_ms + 501
    onboard.step(inputs_of(state, goal, later, [*crowd, (99, later, late[2])], flight.obstacles))
    np.testing.assert_allclose(_neighbours(onboard), [[*near, 1.0], [0.0] * 4], atol=1e-6)


def test_obstacles_that_are_no_numbers_are_left_out(everything: tuple[PolicyArtifact, Onboard]) -> None:
    _, onboard = everything
    flight = Flight(16, 0, 4)
    state, goal = flight.move(10)
    seen = []
    nonsense = _single([[np.nan, 0.0, 0.3], [0.0, np.inf, 0.3], [0.0, 0.0, np.nan], [0.0, 0.0, -1.0]])
    for obstacles in (flight.obstacles, np.concatenate([nonsense, flight.obstacles])):
        onboard.start()
        onboard.step(inputs_of(state, goal, flight.now_ms, [], obstacles))
        seen.append(onboard.observation)
    np.testing.assert_array_equal(seen[0], seen[1])


def test_a_network_that_breaks_holds_the_last_command(tmp_path: Path) -> None:
    """As the guard does: the last command, and the safe one where there is none."""
    fields = (Field("height", "height", 1, "m"),)
    law = nan_model(_single([[0.1, 0.1, 0.1, 0.1]]), np.full(4, 0.5, np.float32), highest=2.0)
    onboard = Onboard(policy_file(tmp_path / "p.onnx", fields, law), tmp_path)
    flight = Flight(17, 0, 0)
    state, goal = flight.move(10)
    forces = []
    for height in (3.0, 1.0, 3.0):
        flight.now_ms += 10
        state["position_world"][2] = height
        forces.append(onboard.step(flight.inputs(state, goal))[1])
    np.testing.assert_allclose(forces, [[0.0] * 4, [0.6] * 4, [0.6] * 4], atol=1e-6)


@needs_board
def test_a_cortex_m4_flies_the_same_bits(everything: tuple[PolicyArtifact, Onboard], tmp_path: Path) -> None:
    """Four hundred calls with gaps, nonsense and a clock that wraps: observation and forces, bit for bit."""
    write_onboard(everything[0], tmp_path)
    found = report(tmp_path, ONBOARD)["cortex_m4"]
    print(found)
    assert found["same_bits"]
    assert found["stack_bytes"] <= 256


def test_what_cannot_fly_on_board_is_refused_in_one_line(tmp_path: Path) -> None:
    fields = (Field("rate", "angular_velocity_body", 3, "rad/s"),)
    odd = policy_file(tmp_path / "odd.onnx", fields, rate_hz=150.0)
    with pytest.raises(BadInput, match=r"at 150 Hz does not fly on board; expected a period of whole milliseconds"):
        write_onboard(odd, tmp_path / "c")
    off = policy_file(tmp_path / "off.onnx", fields, mode="attitude_thrust")
    with pytest.raises(BadInput, match="mode attitude_thrust does not fly on board; expected mode rotor_thrust"):
        write_onboard(off, tmp_path / "c")
    speed = policy_file(tmp_path / "speed.onnx", (Field("v", "goal:velocity_world", 3, "m/s"),))
    with pytest.raises(BadInput, match="field v: on board a goal is a position, not 'velocity_world'"):
        write_onboard(speed, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_the_sources_compile_without_a_warning(everything: tuple[PolicyArtifact, Onboard], tmp_path: Path) -> None:
    """With a policy that sees everything and with one that sees almost nothing."""
    little = policy_file(tmp_path / "little.onnx", (Field("down", "gravity", 3, "1"),))
    for artifact in (everything[0], little):
        write_onboard(artifact, tmp_path / "c")
        command = ["gcc", *STRICT, *(str(tmp_path / "c" / s) for s in ONBOARD.sources), "-c"]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
