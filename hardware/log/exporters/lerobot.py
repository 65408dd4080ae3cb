"""Episodes as a LeRobot data set version 3, through pyarrow (extra `[export]`); LeRobot itself is not needed.

Many episodes per parquet file: `data/` rows, `meta/episodes/` where each episode lies, `meta/{info,stats}.json` and
`meta/tasks.parquet`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.log.pictures import camera_name, decoded
from hardware.log.steps import Demonstrations, Episode

QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)
_PLACE = "chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


def export_lerobot(found: Demonstrations, out: Path, robot: str = "") -> dict[str, int]:
    """Writes the data set; returns episode -> frames. Raises BadInput where the folder exists."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if out.exists():
        raise BadInput(f"{out} exists; give a new directory")
    tasks = sorted({e.task or "unnamed task" for e in found.episodes})
    features = _features(found)
    cameras = {f"observation.images.{camera_name(t)}": t for t in found.cameras}
    tables, pictures, places, first = [], [], [], 0
    for i, e in enumerate(found.episodes):
        columns = _columns(e, i, first, tasks.index(e.task or "unnamed task"), found.rate_hz)
        tables.append(columns)
        pictures.append({k: e.pictures[t] for k, t in cameras.items()})
        places.append(_place(e, i, first, e.task or "unnamed task", columns, pictures[-1]))
        first += len(e.t_ns)
    merged = {k: np.concatenate([t[k] for t in tables]) for k in tables[0]}
    for path in ("data/chunk-000", "meta/episodes/chunk-000"):
        (out / path).mkdir(parents=True)
    columns = {k: _arrow(pa, v, features[k]["shape"]) for k, v in merged.items()}
    for k in cameras:
        columns[k] = pa.array(
            [{"bytes": p, "path": None} for episode in pictures for p in episode[k]],
            pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        )
    pq.write_table(pa.table(columns), out / "data" / _PLACE.format(chunk_index=0, file_index=0))
    episodes = pa.table({k: [p[k] for p in places] for k in places[0]})
    pq.write_table(episodes, out / "meta" / "episodes" / _PLACE.format(chunk_index=0, file_index=0))
    pq.write_table(_tasks(pa, tasks), out / "meta" / "tasks.parquet")
    info = {
        "codebase_version": "v3.0",
        "robot_type": robot or None,
        "total_episodes": len(places),
        "total_frames": first,
        "total_tasks": len(tasks),
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": int(found.rate_hz) if float(found.rate_hz).is_integer() else found.rate_hz,
        "splits": {"train": f"0:{len(places)}"},
        "data_path": f"data/{_PLACE}",
        "video_path": None,
        "features": features,
        "source": found.source,
        "units": found.units,
    }
    stats = {k: _stats(v) for k, v in merged.items()}
    stats |= {k: _picture_stats([p for episode in pictures for p in episode[k]]) for k in cameras}
    (out / "meta" / "info.json").write_text(json.dumps(info, indent=4))
    (out / "meta" / "stats.json").write_text(json.dumps(stats, indent=4))
    return {f"episode {p['episode_index']}": p["length"] for p in places}


def _features(found: Demonstrations) -> dict[str, dict[str, Any]]:
    scalar = lambda dtype: {"dtype": dtype, "shape": [1], "names": None}  # noqa: E731
    names = ["height", "width", "channels"]
    images = {
        f"observation.images.{camera_name(t)}": {"dtype": "image", "shape": [*size, 3], "names": names}
        for t, size in found.cameras.items()
    }
    return images | {
        "observation.state": {"dtype": "float32", "shape": [len(found.observation)], "names": found.observation},
        "action": {"dtype": "float32", "shape": [len(found.action)], "names": found.action},
        "next.reward": scalar("float32"),
        "next.done": scalar("bool"),
        "next.success": scalar("bool"),
        "intervention": scalar("bool"),
        "timestamp": scalar("float32"),
        "frame_index": scalar("int64"),
        "episode_index": scalar("int64"),
        "index": scalar("int64"),
        "task_index": scalar("int64"),
    }


def _columns(e: Episode, index: int, first: int, task: int, rate_hz: float) -> dict[str, NDArray[Any]]:
    """The rows of one episode; time is counted in frames, as LeRobot wants it."""
    count = len(e.t_ns)
    numbers, last = np.arange(count, dtype=np.int64), np.zeros(count, dtype=bool)
    last[-1] = True
    return {
        "observation.state": e.observation,
        "action": e.action,
        "next.reward": e.reward,
        "next.done": last & e.terminated,
        "next.success": last & (e.outcome == "success"),
        "intervention": e.intervention,
        "timestamp": (numbers / rate_hz).astype(np.float32),
        "frame_index": numbers,
        "episode_index": np.full(count, index, dtype=np.int64),
        "index": first + numbers,
        "task_index": np.full(count, task, dtype=np.int64),
    }


def _place(
    e: Episode,
    index: int,
    first: int,
    task: str,
    columns: dict[str, NDArray[Any]],
    pictures: dict[str, list[bytes]],
) -> dict[str, Any]:
    """Where an episode lies, and its statistics."""
    place = {
        "episode_index": index,
        "tasks": [task],
        "length": len(e.t_ns),
        "data/chunk_index": 0,
        "data/file_index": 0,
        "dataset_from_index": first,
        "dataset_to_index": first + len(e.t_ns),
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }
    stats = {k: _stats(v) for k, v in columns.items()} | {k: _picture_stats(p) for k, p in pictures.items()}
    return place | {f"stats/{k}/{s}": v for k, found in stats.items() for s, v in found.items()}


def _stats(values: NDArray[Any]) -> dict[str, list[Any]]:
    table = values.reshape(len(values), -1).astype(np.float64)
    quantiles = {f"q{round(q * 100):02d}": np.quantile(table, q, axis=0) for q in QUANTILES}
    found = {"min": table.min(axis=0), "max": table.max(axis=0), "mean": table.mean(axis=0), "std": table.std(axis=0)}
    return {k: v.tolist() for k, v in (found | {"count": np.array([len(table)])} | quantiles).items()}


def _picture_stats(pictures: list[bytes]) -> dict[str, list[Any]]:
    """Statistics per channel, 0 to 1, of at most a hundred pictures; shaped (3, 1, 1) as LeRobot wants them."""
    chosen = pictures[:: max(1, len(pictures) // 100)]
    found = _stats(np.concatenate([decoded(p).reshape(-1, 3) for p in chosen]) / 255.0)
    return {k: [[[x]] for x in v] if k != "count" else [len(chosen)] for k, v in found.items()}


def _arrow(pa: Any, values: NDArray[Any], shape: list[int]) -> Any:
    """Vectors of one number are numbers, as LeRobot stores them."""
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return flat if shape == [1] else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _tasks(pa: Any, tasks: list[str]) -> Any:
    """Tasks by index, with the index column that pandas looks for."""
    table = pa.table({"task_index": list(range(len(tasks))), "__index_level_0__": tasks})
    column = lambda name, kind: {  # noqa: E731
        "name": name,
        "field_name": name or "__index_level_0__",
        "pandas_type": kind,
        "numpy_type": "object" if kind == "unicode" else kind,
        "metadata": None,
    }
    pandas = {
        "index_columns": ["__index_level_0__"],
        "column_indexes": [],
        "columns": [column("task_index", "int64"), column(None, "unicode")],
        "pandas_version": "2.0.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})
