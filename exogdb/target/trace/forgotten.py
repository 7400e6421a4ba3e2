"""A log that a killed GDB has left on: QEMU writes into a FIFO that nobody reads, and the guest stays slow.

QEMU cannot be asked whether it logs, but the FIFO that it has open tells: nothing else bears that name.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import gdb

from exogdb.errors import MonitorError, TargetLostError
from exogdb.target.qemu.monitor import run_monitor
from exogdb.target.qemu.peer import find_qemu_process, is_qemu_frozen

__all__ = ["end_forgotten_log", "log_prefix", "switch_log_off"]

_LOG = re.compile(r"/(exogdb-trace-\d+-)\w+/log(?: \(deleted\))?$")
_FOUND = (
    "QEMU's execution log was still on, from a trace whose GDB was killed, and the guest slow. "
    "It is switched off now."
)

# Numbers of connections, which GDB never uses again.
_seen: set[int] = set()


def log_prefix() -> str:
    """How the names of directories begin in which this GDB makes the FIFOs of its logs."""
    return f"exogdb-trace-{os.getpid()}-"


def end_forgotten_log() -> str:
    """Look once for each connection, switch the log off if it is on, and answer what to say; else an empty string.

    Only GDB's own tables and /proc are read unless there is one. Never fails.
    """
    inferior = gdb.selected_inferior()
    number = inferior.connection_num
    if not inferior.pid or number is None or number in _seen:
        return ""
    thread = gdb.selected_thread()
    if thread is None or thread.is_running():
        return ""
    _seen.add(number)
    process = find_qemu_process()
    if process is None or not _has_forgotten_log(process) or is_qemu_frozen():
        return ""
    try:
        switch_log_off()
    except (MonitorError, TargetLostError) as error:
        return f"QEMU's execution log is on, from a trace whose GDB was killed, and stays on: {error}"
    return _FOUND


def switch_log_off() -> None:
    """QEMU's log is off then, and its file is /dev/null. The guest must be stopped.

    :raise MonitorError: the monitor cannot be asked. :raise TargetLostError: QEMU is gone.
    """
    run_monitor("log none")
    run_monitor("logfile /dev/null")


def _has_forgotten_log(process: int) -> bool:
    """Not one of this GDB's own, which QEMU closes a while after it has been told to."""
    found = (_LOG.search(link) for link in _open_files(process))
    return any(each is not None and each[1] != log_prefix() for each in found)


def _open_files(process: int) -> Iterator[str]:
    """None of a process of another user's, or that is gone."""
    with suppress(OSError):
        for entry in Path(f"/proc/{process}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed just now
                yield str(entry.readlink())
