"""Policies compiled to C on board of emulated drones: the C structs byte by byte, the compiler's cache, and flights."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.crazyflie_client import Client

from hardware.errors import BadInput, RoboError
from hardware.robots.crazyflie import wire_commands as w
from hardware.robots.crazyflie.estimator import Estimate
from hardware.robots.crazyflie.faults import Fault
from hardware.robots.crazyflie.motion_capture import Capture
from hardware.robots.crazyflie.obstacles import Obstacles, read_obstacles
from hardware.robots.crazyflie.onboard import Senses
from hardware.robots.crazyflie.peers import Peers
from hardware.robots.crazyflie.plant import RigidBodyPlant
from hardware.robots.crazyflie.supervisor import MOTORS_RUN, State
from hardware.robots.crazyflie.swarm import EmulatedSwarm
from robo_rl.onboard_policy import FLAGS, CompiledPolicy, cache_folder, compiled

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

STUB = Path(__file__).parents[1] / "support" / "onboard_stub.c"
HEADER = Path(__file__).parents[2] / "robo_rl" / "export_c" / "onboard.h.in"
PILLARS = Obstacles(np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([0.3, 0.25]))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def hover(cache: Path) -> Path:
    return compiled("zoo:quadrotor-hover-rotor")


def stub(folder: Path, abi: int = 1) -> Path:
    """The stub as a library, compiled against the interface's own header."""
    header = HEADER.read_text()
    for name, value in {
        "BANNER": "",
        "RATE": "100",
        "PERIOD_MS": "10",
        "MAX_PEERS": "32",
        "PEER_AGE_MS": "500",
    }.items():
        header = header.replace("{{" + name + "}}", value)
    (folder / "onboard.h").write_text(header)
    library = folder / "stub.so"
    command = ["gcc", *FLAGS, f"-DSTUB_ABI={abi}", f"-I{folder}", str(STUB), "-o", str(library)]
    subprocess.run(command, check=True)
    return library


def test_every_number_arrives_in_its_place_in_the_c_structs(tmp_path: Path) -> None:
    policy = CompiledPolicy(stub(tmp_path), 2, PILLARS)
    rng = np.random.default_rng(3)
    estimate = Estimate(*(rng.normal(size=(n, 2)).astype(np.float32).astype(np.float64) for n in (3, 3, 4, 3, 3, 3)))
    goal, battery = np.array([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]), np.array([3.5, 3.75])
    peers = Peers(2)
    peers.tell(1, 7, (0.5, 0.25, 0.125), 90)
    peers.tell(1, 9, (1.5, 2.25, 3.0), 96)
    forces = policy.step(np.array([False, True]), Senses(estimate, goal, battery, peers, 100))
    policy._library.onboard_observation.restype = np.ctypeslib.ndpointer(np.float32, shape=(24,))
    seen = policy._library.onboard_observation()
    own = [estimate.position, estimate.velocity, estimate.quat, estimate.gyro, goal]
    np.testing.assert_array_equal(seen[:17], np.concatenate([*(plane[:, 1] for plane in own), [3.75]]))
    assert seen[17:20].tolist() == [100.0, 2.0, 2.0]
    assert seen[20:23].tolist() == [1.5 + 22.5 + 300.0, 96.0, 9.0]
    assert seen[23] == np.float32(3.0 - 10.0 + 25.0)
    assert forces.shape == (4, 2)
    assert forces[:, 0].tolist() == [0.0] * 4  # not active: not called


def test_every_drone_has_a_memory_of_its_own_and_a_restart_empties_it(tmp_path: Path) -> None:
    policy = CompiledPolicy(stub(tmp_path), 3)
    zeros = Estimate(*(np.zeros((n, 3)) for n in (3, 3, 4, 3, 3, 3)))
    senses = Senses(zeros, np.zeros((3, 3)), np.zeros(3), Peers(3), 0)
    for active in ([True, True, False], [True, False, False], [True, True, True]):
        forces = policy.step(np.array(active), senses)
    np.testing.assert_allclose(forces[0], [0.003, 0.002, 0.001], rtol=1e-6)
    policy.restart(0)
    np.testing.assert_allclose(policy.step(np.array([True] * 3), senses)[0], [0.001, 0.003, 0.002], rtol=1e-6)


def test_another_interface_and_a_file_that_is_no_library_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(RoboError, match="has interface version 9; expected 1"):
        CompiledPolicy(stub(tmp_path, abi=9), 1)
    text = tmp_path / "text.so"
    text.write_text("no library")
    with pytest.raises(RoboError, match="is no policy for on board: "):
        CompiledPolicy(text, 1)
    empty = tmp_path / "empty.so"
    subprocess.run(["gcc", "-shared", "-x", "c", "-", "-o", str(empty)], input=b"int nothing;", check=True)
    with pytest.raises(RoboError, match="undefined symbol: onboard_step_in"):
        CompiledPolicy(empty, 1)


def test_a_policy_is_compiled_once(hover: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hover.parent == cache_folder()
    monkeypatch.setenv("PATH", "")
    assert compiled("zoo:quadrotor-hover-rotor") == hover


def test_no_compiler_broken_sources_and_other_modes_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onboard.c").write_text("this is not C")
    with pytest.raises(BadInput, match=r"lacks policy\.c, observation\.c; robo-rl export writes them"):
        compiled(str(tmp_path))
    for name in ("policy.c", "observation.c"):
        (tmp_path / name).write_text("")
    with pytest.raises(RoboError, match="gcc failed with status 1: "):
        compiled(str(tmp_path))
    with pytest.raises(BadInput, match="mode attitude_thrust does not fly on board"):
        compiled("zoo:quadrotor-hover")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RoboError, match="gcc not found"):
        compiled(str(tmp_path))


def take_off(swarm: EmulatedSwarm) -> list[Client]:
    clients = [Client(swarm, i) for i in range(swarm.plant.num_robots)]
    swarm.advance(0.1)
    for client in clients:
        assert client.arm() == (True, True)
        client.send(w.Takeoff(1.0, 1.5))
    swarm.advance(2.0)
    return clients


def positions(swarm: EmulatedSwarm) -> np.ndarray:
    return swarm.plant.signals()["position_world"].copy()


def hold(swarm: EmulatedSwarm, goals: np.ndarray, seconds: float = 1.0) -> np.ndarray:
    """Mean distance of every drone from its goal."""
    total = np.zeros(len(goals))
    steps = round(seconds / 0.02)
    for _ in range(steps):
        swarm.advance(0.02)
        total += np.linalg.norm(positions(swarm) - goals, axis=1)
    return total / steps


@pytest.mark.parametrize("speed_up", [1, 5])
def test_eight_drones_take_off_fly_to_goals_and_land(hover: Path, speed_up: int) -> None:
    """The network at its own 100 Hz inside the 500 Hz loop, and (its clock five times as fast) at 500 Hz itself."""

    class Hurried(CompiledPolicy):
        def step(self, active: np.ndarray, senses: Senses) -> np.ndarray:
            return super().step(active, senses._replace(now_ms=senses.now_ms * speed_up))

    swarm = EmulatedSwarm(num=8, seed=8, capture=Capture(dropout=0.05, noise_m=0.002), onboard=Hurried(hover, 8))
    clients = take_off(swarm)
    assert np.abs(positions(swarm)[:, 2] - 1.0).max() < 0.05
    goals = positions(swarm) + np.array([0.6, 0.0, 0.3])
    for client, goal in zip(clients, goals, strict=True):
        x, y, z = goal.tolist()
        client.send(w.GoTo((x, y, z), 0.0, 1.5))
    swarm.advance(2.5)
    distance = hold(swarm, goals)
    print(
        f"seed 8, network at {100 * speed_up} Hz: mean distance {distance.mean():.4f} m, worst {distance.max():.4f} m"
    )
    assert distance.max() < 0.05
    for client in clients:
        client.send(w.Land(0.0, 1.5))
    swarm.advance(2.5)
    assert np.abs(positions(swarm)[:, 2]).max() < 0.05
    assert swarm.autopilot.motors.max() == 0.0
    assert swarm.plant.contacts == {"drone": 0, "obstacle": 0}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fault", "value"), [("packet_loss", 0.4), ("mocap_loss", -1.0), ("delay", 0.1), ("battery_low", 3.3)]
)
def test_faults_that_a_flight_survives(hover: Path, fault: str, value: float) -> None:
    swarm = EmulatedSwarm(num=2, seed=9, capture=Capture(), onboard=CompiledPolicy(hover, 2))
    clients = take_off(swarm)
    for index in range(2):
        swarm.inject(index, Fault(fault, 0.0, value))
    goals = positions(swarm) + np.array([0.3, 0.0, 0.2])
    for _ in range(15):
        for client, (x, y, z) in zip(clients, goals.tolist(), strict=True):
            client.send(w.Position(x, y, z, 0.0))
        swarm.advance(0.1)
    assert [c.state for c in clients] == [State.FLYING] * 2
    assert np.linalg.norm(positions(swarm) - goals, axis=1).max() < 0.15
    for client in clients:
        client.send(w.NotifyStop())
        client.send(w.NotifyStop())
        client.send(w.Land(0.0, 1.5))
    swarm.advance(4.0)  # a landing that was lost: the watchdog's two seconds, then a fall
    assert swarm.autopilot.motors.max() == 0.0
    assert np.abs(positions(swarm)[:, 2]).max() < 0.1


@pytest.mark.parametrize(("fault", "value"), [("motor_loss", 2.0), ("gyro_nan", 1.0), ("link_drop", -1.0)])
def test_faults_that_end_a_flight_end_it_with_the_motors_off(hover: Path, fault: str, value: float) -> None:
    swarm = EmulatedSwarm(num=2, seed=10, capture=Capture(), onboard=CompiledPolicy(hover, 2))
    clients = take_off(swarm)
    start = positions(swarm)
    for step in range(40):
        if step == 2:  # a flight by streamed goals: by the high-level commander it would outlive its link
            swarm.inject(0, Fault(fault, 0.0, value))
        for client, (x, y, z) in zip(clients, start.tolist(), strict=True):
            client.send(w.Position(x, y, z, 0.0))
        swarm.advance(0.1)
    assert clients[0].motors.max() == 0.0
    assert clients[0].position[2] < 0.1
    assert clients[0].state not in (State.FLYING, State.LEVEL_OUT)
    assert clients[1].state is State.FLYING  # the other one flies on
    assert np.linalg.norm(positions(swarm)[1] - start[1]) < 0.1


def test_drones_bounce_off_one_another_and_off_obstacles() -> None:
    """Momentum along the line of centres is kept; half of the speed of approach comes back."""
    start = np.array([[0.0, 0.0, 5.0], [1.0, 0.0, 5.0], [0.0, 3.0, 5.0]])
    plant = RigidBodyPlant(3, start_world=start, obstacles=Obstacles(np.array([[0.5, 3.0]]), np.array([0.2])))
    plant.velocity[0] = (1.0, -1.0, 1.0)
    plant.velocity[2] = 9.81 * 0.3
    speeds = []
    for _ in range(300):
        plant.step(np.zeros((3, 4)), 0.002)
        speeds.append(plant.velocity[0].copy())
    first, second, third = np.array(speeds).T
    assert first[-1] == pytest.approx(-0.5, abs=0.15)  # less the drag of half a second
    assert second[-1] == pytest.approx(0.5, abs=0.15)
    assert first + second == pytest.approx(np.zeros(300), abs=1e-9)
    assert third[-1] == pytest.approx(-0.5, abs=0.15)
    assert plant.contacts == {"drone": 2, "obstacle": 1}


def test_obstacles_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "room.toml"
    path.write_text("centres_m = [[1, 2], [3.0, -1.0]]\nradius_m = 0.3\n")
    found = read_obstacles(path)
    assert found.centre.tolist() == [[1.0, 2.0], [3.0, -1.0]]
    assert found.radius.tolist() == [0.3, 0.3]
    path.write_text("centres_m = []\nradius_m = 0.3\n")
    assert len(read_obstacles(path).radius) == 0
    path.write_text("centres_m = [[1, 2], [3.0, -1.0]]\nradius_m = [0.3, 0.2]\n")
    assert read_obstacles(path).radius.tolist() == [0.3, 0.2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("centres_m = [", "cannot be read as TOML"),
        ("centres = [[1, 2]]", "holds centres; expected centres_m"),
        ("", "holds nothing; expected centres_m"),
        ("centres_m = [[1, 2, 3]]\nradius_m = 0.3", "expected centres_m = "),
        ("centres_m = [[1, 2]]\nradius_m = -0.3", "radius_m above 0"),
        ("centres_m = [[1, 2]]\nradius_m = [0.3, 0.2]", "one or one per centre"),
        ("centres_m = [[1, nan]]\nradius_m = 0.3", "expected centres_m = "),
        ("centres_m = [['a', 'b']]\nradius_m = 0.3", "expected centres_m = "),
    ],
)
def test_a_bad_file_of_obstacles_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "room.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=message) as e:
        read_obstacles(path)
    assert "\n" not in str(e.value)
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        read_obstacles(tmp_path / "none.toml")


def test_motors_that_may_run_are_the_supervisors_choice(hover: Path) -> None:
    swarm = EmulatedSwarm(num=1, seed=11, onboard=CompiledPolicy(hover, 1))
    client = Client(swarm)
    client.advance(0.5, w.Position(0.0, 0.0, 1.0, 0.0))
    assert client.state not in MOTORS_RUN  # nobody armed it
    assert client.motors.max() == 0.0
