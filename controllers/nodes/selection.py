"""Which topics of a running system or of a log are wanted: by name, by expression, but for an exclusion."""

import re
from collections.abc import Sequence

from hardware.errors import BadInput


class Selection:
    """Which topics are wanted. Raises BadInput for an expression that is not one."""

    def __init__(self, topics: Sequence[str], regex: str, exclude: str, *, hidden: bool = False) -> None:
        self._hidden = hidden
        self._names = {t if t.startswith("/") else f"/{t}" for t in topics}
        try:
            self._regex = re.compile(regex) if regex else None
            self._exclude = re.compile(exclude) if exclude else None
        except re.error as e:
            raise BadInput(f"'{e.pattern}' is not a regular expression: {e.msg}") from e

    def wants(self, topic: str) -> bool:
        """Whether a topic is; hidden ones (a part beginning with '_': actions, service events) only by their name.

        With `hidden`, they count like others.
        """
        if topic in self._names:
            return True
        if not self._hidden and any(part.startswith("_") for part in topic.split("/")):
            return False
        if self._exclude and self._exclude.fullmatch(topic):
            return False
        if self._regex:
            return self._regex.fullmatch(topic) is not None
        return not self._names
