"""GDB's connection to QEMU: waiting for replies that come late, and saying so once it broke."""

from collections.abc import Iterator
from contextlib import contextmanager

import gdb

from exogdb.errors import TargetLostError
from exogdb.target.with_setting import with_setting

__all__ = [
    "BROKEN",
    "broken_connection_told",
    "is_broken",
    "is_connection_lost",
    "is_remote",
    "waiting_for_replies",
]

BROKEN = "the connection to QEMU broke; start it again and use `target remote`"
"""What `TargetLostError` says then."""

_PATIENCE_SECONDS = 3600  # GDB's own are 2


def is_remote() -> bool:
    """Whether GDB has a guest, or a program, behind a stub. Nothing is asked."""
    return isinstance(gdb.selected_inferior().connection, gdb.RemoteTargetConnection)


def is_connection_lost() -> bool:
    """Whether GDB has no guest. It notices a connection that broke when it next asks for something."""
    return gdb.selected_inferior().pid == 0


def is_broken(error: Exception) -> bool:
    """Whether `error` is what GDB says where it notices that the connection broke."""
    text = str(error).lower()
    return "connection closed" in text or "communication error" in text


@contextmanager
def broken_connection_told() -> Iterator[None]:
    """Around what began with a guest: everything that GDB raises once the connection broke is one sentence.

    That is RuntimeError by threads and connections that it has thrown away, and, where it found out while it
    unwound, what exogdb's unwinder ends that with.
    :raise TargetLostError: the connection broke.
    """
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as error:
        if is_connection_lost():
            raise TargetLostError(BROKEN) from error
        raise


@contextmanager
def waiting_for_replies() -> Iterator[None]:
    """Inside the block GDB waits for each of QEMU's replies as long as it takes, or until Ctrl-C twice.

    GDB gives up after two seconds otherwise and asks the next thing. Once QEMU goes on, the late replies come: GDB
    takes each for the reply to another question, and shows wrong values from then on.
    """
    with with_setting("remotetimeout", _PATIENCE_SECONDS):
        yield
