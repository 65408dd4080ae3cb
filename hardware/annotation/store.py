"""Marks on disk: `<log>.annotations/<author>.jsonl`, append-only, each line forced to the disk before it counts."""

import fcntl
import getpass
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hardware.annotation.mark import KINDS, Annotation, By
from hardware.annotation.operations import Operation, Version, done_and_undone, fold, from_line, to_line, view
from hardware.annotation.ulid import new_ulid
from hardware.errors import BadInput, NotFoundError, RoboError
from hardware.log.reader import Log

_AUTHOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def folder_of(log: Path | str) -> Path:
    """Where the marks on a log lie: beside it."""
    path = Path(log)
    path = path if path.name not in ("", "..") else path.resolve()
    return path.with_name(path.name + ".annotations")


def annotations(log: Log | Path | str, *, drafts: bool = False) -> list[Annotation]:
    """The marks of all authors on a log in the order of time: confirmed ones, with `drafts` also unreviewed ones.

    Raises BadInput where the marks are of another log, or where a file of marks is damaged.
    """
    wanted = ("confirmed", "draft") if drafts else ("confirmed",)
    return [m for m in AnnotationStore(log).marks() if m.status in wanted]


class AnnotationStore:
    """The marks on one log, of all authors; any thread and any number of processes may add to them.

    What a method returned is on the disk. Nothing is ever edited: an author's file only grows. A line that was cut off
    by a crash had not been acknowledged and is dropped.
    """

    def __init__(
        self,
        log: Log | Path | str,
        author: str | None = None,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`author`: who operates where a method is not told; by default the user of this computer."""
        log = log if isinstance(log, Log) else Log(log)
        self.by = By(check_author(author if author is not None else default_author()))
        self.folder = folder_of(log.path)
        self.log_hash = log.content_hash
        self._clock_ns, self._random_bytes = clock_ns, random_bytes
        self._lock = threading.RLock()
        self._operations: dict[str, Operation] = {}
        self._read: dict[Path, tuple[int, int]] = {}  # bytes and lines
        self._versions: dict[str, Version] = {}
        self.refresh()

    def marks(self) -> list[Annotation]:
        """Every mark that is not deleted, in the order of time; drafts and rejected ones included."""
        with self._lock:
            return view(self._versions)

    def get(self, id: str) -> Annotation:
        """A mark by its id; raises NotFoundError where there is none."""
        with self._lock:
            return self._alive(id).mark

    def counts(self) -> dict[str, int]:
        """Kind -> number of confirmed marks."""
        found = Counter(m.kind for m in self.marks() if m.status == "confirmed")
        return {kind: found[kind] for kind in KINDS}

    def of(self, author: str) -> list[Annotation]:
        """The marks as one author alone would have left them, for agreement figures."""
        with self._lock:
            return view(fold(o for o in self._operations.values() if o.by.who == author))

    def proposed(self) -> set[tuple[str, str, int, int]]:
        """(kind, label, t0_ns, t1_ns) of every mark that was ever a draft, also of those changed or deleted since."""
        with self._lock:
            drafts = [o.mark for o in self._operations.values() if o.mark is not None and o.mark.status == "draft"]
            return {(m.kind, m.label, m.t0_ns, m.t1_ns) for m in drafts}

    def authors(self) -> list[str]:
        """Everybody who made an operation."""
        with self._lock:
            return sorted({o.by.who for o in self._operations.values()})

    def add(
        self,
        kind: str,
        t0_ns: int,
        t1_ns: int | None = None,
        *,
        label: str = "",
        value: Mapping[str, Any] | None = None,
        episode: str | None = None,
        channels: Sequence[str] = (),
        confidence: float = 1.0,
        status: str = "confirmed",
        time_base: str = "log_time",
        by: By | None = None,
    ) -> Annotation:
        """Sets a mark; without `t1_ns` an instant. Raises BadInput for an impossible one."""
        with self._writing(by) as (by, op_id, now_ns):
            if kind == "outcome" and episode is not None:
                self._alive(episode)
            mark = Annotation(
                id=new_ulid(now_ns, self._random_bytes, after=op_id),
                log=self.log_hash,
                kind=kind,
                t0_ns=t0_ns,
                t1_ns=t0_ns if t1_ns is None else t1_ns,
                label=label,
                value=dict(value or {}),
                episode=episode,
                channels=tuple(channels),
                confidence=confidence,
                status=status,
                by=by,
                made_ns=now_ns,
                time_base=time_base,
            )
            self._append(Operation("add", op_id, mark.id, mark.log, by, now_ns, mark))
            return mark

    def replace(self, id: str, *, by: By | None = None, **changes: Any) -> Annotation:
        """Changes fields of a mark (times, label, value, ...); who changes it becomes its maker."""
        fixed = {"id", "log", "by", "made_ns", "supersedes"} & changes.keys()
        if fixed:
            raise BadInput(f"mark {id}: {', '.join(sorted(fixed))} cannot be changed")
        with self._writing(by) as (by, op_id, now_ns):
            before = self._alive(id)
            try:
                mark = replace(before.mark, **changes, by=by, made_ns=now_ns, supersedes=before.op_id)
            except TypeError as e:
                raise BadInput(f"mark {id}: {e}") from None
            self._append(Operation("replace", op_id, id, mark.log, by, now_ns, mark, supersedes=before.op_id))
            return mark

    def delete(self, id: str, *, by: By | None = None) -> None:
        """Takes a mark away."""
        with self._writing(by) as (by, op_id, now_ns):
            before = self._alive(id)
            self._append(Operation("delete", op_id, id, self.log_hash, by, now_ns, supersedes=before.op_id))

    def review(self, id: str, status: str, *, by: By | None = None) -> Annotation:
        """Says whether a draft holds: confirmed or rejected."""
        with self._writing(by) as (by, op_id, now_ns):
            before = self._alive(id)
            mark = replace(before.mark, status=status)
            self._append(Operation("review", op_id, id, mark.log, by, now_ns, None, status, before.op_id))
            return mark

    def undo(self, *, by: By | None = None) -> str | None:
        """Takes back the author's last operation on a mark that nobody else has touched since; the mark's id."""
        return self._travel("undoes", by)

    def redo(self, *, by: By | None = None) -> str | None:
        """Does again what `undo` took back; the mark's id, or None where there is nothing to redo."""
        return self._travel("redoes", by)

    def refresh(self) -> bool:
        """Reads what others have added; says whether there was anything."""
        with self._lock:
            news = [self._read_file(f) for f in sorted(self.folder.glob("*.jsonl"))]
            if any(news):
                self._versions = fold(self._operations.values())
            return any(news)

    def merge(self, file: Path | str) -> int:
        """Takes over the lines of another copy that are new here; how many. Raises BadInput for a foreign log."""
        path = Path(file)
        found = [self._parse(path, i + 1, text) for i, text in enumerate(_lines(path.read_bytes()))]
        with self._lock:
            self.refresh()
            new = [o for o in found if o.op_id not in self._operations]
            for o in new:
                check_author(o.by.who)
                self._append(o)
            return len(new)

    def _travel(self, link: str, by: By | None) -> str | None:
        with self._writing(by) as (by, op_id, now_ns):
            stack = done_and_undone(self._operations.values(), by.who)[0 if link == "undoes" else 1]
            for target in reversed(stack):
                mark_id = self._operations[target].id
                if self._versions[mark_id].who != by.who:
                    continue  # somebody else has changed this mark since: it is theirs now
                wanted = self._version_at(mark_id, target, inclusive=link == "redoes")
                blank = Operation("", op_id, mark_id, self.log_hash, by, now_ns)
                self._append(self._restore(mark_id, wanted, blank, link, target))
                return mark_id
            return None

    def _version_at(self, mark_id: str, op_id: str, *, inclusive: bool) -> Version | None:
        """What a mark was just before an operation, or just after it."""
        own = [o for o in self._operations.values() if o.id == mark_id]
        return fold(o for o in own if o.op_id < op_id or (inclusive and o.op_id == op_id)).get(mark_id)

    def _restore(self, mark_id: str, wanted: Version | None, blank: Operation, link: str, target: str) -> Operation:
        """The operation that makes a mark what it was in `wanted`."""
        now = self._versions[mark_id]
        links = {"supersedes": now.op_id, link: target}
        if wanted is None or not wanted.alive:
            return replace(blank, op="delete", **links)
        mark = replace(wanted.mark, supersedes=now.op_id)
        return replace(blank, op="replace" if now.alive else "add", mark=mark, **links)

    @contextmanager
    def _writing(self, by: By | None) -> Iterator[tuple[By, str, int]]:
        """Makes sure that an operation sorts behind everything that is on the disk when it is made."""
        by = by or self.by
        check_author(by.who)
        with self._lock:
            self.refresh()
            now_ns = self._clock_ns()
            last = max((o.op_id for o in self._operations.values()), default="")
            yield by, new_ulid(now_ns, self._random_bytes, after=last), now_ns

    def _append(self, o: Operation) -> None:
        """Writes one line and forces it to the disk, then counts it."""
        path = self.folder / f"{o.by.who}.jsonl"
        data = to_line(o).encode()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("ab", buffering=0) as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                end = _end_of_lines(path)
                stream.truncate(end)  # the rest of a line that was cut off, hence never acknowledged
                try:
                    if stream.write(data) != len(data):
                        raise OSError("disk full")
                    os.fsync(stream.fileno())
                except OSError:
                    stream.truncate(end)
                    raise
            if end == 0:
                _sync_folder(self.folder)
        except OSError as e:
            raise RoboError(f"{path}: the mark is not saved ({e.strerror or e})") from e
        self._read_file(path)
        self._versions = fold(self._operations.values())

    def _read_file(self, path: Path) -> bool:
        start, seen = self._read.get(path, (0, 0))
        if path.stat().st_size <= start:
            return False
        with path.open("rb") as stream:
            stream.seek(start)
            data = stream.read()
        lines = _lines(data)
        for i, text in enumerate(lines):
            o = self._parse(path, seen + i + 1, text)
            self._operations[o.op_id] = o
        self._read[path] = (start + data.rfind(b"\n") + 1, seen + len(lines))
        return bool(lines)

    def _parse(self, path: Path, number: int, text: str) -> Operation:
        try:
            o = from_line(text)
        except RoboError as e:
            raise BadInput(f"{path}, line {number}: {e}") from None
        if o.log != self.log_hash:
            raise BadInput(
                f"{path}, line {number}: marks {o.log[:19]}..., this log is {self.log_hash[:19]}...: changed?"
            )
        return o

    def _alive(self, id: str) -> Version:
        version = self._versions.get(id)
        if version is None or not version.alive:
            raise NotFoundError("mark", id, [m.id for m in view(self._versions)][:5])
        return version


def check_author(name: str) -> str:
    """The name, where it can name a file; raises BadInput otherwise."""
    if not _AUTHOR.fullmatch(name):
        raise BadInput(f"author {name!r}; expected up to 64 letters, digits, '.', '_' or '-'")
    return name


def default_author() -> str:
    """The user of this computer."""
    try:
        return re.sub(r"[^A-Za-z0-9._-]", "-", getpass.getuser()) or "somebody"
    except (OSError, KeyError):  # a user id without a name, as in containers
        return "somebody"


def _lines(data: bytes) -> list[str]:
    """The complete lines; what follows the last line's end had not been acknowledged."""
    return [line.decode("utf-8", "replace") for line in data.split(b"\n")[:-1]]


def _end_of_lines(path: Path) -> int:
    """Offset behind the last complete line."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        while size:
            step = min(size, 4096)
            stream.seek(size - step)
            at = stream.read(step).rfind(b"\n")
            if at >= 0:
                return size - step + at + 1
            size -= step
    return 0


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
