"""QEMU's human monitor, as the GDB stub forwards it, and the QMP sockets that it lists."""

import os

import gdb

from exogdb.errors import MonitorError, TargetLostError
from exogdb.target import settings
from exogdb.target.qemu.chardev import free_sockets

__all__ = ["find_qmp_sockets", "run_monitor"]


def run_monitor(command: str) -> str:
    """What QEMU's human monitor answers to `command`. Works while the guest is stopped.

    :raise MonitorError: the target does not forward monitor commands.
    :raise TargetLostError: the connection broke.
    """
    try:
        return gdb.execute(f"monitor {command}", to_string=True)
    except gdb.error as error:
        if "Remote connection closed" in str(error):
            raise TargetLostError("the connection to QEMU broke while asking its monitor") from error
        raise MonitorError(f"the target does not answer `monitor {command}`: {error}") from error


def find_qmp_sockets() -> list[str]:
    """Paths worth trying, best first: `set exo qmp-socket`, `$EXOGDB_QMP`, then what QEMU lists as free.

    :raise MonitorError: nothing was named, and QEMU's monitor could not be asked.
    """
    named = settings.qmp_socket() or os.environ.get("EXOGDB_QMP")
    return [named] if named else free_sockets(run_monitor("info chardev"))
