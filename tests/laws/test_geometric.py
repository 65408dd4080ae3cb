"""The classical laws: hand-computed set points, and flights in MuJoCo's rigid-body dynamics (another library)."""

import math
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch

from controllers import geometric
from controllers.geometric import GRAVITY, TrackingGains
from hardware.geometry import quat_from_euler, quat_to_euler
from hardware.spec import load_spec

AIRFRAME = geometric.airframe_of(load_spec("crazyflie"))
GAINS = TrackingGains()
DT = 0.01


def still(position=(0.0, 0.0, 1.0), euler=(0.0, 0.0, 0.0)) -> dict[str, np.ndarray]:
    return {
        "position_world": np.array(position),
        "quat_wxyz": quat_from_euler(*(np.asarray(a) for a in euler)),
        "velocity_world": np.zeros(3),
        "angular_velocity_body": np.zeros(3),
    }


def goal(x: float, y: float, z: float) -> dict[str, np.ndarray]:
    return {"position_world": np.array([x, y, z])}


def set_point(state, target):
    return geometric.attitude_thrust(state, target, geometric.start(state), airframe=AIRFRAME, gains=GAINS)


def rotors(state, target):
    return geometric.rotor_thrust(state, target, geometric.start(state), airframe=AIRFRAME, gains=GAINS)


def test_at_the_goal_both_laws_give_hover() -> None:
    # 0.029 kg x 9.80665 m/s2 / (4 x 0.12 N) = 0.59248
    np.testing.assert_allclose(set_point(still(), goal(0, 0, 1)), [0, 0, 0, 0.592485], atol=1e-6)
    np.testing.assert_allclose(rotors(still(), goal(0, 0, 1)), [0.592485] * 4, atol=1e-6)


def test_a_goal_ahead_pitches_forward_by_the_hand_computed_angle() -> None:
    roll, pitch, turn, thrust = set_point(still(), goal(0.5, 0, 1))
    # 5 /s2 x 0.5 m = 2.5 m/s2 forward: pitch = atan(2.5 / 9.80665), positive pitch is nose down.
    assert pitch == pytest.approx(math.atan(2.5 / 9.80665))
    assert (roll, turn) == (0, 0)
    assert thrust == pytest.approx(0.592485, abs=1e-6)


def test_a_goal_to_the_left_rolls_left_and_heading_turns_the_frame() -> None:
    roll, pitch, _, _ = set_point(still(), goal(0, 0.5, 1))
    assert roll == pytest.approx(-math.atan(2.5 / 9.80665))
    assert pitch == 0
    roll, pitch, turn, _ = set_point(still(euler=(0, 0, math.pi / 2)), goal(0, 0.5, 1))
    assert pitch == pytest.approx(math.atan(2.5 / 9.80665))
    assert roll == pytest.approx(0, abs=1e-12)
    assert turn == pytest.approx(-2.0 * math.pi / 2)


def test_rotors_answer_a_roll_with_the_hand_computed_difference() -> None:
    # Rolled right by 0.1 rad: e_R = sin(0.1), M = -J 160 sin(0.1); each rotor takes M / (4 l F) with l = 0.046/sqrt 2.
    moment = -1.657e-5 * 160 * math.sin(0.1)
    share = moment / (4 * 0.046 / math.sqrt(2) * 0.12)
    got = rotors(still(euler=(0.1, 0, 0)), goal(0, 0, 1))
    base = 0.592485 * math.cos(0.1)
    np.testing.assert_allclose(got, base + share * np.array([-1, -1, 1, 1]), atol=1e-6)


def test_batches_and_torch_give_the_same_as_single_numpy() -> None:
    rng = np.random.default_rng(3)
    batch = {
        "position_world": rng.normal(size=(7, 3)),
        "quat_wxyz": quat_from_euler(*rng.uniform(-1, 1, size=(3, 7))),
        "velocity_world": rng.normal(size=(7, 3)),
        "angular_velocity_body": rng.normal(size=(7, 3)),
    }
    target = {"position_world": rng.normal(size=(7, 3))}
    as_torch = {k: torch.from_numpy(v) for k, v in batch.items()}
    target_torch = {k: torch.from_numpy(v) for k, v in target.items()}
    for law in (set_point, rotors):
        together = law(batch, target)
        single = [law({k: v[i] for k, v in batch.items()}, {k: v[i] for k, v in target.items()}) for i in range(7)]
        np.testing.assert_allclose(together, single, atol=1e-12)
        np.testing.assert_allclose(law(as_torch, target_torch).numpy(), together, atol=1e-12)


def test_the_observer_finds_a_thrust_deficit() -> None:
    # 20 % too little thrust at a standstill that a hand holds: the unexplained acceleration is -0.2 g.
    state, estimate = still(), geometric.start(still())
    velocity = 0.0
    for _ in range(300):
        velocity -= 0.2 * GRAVITY * DT
        state["velocity_world"] = np.array([0.0, 0.0, velocity])
        hover = np.asarray(AIRFRAME.hover_fraction)
        estimate = geometric.observe(state, estimate, hover, airframe=AIRFRAME, gains=GAINS, dt_s=DT)
    np.testing.assert_allclose(estimate.disturbance, [0, 0, -0.2 * GRAVITY], atol=0.01)


WORLD = """
<mujoco><option timestep="0.002" gravity="0 0 -9.80665" integrator="RK4"/>
 <worldbody><body name="craft" pos="0 0 1"><freejoint/>
  <inertial pos="0 0 0" mass="{mass}" diaginertia="1.657e-5 1.666e-5 2.926e-5"/>
  <geom type="sphere" size="0.01" mass="0" contype="0" conaffinity="0"/>
 </body></worldbody></mujoco>
"""


class Craft:
    """MuJoCo's rigid body under rotor forces (first-order lag), or under a set-point-tracking moment."""

    def __init__(self, mass: float, strength: float, euler=(0.0, 0.0, 0.0)) -> None:
        self.model = mujoco.MjModel.from_xml_string(WORLD.format(mass=mass))
        self.data = mujoco.MjData(self.model)
        self.data.qpos[3:7] = quat_from_euler(*(np.asarray(a) for a in euler))
        self.strength, self.rotors = strength, np.full(4, 0.5)

    def state(self) -> dict[str, np.ndarray]:
        return {
            "position_world": self.data.qpos[:3].copy(),
            "quat_wxyz": self.data.qpos[3:7].copy(),
            "velocity_world": self.data.qvel[:3].copy(),
            "angular_velocity_body": self.data.qvel[3:6].copy(),
        }

    def spin_rotors(self, wanted: np.ndarray) -> None:
        lever, c = 0.046 / math.sqrt(2), 0.006993
        for _ in range(5):
            self.rotors += (wanted - self.rotors) * (1 - math.exp(-0.002 / 0.04))
            f = 0.12 * self.strength * self.rotors
            x = lever * (-f[0] - f[1] + f[2] + f[3])
            y = lever * (-f[0] + f[1] + f[2] - f[3])
            z = c * (-f[0] + f[1] - f[2] + f[3])
            self._push(f.sum(), np.array([x, y, z]))

    def follow(self, command: np.ndarray) -> None:
        for _ in range(5):
            self.rotors += (command[3] - self.rotors) * (1 - math.exp(-0.002 / 0.04))
            roll, pitch, _ = quat_to_euler(self.data.qpos[3:7])
            rate = self.data.qvel[3:6]
            wish = np.array([8.0 * (command[0] - roll), 8.0 * (command[1] - pitch), command[2]])
            moment = np.array([1.657e-5, 1.666e-5, 2.926e-5]) * 40.0 * (wish - rate)
            self._push(4 * 0.12 * self.strength * self.rotors[0], moment)

    def _push(self, thrust: float, moment: np.ndarray) -> None:
        rotation = self.data.xmat[1].reshape(3, 3)
        self.data.xfrc_applied[1] = np.concatenate([rotation @ [0, 0, thrust], rotation @ moment])
        mujoco.mj_step(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)


@pytest.mark.parametrize("mode", ["attitude_thrust", "rotor_thrust"])
@pytest.mark.parametrize(("mass", "strength"), [(0.029, 1.0), (0.033, 0.9), (0.026, 1.15)])
def test_flight_in_mujoco_reaches_and_holds_a_point_two_metres_away(mode: str, mass: float, strength: float) -> None:
    craft = Craft(mass, strength, euler=(0.7, -0.6, 0.5))
    target = goal(1.2, -1.2, 2.0)
    estimate = geometric.start(craft.state())
    law = getattr(geometric, mode)
    worst = 0.0
    for tick in range(600):
        state = craft.state()
        command = law(state, target, estimate, airframe=AIRFRAME, gains=GAINS)
        thrust = np.mean(command) if mode == "rotor_thrust" else command[3]
        estimate = geometric.observe(state, estimate, thrust, airframe=AIRFRAME, gains=GAINS, dt_s=DT)
        (craft.spin_rotors if mode == "rotor_thrust" else craft.follow)(command)
        distance = float(np.linalg.norm(craft.state()["position_world"] - target["position_world"]))
        worst = max(worst, distance) if tick >= 350 else 0.0
    assert worst < 0.05


def test_without_the_observer_the_same_flight_misses_the_point() -> None:
    craft, target = Craft(0.033, 0.9), goal(0, 0, 1)
    blind = replace(GAINS, observer=0.0)
    estimate = geometric.start(craft.state())
    for _ in range(600):
        state = craft.state()
        command = geometric.attitude_thrust(state, target, estimate, airframe=AIRFRAME, gains=blind)
        craft.follow(command)
    assert abs(craft.state()["position_world"][2] - 1.0) > 0.2
