"""Whether somebody listens on a unix socket, found out without connecting: that alone would stop a guest."""

import os
from pathlib import Path

__all__ = ["is_listening"]

_TABLE = Path("/proc/net/unix")
_ACCEPTS_CONNECTIONS = 0x10000  # __SO_ACCEPTCON, include/linux/net.h
_PATH_FIELD = 7


def is_listening(path: Path) -> bool:
    """Whether a connection to `path` is accepted now. A socket's file exists a moment before that.

    Without /proc, whether there is a socket at all.
    """
    if not path.is_socket():
        return False
    try:
        lines = os.fsdecode(_TABLE.read_bytes()).splitlines()[1:]
    except OSError:
        return True
    entries = (line.split(None, _PATH_FIELD) for line in lines)
    return any(int(entry[3], 16) & _ACCEPTS_CONNECTIONS for entry in entries if entry[_PATH_FIELD:] == [str(path)])
