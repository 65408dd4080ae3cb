"""A process that writes a log as fast as its pace allows and says on stdout which instants it has written.

Usage: log_writer_process.py DIRECTORY RATE_HZ [SECONDS]; after SECONDS it falls silent but stays alive.
"""

import sys
import time
from pathlib import Path

from hardware.log.types import encode, new_message
from hardware.log.writer import LogWriter


def main() -> None:
    """Writes until killed."""
    directory, rate_hz = Path(sys.argv[1]), float(sys.argv[2])
    silent_s = float(sys.argv[3]) if len(sys.argv) > 3 else float("inf")
    writer = LogWriter(directory)
    writer.add_topic("/odom", "nav_msgs/msg/Odometry")
    cdr = encode(new_message("nav_msgs/msg/Odometry"))
    started = following = time.monotonic()
    while True:
        following += 1.0 / rate_hz
        time.sleep(max(0.0, following - time.monotonic()))
        if time.monotonic() - started > silent_s:
            time.sleep(3600.0)
        t_ns = time.time_ns()
        writer.write("/odom", cdr, t_ns)
        sys.stdout.buffer.write(t_ns.to_bytes(8, "little"))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
