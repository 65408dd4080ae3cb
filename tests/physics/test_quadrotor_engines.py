"""Quadrotor dynamics against engines of other people: MuJoCo, PyBullet, and the emulator's own numpy plant."""

import math

import mujoco
import numpy as np
import pybullet
import pytest
import torch
from quadrotor_params import CF21, params
from torch import Tensor

from hardware.robots.crazyflie.plant import RigidBodyPlant
from sim.dynamics import quadrotor as body
from sim.registry import scene_entry

ROTORS = np.array([0.61, 0.58, 0.63, 0.60])
LEVER = 0.046 / math.sqrt(2.0)
POSITIONS = LEVER * np.array([[1, -1, 0], [-1, -1, 0], [-1, 1, 0], [1, 1, 0]])
FREE = {"drag_xy": 0.0, "drag_z": 0.0}


def moving() -> Tensor:
    state = body.rest_state((1,), torch.zeros(1, dtype=torch.float64))
    state[body.VELOCITY] = torch.tensor([[0.3], [-0.2], [0.5]], dtype=torch.float64)
    quat = torch.tensor([[0.9], [0.2], [-0.3], [0.25]], dtype=torch.float64)
    state[body.QUAT] = quat / quat.norm()
    state[body.RATE] = torch.tensor([[2.0], [-3.0], [4.0]], dtype=torch.float64)
    state[body.ROTOR] = torch.tensor(ROTORS)[:, None]
    return state


def test_mujoco_free_body_under_the_same_body_wrench() -> None:
    force = 0.12 * ROTORS
    torque = [
        LEVER * (-force[0] - force[1] + force[2] + force[3]),
        LEVER * (-force[0] + force[1] + force[2] - force[3]),
        CF21["torque_per_thrust"] * (-force[0] + force[1] - force[2] + force[3]),
    ]
    inertia = f"{CF21['inertia_xx']} {CF21['inertia_yy']} {CF21['inertia_zz']}"
    model = mujoco.MjModel.from_xml_string(f"""
      <mujoco><option gravity="0 0 -9.81" timestep="0.002" integrator="RK4"/>
        <worldbody><body><freejoint/><inertial pos="0 0 0" mass="0.029" diaginertia="{inertia}"/>
          <site name="centre"/></body></worldbody>
        <actuator><motor site="centre" gear="0 0 1 0 0 0"/><motor site="centre" gear="0 0 0 1 0 0"/>
          <motor site="centre" gear="0 0 0 0 1 0"/><motor site="centre" gear="0 0 0 0 0 1"/></actuator>
      </mujoco>""")
    data = mujoco.MjData(model)
    state = moving()
    data.qpos[:] = np.concatenate([state[:3, 0], state[6:10, 0]])
    data.qvel[:] = np.concatenate([state[3:6, 0], state[10:13, 0]])
    data.ctrl[:] = [force.sum(), *torque]
    c = body.coefficients(params(**FREE))
    for _ in range(500):
        mujoco.mj_step(model, data)
        state = body.step_rk4(state, torch.tensor(ROTORS)[:, None], c, dt_s=0.002)
    assert np.abs(data.qpos[:3] - state[:3, 0].numpy()).max() < 1e-8
    assert np.abs(data.qpos[3:] - state[6:10, 0].numpy()).max() < 1e-8
    assert np.abs(data.qvel[3:] - state[10:13, 0].numpy()).max() < 1e-8


def test_pybullet_with_forces_at_the_rotors() -> None:
    client = pybullet.connect(pybullet.DIRECT)
    try:
        pybullet.setGravity(0, 0, -9.81, physicsClientId=client)
        pybullet.setTimeStep(1 / 240, physicsClientId=client)
        state = moving()
        w, x, y, z = state[6:10, 0].tolist()
        drone = pybullet.createMultiBody(
            baseMass=0.029,
            baseCollisionShapeIndex=pybullet.createCollisionShape(
                pybullet.GEOM_SPHERE, radius=0.02, physicsClientId=client
            ),
            baseOrientation=[x, y, z, w],
            physicsClientId=client,
        )
        inertia = [CF21["inertia_xx"], CF21["inertia_yy"], CF21["inertia_zz"]]
        pybullet.changeDynamics(
            drone, -1, localInertiaDiagonal=inertia, linearDamping=0, angularDamping=0, physicsClientId=client
        )
        rates_world = pybullet.rotateVector([x, y, z, w], state[10:13, 0].tolist())
        pybullet.resetBaseVelocity(drone, state[3:6, 0].tolist(), rates_world, physicsClientId=client)
        force = 0.12 * ROTORS
        yaw = CF21["torque_per_thrust"] * (-force[0] + force[1] - force[2] + force[3])
        c = body.coefficients(params(**FREE))
        for _ in range(60):  # a quarter of a second
            for position, f in zip(POSITIONS, force, strict=True):
                pybullet.applyExternalForce(
                    drone, -1, [0, 0, f], position.tolist(), pybullet.LINK_FRAME, physicsClientId=client
                )
            pybullet.applyExternalTorque(drone, -1, [0, 0, yaw], pybullet.LINK_FRAME, physicsClientId=client)
            pybullet.stepSimulation(physicsClientId=client)
            state = body.step_semi_implicit(state, torch.tensor(ROTORS)[:, None], c, dt_s=1 / 240)
        position, quat = pybullet.getBasePositionAndOrientation(drone, physicsClientId=client)
    finally:
        pybullet.disconnect(client)
    assert np.abs(np.array(position) - state[:3, 0].numpy()).max() < 1e-4  # seen 3e-6
    ours = state[[7, 8, 9, 6], 0].numpy()
    assert min(np.abs(np.array(quat) - s * ours).max() for s in (1, -1)) < 1e-3  # seen 3e-5


def test_numpy_plant_and_scene_plant_converge_to_each_other() -> None:
    """Two integrators of first order: their gap must halve with the step."""
    rng = np.random.default_rng(3)
    commands = rng.uniform(0.45, 0.75, (25, 2, 4))
    gaps = []
    for substeps in (10, 20, 40):
        entry = scene_entry("quadrotor/hover")
        scene = entry.plant(2, family="nominal", seed=0, config=entry.config)  # type: ignore[misc]
        scene._world.set_params({"thrust_to_weight": CF21["thrust_to_weight"]})
        start = np.array([[0.0, 0.0, 5.0], [1.0, 0.0, 6.0]])
        plant = RigidBodyPlant(2, start_world=start)
        world = scene._world.state["body"]
        world[:3] = torch.tensor(start.T)
        plant.rates[:] = np.array([[1.0, -0.5], [0.5, 1.0], [-0.3, 0.2]])
        plant.rotors[:] = 0.59
        world[10:13], world[13:17] = torch.tensor(plant.rates), 0.59
        for command in commands:
            for _ in range(substeps):
                plant.step(command, 0.02 / substeps)
                scene.step(command, 0.02 / substeps)
        ours, theirs = scene.signals(), plant.signals()
        gaps.append(max(np.abs(ours[k] - theirs[k]).max() for k in ("position_world", "quat_wxyz")))
    assert gaps[0] < 2e-2
    assert gaps[1] / gaps[0] == pytest.approx(0.5, abs=0.15), gaps
    assert gaps[2] / gaps[1] == pytest.approx(0.5, abs=0.2), gaps
