"""The guest's CPUs: which GDB thread is which CPU, and reading with one of them selected.

QEMU's GDB stub numbers a CPU's thread `cpu_index + 1` (QEMU, gdbstub: `gdb_get_cpu_index`), so the number in
`ptid` names the CPU whatever GDB calls the thread and whichever thread is selected.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import gdb

from exogdb.errors import NoTargetError, TargetLostError, UsageError
from exogdb.interrupts import finish, interrupts_held
from exogdb.target.connection import BROKEN, is_broken, is_connection_lost

__all__ = [
    "Cpu",
    "all_cpus",
    "cpu_selected",
    "cpus_in_turn",
    "find_cpu",
    "forget_caches",
    "frames_kept_whole",
    "is_reading_registers",
    "selected_cpu",
    "selected_thread",
]

# By global number, as last seen: listing the threads of a remote target asks it each time.
_threads: dict[int, gdb.InferiorThread] = {}
_is_reading_registers = False


@dataclass(frozen=True)
class Cpu:
    """One CPU: `index` is QEMU's (as in `CPU#0`), `thread` is GDB's global thread number."""

    index: int
    thread: int


def all_cpus() -> list[Cpu]:
    """Every CPU of the selected inferior, by index. Changes nothing; the guest may run or be stopped."""
    return sorted((_to_cpu(thread) for thread in _list_threads()), key=lambda cpu: cpu.index)


def selected_cpu() -> Cpu:
    """The CPU of GDB's selected thread.

    :raise NoTargetError: no thread is selected.
    :raise TargetLostError: the connection broke.
    """
    thread = selected_thread()
    if thread is None and is_connection_lost():
        raise TargetLostError(BROKEN)
    if thread is None:
        raise NoTargetError("no CPU is selected: connect with `target remote`, then choose one with `thread N`")
    return _to_cpu(thread)


def find_cpu(index: int) -> Cpu:
    """The CPU that QEMU calls `CPU#index`.

    :raise UsageError: the guest has no such CPU.
    """
    cpus = all_cpus()
    for cpu in cpus:
        if cpu.index == index:
            return cpu
    *others, last = (str(cpu.index) for cpu in cpus)
    known = f"CPUs {', '.join(others)} and {last}" if others else f"only CPU {last}"
    raise UsageError(f"there is no CPU {index}: the guest has {known}")


@contextmanager
def cpu_selected(cpu: Cpu) -> Iterator[None]:
    """GDB's selection is `cpu`'s innermost frame inside the block; the user's selection comes back after it.

    Only GDB's own state changes: the guest must be stopped, and stays as it is.
    """
    thread = selected_thread()
    if thread is not None and thread.global_num == cpu.thread:
        yield
        return
    frame = _selected_outer_frame()
    try:
        _find_thread(cpu).switch()
        yield
    finally:
        finish(lambda: _select(thread, frame))


@contextmanager
def cpus_in_turn() -> Iterator[Callable[[Cpu], None]]:
    """Gives a function that selects a CPU, for its registers only; the user's selection comes back at the end.

    From the first CPU on that the user had not selected, exogdb's unwinder declines (`is_reading_registers`): GDB
    finds the innermost frame's caller to name that frame, which would read that CPU's stack for nothing. GDB
    forgets those frames when another thread is selected, which is why the last thing done is to select one.
    """
    global _is_reading_registers
    thread = selected_thread()
    frame: gdb.Frame | None = None
    visited: list[gdb.InferiorThread] = []

    def select(cpu: Cpu) -> None:
        global _is_reading_registers
        nonlocal frame
        current = visited[-1] if visited else thread
        if current is None or current.global_num != cpu.thread:
            if not visited:
                frame = _selected_outer_frame()  # may still have to be found, which takes the unwinder
            _is_reading_registers = True
            visited.append(_find_thread(cpu))
            visited[-1].switch()

    def come_back() -> None:
        global _is_reading_registers
        _is_reading_registers = False
        if len(visited) > 1 and visited[-2].is_valid():
            visited[-2].switch()
        if visited:
            _select(thread, frame)

    try:
        yield select
    finally:
        finish(come_back)


def is_reading_registers() -> bool:
    """Nothing but the registers of the selected CPU, whose innermost frame is selected, is asked for just now."""
    return _is_reading_registers


@contextmanager
def frames_kept_whole() -> Iterator[None]:
    """After a Ctrl-C inside the block GDB finds every frame anew, and selects the one that was selected.

    Interrupted while it unwinds, it keeps half a frame: it shows wrong values from then on, or fails an assertion.
    Behind every command it looks at the selected frame, which it has forgotten after each packet that was sent for
    us: it is found at the block's end, where no Ctrl-C strikes.
    :raise TargetLostError: the connection broke.
    """
    with interrupts_held():
        thread, frame = selected_thread(), _selected_outer_frame()

    def find_anew() -> None:
        forget_caches()
        _select(thread, frame)

    try:
        yield
    except KeyboardInterrupt:
        finish(find_anew)
        raise
    finally:
        finish(_find_selected_frame)


def forget_caches() -> None:
    """What GDB remembers of registers, frames and memory is old, or not whole: let it ask QEMU again."""
    gdb.execute("maintenance flush register-cache", to_string=True)
    gdb.execute("maintenance flush dcache", to_string=True)


def selected_thread() -> gdb.InferiorThread | None:
    """GDB's selected thread.

    :raise TargetLostError: GDB has forgotten the threads because QEMU did not answer it in time.
    """
    try:
        return gdb.selected_thread()
    except SystemError as error:
        raise _forgotten_threads() from error


def _list_threads() -> tuple[gdb.InferiorThread, ...]:
    """GDB's threads, asked for anew. Raises as `selected_thread`."""
    try:
        return gdb.selected_inferior().threads()
    except SystemError as error:
        raise _forgotten_threads() from error


def _forgotten_threads() -> TargetLostError:
    """What GDB means by "could not find gdb thread object"."""
    return TargetLostError(
        "GDB has lost the CPUs because QEMU did not answer in time: `disconnect`, then `target remote` again"
    )


def _to_cpu(thread: gdb.InferiorThread) -> Cpu:
    _process, lightweight, tid = thread.ptid
    _threads[thread.global_num] = thread
    return Cpu(index=(lightweight or tid) - 1, thread=thread.global_num)


def _find_thread(cpu: Cpu) -> gdb.InferiorThread:
    known = _threads.get(cpu.thread)
    if known is not None and known.is_valid():
        return known
    for thread in _list_threads():
        if thread.global_num == cpu.thread:
            return thread
    if is_connection_lost():
        raise TargetLostError(BROKEN)
    raise NoTargetError(f"CPU {cpu.index} is gone: the connection to the guest was made anew")


def _select(thread: gdb.InferiorThread | None, frame: gdb.Frame | None) -> None:
    """Select both, as far as they are still there."""
    if thread is not None and thread.is_valid():
        thread.switch()
        if frame is not None and frame.is_valid():
            frame.select()


def _find_selected_frame() -> None:
    with suppress(gdb.error):  # it runs, or is gone
        gdb.selected_frame()


def _selected_outer_frame() -> gdb.Frame | None:
    """The frame that the user went up to. The innermost needs no care: GDB selects it with the thread.

    :raise TargetLostError: the connection broke.
    """
    try:
        frame = gdb.selected_frame()
    except gdb.error as error:
        if is_broken(error):
            raise TargetLostError(BROKEN) from error
        return None
    return frame if frame.level() > 0 else None
