"""The directory of one run: sockets, logs, and what GDB writes meanwhile. Only its user can enter it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exogdb.errors import LaunchError

__all__ = ["LONGEST_SOCKET", "private_directory"]

# sockaddr_un.sun_path has 108 bytes, and QEMU wants the zero byte at its end (unix(7)).
LONGEST_SOCKET = 107
_LONGEST_NAME = "exogdb-12345678/qmp.sock"
_SHORT = Path("/tmp")


@contextmanager
def private_directory() -> Iterator[Path]:
    """A new directory in $TMPDIR, or in /tmp where paths in that are too long for sockets; removed at the end.

    :raise LaunchError: it cannot be made.
    """
    parent = Path(tempfile.gettempdir())
    if len(os.fsencode(parent / _LONGEST_NAME)) > LONGEST_SOCKET:
        parent = _SHORT
    try:
        made = tempfile.TemporaryDirectory(prefix="exogdb-", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        reason = (
            f"no directory for the sockets can be made in {parent}: {error.strerror}; TMPDIR names another place"
        )
        raise LaunchError(reason) from error
    with made as name:
        yield Path(name)
