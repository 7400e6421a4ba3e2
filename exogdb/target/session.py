"""What a command reads from: one guest, checked before the command runs.

A `Session` is made anew for every command, so it holds nothing that could be stale.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import gdb

from exogdb.errors import NoTargetError, UnavailableError
from exogdb.target.connection import broken_connection_told, is_broken, waiting_for_replies
from exogdb.target.cpus import Cpu, all_cpus, frames_kept_whole, selected_cpu, selected_thread
from exogdb.target.memory import PhysicalMemory, VirtualMemory
from exogdb.target.qemu.peer import find_qemu_process, is_qemu_frozen

__all__ = ["Session", "asking_guest", "find_guest", "is_deciding", "require_guest"]


@dataclass(frozen=True)
class Session:
    """A stopped x86-64 guest. `cpu` is the selected CPU, `memory` its address space."""

    cpu: Cpu
    memory: VirtualMemory
    physical: PhysicalMemory = field(default_factory=PhysicalMemory)

    def cpus(self, every: bool) -> list[Cpu]:
        """All CPUs, or only the selected one."""
        return all_cpus() if every else [self.cpu]

    def memory_of(self, cpu: Cpu) -> VirtualMemory:
        """The address space that `cpu` has loaded."""
        return self.memory if cpu == self.cpu else VirtualMemory(cpu)


def require_guest() -> Session:
    """The session for a command that needs a stopped x86-64 guest behind QEMU's GDB stub.

    :raise NoTargetError: nothing is being debugged; or not by `target remote`; or it is not x86-64; or it runs.
    :raise UnavailableError: QEMU's process is stopped.
    """
    inferior = gdb.selected_inferior()
    if inferior.pid != 0 and is_qemu_frozen():
        process = find_qemu_process()
        raise UnavailableError(
            f"QEMU answers nothing, its process {process} is stopped: `kill -CONT {process}` first"
        )
    if inferior.pid == 0 or not all_cpus():
        raise NoTargetError(
            "no guest is connected: start QEMU with `-gdb unix:PATH,server=on` and `target remote PATH`"
        )
    if not isinstance(inferior.connection, gdb.RemoteTargetConnection):
        kind = inferior.connection.type if inferior.connection is not None else "unknown"
        raise NoTargetError(f"this is a {kind} target, not a guest in QEMU: connect with `target remote`")
    thread = selected_thread()
    if thread is None:
        raise NoTargetError("no CPU is selected: choose one with `thread N`")
    if thread.is_running() and not is_deciding():
        raise NoTargetError("the guest is running: stop it with Ctrl-C (or `interrupt`) first")
    # Not the frame's: to name a frame, GDB unwinds to its caller.
    architecture = inferior.architecture().name()
    if architecture != "i386:x86-64":
        raise NoTargetError(f"the guest's architecture is {architecture}: exogdb knows x86-64 in long mode only")
    cpu = selected_cpu()
    return Session(cpu=cpu, memory=VirtualMemory(cpu))


def is_deciding() -> bool:
    """Whether GDB has stopped the guest and decides if the user sees it: it evaluates a breakpoint's condition.

    The thread counts as running then, but has frames.
    """
    thread = selected_thread()
    if thread is None or not thread.is_running():
        return False
    try:
        gdb.selected_frame()
    except gdb.error as error:
        return is_broken(error)  # whoever asks next says so
    return True


def find_guest() -> Session | None:
    """The same for a command that can do without: None where `require_guest` has a reason to refuse."""
    try:
        return require_guest()
    except NoTargetError:
        return None


@contextmanager
def asking_guest() -> Iterator[None]:
    """Around everything that asks a guest: late replies are waited for, and GDB's frames survive a Ctrl-C.

    :raise TargetLostError: the connection broke inside the block.
    """
    with broken_connection_told(), waiting_for_replies(), frames_kept_whole():
        yield
