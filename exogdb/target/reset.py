"""A guest that became another one while GDB held it stopped: QEMU has reset it, or loaded a snapshot.

Nobody tells GDB of `monitor system_reset` or `monitor loadvm`. It shows the registers that it remembers, and steps
a CPU off a breakpoint on which it stands no more; with several CPUs that one waits to be started, for ever.
"""

from collections.abc import Callable
from contextlib import suppress

import gdb

from exogdb.errors import TargetLostError
from exogdb.target.connection import BROKEN, is_broken, is_remote
from exogdb.target.cpus import forget_caches, selected_thread
from exogdb.target.qemu.peer import is_qemu_frozen, is_qemu_gone
from exogdb.x86.word import MASK_64

__all__ = ["call_at_reset", "notice_reset"]

# As QEMU numbers an x86-64 CPU's registers (gdb-xml/i386-64bit.xml).
_NUMBERS = {"rip": 16, "rsp": 7}
_TOLD = "The guest was reset, or a snapshot loaded, while GDB held it: what GDB remembered of it is forgotten."

_followers: list[Callable[[], None]] = []


def call_at_reset(follower: Callable[[], None]) -> None:
    """Have `follower` called whenever that is noticed."""
    _followers.append(follower)


def notice_reset() -> str:
    """Make GDB forget its registers if the selected CPU has others. What to say then, else an empty string.

    Asks a stopped guest for three values; nothing in it changes.
    :raise TargetLostError: the connection broke.
    """
    try:
        if not _can_ask():
            return ""
        remembered = _read_remembered()
        _have_gdb_name_the_thread(remembered["rip"])
        if all(_ask(name) in (None, value) for name, value in remembered.items()):
            return ""
        forget_caches()
        if _read_remembered() == remembered:
            return ""  # the stub meant another CPU
    except gdb.error as error:
        if is_broken(error):
            raise TargetLostError(BROKEN) from error
        return ""  # whoever asks next says what is wrong
    for follower in _followers:
        follower()
    return _TOLD


def _can_ask() -> bool:
    inferior = gdb.selected_inferior()
    thread = selected_thread() if inferior.pid and is_remote() else None
    if thread is None or thread.is_running() or is_qemu_frozen() or is_qemu_gone():
        return False
    return inferior.architecture().name() == "i386:x86-64"


def _read_remembered() -> dict[str, int]:
    frame = gdb.newest_frame()
    return {name: int(frame.read_register(name)) & MASK_64 for name in _NUMBERS}


def _have_gdb_name_the_thread(address: int) -> None:
    """Reading memory as a value makes GDB tell the stub which thread it means from then on, readable or not.

    `gdb.Inferior.read_memory` of GDB 14 and later names the process alone, and the stub takes its first CPU.
    """
    byte = gdb.selected_inferior().architecture().integer_type(8, False)
    with suppress(gdb.MemoryError):
        int(gdb.Value(address).cast(byte.pointer()).dereference())


def _ask(register: str) -> int | None:
    """What the stub says the register is now; None if it does not."""
    connection = gdb.selected_inferior().connection
    if not isinstance(connection, gdb.RemoteTargetConnection):
        return None
    answer = connection.send_packet(f"p{_NUMBERS[register]:x}") or b""
    try:
        value = bytes.fromhex(answer.decode("ascii"))
    except ValueError:
        return None  # an error, or nothing
    return int.from_bytes(value, "little") if len(value) == 8 else None
