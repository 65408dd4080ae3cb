"""Pictures of a log at an instant: camera and ultrasound frames as JPEG, found by the files' message indexes."""

import threading
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput, NotFoundError
from hardware.log.reader import Log, LogTopic
from robo_rl.annotate.chunks import Chunks, Place, message_at

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
MAX_WIDTH = 960
"""Wider pictures are reduced: the page shows no more."""
_JPEG_QUALITY = 85
_PLAIN = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC1": 1, "8UC3": 3}
_DEEP = {"mono16": "u2", "16UC1": "u2", "32FC1": "f4"}
_TO_BGR = {"rgb8": cv2.COLOR_RGB2BGR, "rgba8": cv2.COLOR_RGBA2BGR, "bgra8": cv2.COLOR_BGRA2BGR}
_MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}


class Frame(NamedTuple):
    """One encoded picture."""

    t_ns: int
    data: bytes
    media_type: str


class Index(NamedTuple):
    """Where the messages of a topic are."""

    t_ns: NDArray[np.int64]
    place: NDArray[np.int64]
    """Index into `places`."""
    offset: NDArray[np.int64]
    places: list[Place]


class Frames:
    """The instants of all topics and the pictures of those that hold pictures; any thread may ask."""

    def __init__(self, log: Log, chunks: Chunks) -> None:
        self._log, self._chunks = log, chunks
        self._indexes: dict[str, Index] = {}
        self._lock = threading.Lock()
        self.topics = [t.name for t in log.topics.values() if t.type.name in IMAGE_TYPES and not t.problem and t.count]

    def times(self, topic: str) -> NDArray[np.int64]:
        """Log times of a topic's messages, ascending; raises NotFoundError."""
        return self._index(topic).t_ns

    def neighbour(self, topic: str, t_ns: int, steps: int) -> int:
        """The instant of the message nearest to t_ns (steps 0), or so many messages before or behind it."""
        times = self.times(topic)
        if steps == 0:
            i = int(np.searchsorted(times, t_ns))
            near = [k for k in (i - 1, i) if 0 <= k < len(times)]
            return int(times[min(near, key=lambda k: abs(int(times[k]) - t_ns))])
        i = np.searchsorted(times, t_ns, side="right") - 1 if steps > 0 else np.searchsorted(times, t_ns)
        return int(times[np.clip(int(i) + steps, 0, len(times) - 1)])

    def frame(self, topic: str, t_ns: int) -> Frame:
        """The last picture at or before an instant, or the first one; raises BadInput for one that is not readable."""
        if topic not in self.topics:
            raise NotFoundError("topic with pictures", topic, self.topics)
        index = self._index(topic)
        i = max(0, int(np.searchsorted(index.t_ns, t_ns, side="right")) - 1)
        data = self._chunks.unpacked(index.places[index.place[i]])
        entry = self._log.topics[topic]
        cdr = message_at(data, int(index.offset[i]))
        if entry.decode is None:
            raise BadInput(f"{topic}: cannot be decoded")
        return Frame(int(index.t_ns[i]), *_encoded(topic, entry.decode(cdr)))

    def _index(self, topic: str) -> Index:
        if topic not in self._indexes:
            entry = self._log.topic(topic)
            index = self._scan(entry)
            with self._lock:
                self._indexes[topic] = index
        return self._indexes[topic]

    def _scan(self, entry: LogTopic) -> Index:
        places = self._chunks.places(entry.channel_ids)
        if not places:
            raise NotFoundError("topic with messages", entry.name, self._log.topics)
        found = [self._chunks.entries(p, entry.channel_ids[p.file]) for p in places]
        t_ns = np.concatenate([t for t, _ in found])
        place = np.repeat(np.arange(len(places)), [len(t) for t, _ in found])
        order = np.argsort(t_ns, kind="stable")
        return Index(t_ns[order], place[order], np.concatenate([o for _, o in found])[order], places)


def _encoded(topic: str, message: Any) -> tuple[bytes, str]:
    """(bytes, media type) for a browser; JPEG and PNG pass through as they are."""
    if message.__msgtype__ == IMAGE_TYPES[1]:
        raw = bytes(message.data)
        media = next((m for magic, m in _MAGIC.items() if raw.startswith(magic)), None)
        if media is not None:
            return raw, media
        picture = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR) if raw else None
        if picture is None:
            raise BadInput(f"{topic}: a picture of format '{message.format}' cannot be read")
        return _jpeg(picture), "image/jpeg"
    return _jpeg(_picture(topic, message)), "image/jpeg"


def _picture(topic: str, message: Any) -> NDArray[np.uint8]:
    """Pixels (H, W) or (H, W, 3) in OpenCV's order; deep pictures are stretched from darkest to lightest."""
    encoding, height, width, step = message.encoding, message.height, message.width, message.step
    if encoding not in _PLAIN and encoding not in _DEEP:
        raise BadInput(f"{topic}: encoding '{encoding}' is not shown; shown: {', '.join([*_PLAIN, *_DEEP])}")
    dtype = np.dtype(_DEEP.get(encoding, "u1")).newbyteorder(">" if message.is_bigendian else "<")
    channels = _PLAIN.get(encoding, 1)
    row = width * channels * dtype.itemsize
    if step < row or len(message.data) < step * height or not width or not height:
        raise BadInput(f"{topic}: {len(message.data)} bytes do not hold {width} x {height} {encoding} (step {step})")
    pixels = np.ascontiguousarray(message.data[: step * height].reshape(height, step)[:, :row]).view(dtype)
    pixels = pixels.reshape(height, width, channels) if channels > 1 else pixels.reshape(height, width)
    if encoding in _DEEP:
        return _stretched(pixels.astype(np.float32))
    return cv2.cvtColor(pixels, _TO_BGR[encoding]).astype(np.uint8) if encoding in _TO_BGR else pixels


def _stretched(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    seen = values[np.isfinite(values)]
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
    scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * (255.0 / max(high - low, 1e-12))
    return scaled.astype(np.uint8)


def _jpeg(pixels: NDArray[Any]) -> bytes:
    if pixels.shape[1] > MAX_WIDTH:
        size = (MAX_WIDTH, max(1, round(pixels.shape[0] * MAX_WIDTH / pixels.shape[1])))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise BadInput("a picture could not be encoded")
    return encoded.tobytes()
