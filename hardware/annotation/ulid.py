"""ULIDs: 26 letters that sort by the time they were made (48 bits of milliseconds, 80 bits of chance)."""

from collections.abc import Callable

_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CHANCE_BITS = 80


def new_ulid(now_ns: int, random_bytes: Callable[[int], bytes], after: str = "") -> str:
    """A ULID of this instant that sorts behind `after`, even where the clock has gone back."""
    number = (now_ns // 1_000_000) << _CHANCE_BITS | int.from_bytes(random_bytes(_CHANCE_BITS // 8))
    if after and _encode(number) <= after:
        number = _decode(after) + 1
    return _encode(number)


def _encode(number: int) -> str:
    return "".join(_LETTERS[number >> 5 * i & 31] for i in reversed(range(26)))


def _decode(ulid: str) -> int:
    number = 0
    for letter in ulid:
        number = number << 5 | _LETTERS.index(letter)
    return number
