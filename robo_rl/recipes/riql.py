"""Robust implicit Q-learning: for data of which a part is wrong. IQL with five critics, a quantile and Huber's loss."""

import dataclasses

from robo_rl.recipes.iql import CONFIG as _IQL
from robo_rl.recipes.iql import DATA, STEPS, check, prepare

__all__ = ["CONFIG", "DATA", "STEPS", "check", "prepare"]

CONFIG = dataclasses.replace(_IQL, critics=5, quantile=0.25, huber=1.0)
