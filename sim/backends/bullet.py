"""Rigid spheres in PyBullet (Coumans and Bai, pybullet.org): rooms full of them, moved by forces and torques.

PyBullet integrates (multibody, semi-implicit Euler, gyroscopic term included) and solves all contacts; the caller
supplies what pushes: rotors, drag, downwash. Rows are agent-major: body `row` flies in environment `row % envs`.
"""

import math
import weakref
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pybullet
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

GRAVITY = 9.81
ENVS_PER_CLIENT = 32
"""Rooms side by side in one server. A step's cost per body grows with the bodies of its server (measured: 1.9 us with
240, 3.8 us with 1,000), and every server costs time of its own (2.9 us per body with 8)."""
BREAKING_M = 1e-4
"""From this gap on Bullet makes contact points. Its own 2 cm brakes what would only touch in the next step: a ball
dropped from 1 m then comes back to .16 m instead of .25 m (restitution .5, steps of 2.5 ms)."""
CONTACT_ERP = 0.02
"""Share of an overlap that a step takes back by adding speed: with Bullet's own .2 the ball comes back to .35 m."""
REST_SPEED_M_S = 0.01
"""Slower impacts do not bounce (Bullet's own: .2)."""
_WALL_M, _GAP_M, _FAR_M = 1.0, 4.0, 1e4
"""Thickness of walls, distance between the rooms of a server, and between environments in free space."""


@dataclass(frozen=True)
class Room:
    """What bodies meet, the same in every environment but for the obstacles."""

    radius_m: float
    """Of the bodies, which are spheres."""
    size_m: tuple[float, ...] | None = None
    """Width, depth and height of a closed room: x and y from -size / 2 to size / 2, z from 0; None: free space."""
    restitution: float = 0.0
    """Between any two things that touch."""
    friction: float = 0.0
    """Coulomb's coefficient between any two things that touch."""


class Contacts(NamedTuple):
    """What touched during a step."""

    pairs: NDArray[np.int64]
    """(P, 2) rows of bodies that touched each other, each pair once, smaller row first."""
    obstacle: NDArray[np.bool_]
    """(N,) touched an obstacle."""
    wall: NDArray[np.bool_]
    ceiling: NDArray[np.bool_]
    floor: NDArray[np.bool_]


_OBSTACLE, _WALL, _CEILING, _FLOOR = -1, -2, -3, -4
"""What a body that is no drone is; a drone is its row."""


class BulletBodies:
    """N = envs x agents spheres, each with its mass and inertia. Owns PyBullet servers in this process.

    State planes (13, N): position world, velocity world, quat_wxyz, body rate, as in `sim.dynamics.quadrotor`.
    """

    def __init__(self, envs: int, agents: int, room: Room) -> None:
        self.num, self._envs, self._room = envs * agents, envs, room
        self._clients = [pybullet.connect(pybullet.DIRECT) for _ in range(math.ceil(envs / ENVS_PER_CLIENT))]
        weakref.finalize(self, _disconnect, tuple(self._clients))
        side = _GAP_M + max(room.size_m[:2]) if room.size_m else _FAR_M
        columns = math.ceil(math.sqrt(ENVS_PER_CLIENT))
        places = [divmod(e % ENVS_PER_CLIENT, columns) for e in range(envs)]
        self._origin = np.array([[side * i, side * j, 0.0] for i, j in places])
        self._surface = {
            "restitution": math.sqrt(room.restitution),  # Bullet multiplies those of the two bodies
            "lateralFriction": math.sqrt(room.friction),
            "linearDamping": 0.0,
            "angularDamping": 0.0,
        }
        self._what: list[dict[int, int]] = [{} for _ in self._clients]
        """Per server: body -> its row, or what else it is."""
        self._obstacles: list[list[int]] = [[] for _ in range(envs)]
        self._handles: list[tuple[int, int]] = [(0, 0)] * self.num
        """Per row: body and server."""
        self._step_s = math.nan
        for client in self._clients:
            pybullet.setGravity(0.0, 0.0, -GRAVITY, physicsClientId=client)
            pybullet.setPhysicsEngineParameter(
                contactBreakingThreshold=BREAKING_M,
                contactERP=CONTACT_ERP,
                restitutionVelocityThreshold=REST_SPEED_M_S,
                physicsClientId=client,
            )
        if room.size_m is not None:
            self._build_walls(room.size_m)
        self._make_bodies(agents)
        self.state = np.zeros((13, self.num))
        """(13, N) planes after the last `place` or `step`; read only."""
        self._refresh()

    def furnish(self, env: int, centres: ArrayLike, radius_m: float) -> None:
        """Replaces the obstacles of an environment by upright cylinders around (L, 2), m, as high as the room."""
        client, what = self._clients[env // ENVS_PER_CLIENT], self._what[env // ENVS_PER_CLIENT]
        for body in self._obstacles[env]:
            pybullet.removeBody(body, physicsClientId=client)
            del what[body]
        self._obstacles[env] = []
        points = np.asarray(centres, dtype=np.float64).reshape(-1, 2)
        if len(points) == 0:
            return
        height = self._room.size_m[2] if self._room.size_m else 100.0
        shape = pybullet.createCollisionShape(
            pybullet.GEOM_CYLINDER, radius=radius_m, height=height, physicsClientId=client
        )
        for x, y in points:
            body = self._make(env, shape, 0.0, (x, y, 0.5 * height))
            what[body] = _OBSTACLE
            self._obstacles[env].append(body)

    def place(self, rows: ArrayLike, state: Array) -> None:
        """Puts bodies `rows` into a state (13, n)."""
        index = np.asarray(rows)
        spin_world = np.einsum("ijn,jn->in", _rotation(state[6:10]), state[10:13])
        at_world = state[:3] + self._origin[index % self._envs].T
        for i, row in enumerate(index.tolist()):
            body, client = self._handles[row]
            pybullet.resetBasePositionAndOrientation(
                body, at_world[:, i].tolist(), state[[7, 8, 9, 6], i].tolist(), physicsClientId=client
            )
            pybullet.resetBaseVelocity(body, state[3:6, i].tolist(), spin_world[:, i].tolist(), physicsClientId=client)
        self.state[6:10, index] = state[6:10]
        self._refresh()

    def weigh(self, rows: ArrayLike, mass: Array, inertia: Array) -> None:
        """Gives bodies `rows` masses (n,), kg, and principal moments of inertia (3, n), kg m^2."""
        for i, row in enumerate(np.asarray(rows).tolist()):
            body, client = self._handles[row]
            moments = inertia[:, i].tolist()
            pybullet.changeDynamics(body, -1, mass=float(mass[i]), localInertiaDiagonal=moments, physicsClientId=client)

    def step(self, force_world: Array, torque_body: Array, dt_s: float) -> Contacts:
        """Advances all bodies by `dt_s` under forces at their centres and torques, (3, N) each, gravity excluded."""
        if dt_s != self._step_s:
            for client in self._clients:
                pybullet.setTimeStep(dt_s, physicsClientId=client)
            self._step_s = dt_s
        # A force given in the body's frame needs no point in the world, whose rounding would turn it.
        force = np.einsum("jin,jn->in", _rotation(self.state[6:10]), force_world)
        push, turn, centre = pybullet.applyExternalForce, pybullet.applyExternalTorque, (0.0, 0.0, 0.0)
        frame = pybullet.LINK_FRAME
        for (body, client), f, t in zip(self._handles, force.T.tolist(), torque_body.T.tolist(), strict=True):
            push(body, -1, f, centre, frame, client)
            turn(body, -1, t, frame, client)
        for client in self._clients:
            pybullet.stepSimulation(client)
        self._refresh()
        return self._contacts()

    def _refresh(self) -> None:
        """Reads the state planes out of the servers."""
        at, moving = pybullet.getBasePositionAndOrientation, pybullet.getBaseVelocity
        posed = [at(body, client) for body, client in self._handles]
        twists = np.array([moving(body, client) for body, client in self._handles]).reshape(self.num, 6).T
        position = np.array([p for p, _ in posed]).reshape(self.num, 3) - np.tile(
            self._origin, (self.num // self._envs, 1)
        )
        quat = np.array([q for _, q in posed]).reshape(self.num, 4).T[[3, 0, 1, 2]]
        quat = np.where((quat * self.state[6:10]).sum(0) < 0.0, -quat, quat)  # Bullet's sign jumps
        rate = np.einsum("jin,jn->in", _rotation(quat), twists[3:])
        self.state = np.concatenate([position.T, twists[:3], quat, rate])

    def _contacts(self) -> Contacts:
        pairs: set[tuple[int, int]] = set()
        touched = np.zeros((5, self.num), dtype=bool)  # indexed by -what: the first row stays empty
        for client, what in zip(self._clients, self._what, strict=True):
            for point in pybullet.getContactPoints(physicsClientId=client):
                if point[8] > 0.0:  # a gap
                    continue
                a, b = sorted((what[point[1]], what[point[2]]))
                if a >= 0:
                    pairs.add((a, b))
                else:
                    touched[-a, b] = True
        return Contacts(np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2), *touched[1:])

    def _make(self, env: int, shape: int, mass: float, position: tuple[float, float, float]) -> int:
        client = self._clients[env // ENVS_PER_CLIENT]
        at = (np.array(position) + self._origin[env]).tolist()
        body = pybullet.createMultiBody(mass, shape, basePosition=at, physicsClientId=client)
        pybullet.changeDynamics(body, -1, **self._surface, physicsClientId=client)
        return body

    def _make_bodies(self, agents: int) -> None:
        balls = [
            pybullet.createCollisionShape(pybullet.GEOM_SPHERE, radius=self._room.radius_m, physicsClientId=client)
            for client in self._clients
        ]
        for row in range(self.num):
            env, group = row % self._envs, row % self._envs // ENVS_PER_CLIENT
            apart = (3.0 * self._room.radius_m * (row // self._envs), 0.0, 1.0)
            body = self._make(env, balls[group], 1.0, apart)
            self._handles[row] = (body, self._clients[group])
            self._what[group][body] = row

    def _build_walls(self, size_m: tuple[float, ...]) -> None:
        half = np.array(size_m) / 2.0
        for axis, sign in ((0, -1), (0, 1), (1, -1), (1, 1), (2, -1), (2, 1)):
            extents = half + _WALL_M
            extents[axis] = 0.5 * _WALL_M
            centre = np.array([0.0, 0.0, half[2]])
            centre[axis] += sign * (half[axis] + 0.5 * _WALL_M)
            shapes = [
                pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=extents.tolist(), physicsClientId=client)
                for client in self._clients
            ]
            kind = _WALL if axis < 2 else (_FLOOR if sign < 0 else _CEILING)
            for env in range(self._envs):
                group = env // ENVS_PER_CLIENT
                self._what[group][self._make(env, shapes[group], 0.0, (centre[0], centre[1], centre[2]))] = kind


def _rotation(quat: Array) -> Array:
    """Rotation matrices (3, 3, N), body to world, of quat_wxyz (4, N)."""
    w, x, y, z = quat
    return np.array(
        [
            [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)],
            [2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)],
            [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)],
        ]
    )


def _disconnect(clients: tuple[int, ...]) -> None:
    for client in clients:
        if pybullet.isConnected(client):
            pybullet.disconnect(client)
