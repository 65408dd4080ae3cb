"""Marks set while recording: messages become annotations with the ids that they were given, whatever happened since."""

import json
from pathlib import Path

import pytest

from hardware.annotation import AnnotationStore, annotations
from hardware.annotation.recorded import AUTHOR, TOPIC, keep_recorded, recorded_marks
from hardware.annotation.ulid import new_ulid
from hardware.log.reader import Log, LogWarning
from hardware.log.types import new_message
from hardware.log.writer import LogWriter

IDS = [new_ulid(10**18 + i * 10**6, bytes) for i in range(10)]
SECOND = 10**9


def _log(path: Path, said: list[tuple[int, object]], end_s: int = 20) -> Log:
    """A log with marks at whole seconds and a last message of another topic."""
    with LogWriter(path) as writer:
        for t_s, what in said:
            message = new_message("std_msgs/msg/String")
            message.data = what if isinstance(what, str) else json.dumps(what)
            writer.write_message(TOPIC, message, t_s * SECOND)
        writer.write_message("/other", new_message("std_msgs/msg/Bool"), end_s * SECOND)
    return Log(path)


SAID: list[tuple[int, object]] = [
    (1, {"op": "begin", "kind": "episode", "id": IDS[0]}),
    (3, {"op": "mark", "kind": "event", "label": "slip", "id": IDS[1]}),
    (5, {"op": "end", "kind": "episode", "id": IDS[0], "outcome": "success", "outcome_id": IDS[2]}),
    (6, {"kind": "event", "label": "pedal"}),
    (7, {"op": "begin", "kind": "episode", "id": IDS[3], "value": {"operator": "anna"}}),
]


def test_episodes_outcomes_and_events(tmp_path: Path) -> None:
    """By hand: times, labels, ids; the episode that never ended lasts to the end of the log."""
    log = _log(tmp_path / "log", SAID)
    marks = {m.id: m for m in keep_recorded(log)}
    assert len(marks) == 5
    episode, outcome, cut = marks[IDS[0]], marks[IDS[2]], marks[IDS[3]]
    assert (episode.kind, episode.t0_ns, episode.t1_ns) == ("episode", 1 * SECOND, 5 * SECOND)
    assert (outcome.kind, outcome.label, outcome.episode, outcome.t1_ns) == ("outcome", "success", IDS[0], 5 * SECOND)
    assert (cut.t0_ns, cut.t1_ns, cut.value) == (
        7 * SECOND, 20 * SECOND, {"operator": "anna", "end": "the recording ended"}
    )  # fmt: skip
    assert (marks[IDS[1]].label, marks[IDS[1]].t1_ns) == ("slip", 3 * SECOND)
    [pedal] = [m for m in marks.values() if m.label == "pedal"]
    assert pedal.t0_ns == 6 * SECOND
    assert {(m.by.who, m.by.type, m.status, m.log) for m in marks.values()} == {
        (AUTHOR, "robot", "confirmed", log.content_hash)
    }
    assert {m.id for m in annotations(log)} == set(marks)


def test_taking_them_over_again_changes_nothing(tmp_path: Path) -> None:
    """What a person has changed or deleted since stays; ids without a maker are the same each time."""
    log = _log(tmp_path / "log", SAID)
    first = keep_recorded(log)
    store = AnnotationStore(log, "anna")
    store.delete(IDS[1])
    store.replace(IDS[0], t1_ns=4 * SECOND)
    assert keep_recorded(log) == []
    now = {m.id: m for m in annotations(log)}
    assert now.keys() == {m.id for m in first} - {IDS[1]}
    assert now[IDS[0]].t1_ns == 4 * SECOND
    assert [m.id for m in recorded_marks(log)] == [m.id for m in recorded_marks(log)]


@pytest.mark.parametrize(
    "said",
    [
        "no JSON",
        "[1]",
        {"kind": "nix", "label": "x"},
        {"op": "end", "kind": "episode", "id": IDS[0]},
        {"op": "dance", "kind": "event"},
        {"op": "mark", "kind": "episode", "id": IDS[0]},
        {"op": "mark", "kind": "event", "label": "x", "id": "not a ULID"},
        {"op": "mark", "kind": "event"},
        {"kind": "event", "label": "x", "id": 7},
    ],
)
def test_nonsense_is_passed_over_with_a_warning(tmp_path: Path, said: object) -> None:
    """The other marks are kept."""
    log = _log(tmp_path / "log", [(1, {"kind": "event", "label": "good"}), (2, said)])
    with pytest.warns(LogWarning, match="a mark at 2000000000 ns is passed over"):
        marks = keep_recorded(log)
    assert [m.label for m in marks] == ["good"]


def test_a_log_without_marks_gets_no_folder(tmp_path: Path) -> None:
    log = _log(tmp_path / "log", [])
    assert keep_recorded(log) == []
    assert not (tmp_path / "log.annotations").exists()
