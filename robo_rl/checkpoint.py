"""Checkpoints: one file per process and moment, written whole or not at all."""

import os
import re
from pathlib import Path
from typing import Any

import torch

from hardware.errors import BadInput

KEPT = 2
"""Newest checkpoints that stay; older ones go."""

_NAME = re.compile(r"(\d+)-r(\d+)\.pt")


def save(folder: Path, env_steps: int, rank: int, state: dict[str, Any]) -> Path:
    """Writes `<env_steps>-r<rank>.pt` atomically and removes this rank's older ones."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{env_steps:012d}-r{rank}.pt"
    aside = path.with_suffix(f".{os.getpid()}.part")
    torch.save(state, aside)
    aside.replace(path)
    for _, old in _of_rank(folder, rank)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def newest(folder: Path, ranks: int = 1) -> int:
    """Environment steps of the newest checkpoint that every rank has written; raises BadInput where there is none."""
    moments = [{steps for steps, _ in _of_rank(folder, rank)} for rank in range(ranks)]
    common = set.intersection(*moments) if moments else set()
    if not common:
        raise BadInput(f"{folder} holds no checkpoint of all {ranks} process(es); nothing to resume from")
    return max(common)


def load(folder: Path, env_steps: int, rank: int) -> dict[str, Any]:
    """The state saved at that moment; raises BadInput where the file cannot be read."""
    path = folder / f"{env_steps:012d}-r{rank}.pt"
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError) as e:
        raise BadInput(f"checkpoint {path} cannot be read: {str(e).splitlines()[0]}") from e


def _of_rank(folder: Path, rank: int) -> list[tuple[int, Path]]:
    found = [(m, p) for p in folder.glob("*.pt") if (m := _NAME.fullmatch(p.name))]
    return sorted((int(m[1]), p) for m, p in found if int(m[2]) == rank)
