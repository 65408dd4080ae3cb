"""One log opened for marking: its signals, pictures, poses and marks, and who wants to hear of changes."""

import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from hardware.annotation import KINDS, Annotation, AnnotationStore, By
from hardware.annotation.mark import EVENTS
from hardware.annotation.operations import conflicts
from hardware.errors import BadInput, RoboError
from hardware.log.reader import Log, LogWarning
from robo_rl.annotate.chunks import Chunks
from robo_rl.annotate.frames import Frames
from robo_rl.annotate.pose import bodies
from robo_rl.annotate.proposals import add_proposals, propose
from robo_rl.annotate.signals import Signals

POLL_S = 0.5
"""How often the files of annotators in other processes are looked at."""


class Session:
    """A log and its marks; any thread may call.

    Reading the marks needs the log's hash, which takes about a second per gigabyte: it is computed in the background,
    and what needs the marks waits for it.
    """

    def __init__(self, path: Path, author: str | None = None, subtasks: tuple[str, ...] = ()) -> None:
        self.log = open_log(path)
        self.chunks = Chunks(self.log)
        self.listeners: list[Callable[[], None]] = []
        self.signals = Signals(self.log, self.chunks, self.tell)
        self.frames = Frames(self.log, self.chunks)
        self.bodies = bodies(self.signals.catalogue.values())
        self.names = list(self.signals.catalogue)
        self._subtasks = subtasks
        self.version = 0
        self._counting = threading.Lock()
        self._stopped = threading.Event()
        self._store: Future[AnnotationStore] = Future()
        self._watcher = threading.Thread(target=self._watch, args=(author,), name="marks", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Ends the background work and lets go of the files."""
        self._stopped.set()
        self.signals.close()
        self._watcher.join()
        self.chunks.close()

    @property
    def store(self) -> AnnotationStore:
        """The marks; waits until the log's hash is known. Raises BadInput for marks of another log."""
        return self._store.result()

    def tell(self) -> None:
        """Wakes everybody who listens for news."""
        for listener in list(self.listeners):
            listener()

    def news(self) -> dict[str, Any]:
        """What a page needs to know when something has changed."""
        done, total, ready = self.signals.progress()
        progress = {"done": done, "total": total, "ready": ready}
        return {"version": self.version, **progress, "failure": self.signals.failure}

    def describe(self) -> dict[str, Any]:
        """What a page needs before the first picture; nothing here waits for the log to be read."""
        topics = {s.topic: self.log.topics[s.topic] for s in self.signals.catalogue.values()}
        return {
            "name": self.log.path.resolve().name,
            "start_ns": str(self.log.start_ns),
            "duration_ns": max(1, self.log.end_ns - self.log.start_ns),
            "messages": self.log.count,
            "signals": [
                {"name": s.name, "label": s.label, "topic": s.topic, "unit": s.unit}
                for s in self.signals.catalogue.values()
            ],
            "first": [self.names.index(n) for n in self.signals.first()],
            "topics": {name: t.count for name, t in topics.items()},
            "images": self.frames.topics,
            "bodies": [b.name for b in self.bodies],
            "joints": self._joints(),
            "kinds": {k: {"meaning": r.meaning, "range": r.range, "labels": r.labels} for k, r in KINDS.items()},
            "events": EVENTS,
            "subtasks": self._subtasks,
        }

    def marks(self) -> dict[str, Any]:
        """All marks, with their version, and the ids of those that contradict one another."""
        store = self.store
        version, marks = self.version, store.marks()
        clashing = {m.id for pair in conflicts(marks) for m in pair}
        return {"version": version, "marks": [self._plain(m) for m in marks], "conflicts": sorted(clashing)}

    def apply(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carries out one operation that a page asks for; when this returns, it is on the disk."""
        store, op = self.store, request.get("op")
        by = By(str(request.get("author") or store.by.who))
        if op == "add":
            mark: Annotation | None = store.add(**_arguments(request, self.log.start_ns), by=by)
        elif op == "replace":
            changes = _arguments(request, self.log.start_ns)
            mark = store.replace(str(request.get("id")), **changes, by=by)
        elif op == "review":
            mark = store.review(str(request.get("id")), str(request.get("status")), by=by)
        elif op == "delete":
            store.delete(str(request.get("id")), by=by)
            mark = None
        elif op in ("undo", "redo"):
            id = store.undo(by=by) if op == "undo" else store.redo(by=by)
            return self._changed({"id": id})
        else:
            raise BadInput(f"operation {op!r} not known; known: add, replace, review, delete, undo, redo")
        return self._changed({"id": request.get("id") if mark is None else mark.id})

    def propose(self) -> dict[str, Any]:
        """Runs the rules; their drafts are on the disk when this returns."""
        return self._changed({"added": add_proposals(self.store, propose(self.signals))})

    def _changed(self, answer: dict[str, Any]) -> dict[str, Any]:
        self._renew()
        return {**answer, **self.marks()}

    def _renew(self) -> None:
        """Counts a change of the marks and says so."""
        with self._counting:
            self.version += 1
        self.tell()

    def _plain(self, m: Annotation) -> dict[str, Any]:
        """A mark with instants relative to the log's start, which a browser's numbers hold exactly."""
        t = {"t0": m.t0_ns - self.log.start_ns, "t1": m.t1_ns - self.log.start_ns}
        plain = {"id": m.id, "kind": m.kind, "label": m.label, "value": dict(m.value), "episode": m.episode}
        return {**plain, **t, "status": m.status, "who": m.by.who, "type": m.by.type, "model": m.by.model}

    def _joints(self) -> list[dict[str, Any]]:
        """Per topic with joint positions, its signals."""
        found: dict[str, list[int]] = {}
        for i, s in enumerate(self.signals.catalogue.values()):
            if s.path.startswith("position["):
                found.setdefault(s.topic, []).append(i)
        return [{"topic": t, "signals": signals} for t, signals in found.items()]

    def _watch(self, author: str | None) -> None:
        """Opens the marks, then follows what other processes add."""
        with suppress(OSError, AttributeError):  # hashing is for the time that nobody else needs
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)  # of this thread alone, on Linux
        try:
            self._store.set_result(AnnotationStore(self.log, author))
        except (RoboError, OSError) as e:
            self._store.set_exception(e)
            return
        self._renew()
        while not self._stopped.wait(POLL_S):
            try:
                if self.store.refresh():
                    self._renew()
            except RoboError as e:  # somebody else's file is damaged: their marks stay as they were
                self.signals.failure = str(e)
                self.tell()


def open_log(path: Path) -> Log:
    """The log on its log times, its warnings left to `robo-rl log info`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LogWarning)
        return Log(path, time_base="log")


def _arguments(request: dict[str, Any], start_ns: int) -> dict[str, Any]:
    """The fields of a mark that a page may set, instants made absolute."""
    given = {k: request[k] for k in ("kind", "label", "value", "episode", "status") if k in request}
    for here, there in (("t0", "t0_ns"), ("t1", "t1_ns")):
        if here in request:
            t = request[here]
            if isinstance(t, bool) or not isinstance(t, int):
                raise BadInput(f"{here} {t!r}; expected whole nanoseconds since the start of the log")
            given[there] = start_ns + t
    if request.get("op") == "add" and not {"kind", "t0_ns"} <= given.keys():
        raise BadInput("a new mark needs kind and t0")
    return given
