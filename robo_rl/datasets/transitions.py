"""The data set format: a folder with `transitions.npz` and `dataset.json`, written whole or not at all.

One row is one control step: what the policy would have seen, what was sent, what came of it. Rows of an episode follow
one another; only its last row is `terminated` (the task ended it: no value beyond) or `truncated` (the data end there:
bootstrapped from `next_obs`).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.interface import Field, Interface, fields_from_json, fields_to_json
from hardware.errors import BadInput
from hardware.spec import load_spec

SCHEMA = "robo_rl.dataset/1"
ARRAYS, CARD = "transitions.npz", "dataset.json"
_DTYPES: dict[str, type] = {
    "obs": np.float32,
    "action": np.float32,
    "reward": np.float32,
    "next_obs": np.float32,
    "terminated": np.bool_,
    "truncated": np.bool_,
    "episode": np.int64,
    "intervention": np.bool_,
    "weight": np.float32,
}
_MATRICES = ("obs", "action", "next_obs")


@dataclass(frozen=True)
class DataCard:
    """What a data set is: the contract that its rows and a policy share, where they come from, what was left out."""

    scene: str
    robot: str
    mode: str
    """Command mode of the robot that the actions drive."""
    rate_hz: float
    observation: tuple[Field, ...]
    """Fields of the observation group `policy`."""
    action: tuple[Field, ...]
    purpose: str = "iql"
    """Consumer that the rows were made for, see robo-rl dataset --for."""
    sources: tuple[dict[str, Any], ...] = ()
    """Logs with content hashes, or the simulations that made them."""
    kept: dict[str, int] = field(default_factory=dict)
    """Counts: rows, episodes, and what the purpose counts."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason -> rows left out."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Everything else that decided what the rows say."""


@dataclass(frozen=True)
class DataSet:
    """T transitions with their card."""

    card: DataCard
    obs: NDArray[np.float32]
    """(T, D) observation group `policy`, not normalised."""
    action: NDArray[np.float32]
    """(T, A) in -1..1, as sent behind the guard."""
    reward: NDArray[np.float32]
    next_obs: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    episode: NDArray[np.int64]
    """(T,) number of the episode, or of the part of one that an exclusion has split."""
    intervention: NDArray[np.bool_]
    """(T,) somebody else than the policy acted."""
    weight: NDArray[np.float32]
    """(T,) of the row in a supervised loss."""
    extra: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Further arrays (T, ...) of this purpose."""

    def __len__(self) -> int:
        return len(self.reward)

    def returns(self) -> NDArray[np.float64]:
        """Sum of rewards of each episode, in the order of the rows."""
        _, which = np.unique(self.episode, return_inverse=True)
        return np.bincount(which, weights=self.reward).astype(np.float64)


def card_of(spec: Any, **more: Any) -> DataCard:
    """The card of transitions in a scene (a SceneSpec, or a policy's card)."""
    seen = tuple(f for f in spec.observation if f.group == "policy")
    scene = getattr(spec, "id", None) or spec.scene
    return DataCard(scene, spec.robot, spec.mode, spec.rate_hz, seen, spec.action, **more)


def write(path: Path | str, data: DataSet) -> Path:
    """Writes a data set into a new folder; raises BadInput for a folder in use and for rows that break the format."""
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} already holds something; give a new folder for the data set")
    check(data, str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        arrays = {name: getattr(data, name) for name in _DTYPES}
        np.savez(aside / ARRAYS, allow_pickle=False, **arrays, **{f"extra.{k}": v for k, v in data.extra.items()})
        plain = asdict(data.card) | {
            "schema": SCHEMA,
            "observation": fields_to_json(data.card.observation),
            "action": fields_to_json(data.card.action),
            "transitions_sha256": _sha256(aside / ARRAYS),
        }
        (aside / CARD).write_text(json.dumps(plain, indent=2, sort_keys=True, allow_nan=False) + "\n")
        if folder.exists():
            folder.rmdir()
        aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def read(path: Path | str) -> DataSet:
    """The data set in a folder; raises BadInput with one line where it is broken, changed or of another version."""
    folder = Path(path)
    card, digest = _read_card(folder)
    file = folder / ARRAYS
    if not file.is_file():
        raise BadInput(f"{folder} holds no {ARRAYS}: the data set is not whole")
    if _sha256(file) != digest:
        raise BadInput(f"{file} is not the file that {CARD} describes: their hashes differ")
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ValueError, OSError, EOFError, KeyError) as e:
        raise BadInput(f"{file} cannot be read: {e}") from e
    missing = _DTYPES.keys() - arrays.keys()
    if missing:
        raise BadInput(f"{file} lacks {', '.join(sorted(missing))}")
    extra = {name.removeprefix("extra."): v for name, v in arrays.items() if name not in _DTYPES}
    data = DataSet(card, **{name: arrays[name] for name in _DTYPES}, extra=extra)
    check(data, str(folder))
    return data


def read_card(path: Path | str) -> DataCard:
    """The card alone, without loading the rows."""
    return _read_card(Path(path))[0]


def check(data: DataSet, where: str) -> None:
    """Raises BadInput, naming the first row that is wrong, for arrays that break the format."""
    rows, card = len(data.reward), data.card
    seen = sum(f.size * f.history for f in card.observation)
    columns = {"obs": seen, "next_obs": seen, "action": len(card.action)}
    if rows == 0:
        raise BadInput(f"{where}: no transitions; dropped: {_told(card.dropped)}")
    for name, dtype in _DTYPES.items():
        values = getattr(data, name)
        expected = (rows, columns[name]) if name in _MATRICES else (rows,)
        if values.shape != expected or values.dtype != dtype:
            raise BadInput(
                f"{where}: {name} is {values.dtype} {values.shape}; expected {np.dtype(dtype).name} {expected}"
            )
        if dtype is np.float32 and not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise BadInput(f"{where}: {name} of row {row} is not finite")
    if np.abs(data.action).max() > 1.0 + 1e-5:
        row = int(np.argmax(np.abs(data.action).max(1)))
        raise BadInput(f"{where}: action of row {row} lies outside -1..1")
    if (data.weight < 0.0).any():
        raise BadInput(f"{where}: weight of row {int(np.argmax(data.weight < 0.0))} is negative")
    for name, values in data.extra.items():
        if len(values) != rows:
            raise BadInput(f"{where}: {name} has {len(values)} rows; expected {rows}")
    _check_ends(data, where)


def check_fits(card: DataCard, spec: Any, where: str) -> None:
    """Raises BadInput where a scene (SceneSpec) does not see or do what the rows hold."""
    expected = card_of(spec)
    if card.scene != expected.scene:
        raise BadInput(f"{where} holds transitions of {card.scene}, not of {expected.scene}")
    if card.mode != expected.mode:
        raise BadInput(f"{where} holds transitions of mode {card.mode}; the scene is set to {expected.mode}")
    if (card.observation, card.action) != (expected.observation, expected.action):
        raise BadInput(f"{where} was made with other fields than scene {card.scene} has now")


def joined(parts: Sequence[DataSet]) -> DataSet:
    """Several data sets of one contract as one, with episodes numbered anew; raises BadInput where contracts differ.

    Extra arrays stay where every part has them.
    """
    first = parts[0].card
    episodes: list[NDArray[np.int64]] = []
    count = 0
    for part in parts:
        for name in ("scene", "robot", "mode", "rate_hz", "observation", "action", "purpose"):
            ours, theirs = getattr(first, name), getattr(part.card, name)
            if ours != theirs:
                shown = f": {ours} and {theirs}" if isinstance(ours, str | float) else ""
                raise BadInput(f"data sets of different {name} cannot be joined{shown}")
        _, number = np.unique(part.episode, return_inverse=True)
        episodes.append(number.astype(np.int64) + count)
        count += int(number.max(initial=-1)) + 1
    whole = {name: np.concatenate([getattr(p, name) for p in parts]) for name in _DTYPES if name != "episode"}
    shared = set.intersection(*(set(p.extra) for p in parts))
    extra = {name: np.concatenate([p.extra[name] for p in parts]) for name in sorted(shared)}
    card = replace(
        first,
        sources=tuple(s for p in parts for s in p.card.sources),
        kept={"rows": len(whole["reward"]), "episodes": count},
        dropped=_summed([p.card.dropped for p in parts]),
    )
    return DataSet(card, **whole, episode=np.concatenate(episodes), extra=extra)


def interface_of(card: DataCard) -> Interface:
    """The interpreter of the rows."""
    return Interface(load_spec(card.robot), card.mode, card.observation, card.action)


def _check_ends(data: DataSet, where: str) -> None:
    """Episodes are contiguous, and exactly their last rows end, in one way."""
    last = np.append(data.episode[1:] != data.episode[:-1], True)
    ends = data.terminated | data.truncated
    if (wrong := np.flatnonzero(ends != last)).size:
        says = "ends before its last row" if ends[wrong[0]] else "stops without terminated or truncated"
        raise BadInput(f"{where}: episode {data.episode[wrong[0]]} {says}, at row {wrong[0]}")
    if (data.terminated & data.truncated).any():
        row = int(np.argmax(data.terminated & data.truncated))
        raise BadInput(f"{where}: row {row} is both terminated and truncated")
    if len(np.unique(data.episode)) != int(last.sum()):
        raise BadInput(f"{where}: rows of an episode do not follow one another")


def _read_card(folder: Path) -> tuple[DataCard, str]:
    """The card and the hash of the arrays that it names."""
    file = folder / CARD
    if not file.is_file():
        raise BadInput(f"{folder} holds no {CARD}; expected a folder that robo-rl dataset has written")
    try:
        raw = json.loads(file.read_text())
    except ValueError as e:
        raise BadInput(f"{file} is not JSON: {e}") from e
    schema = raw.get("schema") if isinstance(raw, Mapping) else None
    if schema != SCHEMA:
        raise BadInput(f"{file}: schema '{schema}'; this version reads '{SCHEMA}'")
    known = {f.name for f in fields(DataCard)}
    differing = set(raw) ^ (known | {"schema", "transitions_sha256"})
    if differing:
        raise BadInput(f"{file}: keys missing or unknown: {', '.join(sorted(differing))}")
    values: dict[str, Any] = {k: raw[k] for k in known} | {"sources": tuple(raw["sources"])}
    values |= {name: fields_from_json(raw[name]) for name in ("observation", "action")}
    return DataCard(**values), str(raw["transitions_sha256"])


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _summed(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {name: sum(c.get(name, 0) for c in counts) for name in dict.fromkeys(k for c in counts for k in c)}


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) or "none"
