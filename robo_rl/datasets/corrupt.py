"""Data spoilt on purpose: a share of the rows made wrong in one of four ways, to see what learners make of it.

The random attacks of Yang et al. 2024 (arXiv 2310.12955, RIQL), in units of the data's own deviation: uniform noise
between -1 and 1 deviations on states, actions and the states that followed; rewards replaced by uniform numbers between
-30 and 30 deviations.
"""

import dataclasses

import numpy as np

from hardware.errors import BadInput, NotFoundError
from robo_rl.datasets.transitions import DataSet

KINDS = ("states", "actions", "rewards", "dynamics")
REWARD_SPAN = 30.0


def corrupted(data: DataSet, kind: str, *, share: float = 0.3, scale: float = 1.0, seed: int = 0) -> DataSet:
    """A copy with `share` of its rows spoilt; `scale` multiplies the size. Raises NotFoundError for an unknown kind."""
    if kind not in KINDS:
        raise NotFoundError("corruption", kind, KINDS)
    if not 0.0 <= share <= 1.0 or not 0.0 <= scale < float("inf"):
        raise BadInput(f"share = {share}, scale = {scale}; expected 0 to 1, and at least 0")
    rng = np.random.default_rng(seed)
    name = {"states": "obs", "actions": "action", "rewards": "reward", "dynamics": "next_obs"}[kind]
    values = getattr(data, name).copy()
    rows = rng.choice(len(data), size=round(share * len(data)), replace=False)
    noise = scale * values.std(axis=0) * rng.uniform(-1.0, 1.0, size=values[rows].shape)
    values[rows] = REWARD_SPAN * noise if kind == "rewards" else values[rows] + noise
    if kind == "actions":
        values = values.clip(-1.0, 1.0)
    settings = data.card.settings | {"corrupted": kind, "share": share, "scale": scale, "corruption_seed": seed}
    card = dataclasses.replace(data.card, settings=settings)
    return dataclasses.replace(data, card=card, **{name: values})
