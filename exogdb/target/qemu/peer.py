"""How the QEMU at the other end was started: its command line, if it runs on this machine.

GDB's own connection tells the process id of whoever listens on the unix socket (SO_PEERCRED), and /proc what that
process was started with. Nothing is sent to QEMU.
"""

import functools
import os
import re
import socket
import stat
import struct
from pathlib import Path

import gdb

__all__ = [
    "find_log_filter",
    "find_qemu_arguments",
    "find_qemu_process",
    "find_stub_socket",
    "is_qemu_frozen",
    "is_qemu_gone",
]

_RANGE = re.compile(r"^(0[xX][0-9a-fA-F]+|\d+)\+(\d+)$")


def find_qemu_process() -> int | None:
    """QEMU's process id, or None when it is not on this machine or not behind a unix socket."""
    connection = gdb.selected_inferior().connection
    return None if connection is None or not connection.is_valid() else _find_process(connection.num)


def is_qemu_frozen() -> bool:
    """Whether QEMU's process is stopped (SIGSTOP, Ctrl-Z, another debugger): then it answers nothing.

    Asking it all the same would take GDB's timeouts, and GDB would take every CPU for gone. False if not known.
    """
    return _read_state() in ("t", "T")


def is_qemu_gone() -> bool:
    """Whether QEMU's process has ended, which GDB need not know yet. False if not known."""
    return _read_state() in ("", "X", "Z")


def _read_state() -> str | None:
    """The state of QEMU's process as in /proc/PID/stat (proc(5)), empty if there is none; None if not known."""
    process = find_qemu_process()
    if process is None:
        return None
    try:
        status = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        return ""
    return status.rpartition(")")[2].split()[0]


def find_qemu_arguments() -> list[str] | None:
    """QEMU's command line, or None when it is not on this machine or not behind a unix socket."""
    process = find_qemu_process()
    if process is None:
        return None
    try:
        return Path(f"/proc/{process}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return None


@functools.lru_cache(maxsize=8)
def _find_process(_connection: int) -> int | None:
    """The process behind the selected inferior's connection, whose number GDB never uses again."""
    descriptor = find_stub_socket()
    if descriptor is None:
        return None
    with socket.socket(fileno=descriptor) as stub:
        if stub.family != socket.AF_UNIX:
            return None
        credentials = stub.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    process, _user, _group = struct.unpack("3i", credentials)
    return int(process) or None


def find_log_filter() -> frozenset[int] | None:
    """The single addresses in QEMU's `-dfilter`; None if there is no such option, or it holds other ranges."""
    arguments = [each.replace("--", "-", 1) for each in find_qemu_arguments() or []]
    if "-dfilter" not in arguments[:-1]:
        return None
    last = len(arguments) - 1 - arguments[::-1].index("-dfilter")  # QEMU takes the last one
    ranges = (
        [_RANGE.match(each) for each in arguments[last + 1].split(",")] if last + 1 < len(arguments) else [None]
    )
    if any(each is None or each[2] != "1" for each in ranges):
        return None
    return frozenset(int(each[1], 0) for each in ranges if each is not None)


def find_stub_socket() -> int | None:
    """A duplicate of GDB's socket to the stub, which the caller closes; None if there is none to be found."""
    connection = gdb.selected_inferior().connection
    details = connection.details if connection is not None else None
    if not details:
        return None
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not stat.S_ISSOCK(entry.stat().st_mode):
                continue
            descriptor = os.dup(int(entry.name))
        except OSError:
            continue  # closed meanwhile
        if _leads_to(descriptor, details):
            return descriptor
        os.close(descriptor)
    return None


def _leads_to(descriptor: int, details: str) -> bool:
    """Whether the socket's other end is what GDB calls `details`: a path, or HOST:PORT."""
    copy = socket.socket(fileno=descriptor)
    try:
        peer = copy.getpeername()
    except OSError:
        return False
    finally:
        copy.detach()
    if isinstance(peer, str):
        return peer == details
    return isinstance(peer, tuple) and details.rpartition(":")[2] == str(peer[1])
