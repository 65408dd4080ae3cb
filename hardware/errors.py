"""Errors a user can act on: one line that says what was given, what was expected and what exists."""

from collections.abc import Iterable


class RoboError(Exception):
    """A failure with one clear line for the user; the command line prints it and exits non-zero."""


class NotFoundError(RoboError):
    """A name that is not registered: lists the names that are."""

    def __init__(self, kind: str, given: str, known: Iterable[str]) -> None:
        super().__init__(f"{kind} '{given}' not found; known: {', '.join(sorted(known)) or 'none'}")


class Unreachable(RoboError):  # noqa: N818 - the name is part of the design's contract
    """A robot that did not answer at its address."""

    def __init__(self, address: str, waited_s: float, hint: str = "") -> None:
        self.address, self.waited_s = address, waited_s
        super().__init__(f"no answer from {address} after {waited_s:.1f} s{'; ' + hint if hint else ''}")


class LinkLost(RoboError):  # noqa: N818
    """A robot that answered and then fell silent."""


class BadInput(RoboError):  # noqa: N818
    """A value, key or file that does not say what it should."""
