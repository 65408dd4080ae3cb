"""Marks: what each kind may say, what is on the disk, and what many hands add up to."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.annotation import KINDS, SCHEMA, Annotation, AnnotationStore, By, annotations, folder_of
from hardware.annotation.agreement import agreement, cohen_kappa
from hardware.annotation.mark import SOURCES, STATUSES, TIME_BASES, from_json
from hardware.annotation.operations import OPERATIONS, conflicts, fold, from_line, to_line, view
from hardware.annotation.ulid import new_ulid
from hardware.errors import BadInput, NotFoundError, RoboError
from hardware.log.reader import Log
from hardware.log.types import new_message
from hardware.log.writer import LogWriter

SECOND = 1_000_000_000
ANNA, BEN = By("anna"), By("ben")
ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
GOOD: dict[str, dict[str, Any]] = {
    "episode": {},
    "outcome": {"label": "success", "episode": ID},
    "subtask": {"label": "reach"},
    "reward": {"value": {"reward": 0.5}},
    "intervention": {"label": "human", "value": {"reason": "slip"}},
    "event": {"label": "crash", "t1_ns": 5},
    "exclude": {"value": {"reason": "camera covered"}},
    "sysid": {"label": "excitation", "value": {"split": "val", "joints": [0, 1]}},
    "note": {"label": "a remark with two\u2028lines"},
}


def write_log(path: Path, offset: float = 0.0) -> Path:
    """Three seconds of a battery."""
    with LogWriter(path) as writer:
        for i in range(30):
            message = new_message("sensor_msgs/msg/BatteryState")
            message.voltage = 4.0 - 0.01 * i + offset
            writer.write_message("/battery", message, t_ns=i * SECOND // 10)
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path / "flight")


class Clock:
    """Stepped: one millisecond per look."""

    def __init__(self, now_ns: int = 1_700_000_000 * SECOND) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        self.now_ns += 1_000_000
        return self.now_ns


def store_of(log: Path | Log, author: str = "anna", clock: Callable[[], int] | None = None) -> AnnotationStore:
    chance = random.Random(author)
    return AnnotationStore(log, author, clock_ns=clock or Clock(), random_bytes=chance.randbytes)


def mark(base: str, /, **changes: Any) -> Annotation:
    start = {"id": ID, "log": "sha256:" + "0" * 64, "kind": base, "t0_ns": 5, "t1_ns": 9, "by": ANNA}
    return Annotation(**{**start, **GOOD[base], **changes})


# --- one mark ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_survives_json(kind: str) -> None:
    made = mark(kind)
    assert from_json(json.loads(json.dumps(made.to_json()))) == made


REFUSED = {
    "unknown kind": ({"kind": "epsiode"}, "kind of mark 'epsiode' not found; known: episode, event"),
    "backwards": ({"kind": "note", "t0_ns": 9, "t1_ns": 5}, "ends 4e-09 s before it begins"),
    "empty range": ({"kind": "episode", "t1_ns": 5}, "episode .* has no length"),
    "event that lasts": ({"kind": "event", "t1_ns": 9}, "expected one instant"),
    "float instant": ({"kind": "note", "t0_ns": 5.0}, "expected whole nanoseconds"),
    "instant as truth": ({"kind": "note", "t0_ns": True}, "expected whole nanoseconds"),
    "instant too late": ({"kind": "note", "t1_ns": 2**63}, "expected whole nanoseconds"),
    "outcome label": ({"kind": "outcome", "label": "ok"}, "expected one of success, failure, aborted"),
    "outcome of nothing": ({"kind": "outcome", "episode": None}, "needs the id of its episode"),
    "subtask unnamed": ({"kind": "subtask", "label": ""}, "needs a label"),
    "intervention by whom": ({"kind": "intervention", "label": "cat"}, "expected one of human, safety, supervisor"),
    "reward missing": ({"kind": "reward", "value": {}}, "value.reward None; expected a number"),
    "reward nan": ({"kind": "reward", "value": {"reward": float("nan")}}, "value is no JSON"),
    "reward true": ({"kind": "reward", "value": {"reward": True}}, "expected a number"),
    "sysid split": ({"kind": "sysid", "value": {"split": "test"}}, "expected train or val"),
    "value is a list": ({"kind": "note", "value": [1]}, "expected an object"),
    "value is no JSON": ({"kind": "note", "value": {"a": object()}}, "value is no JSON"),
    "id": ({"kind": "note", "id": "1"}, "is not a ULID"),
    "log": ({"kind": "note", "log": "md5:0"}, "expected sha256: and 64 hex digits"),
    "status": ({"kind": "note", "status": "maybe"}, "expected one of draft, confirmed, rejected"),
    "source": ({"kind": "note", "by": By("anna", "alien")}, "expected one of human, rule, model, robot"),
    "confidence": ({"kind": "note", "confidence": 1.1}, "expected 0 to 1"),
    "label is a number": ({"kind": "note", "label": 3}, "are text"),
    "time base": ({"kind": "note", "time_base": "sun"}, "expected one of log_time, publish_time, header_stamp"),
}


BEYOND_SCHEMA = {"backwards", "empty range", "event that lasts", "float instant", "reward nan", "value is no JSON"}
"""What a JSON Schema cannot tell: comparisons of two values, and values that JSON does not have (5.0 is 5 there)."""


@pytest.mark.parametrize("case", REFUSED)
def test_an_impossible_mark_is_refused_in_one_line(case: str) -> None:
    changes, words = REFUSED[case]
    base = changes["kind"] if changes["kind"] in KINDS else "note"
    with pytest.raises(RoboError, match=words) as e:
        mark(base, **changes)
    assert "\n" not in str(e.value)


def test_a_mark_covers_its_half_open_range_and_an_instant_itself() -> None:
    assert [mark("note").covers(t) for t in (4, 5, 8, 9)] == [False, True, True, False]
    assert [mark("event").covers(t) for t in (4, 5, 6)] == [False, True, False]


def test_schema_says_what_the_code_says() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((resources.files("hardware.annotation") / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    names = schema["properties"]
    assert names["kind"]["enum"] == list(KINDS)
    assert names["op"]["enum"] == list(OPERATIONS)
    assert names["status"]["enum"] == list(STATUSES)
    assert names["time_base"]["enum"] == list(TIME_BASES)
    assert schema["$defs"]["by"]["properties"]["type"]["enum"] == list(SOURCES)
    assert names["schema"]["const"] == schema["$id"] == SCHEMA
    valid = jsonschema.Draft202012Validator(schema).is_valid
    head = {"op": "add", "op_id": ID}
    for kind in KINDS:
        assert valid({**head, **mark(kind).to_json()}), kind
    for name, (changes, _) in REFUSED.items():
        base = changes["kind"] if changes["kind"] in KINDS else "note"
        values = {**head, **mark(base).to_json(), **changes}
        if "by" in changes:
            values["by"] = {"who": "anna", "type": changes["by"].type}
        assert valid(values) == (name in BEYOND_SCHEMA), name


def test_every_line_that_is_written_follows_the_schema(log: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((resources.files("hardware.annotation") / "schema.json").read_text())
    store = store_of(log)
    episode = store.add("episode", 0, SECOND)
    store.add("outcome", 0, SECOND, label="failure", episode=episode.id, value={"reason": "fell"})
    store.replace(episode.id, t1_ns=2 * SECOND, by=BEN)
    store.undo(by=BEN)
    store.redo(by=BEN)
    store.review(episode.id, "rejected")
    store.delete(episode.id)
    lines = [json.loads(x) for f in folder_of(log).glob("*.jsonl") for x in f.read_text().splitlines()]
    assert len(lines) == 7
    for line in lines:
        jsonschema.validate(line, schema)


# --- ULIDs ---------------------------------------------------------------------------------------------------------


def test_ulid_of_a_published_instant() -> None:
    """The specification's own example: 1469918176385 ms is 01ARYZ6S41."""
    assert new_ulid(1_469_918_176_385_000_000, lambda n: bytes(n)) == "01ARYZ6S41" + "0" * 16


@given(st.lists(st.integers(0, 2**47), min_size=2, max_size=20), st.randoms(use_true_random=False))
def test_ulids_increase_even_where_the_clock_goes_back(millis: list[int], chance: random.Random) -> None:
    made = [""]
    for ms in millis:
        made.append(new_ulid(ms * 1_000_000, chance.randbytes, after=made[-1]))
    assert made == sorted(set(made))


# --- the files -----------------------------------------------------------------------------------------------------


def test_marks_are_there_for_the_next_reader(log: Path) -> None:
    store = store_of(log)
    made = [store.add(kind, 5, **{"t1_ns": 9, **GOOD[kind]}) for kind in KINDS if kind != "outcome"]
    made.append(store.add("outcome", 5, 9, label="success", episode=made[0].id))
    assert sorted(annotations(log), key=lambda m: m.id) == sorted(made, key=lambda m: m.id)
    assert store_of(log).counts() == dict.fromkeys(KINDS, 1)
    assert (log.parent / "flight.annotations" / "anna.jsonl").is_file()


def test_a_moved_log_keeps_its_marks_and_another_log_refuses_them(log: Path, tmp_path: Path) -> None:
    made = store_of(log).add("event", 5, label="contact")
    moved = tmp_path / "elsewhere" / "other"
    shutil.copytree(log, moved)
    shutil.copytree(folder_of(log), folder_of(moved))
    assert annotations(moved) == [made]
    changed = write_log(tmp_path / "changed", offset=0.1)
    shutil.copytree(folder_of(log), folder_of(changed))
    with pytest.raises(BadInput, match=r"anna.jsonl, line 1: marks sha256:.*, this log is sha256:.*changed\?"):
        annotations(changed)


def test_a_line_that_was_cut_off_is_dropped_and_the_file_grows_on(log: Path) -> None:
    """Every possible cut of the last line, the missing line end included."""
    store = store_of(log)
    first = store.add("note", 1, label="kept")
    file = folder_of(log) / "anna.jsonl"
    size = file.stat().st_size
    store.add("note", 2, label="ärger")  # more bytes than letters
    whole = file.read_bytes()
    opened = Log(log)
    for cut in range(size, len(whole)):
        file.write_bytes(whole[:cut])
        again = store_of(opened)
        assert again.marks() == [first]
    third = again.add("note", 3, label="later")
    assert annotations(log) == [first, third]
    assert file.read_bytes()[:size] == whole[:size]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[]", "not an operation"),
        ('{"op":"add"}', "operation without op_id"),
        ('{"op":"add","op_id":"x"}', "operation x: 'by'"),
        ('{"op":"review","op_id":"x","id":"i","log":"l","made_ns":1,"by":{"who":"a"}}', "schema None"),
        ('{"op":"add","op_id":"x","id":"i","log":"l","made_ns":1,"by":{"who":"a"}}', "mark of schema None"),
        ('{"op":"add","op_id":"x","id":"i","log":"l","made_ns":1,"by":{"name":"a"}}', "operation x: "),
    ],
)
def test_a_damaged_line_is_named(log: Path, line: str, words: str) -> None:
    store_of(log).add("note", 1, label="kept")
    file = folder_of(log) / "anna.jsonl"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(BadInput, match=f"anna.jsonl, line 2: .*{words}"):
        annotations(log)


def test_a_full_disk_saves_nothing_and_says_so(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(log)
    kept = store.add("note", 1, label="kept")
    before = (folder_of(log) / "anna.jsonl").read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(RoboError, match=r"the mark is not saved \(No space left"):
            store.add("note", 2, label="lost")
    assert (folder_of(log) / "anna.jsonl").read_bytes() == before
    assert store.marks() == annotations(log) == [kept]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "a b"])
def test_an_author_is_a_file_name(log: Path, name: str) -> None:
    with pytest.raises(BadInput, match="author"):
        AnnotationStore(log, name)


# --- operations ----------------------------------------------------------------------------------------------------


def test_replace_delete_review(log: Path) -> None:
    store = store_of(log)
    a = store.add("episode", 0, SECOND, status="draft", by=By("rules", "rule", model="stillness"))
    b = store.replace(a.id, t1_ns=2 * SECOND)
    assert (b.id, b.t1_ns, b.by, b.supersedes is not None) == (a.id, 2 * SECOND, ANNA, True)
    assert annotations(log) == []
    assert annotations(log, drafts=True) == [b]
    assert store.review(a.id, "confirmed").status == "confirmed"
    assert [m.status for m in annotations(log)] == ["confirmed"]
    store.delete(a.id)
    assert store.marks() == []
    for act in (store.delete, store.get, lambda i: store.replace(i, label="x")):
        with pytest.raises(NotFoundError, match="mark"):
            act(a.id)


def test_what_cannot_be_changed(log: Path) -> None:
    store = store_of(log)
    a = store.add("note", 1, label="x")
    with pytest.raises(BadInput, match="log cannot be changed"):
        store.replace(a.id, log="sha256:" + "0" * 64)
    with pytest.raises(BadInput, match="unexpected keyword"):
        store.replace(a.id, colour="red")
    with pytest.raises(NotFoundError):
        store.add("outcome", 1, label="success", episode=ID)


def test_an_outcome_moves_goes_and_comes_with_its_episode(log: Path) -> None:
    store = store_of(log)
    e = store.add("episode", 0, SECOND)
    store.add("outcome", 0, SECOND, label="success", episode=e.id)
    store.replace(e.id, t1_ns=2 * SECOND)
    assert {(m.t0_ns, m.t1_ns) for m in store.marks()} == {(0, 2 * SECOND)}
    store.delete(e.id)
    assert store.marks() == []
    store.undo()
    assert [m.kind for m in store.marks()] == ["episode", "outcome"]


def test_undo_and_redo_are_operations(log: Path) -> None:
    store = store_of(log)
    states = [store.marks()]
    a = store.add("note", 1, label="a")
    states.append(store.marks())
    store.replace(a.id, label="b")
    states.append(store.marks())
    store.delete(a.id)
    states.append(store.marks())

    def labels(marks: list[Annotation]) -> list[str]:
        return [m.label for m in marks]

    for state in reversed(states[:-1]):
        assert store.undo() == a.id
        assert labels(store.marks()) == labels(state)
    assert store.undo() is None
    store = store_of(log, clock=Clock(1_800_000_000 * SECOND))  # the history is in the file
    for state in states[1:]:
        assert store.redo() == a.id
        assert labels(store.marks()) == labels(state)
    assert store.redo() is None
    assert len((folder_of(log) / "anna.jsonl").read_text().splitlines()) == 9


def test_a_new_mark_ends_what_can_be_redone(log: Path) -> None:
    store = store_of(log)
    store.add("note", 1, label="a")
    store.undo()
    store.add("note", 2, label="b")
    assert store.redo() is None


def test_undo_leaves_alone_what_somebody_else_has_touched(log: Path) -> None:
    store = store_of(log)
    a = store.add("note", 1, label="a")
    b = store.add("note", 2, label="b")
    store.replace(b.id, label="ben's", by=BEN)
    assert store.undo() == a.id
    assert [m.label for m in store.marks()] == ["ben's"]
    assert store.undo(by=BEN) == b.id
    assert [(m.label, m.by) for m in store.marks()] == [("b", ANNA)]
    assert annotations(log) == store.marks()


def test_two_processes_add_to_one_log(log: Path) -> None:
    """Two stores that share nothing but the files, even under the same name."""
    one, two, same = store_of(log, "anna"), store_of(log, "ben"), AnnotationStore(log, "anna")
    a = one.add("note", 1, label="a")
    b = two.add("note", 2, label="b")
    c = same.add("note", 3, label="c")
    assert one.refresh()
    assert not one.refresh()
    two.refresh()
    same.refresh()
    assert one.marks() == two.marks() == same.marks() == [a, b, c]
    assert one.authors() == ["anna", "ben"]
    assert one.of("ben") == [b]


STEPS = st.lists(st.tuples(st.sampled_from(["add", "replace", "delete", "review", "undo", "redo"]), st.integers(0, 99)))


@settings(max_examples=30)
@given(STEPS, st.randoms(use_true_random=False))
def test_the_order_of_reading_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], chance: random.Random
) -> None:
    """Files of two authors, their lines shuffled, fold into what the store shows; undoing all leaves nothing."""
    log = write_log(tmp_path_factory.mktemp("x") / "flight")
    store = store_of(log)
    for what, n in steps:
        by = (ANNA, BEN)[n % 2]
        ids = [m.id for m in store.marks()]
        if what == "add":
            store.add("note", n, label=str(n), by=by)
        elif what in ("undo", "redo"):
            getattr(store, what)(by=by)
        elif ids:
            mark_id = ids[n % len(ids)]
            act = {
                "replace": lambda i=mark_id, n=n, by=by: store.replace(i, label=f"r{n}", by=by),
                "delete": lambda i=mark_id, by=by: store.delete(i, by=by),
                "review": lambda i=mark_id, n=n, by=by: store.review(i, STATUSES[n % 3], by=by),
            }
            act[what]()
    files = list(folder_of(log).glob("*.jsonl")) if folder_of(log).is_dir() else []
    lines = [x for f in files for x in f.read_text().split("\n")[:-1]]
    chance.shuffle(lines)
    operations = [from_line(x) for x in lines]
    assert view(fold(operations)) == store.marks() == store_of(log).marks()
    assert [to_line(o)[:-1] for o in operations] == lines


def test_copies_merge(log: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "flight"
    shutil.copytree(log, copy)
    store, other = store_of(log, "anna"), store_of(copy, "ben")
    a, b = store.add("note", 1, label="a"), other.add("note", 2, label="b")
    theirs = folder_of(copy) / "ben.jsonl"
    assert store.merge(theirs) == 1
    assert store.merge(theirs) == 0
    assert store.marks() == annotations(log) == [a, b]
    foreign = store_of(write_log(tmp_path / "else", offset=0.5), "eve")
    foreign.add("note", 3, label="c")
    with pytest.raises(BadInput, match="this log is"):
        store.merge(foreign.folder / "eve.jsonl")


def test_a_lone_file_has_its_marks_beside_it(log: Path) -> None:
    (file,) = log.glob("*.mcap")
    made = store_of(file).add("note", 1, label="x")
    assert folder_of(file).name == "flight_0.mcap.annotations"
    assert made.log == Log(log).content_hash
    assert folder_of("a/flight/").name == "flight.annotations"


# --- agreement -----------------------------------------------------------------------------------------------------


def test_kappa_of_a_published_table() -> None:
    """Cohen's kappa of 20 yes/yes, 5 yes/no, 10 no/yes and 15 no/no is 0.4 (the usual textbook example)."""
    a = np.array(["y"] * 25 + ["n"] * 25)
    b = np.array(["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15)
    assert cohen_kappa(a, b) == pytest.approx(0.4)
    assert cohen_kappa(a, a) == 1.0
    assert cohen_kappa(a[:5], a[:5]) is None
    assert cohen_kappa(a[:0], a[:0]) is None


def test_agreement_by_hand() -> None:
    """Ten seconds; anna marks 2..6 s, ben 3..6 s (overlap 3/4) and 8..9 s; contacts 50 ms apart; one slip unshared."""

    def of(spans: list[tuple[str, str, float, float]]) -> list[Annotation]:
        return [
            mark(k, label=label, t0_ns=round(a * SECOND), t1_ns=round(b * SECOND), value={}) for k, label, a, b in spans
        ]

    anna = of([("subtask", "reach", 2, 6), ("event", "contact", 4, 4)])
    ben = of([("subtask", "reach", 3, 6), ("subtask", "reach", 8, 9), ("event", "contact", 4.05, 4.05)])
    ben += of([("event", "slip", 5, 5)])
    found = agreement(anna, ben, 0, 10 * SECOND, frame_s=0.1)
    assert list(found) == ["subtask", "event"]
    assert found["subtask"].f1 == pytest.approx(2 / 3)
    assert found["subtask"].boundary_ms == pytest.approx(500.0)
    # 100 frames: both reach 30, only anna 10, only ben 10, neither 50; chance 0.4 * 0.4 + 0.6 * 0.6 = 0.52.
    assert found["subtask"].kappa == pytest.approx((0.8 - 0.52) / 0.48)
    assert found["event"].kappa is None
    assert found["event"].f1 == pytest.approx(2 / 3)
    assert found["event"].boundary_ms == pytest.approx(50.0)
    assert found["event"].count == (1, 2)


def test_conflicts_are_overlaps_of_different_people_that_say_different_things() -> None:
    a = mark("outcome", id=ID, label="success")
    b = replace(a, id=ID[:-1] + "W", label="failure", by=BEN)
    assert conflicts([a, b]) == [(a, b)]
    assert conflicts([a, replace(b, by=ANNA)]) == []
    assert conflicts([a, replace(b, label="success")]) == []
    assert conflicts([a, replace(b, t0_ns=9, t1_ns=10)]) == []
    assert conflicts([a, replace(b, status="rejected")]) == []
