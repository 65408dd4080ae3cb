"""One root seed, many independent streams: environment, policy noise, shuffling, evaluation, per process."""

import zlib

import numpy as np

EVALUATION = "evaluation"
"""Purpose whose streams never occur in training."""


def child_seed(root: int, purpose: str, rank: int = 0) -> int:
    """Seed (63 bits) of the stream `purpose` of process `rank`; equal arguments give equal seeds everywhere."""
    sequence = np.random.SeedSequence(root, spawn_key=(zlib.crc32(purpose.encode()), rank))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
