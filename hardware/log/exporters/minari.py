"""Episodes as a Minari data set, through h5py (extra `[export]`); Minari itself is not needed."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.log.steps import Demonstrations

VERSION = "0.5.0"
"""Of the layout; Minari 0.5 reads it."""


def export_minari(found: Demonstrations, out: Path) -> dict[str, int]:
    """Writes `<out>/data/{main_data.hdf5,metadata.json}`; returns episode -> steps.

    An episode of T rows gives T observations and T - 1 steps. Its id is the folder's name. Copied below
    `~/.minari/datasets`, `minari.load_dataset(NAME)` finds it. Raises BadInput where the folder exists.
    """
    import h5py

    if out.exists():
        raise BadInput(f"{out} exists; give a new directory")
    folder = out / "data"
    folder.mkdir(parents=True)
    steps = {}
    with h5py.File(folder / "main_data.hdf5", "x") as file:
        for i, e in enumerate(found.episodes):
            count = len(e.t_ns) - 1
            group = file.create_group(f"episode_{i}")
            group.attrs.update({"id": i, "total_steps": count, "outcome": e.outcome, "annotation": e.id})
            reward = e.reward[:-1].copy()
            reward[-1] += e.reward[-1]
            end = np.zeros(count, dtype=bool)
            end[-1] = True
            group["observations"], group["actions"], group["rewards"] = e.observation, e.action[:-1], reward
            group["terminations"], group["truncations"] = end & e.terminated, end & (not e.terminated)
            group["infos/intervention"] = np.append(e.intervention[:-1], e.intervention[-1])
            steps[f"episode_{i}"] = count
    metadata = {
        "total_episodes": len(steps),
        "total_steps": sum(steps.values()),
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "dataset_id": out.name,
        "minari_version": VERSION,
        "observation_space": _box(np.concatenate([e.observation for e in found.episodes])),
        "action_space": _box(np.concatenate([e.action for e in found.episodes])),
        "dataset_size": round((folder / "main_data.hdf5").stat().st_size / 1e6, 1),
        "description": f"recording {found.source} at {found.rate_hz:g} Hz",
        "observation_names": found.observation,
        "action_names": found.action,
        "units": found.units,
    }
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=1))
    return steps


def _box(values: NDArray[np.float32]) -> str:
    """The space that the values span, as Minari writes spaces."""
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    shape = list(low.shape)
    return json.dumps({"type": "Box", "dtype": "float32", "shape": shape, "low": low.tolist(), "high": high.tolist()})
