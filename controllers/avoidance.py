"""Classical ways round other robots and obstacles: a potential field and a barrier-certificate safety filter.

Both think of the robot as a point that accelerates as it is told, and leave the flying to `controllers.geometric`.
They see every other robot and every cylinder that is known (`controllers.surroundings.Around`) and the room's faces,
not only the few members of a policy's observation.

Array-API style: numpy on the robot, batched torch in a scene; leading dimensions are free.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from controllers import geometric
from controllers.polytope import nearest
from controllers.surroundings import Around
from hardware.arrays import constant, namespace
from hardware.geometry import quat_from_euler, quat_yaw, rotate

SET_POINT_ACCELERATION = 1.2 * geometric.GRAVITY
"""Bound, m/s^2, that no set point of the mode attitude_thrust reaches: certificates alone change those."""


@dataclass(frozen=True)
class Room:
    """What bounds the flight, m in the world; infinite where nothing does."""

    low: tuple[float, float, float] = (-math.inf, -math.inf, -math.inf)
    high: tuple[float, float, float] = (math.inf, math.inf, math.inf)


@dataclass(frozen=True)
class AvoidanceGains:
    """Gains of the way to the goal, of the potential field and of the barrier certificates."""

    speed_max: float = 1.7
    """Speed towards a far goal, m/s."""
    position: float = 1.4
    """Speed per distance near the goal, 1/s."""
    velocity: float = 3.6
    """Acceleration per error of velocity, 1/s."""
    acceleration_max: float = 4.0
    """Bound of the acceleration asked for, m/s^2: vertical, and along and across what is wished on the level."""
    radius_m: float = 0.05
    """Radius of the robot's body."""
    apart_m: float = 0.15
    """Clearance that is kept between two robots' bodies."""
    clear_m: float = 0.05
    """Clearance that is kept from obstacles and from the room's faces."""
    delay_s: float = 0.08
    """How far ahead positions are predicted, at constant velocity: latency and the lag of the attitude."""
    side: float = 1.0
    """Speed of the sidestep before something in the way, as a fraction of the speed towards the goal."""
    side_range_m: float = 0.8
    """Clearance below which the sidestep begins."""
    side_fade_m: float = 0.3
    """How far beyond the obstacle the goal must be for a full sidestep."""
    repulsion: float = 4.0
    """Potential field: speed away per metre inside the range, 1/s."""
    repulsion_range_m: float = 0.6
    """Potential field: clearance, beyond the one that is kept, below which robots and obstacles repel."""
    braking: float = 3.0
    """Barrier: deceleration that every robot is trusted with, m/s^2; at most `acceleration_max`."""
    approach: float = 6.0
    """Barrier: speed per clearance allowed close to contact, 1/s."""
    decay: float = 4.0
    """Barrier: rate at which its value may fall, 1/s."""


class Near(NamedTuple):
    """Everything that must not be touched: C members, first the other robots, then obstacles, then the six faces."""

    away: Any
    """(..., C, 3) unit vector from the member towards the robot."""
    distance: Any
    """(..., C) m: from its centre or axis; of faces, the clearance."""
    gap: Any
    """(..., C) clearance beyond the one that is kept, m."""
    opening: Any
    """(..., C) rate of the gap, m/s."""
    bend: Any
    """(..., C) the part of the gap's second derivative that velocities cause, m/s^2."""
    there: Any
    """(..., C) bool."""
    others: int
    """How many of the members are robots, which avoid too."""
    cylinders: int
    """How many are obstacles."""


class Filtered(NamedTuple):
    """What the barrier certificates let through."""

    acceleration: Any
    """(..., 3) m/s^2 in the world."""
    active: Any
    """(...,) bool: not what was asked for."""
    infeasible: Any
    """(...,) bool: no acceleration satisfies all certificates; the robot brakes."""


def goal_velocity(position: Any, goal: Any, *, gains: AvoidanceGains) -> Any:
    """Velocity (..., 3) towards a goal (..., 3): proportional to the distance, of bounded length."""
    return _at_most(gains.position * (goal - position), gains.speed_max)


def near(position: Any, velocity: Any, around: Around, room: Room, *, gains: AvoidanceGains) -> Near:
    """What surrounds robots at positions and velocities (..., 3), `gains.delay_s` from now."""
    xp = namespace(position)
    ahead = gains.delay_s
    there = position[..., None, :] + ahead * velocity[..., None, :]
    to_other = there - (around.positions + ahead * around.velocities)
    others = _from_centre(to_other, velocity[..., None, :] - around.velocities, 2 * gains.radius_m + gains.apart_m)
    flat = constant((1.0, 1.0, 0.0), position)
    axes = xp.concat([around.obstacles, xp.zeros_like(around.obstacles[..., :1])], axis=-1)
    reach = around.radius + gains.radius_m + gains.clear_m
    cylinders = _from_centre((there - axes) * flat, velocity[..., None, :] * flat, reach)
    faces = _faces(there[..., 0, :], velocity, room, gains.radius_m + gains.clear_m)
    lead = tuple(position.shape[:-1])
    known = [around.known, around.present, xp.isfinite(faces[2])]
    away, distance, gap, opening, bend = (
        xp.concat([xp.broadcast_to(part, (*lead, *part.shape[-own:])) for part in parts], axis=-own)
        for own, *parts in zip((2, 1, 1, 1, 1), others, cylinders, faces, strict=True)
    )
    flags = xp.concat([xp.broadcast_to(part, (*lead, part.shape[-1])) for part in known], axis=-1)
    return Near(away, distance, gap, opening, bend, flags, around.known.shape[-1], around.present.shape[-1])


def sidestep(toward: Any, seen: Near, *, gains: AvoidanceGains) -> Any:
    """Horizontal velocity (..., 3) past what is in the way of a wanted velocity `toward` (..., 3): no deadlock head on.

    Round an obstacle on the side on which the way leads already; round a robot always on the right, so that two agree.
    Nobody steps aside for what is no nearer than the goal: whoever finds it taken stays beside it.
    """
    xp = namespace(toward)
    movable = slice(0, seen.others + seen.cylinders)
    away, gap, there = seen.away[..., movable, :], seen.gap[..., movable], seen.there[..., movable]
    facing = -xp.sum(away * toward[..., None, :], axis=-1)  # speed towards the member, m/s
    closeness = xp.clip(1.0 - gap / gains.side_range_m, 0.0, 1.0)
    way = xp.sqrt(xp.sum(toward * toward, axis=-1, keepdims=True))
    left_to_go = xp.where(way < 0.999 * gains.speed_max, way / gains.position, xp.full_like(way, xp.inf))
    between = xp.clip((left_to_go - seen.distance[..., movable]) / gains.side_fade_m, 0.0, 1.0)
    weight = gains.side * xp.where(there, between * closeness * xp.clip(facing, 0.0, None), xp.zeros_like(gap))
    x, y = -away[..., 0], -away[..., 1]
    left = toward[..., 0, None] * y - toward[..., 1, None] * x >= -1e-6  # the member lies to the left, or ahead
    robots = xp.arange(gap.shape[-1], device=gap.device) < seen.others
    side = xp.where(robots | left, weight, -weight)
    right = xp.stack([y, -x, xp.zeros_like(x)], axis=-1)
    return xp.sum(side[..., None] * right, axis=-2)


def repulsion(seen: Near, *, gains: AvoidanceGains) -> Any:
    """Velocity (..., 3) down the repulsive potential, sum of repulsion/2 (range - gap)^2 over members within range.

    Quadratic where Khatib (1986) has the square of 1/gap - 1/range: bounded, so that a limited acceleration can follow.
    """
    xp = namespace(seen.gap)
    depth = xp.clip(gains.repulsion_range_m - seen.gap, 0.0, None)
    return xp.sum(seen.away * (gains.repulsion * xp.where(seen.there, depth, xp.zeros_like(depth)))[..., None], axis=-2)


def potential(position: Any, goal: Any, seen: Near, *, gains: AvoidanceGains) -> Any:
    """The field's potential (...,), m^2/s, of which `goal_velocity` + `repulsion` is the downward gradient.

    Attraction is quadratic near the goal and conical beyond, where the speed is bounded.
    """
    xp = namespace(position)
    distance = xp.sqrt(xp.sum((goal - position) ** 2, axis=-1))
    knee = gains.speed_max / gains.position
    cone = gains.speed_max * (distance - 0.5 * knee)
    attraction = xp.where(distance < knee, 0.5 * gains.position * distance**2, cone)
    depth = xp.clip(gains.repulsion_range_m - seen.gap, 0.0, None)
    energy = 0.5 * gains.repulsion * xp.where(seen.there, depth, xp.zeros_like(depth)) ** 2
    return attraction + xp.sum(energy, axis=-1)


def potential_field(
    position: Any, velocity: Any, goal: Any, around: Around, room: Room, *, gains: AvoidanceGains
) -> Any:
    """Acceleration (..., 3), m/s^2 in the world, that follows the potential field and its sidestep."""
    seen = near(position, velocity, around, room, gains=gains)
    toward = goal_velocity(position, goal, gains=gains)
    wanted = toward + sidestep(toward, seen, gains=gains) + repulsion(seen, gains=gains)
    return _follow(_at_most(wanted, 1.5 * gains.speed_max), velocity, gains)


def barrier(position: Any, velocity: Any, goal: Any, around: Around, room: Room, *, gains: AvoidanceGains) -> Filtered:
    """The way to a goal (with its sidestep), behind barrier certificates."""
    seen = near(position, velocity, around, room, gains=gains)
    toward = goal_velocity(position, goal, gains=gains)
    wanted = _at_most(toward + sidestep(toward, seen, gains=gains), gains.speed_max)
    return certified(_follow(wanted, velocity, gains), velocity, seen, gains=gains)


def certified_set_points(
    command: Any,
    state: Mapping[str, Any],
    estimate: geometric.Estimate,
    around: Around,
    room: Room,
    *,
    airframe: geometric.Airframe,
    tracking: geometric.TrackingGains,
    gains: AvoidanceGains,
) -> tuple[Any, Filtered]:
    """Set points (..., 4) of the mode attitude_thrust behind barrier certificates, whoever made them.

    A set point is the acceleration that it leads to at the present heading; where that is allowed, the set point passes
    unchanged, elsewhere roll, pitch and thrust change and the yaw rate stays.
    """
    xp = namespace(command)
    quat = quat_from_euler(command[..., 0], command[..., 1], quat_yaw(state["quat_wxyz"]))
    up = xp.zeros_like(estimate.velocity) + constant((0.0, 0.0, 1.0), command)
    pull = geometric.GRAVITY * up - estimate.disturbance
    wish = rotate(quat, up) * (command[..., 3:] / airframe.hover_fraction * geometric.GRAVITY) - pull
    seen = near(state["position_world"], state["velocity_world"], around, room, gains=gains)
    free = replace(gains, acceleration_max=SET_POINT_ACCELERATION)
    passed = certified(wish, state["velocity_world"], seen, gains=free)
    thrust = geometric.lifted(passed.acceleration, estimate, gains=tracking)
    changed = geometric.attitude_along(thrust, state, state, airframe=airframe, gains=tracking)
    changed = xp.concat([changed[..., :2], command[..., 2:3], changed[..., 3:]], axis=-1)
    return xp.where(passed.active[..., None], changed, command), passed


def certified(wish: Any, velocity: Any, seen: Near, *, gains: AvoidanceGains) -> Filtered:
    """The acceleration nearest to a wish (..., 3) that keeps every gap open: one linear constraint per member.

    Safety barrier certificates (Wang, Ames & Egerstedt 2017): h = V(gap) + d gap/dt stays >= 0, where V is the speed
    from which the trusted braking stops in time; dh/dt >= -decay h is linear in the acceleration. Robots take half of
    it each, which together is the whole; obstacles and faces leave it to the robot. Deviations: V is linear below
    braking/approach^2 (their root has an infinite slope at contact), dh/dt is bounded by h instead of h^3, and no
    single member can ask for more than the trusted braking, which binds only outside the safe set.
    """
    xp = namespace(wish)
    both = xp.arange(seen.gap.shape[-1], device=seen.gap.device) < seen.others
    share = xp.where(both, xp.full_like(seen.gap, 0.5), xp.ones_like(seen.gap))
    speed, slope = _stopping_speed(seen.gap, gains.braking / share, gains.approach)
    value = speed + seen.opening
    least = -share * (gains.decay * value + slope * seen.opening + seen.bend)
    least = xp.clip(least, None, gains.braking)
    bounds = xp.where(seen.there, -least, xp.full_like(least, 1e6))
    normals = xp.where(seen.there[..., None], -seen.away, xp.zeros_like(seen.away))
    box = _box_along(wish)
    normals = xp.concat([normals, box], axis=-2)
    # Slightly more than what is asked for at most, so that rounding does not count as a change.
    most = xp.full((*bounds.shape[:-1], 6), 1.000001 * gains.acceleration_max, dtype=wish.dtype, device=wish.device)
    bounds = xp.concat([bounds, most], axis=-1)
    found = nearest(wish, normals, bounds)
    brake = _at_most(-gains.velocity * velocity, gains.braking)
    acceleration = xp.where(found.feasible[..., None], found.point, brake)
    return Filtered(acceleration, found.changed, ~found.feasible)


def _stopping_speed(gap: Any, braking: Any, approach: float) -> tuple[Any, Any]:
    """Speed (...) from which `braking` (...) stops within a gap (...), and its slope, 1/s.

    Linear up to the gap braking/approach^2, then a root that continues it smoothly: at no gap does following it down
    take more than `braking`.
    """
    xp = namespace(gap)
    knee = braking / approach**2
    root = xp.sqrt(2.0 * braking * (xp.maximum(gap, knee) - 0.5 * knee))
    straight = gap < knee
    return xp.where(straight, approach * gap, root), xp.where(straight, xp.full_like(gap, approach), braking / root)


def _from_centre(away: Any, velocity: Any, reach: Any) -> tuple[Any, ...]:
    """Direction, distance, gap, its rate and its bend for vectors (..., C, 3) from centres and relative velocities."""
    xp = namespace(away)
    distance = xp.sqrt(xp.sum(away * away, axis=-1))
    distance = xp.clip(distance, 1e-3, None)
    unit = away / distance[..., None]
    opening = xp.sum(unit * velocity, axis=-1)
    bend = (xp.sum(velocity * velocity, axis=-1) - opening**2) / distance
    return unit, distance, distance - reach, opening, bend


def _faces(position: Any, velocity: Any, room: Room, reach: float) -> tuple[Any, ...]:
    xp = namespace(position)
    low, high = constant(room.low, position), constant(room.high, position)
    unit = constant([[s if i == j else 0.0 for j in range(3)] for s in (1.0, -1.0) for i in range(3)], position)
    distance = xp.concat([position - low, high - position], axis=-1)
    opening = xp.concat([velocity, -velocity], axis=-1)
    return unit, distance, distance - reach, opening, xp.zeros_like(distance)


def _box_along(wish: Any) -> Any:
    """Normals (..., 6, 3) of a level box that is turned along a wish (..., 3), and so with the world."""
    xp = namespace(wish)
    length = xp.sqrt(wish[..., 0] ** 2 + wish[..., 1] ** 2)
    still = length < 1e-6
    length = xp.where(still, xp.ones_like(length), length)
    zero, one = xp.zeros_like(length), xp.ones_like(length)
    c, s = xp.where(still, one, wish[..., 0] / length), xp.where(still, zero, wish[..., 1] / length)
    rows = [xp.stack(row, axis=-1) for row in ((c, s, zero), (-s, c, zero), (zero, zero, one))]
    return xp.stack(rows + [-row for row in rows], axis=-2)


def _follow(wanted: Any, velocity: Any, gains: AvoidanceGains) -> Any:
    """Acceleration (..., 3) towards a wanted velocity, of bounded length on the level and of bounded height."""
    xp = namespace(wanted)
    a = gains.velocity * (wanted - velocity)
    up = xp.clip(a[..., 2:], -gains.acceleration_max, gains.acceleration_max)
    return xp.concat([_at_most(a[..., :2], gains.acceleration_max), up], axis=-1)


def _at_most(vector: Any, longest: float) -> Any:
    """The vector (..., k), shortened where it is longer."""
    xp = namespace(vector)
    length = xp.sqrt(xp.sum(vector * vector, axis=-1, keepdims=True))
    return vector * xp.clip(longest / xp.clip(length, 1e-9, None), None, 1.0)
