"""ROS 2 message classes for `hardware.messages`: the same code that fills a log fills a publisher."""

import array
import importlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput


class RclpyMessages:
    """A MessageFactory of the installed ROS 2 message packages."""

    def new(self, message_type: str) -> Any:
        """An empty message of a type such as `nav_msgs/msg/Odometry`; raises BadInput where it is not installed."""
        return message_class(message_type)()

    def floats(self, values: Sequence[float] | NDArray[np.float64]) -> Any:
        """A float64 sequence; rclpy takes array.array without looking at every element."""
        return array.array("d", np.asarray(values, dtype=np.float64).tobytes())


@cache
def message_class(message_type: str) -> Any:
    """The class of a message type `package/msg/Type`; raises BadInput where the package is not installed."""
    package, _, rest = message_type.partition("/")
    name = rest.rpartition("/")[2]
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError, ValueError) as e:
        raise BadInput(f"message type '{message_type}' is not installed here ({e})") from e
