"""One physical parameter of a scene: nominal value, randomization range, unit and sources."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Param:
    """One physical parameter: nominal value, randomization range and where both come from."""

    name: str
    nominal: float
    unit: str
    low: float
    high: float
    how: Literal["scale", "add", "set"]
    """The drawn number multiplies the nominal value, is added to it, or replaces it."""
    source: Literal["identified", "datasheet", "guess"]
    reference: str
    """Document, file or log behind the numbers."""
    minimum: float = -math.inf
    """Physical bound of the drawn number, respected by stretched ranges."""
    maximum: float = math.inf
    group: str = ""
    """Parameters of a named group keep their nominal value unless the task switches the group on."""
