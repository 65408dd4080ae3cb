"""What is kept of a flight to judge it: contacts, distances, path; and the two notions of success.

Published (Huang et al. 2024): within 1.0 m of the goal at any time, by the mean of five samples, and no contact with a
drone or an obstacle after the first 1.5 s; walls and floor do not count. Strict, which is the task's own success: no
contact of any kind at any time, and a mean distance over the last second within the task's radius.
"""

from typing import NamedTuple

import torch
from torch import Tensor

GRACE_S = 1.5
REACHED_M = 1.0
SAMPLES = 5
ARRIVED_M = 0.25
ROWS = 4 + 2 + (SAMPLES - 1) + 5
"""Contacts begun by kind, those with drones and obstacles after the grace, the last distances, and one each: reached,
sum of distances in the last second, path, time of arrival (0: not yet), least gap to another drone."""


class Standing(NamedTuple):
    """A flight so far, as planes (N,)."""

    hits: Tensor
    """(4, N) contacts begun with drones, obstacles, walls, floor."""
    late: Tensor
    """Contacts with drones and obstacles after the grace."""
    reached: Tensor
    last_second_m: Tensor
    path_m: Tensor
    arrival_s: Tensor
    """NaN where it has not arrived."""
    separation_m: Tensor
    """Least distance to another drone so far."""


def begin(count: int, like: Tensor) -> Tensor:
    """Records (ROWS, count) of flights that have not begun."""
    records = like.new_zeros((ROWS, count))
    records[6 : 5 + SAMPLES] = 100.0
    records[-1] = 100.0
    return records


def keep(
    records: Tensor,
    began: Tensor,
    distance: Tensor,
    speed: Tensor,
    gap: Tensor,
    age: Tensor,
    clock: Tensor,
    *,
    dt_s: float,
    end: int,
) -> Tensor:
    """Records (ROWS, N) one step later.

    `began` (4, N) contacts that begin now; `gap` (N,) m to the nearest drone; `age` and `clock` (N,) steps of this
    flight and of the episode, which ends at `end`.
    """
    counts, late, recent = records[:4], records[4:6], records[6 : 5 + SAMPLES]
    reached, last, path, arrival, least = records[5 + SAMPLES :]
    begun = began.to(records.dtype)
    mean = (recent.sum(0) + distance) / SAMPLES
    arrived = (arrival == 0.0) & (distance <= ARRIVED_M)
    return torch.cat(
        [
            counts + begun,
            late + torch.where(age * dt_s > GRACE_S, begun[:2], 0.0),
            distance[None],
            recent[:-1],
            torch.stack(
                [
                    torch.where(mean < REACHED_M, 1.0, reached),
                    last + torch.where(clock > end - round(1.0 / dt_s), distance, 0.0),
                    torch.add(path, speed, alpha=dt_s),
                    torch.where(arrived, age * dt_s, arrival),
                    torch.minimum(least, gap),
                ]
            ),
        ]
    )


def standing(records: Tensor, *, dt_s: float) -> Standing:
    """What the records say now."""
    reached, last, path, arrival, least = records[5 + SAMPLES :]
    return Standing(
        hits=records[:4],
        late=records[4] + records[5],
        reached=reached > 0.5,
        last_second_m=last * dt_s,
        path_m=path,
        arrival_s=torch.where(arrival > 0.0, arrival, torch.nan),
        separation_m=least,
    )


METRICS = (
    "distance",
    "success",
    "published_success",
    "published_collision",
    "hit_drone",
    "hit_obstacle",
    "hit_wall",
    "hit_floor",
    "deadlock",
    "last_second_m",
    "path_m",
    "arrival_s",
    "separation_m",
)
"""Of flights that end; `distance` at any time. A deadlock is a flight that neither collides nor ever comes near."""


def metrics(told: Standing, distance: Tensor, radius: Tensor, lasting: Tensor, over: Tensor) -> dict[str, Tensor]:
    """METRICS of flights (N,), of which those `over` end now and those `lasting` have flown to the episode's end.

    `radius` (N,) m bounds the mean distance over the last second. None of them shares memory with the records, which
    begin anew where a flight does.
    """
    hits, clear = told.hits > 0.0, told.late == 0.0
    return {
        "distance": distance,
        "success": ~hits.any(0) & (told.last_second_m <= radius) & lasting,
        "published_success": told.reached & clear & over,
        "published_collision": ~clear & over,
        "hit_drone": hits[0],
        "hit_obstacle": hits[1],
        "hit_wall": hits[2],
        "hit_floor": hits[3],
        "deadlock": ~told.reached & clear & over,
        "last_second_m": told.last_second_m,
        "path_m": told.path_m.clone(),
        "arrival_s": told.arrival_s,
        "separation_m": told.separation_m.clone(),
    }
