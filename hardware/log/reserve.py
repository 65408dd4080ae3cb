"""A file that can still be finished when the disk is full: space is set aside for its end."""

import errno
import io
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

RESERVE_BYTES = 4 << 20
"""More than an open chunk and the index of a day of flushing twice a second."""
FULL = (errno.ENOSPC, errno.EDQUOT)


class Reserve:
    """Space set aside on the disk of a recording; given back when the disk is full, or at the end.

    It is held by a file without a name, which goes with the process, however that ends.
    """

    def __init__(self, directory: Path) -> None:
        """Takes the space; where the disk cannot give it, there is none."""
        self.used = False
        """The disk was full, and the space has been given back for what is still to be written."""
        self._held: IO[bytes] | None = None
        with suppress(OSError):
            held = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - held until it is released
            try:
                os.posix_fallocate(held.fileno(), 0, RESERVE_BYTES)
            except OSError:
                held.close()
            else:
                self._held = held

    def release(self) -> bool:
        """Gives the space back; False where there was none any more."""
        if self._held is None:
            return False
        self._held.close()
        self._held = None
        return True


class ReservedFile(io.RawIOBase):
    """A new file, written from its beginning; the write that finds the disk full goes on in the reserved space."""

    def __init__(self, path: Path, reserve: Reserve) -> None:
        """Raises FileExistsError where the file exists."""
        super().__init__()
        self._raw = io.FileIO(path, "xb")
        self._reserve = reserve

    def write(self, data: Any) -> int:
        """Writes; raises OSError where not even the reserved space is left."""
        try:
            return self._raw.write(data)
        except OSError as e:
            if e.errno not in FULL or not self._reserve.release():
                raise
            self._reserve.used = True
            return self._raw.write(data)

    def writable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self._raw.tell()

    def fileno(self) -> int:
        """The descriptor."""
        return self._raw.fileno()

    def close(self) -> None:
        """Closes the file."""
        super().close()
        self._raw.close()
