"""The annotation page in a real Chromium: time to the first picture, pan and zoom, frames, and from key to disk.

Run: `python tests/bench/bench_annotate.py [FOLDER]`. It makes two logs there (kept for the next run): 1 GB with joints
at 1 kHz and two cameras, and 50 million samples (50 signals of 1 million each). Nothing is asserted.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.browser import chromium

from hardware.log.types import encode, new_message
from hardware.log.writer import LogWriter

START_NS = 1_700_000_000_000_000_000
SIGNALS, SAMPLES = 50, 1_000_000
ACTIONS = 200


def write_gigabyte(path: Path) -> None:
    """Twelve minutes: joint states at 1 kHz, two cameras at 30 Hz with pictures of about 24 kB that do not compress."""
    rng = np.random.default_rng(0)
    joints = new_message("sensor_msgs/msg/JointState")
    joints.name = [f"joint_{i}" for i in range(6)]
    image = new_message("sensor_msgs/msg/CompressedImage")
    image.format = "jpeg"
    pictures = [_jpeg(rng) for _ in range(20)]
    with LogWriter(path) as writer:
        for i in range(700_000):
            t_ns = START_NS + i * 1_000_000
            if i % 1000 == 0:
                noise = rng.normal(size=(1000, 3, 6))
            joints.position, joints.velocity, joints.effort = noise[i % 1000]
            writer.write_message("/joint_states", joints, t_ns)
            if i % 33 == 0:
                for k in range(2):
                    image.data = pictures[(i // 33 + k) % 20]
                    writer.write_message(f"/camera_{k}/image/compressed", image, t_ns)


def _jpeg(rng: np.random.Generator) -> Any:
    import cv2

    pixels = cv2.resize(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8), (320, 240))
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 93])[1].ravel()


def write_samples(path: Path) -> None:
    """50 walks of one million samples at 1 kHz in one topic."""
    rng = np.random.default_rng(0)
    message = new_message("std_msgs/msg/Float64MultiArray")
    message.data = np.zeros(SIGNALS)
    head = encode(message)[: -8 * SIGNALS]
    with LogWriter(path) as writer:
        writer.add_topic("/walks", "std_msgs/msg/Float64MultiArray")
        at = np.zeros(SIGNALS)
        for i in range(0, SAMPLES, 10_000):
            walk = at + np.cumsum(rng.normal(size=(10_000, SIGNALS)), axis=0)
            at = walk[-1]
            for k, row in enumerate(walk):
                writer.write("/walks", head + row.tobytes(), START_NS + (i + k) * 1_000_000)


class Page:
    """The command as a process, and a browser on its page."""

    def __init__(self, log: Path, browser: Any) -> None:
        self.browser = browser
        self.began = time.perf_counter()
        command = [sys.executable, "-m", "robo_rl", "annotate", str(log), "--no-browser", "--author", "bench"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        lines = (self.process.stdout.readline() for _ in range(2)) if self.process.stdout else ()
        url = re.search(r"http\S+", "".join(lines))
        if url is None:
            raise SystemExit("the server did not start")
        self.started_s = time.perf_counter() - self.began
        browser.get(url[0])
        self.wait("document.body.dataset.ready && annotator.tracks.hasData()")
        self.pan(1)
        self.interactive_s = time.perf_counter() - self.began

    def wait(self, condition: str) -> None:
        """Waits for a condition of JavaScript."""
        self.browser.execute_async_script(
            f"const done = arguments[0]; const look = () => ({condition}) ? done() : setTimeout(look, 5); look();"
        )

    def pan(self, count: int) -> list[float]:
        """Random windows of any width, one after the other; ms from each change to the painted picture."""
        return self._repeat(
            count,
            "tracks",
            """const span = whole * Math.pow(10, -4 * Math.random()), t0 = Math.random() * (whole - span);
            view(t0, t0 + span);""",
        )

    def frames(self, count: int) -> list[float]:
        """Random instants; ms from the request to the painted picture."""
        return self._repeat(count, "frames", "seek(Math.random() * whole);")

    def marks(self, count: int) -> list[float]:
        """Interventions set by two key presses; ms from the second to the server's word that it is on the disk."""
        return self._repeat(
            count,
            "marking",
            """const t = Math.random() * whole * 0.9;
            const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
            seek(t); press("i");
            await new Promise((go) => setTimeout(go, 15));
            seek(t + 1e9); press("i");""",
        )

    def _repeat(self, count: int, part: str, act: str) -> list[float]:
        """Acts so many times, each time after the answer to the last; the latencies that the page has measured."""
        script = """
            const [count, done] = arguments, { S, view, seek } = annotator, whole = S.log.duration_ns;
            const list = annotator.PART.latencies, from = list.length;
            const pause = (ms) => new Promise((go) => setTimeout(go, ms));
            (async () => {
              for (let i = 0; i < count; i++) {
                ACT
                while (list.length <= from + i) await pause(2);
                await pause(25);
              }
              done(list.slice(from));
            })();"""
        return self.browser.execute_async_script(script.replace("PART", part).replace("ACT", act), count)

    def memory_mb(self) -> float:
        """Resident memory of the server."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def close(self) -> None:
        """Ends the server."""
        self.process.terminate()
        self.process.communicate()


def said(what: str, ms: Sequence[float]) -> None:
    """One line of the table."""
    p50, p95 = np.percentile(ms, [50, 95])
    print(f"{what:<58} {len(ms):5d} {p50:8.1f} {p95:8.1f} {max(ms):8.1f}", flush=True)


def measure(log: Path, profile: Path, *, pictures: bool) -> None:
    """All figures of one log."""
    size = sum(f.stat().st_size for f in log.glob("*.mcap")) / 1e6
    with chromium(profile) as browser:
        page = Page(log, browser)
        print(f"{log.name}, {size:.0f} MB: load average {os.getloadavg()[0]:.1f}; command to address", end=" ")
        print(f"{page.started_s:.2f} s, command to painted and panned {page.interactive_s:.2f} s", flush=True)
        try:
            said("pan and zoom while it is being read (ms)", page.pan(20))
            page.wait("annotator.S.progress.total && annotator.S.progress.done === annotator.S.progress.total")
            page.wait("annotator.tracks.isReady()")
            print(f"read as a whole {time.perf_counter() - page.began:.1f} s after the command")
            print(
                f"memory {page.memory_mb():.0f} MB, {browser.execute_script('return annotator.S.tracks.length')} tracks"
            )
            said("pan and zoom, ten tracks (ms)", page.pan(ACTIONS))
            if pictures:
                said("frame at the cursor (ms)", page.frames(ACTIONS))
            said("key to disk (ms)", page.marks(ACTIONS // 2))
        finally:
            page.close()


def main() -> None:
    """Prints the figures of both logs."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch)
        for name, write in (("gigabyte", write_gigabyte), ("samples", write_samples)):
            if not (folder / name / "metadata.yaml").exists():
                write(folder / name)
        print(f"{'figure':<58} {'count':>5} {'p50':>8} {'p95':>8} {'max':>8}")
        measure(folder / "gigabyte", Path(scratch) / "a", pictures=True)
        measure(folder / "samples", Path(scratch) / "b", pictures=False)


if __name__ == "__main__":
    main()
