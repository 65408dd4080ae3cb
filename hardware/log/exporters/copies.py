"""Copies of a recording: with its annotations inside, as an attachment and as messages, or for an older ROS 2."""

import json
from pathlib import Path

from hardware.annotation import annotations
from hardware.annotation.recorded import TOPIC, TYPE
from hardware.errors import BadInput
from hardware.log.qos import Qos
from hardware.log.reader import Log
from hardware.log.types import encode, new_message
from hardware.log.writer import LogWriter

ATTACHMENT = "annotations.json"


def export_copy(log: Log, out: Path, *, embed: bool = True, version: int = 9) -> int:
    """Writes a new recording with all messages of the log and, with `embed`, its confirmed marks; returns how many.

    The marks are the attachment `annotations.json`, and a message on `/annotation` at the beginning of each; the log
    itself stays as it is. `version`: of rosbag2's metadata; ROS 2 Humble reads up to 5. Raises BadInput where the
    directory exists.
    """
    if out.exists():
        raise BadInput(f"{out} exists; give a new directory")
    marks = annotations(log) if embed else []
    custom = dict(log.metadata.custom) if log.metadata else {}
    custom |= {"copied.source": log.content_hash, "copied.marks": str(len(marks))}
    with LogWriter(out, custom=custom, version=version) as writer:
        for t in log.topics.values():
            writer.add_topic(t.name, t.type, t.qos, t.encoding)
        text = json.dumps([m.to_json() for m in marks], ensure_ascii=False)
        if embed:
            writer.attach(ATTACHMENT, "application/json", text.encode(), log.start_ns)
        waiting = [(m.t0_ns, json.dumps(m.to_json(), ensure_ascii=False)) for m in reversed(marks)]
        if marks:
            writer.add_topic(TOPIC, TYPE, (Qos(),))
        for m in log.messages(raw=True):
            while waiting and waiting[-1][0] <= m.log_ns:
                _write_mark(writer, *waiting.pop())
            writer.write(m.topic, m.cdr, m.log_ns, m.publish_ns)
        while waiting:
            _write_mark(writer, *waiting.pop())
    return len(marks)


def _write_mark(writer: LogWriter, t_ns: int, text: str) -> None:
    message = new_message(TYPE)
    message.data = text
    writer.write(TOPIC, encode(message), t_ns)
