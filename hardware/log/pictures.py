"""Camera topics of a log as compressed pictures over time."""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.log.reader import Log

TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_TO_BGR = {"rgb8": cv2.COLOR_RGB2BGR, "bgr8": None, "mono8": cv2.COLOR_GRAY2BGR}


class Pictures(NamedTuple):
    """What one camera saw."""

    topic: str
    t_ns: NDArray[np.int64]
    encoded: list[bytes]
    """PNG or JPEG files."""
    size: tuple[int, int]
    """Height and width."""


def camera_topics(log: Log) -> list[str]:
    """Topics that carry pictures."""
    return [t.name for t in log.topics.values() if t.type.name in TYPES and t.count and not t.problem]


def camera_name(topic: str) -> str:
    """A topic as the name of a camera: `/wrist/image_raw` is `wrist`."""
    parts = [p for p in topic.strip("/").split("/") if p not in ("image", "image_raw", "compressed", "image_color")]
    return "_".join(parts) or "camera"


def pictures_of(log: Log, topic: str) -> Pictures:
    """All pictures of a topic, raw ones as PNG; raises BadInput for another topic, encoding or changing size."""
    kind = log.topic(topic).type.name
    if kind not in TYPES:
        raise BadInput(f"{log.path}: {topic} holds {kind}, no pictures")
    t_ns, encoded = [], []
    for m in log.messages([topic]):
        t_ns.append(m.t_ns)
        encoded.append(_encoded(log, m.topic, m.message, compressed=kind == TYPES[1]))
    sizes = {decoded(e).shape[:2] for e in (encoded[0], encoded[-1])}
    if len(sizes) != 1:
        raise BadInput(f"{log.path}: pictures of {topic} change their size: {sorted(sizes)}")
    return Pictures(topic, np.array(t_ns, dtype=np.int64), encoded, sizes.pop())


def decoded(picture: bytes) -> NDArray[np.uint8]:
    """A picture (H, W, 3) in RGB; raises BadInput for what is none."""
    found: Any = cv2.imdecode(np.frombuffer(picture, dtype=np.uint8), cv2.IMREAD_COLOR)
    if found is None:
        raise BadInput(f"a picture of {len(picture)} bytes cannot be decoded")
    return found[:, :, ::-1]


def _encoded(log: Log, topic: str, message: Any, *, compressed: bool) -> bytes:
    if compressed:
        return bytes(message.data)
    if message.encoding not in _TO_BGR:
        known = ", ".join(_TO_BGR)
        raise BadInput(f"{log.path}: pictures of {topic} are encoded as {message.encoding}; expected {known}")
    channels = 1 if message.encoding == "mono8" else 3
    rows = np.asarray(message.data, dtype=np.uint8).reshape(message.height, message.step)
    pixels = rows[:, : message.width * channels].reshape(message.height, message.width, channels)
    code = _TO_BGR[message.encoding]
    done, png = cv2.imencode(".png", pixels if code is None else cv2.cvtColor(pixels, code))
    if not done:
        raise BadInput(f"{log.path}: a picture of {topic} cannot be encoded")
    return png.tobytes()
