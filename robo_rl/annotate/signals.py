"""The signals of a log: which there are, and their pyramids, read in the background only where somebody looks.

Chunks are read in an order that covers the log evenly from the start, so a track shows the whole log coarsely after a
moment, and exactly once its topic has been read. Memory holds the signals that were asked for, 4 bytes per sample
and 8 per instant.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput, NotFoundError, RoboError
from hardware.log.reader import Log, LogTopic
from robo_rl.annotate.chunks import Chunks, Place, message_at, rows_of, spread
from robo_rl.annotate.layout import Layout, at_path, layout_of
from robo_rl.annotate.pyramid import Pyramid, build

PREVIEW_PARTS = 8
"""Ranges per chunk that stand for its samples until the whole topic has been read."""
_HIDDEN = (
    "header.",
    "covariance",
    "layout.",
    ".stamp.",
    "height",
    "width",
    "step",
    "is_bigendian",
    "structure_needs",
    "timestamp",
)
_FIRST_TRACKS = 10
_LONGEST_WAIT_S = 0.05


@dataclass(frozen=True)
class Signal:
    """One number of a topic over time."""

    name: str
    """`TOPIC.FIELD`, as in `Log.channels`, elements in brackets."""
    topic: str
    path: str
    unit: str
    label: str
    """Short; with the joint's name where the message has names."""


@dataclass
class _Block:
    """What one chunk holds of a topic."""

    t_ns: NDArray[np.int64]
    values: dict[str, NDArray[np.float32]]


@dataclass
class _Load:
    """One topic being read."""

    topic: LogTopic
    layout: Layout
    paths: list[str]
    places: list[Place]
    blocks: dict[Place, _Block] = field(default_factory=dict)


class Signals:
    """All signals of a log; any thread may ask."""

    def __init__(self, log: Log, chunks: Chunks, on_progress: Callable[[], None] = lambda: None) -> None:
        self._log, self._chunks, self._on_progress = log, chunks, on_progress
        self._layouts: dict[str, Layout] = {}
        self.catalogue: dict[str, Signal] = {}
        for topic in log.topics.values():
            self._describe(topic)
        self._lock = threading.Lock()
        self._ready: dict[str, Pyramid] = {}
        self._previews: dict[str, tuple[int, Pyramid]] = {}
        self._loads: dict[str, _Load] = {}
        self._wanted: list[str] = []
        self._news = threading.Condition(self._lock)
        self._stopped = False
        self._done = self._total = self._ahead = 0
        self.failure = ""
        self._thread = threading.Thread(target=self._work, name="signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the background reading."""
        with self._news:
            self._stopped = True
            self._news.notify_all()
        self._thread.join()

    def first(self) -> list[str]:
        """Signals to show at first: a few of every topic, those with a unit before the others."""
        by_topic: dict[str, list[Signal]] = {}
        for s in self.catalogue.values():
            if not any(h in s.path for h in _HIDDEN):
                by_topic.setdefault(s.topic, []).append(s)
        for signals in by_topic.values():
            signals.sort(key=lambda s: not s.unit)
        rounds = max((len(s) for s in by_topic.values()), default=0)
        picked = [s.name for i in range(0, rounds, 3) for group in by_topic.values() for s in group[i : i + 3]]
        return sorted(picked[:_FIRST_TRACKS], key=list(self.catalogue).index)

    def request(self, names: Iterable[str]) -> None:
        """Has signals read that are not there yet; raises NotFoundError for an unknown one."""
        with self._news:
            for name in names:
                if name not in self.catalogue:
                    raise NotFoundError("signal", name, list(self.catalogue)[:12])
                if name not in self._ready and name not in self._wanted:
                    self._wanted.append(name)
            self._news.notify_all()

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """While somebody waits for an answer, the background reading stands back between two chunks."""
        with self._lock:
            self._ahead += 1
        try:
            yield
        finally:
            with self._lock:
                self._ahead -= 1

    def progress(self) -> tuple[int, int, int]:
        """Chunks read, chunks to read, and signals that are there as a whole."""
        with self._lock:
            return self._done, self._total, len(self._ready)

    def wait(self, timeout_s: float = 600.0) -> None:
        """Waits until everything requested is there."""
        with self._news:
            if not self._news.wait_for(lambda: not self._wanted, timeout_s):
                raise RoboError("the signals were not read in time")

    def pyramid(self, name: str) -> Pyramid | None:
        """A signal, whole or as far as it has been read; None where nothing has been read yet."""
        with self._lock:
            if name in self._ready:
                return self._ready[name]
            signal = self.catalogue[name]
            load = self._loads.get(signal.topic)
            if load is None or signal.path not in load.paths or not load.blocks:
                return None
            count, preview = self._previews.get(name, (0, None))
            if preview is None or len(load.blocks) > 1.3 * count:
                preview = _preview(list(load.blocks.values()), signal.path)
                self._previews[name] = (len(load.blocks), preview)
            return preview

    def is_ready(self, name: str) -> bool:
        """Whether a signal has been read as a whole."""
        with self._lock:
            return name in self._ready

    def values(self, names: Sequence[str], t_ns: int) -> list[float | None]:
        """The last value of each signal at or before an instant; None where there is none, or not yet."""
        found: list[float | None] = []
        for name in names:
            pyramid = self.pyramid(name)
            i = -1 if pyramid is None else int(np.searchsorted(pyramid.t_ns, t_ns, side="right")) - 1
            value = float(pyramid.levels[0][0][i]) if pyramid is not None and i >= 0 else float("nan")
            found.append(value if np.isfinite(value) else None)
        return found

    def query(self, names: Sequence[str], start_ns: int, end_ns: int, count: int) -> bytes:
        """Per signal 4 + 2 `count` float32: neighbours outside of the window, then lowest and highest per column.

        Neighbours are (place, value) of the sample before and behind, the place as a fraction of the window.
        """
        span = end_ns - start_ns
        out = np.full((len(names), 4 + 2 * count), np.nan, np.float32)
        for row, name in zip(out, names, strict=True):
            pyramid = self.pyramid(name)
            if pyramid is None:
                continue
            row[4:] = pyramid.columns(start_ns, end_ns, count).ravel()
            for i, sample in enumerate(pyramid.beside(start_ns, end_ns)):
                if sample is not None:
                    row[2 * i : 2 * i + 2] = (sample[0] - start_ns) / span, sample[1]
        return out.tobytes()

    def samples(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Instants and values of a signal, read as a whole first."""
        self.request([name])
        self.wait()
        pyramid = self._ready[name]
        return pyramid.t_ns, pyramid.levels[0][0]

    def _describe(self, topic: LogTopic) -> None:
        places = [] if topic.problem or not topic.count else self._chunks.places(topic.channel_ids)
        if not places or topic.store is None:
            return
        _, offsets = self._chunks.entries(places[0], topic.channel_ids[places[0].file])
        cdr = message_at(self._chunks.unpacked(places[0]), int(offsets[0])) if len(offsets) else b""
        try:
            layout = layout_of(topic.store, topic.type.name, cdr)
        except ValueError:
            return
        self._layouts[topic.name] = layout
        row = np.frombuffer(cdr, np.uint8)[None]
        # sensor_msgs/Imu: a covariance that begins with -1 says that there is no such measurement.
        absent = [
            p.removesuffix("_covariance[0]") + "."
            for p in layout.columns
            if p.endswith("_covariance[0]") and layout.take(row, p)[0] == -1.0
        ]
        for path in [p for p in layout.columns if p.startswith(tuple(absent))]:
            del layout.columns[path]
        for column in layout.columns.values():
            name = f"{topic.name}.{column.path}"
            self.catalogue[name] = Signal(name, topic.name, column.path, column.unit, _label(column.path, layout.names))

    def _work(self) -> None:
        """The body of the reading thread."""
        while True:
            with self._news:
                self._news.wait_for(lambda: self._stopped or bool(self._wanted))
                if self._stopped:
                    return
                names = list(self._wanted)
            try:
                self._read(names)
            except RoboError as e:
                self.failure = str(e)
            with self._news:
                self._wanted = [n for n in self._wanted if n not in names]
                self._loads, self._previews = {}, {}
                self._news.notify_all()
            self._on_progress()

    def _read(self, names: list[str]) -> None:
        """Reads signals in one pass over the chunks that hold any of them."""
        loads: dict[str, _Load] = {}
        for name in names:
            s = self.catalogue[name]
            topic = self._log.topics[s.topic]
            load = loads.setdefault(
                s.topic, _Load(topic, self._layouts[s.topic], [], self._chunks.places(topic.channel_ids))
            )
            load.paths.append(s.path)
        places = sorted({p for load in loads.values() for p in load.places}, key=lambda p: p.start_ns)
        holders: dict[Place, list[_Load]] = {p: [] for p in places}
        for load in loads.values():
            for p in load.places:
                holders[p].append(load)
        with self._lock:
            self._loads, self._done, self._total = loads, 0, len(places)
        said_s = time.monotonic()
        for i in spread(len(places)):
            if self._stopped:
                return
            self._stand_back()
            data = self._chunks.unpacked(places[i], keep=False)
            for load in holders[places[i]]:
                block = self._block(load, places[i], data)
                with self._lock:
                    load.blocks[places[i]] = block
            self._done += 1
            if time.monotonic() - said_s > 0.3:
                said_s = time.monotonic()
                self._on_progress()
        for load in loads.values():
            self._finish(load)

    def _stand_back(self) -> None:
        """Waits while somebody else is served, but not so long that reading would never end."""
        until_s = time.monotonic() + _LONGEST_WAIT_S
        while self._ahead and time.monotonic() < until_s:
            time.sleep(0.002)

    def _block(self, load: _Load, place: Place, data: NDArray[np.uint8]) -> _Block:
        t_ns, offsets = self._chunks.entries(place, load.topic.channel_ids[place.file])
        try:
            rows = rows_of(data, offsets, load.layout.size)
        except IndexError as e:
            raise BadInput(f"{self._log.path}: an index points outside of its chunk") from e
        if rows is not None and load.layout.fits(rows):
            return _Block(t_ns, {p: load.layout.take(rows, p) for p in load.paths})
        decode = load.topic.decode
        if decode is None:
            raise BadInput(f"{self._log.path}: {load.topic.name} cannot be decoded")
        messages = [decode(message_at(data, int(o))) for o in offsets]
        return _Block(t_ns, {p: np.array([at_path(m, p) for m in messages], np.float32) for p in load.paths})

    def _finish(self, load: _Load) -> None:
        """Joins the blocks of a topic into pyramids."""
        blocks = [load.blocks[p] for p in load.places]
        t_ns = np.concatenate([b.t_ns for b in blocks])
        order = np.argsort(t_ns, kind="stable") if (t_ns[1:] < t_ns[:-1]).any() else slice(None)
        t_ns = t_ns[order]
        for path in load.paths:
            pyramid = build(t_ns, np.concatenate([b.values[path] for b in blocks])[order])
            with self._lock:
                self._ready[f"{load.topic.name}.{path}"] = pyramid


def _preview(blocks: list[_Block], path: str) -> Pyramid:
    """A few ranges per block."""
    times, lows, highs = [], [], []
    for b in blocks:
        starts = np.unique(np.linspace(0, len(b.t_ns), PREVIEW_PARTS, endpoint=False).astype(int))
        values = b.values[path]
        times.append(b.t_ns[starts])
        lows.append(np.fmin.reduceat(values, starts))
        highs.append(np.fmax.reduceat(values, starts))
    return build(np.concatenate(times), np.concatenate(lows), np.concatenate(highs))


def _label(path: str, names: list[str]) -> str:
    """The path without what goes without saying, elements by the names of their joints."""
    for word in ("pose.pose.", "twist.twist.", "transform."):
        path = path.removeprefix(word)
    if names and path.endswith("]"):
        i = int(path[path.rindex("[") + 1 : -1])
        if i < len(names) and names[i]:
            return f"{path[: path.rindex('[')]} {names[i]}"
    return path
