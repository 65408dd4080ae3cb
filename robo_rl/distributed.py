"""Data-parallel training by processes: what one needs of `torch.distributed`, and nothing where there is one process.

Works under `torchrun` and under `robo-rl train --processes P`, which starts the other ranks itself: both set RANK,
WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
"""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

PEER_SILENCE_S = 600
"""A rank that waits this long for another gives up."""


@dataclass(frozen=True)
class Group:
    """The processes that train together; `sum_` is exact and gives every rank the same bits."""

    rank: int = 0
    size: int = 1

    def sum_(self, values: Tensor) -> Tensor:
        """Sums a tensor over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def mean_(self, values: Tensor) -> Tensor:
        """Averages a tensor over all ranks, in place."""
        return self.sum_(values).div_(self.size) if self.size > 1 else values

    def agree(self, wish: bool) -> bool:
        """True where any rank wishes it: all ranks stop at the same update."""
        if self.size == 1:
            return wish
        return bool(self.sum_(torch.tensor([float(wish)]))[0] > 0)


def join(device: str) -> Group:
    """The group this process was started into; a single process where the environment names none."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Group()
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=PEER_SILENCE_S))
    return Group(dist.get_rank(), size)


def leave(group: Group) -> None:
    """Ends the group."""
    if group.size > 1:
        dist.destroy_process_group()


def start_peers(processes: int, run: Path, resume: bool) -> list[subprocess.Popen[bytes]]:
    """Starts ranks 1..processes-1 of a run on this host and makes the present process rank 0.

    Starts none where the environment already names a rank, as under `torchrun`.
    """
    if "RANK" in os.environ:
        return []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    os.environ.update(shared, RANK="0", LOCAL_RANK="0")
    command = [sys.executable, "-m", "robo_rl.supervise", str(run), *(["resume"] if resume else [])]
    return [
        subprocess.Popen(
            command,
            env=os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches rank 0 only, which tells the others when to stop
        )
        for rank in range(1, processes)
    ]


def forget_group() -> None:
    """Takes back what `start_peers` put into the environment."""
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME", "RANK", "LOCAL_RANK"):
        os.environ.pop(name, None)
