"""Marks while recording: services of the recorder by which an operator says where episodes begin and how they end."""

import json
import os
import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from hardware.annotation.recorded import TOPIC, TYPE
from hardware.annotation.ulid import new_ulid
from hardware.errors import RoboError
from hardware.log.types import new_message
from hardware.log.writer import LogWriter


class EpisodeMarks:
    """Services `~/start_episode`, `~/end_episode` (data: success), `~/abort_episode` and `~/mark`.

    Each answer names the mark's id; by then the mark is on the disk, as a message on `/annotation` in the log. `~/mark`
    sets an event whose label is the parameter `mark_label`.
    """

    def __init__(self, node: Node, writer: LogWriter) -> None:
        self._node, self._writer = node, writer
        self._episode: str | None = None
        self._last_id = ""
        self.count = 0
        """Marks set so far."""
        node.declare_parameter("mark_label", "mark")
        for name, act in {
            "start_episode": self._start,
            "abort_episode": lambda: self._end("aborted"),
            "mark": self._event,
        }.items():
            node.create_service(Trigger, f"~/{name}", self._answering(lambda _, act=act: act()))
        end = self._answering(lambda request: self._end("success" if request.data else "failure"))
        node.create_service(SetBool, "~/end_episode", end)

    def _start(self) -> str:
        if self._episode is not None:
            raise RoboError(f"episode {self._episode} has not ended yet")
        id_ = self._new_id()
        self._write({"op": "begin", "kind": "episode", "id": id_})
        self._episode = id_
        return id_

    def _end(self, outcome: str) -> str:
        if self._episode is None:
            raise RoboError("no episode has been started")
        id_ = self._episode
        self._write({"op": "end", "kind": "episode", "id": id_, "outcome": outcome, "outcome_id": self._new_id()})
        self._episode = None
        return id_

    def _event(self) -> str:
        label = str(self._node.get_parameter("mark_label").value) or "mark"
        id_ = self._new_id()
        self._write({"op": "mark", "kind": "event", "id": id_, "label": label})
        return id_

    def _new_id(self) -> str:
        self._last_id = new_ulid(time.time_ns(), os.urandom, after=self._last_id)
        return self._last_id

    def _write(self, said: dict[str, Any]) -> None:
        message = new_message(TYPE)
        message.data = json.dumps(said)
        self._writer.write_message(TOPIC, message, time.time_ns())
        self._writer.flush(sync=True)
        self.count += 1

    def _answering(self, act: Callable[[Any], str]) -> Callable[[Any, Any], Any]:
        def answer(request: Any, response: Any) -> Any:
            try:
                response.message, response.success = act(request), True
            except RoboError as e:
                response.message, response.success = str(e), False
            return response

        return answer
