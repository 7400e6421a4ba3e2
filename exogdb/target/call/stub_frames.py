"""The frames that exogdb's unwinder takes, so that backtraces cross from the kernel into the user program.

There are two kinds. In a frame of the entry stub, at any of its instructions, it gives every
user register back from where the analysis says that it is. Between that frame and the user's stands a frame at
`BOUNDARY_PC`, without which GDB would stop there (see exogdb/abi/boundary.py). Everywhere else it declines, so
that other backtraces are untouched.

GDB calls it while it walks the stack: it must not select threads, ask the monitor or change anything. It uses
paths analysed before, and only where the bytes at the PC are still those that were analysed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import gdb

from exogdb.abi.boundary import BOUNDARY_PC
from exogdb.abi.frame_base import (
    find_call_top,
    find_link,
    find_return_slot,
    holds_call,
    is_on_stack,
    read_stack_top,
)
from exogdb.abi.stub.entry_path import NUMBER_REGISTER, EntryPath
from exogdb.abi.stub.interpret import CALLER_SAVED
from exogdb.abi.stub.location import InRegister
from exogdb.abi.stub.stub_state import Lost, StubState, read_held
from exogdb.abi.stub.symbolic import Gs
from exogdb.errors import MemoryFault, UnavailableError
from exogdb.target.analysed import analysed_paths
from exogdb.target.call.call_number import read_saved_number
from exogdb.target.call.frame_tables import has_frame_tables
from exogdb.target.cpus import is_reading_registers
from exogdb.target.memory import read_selected
from exogdb.x86.memory import ReadableMemory
from exogdb.x86.word import MASK_64

__all__ = ["find_stub_state", "unwind"]

_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp")
_REGISTERS = (*_GENERAL, *(f"r{number}" for number in range(8, 16)), "rip")
_BASES = ("fs_base", "gs_base", "k_gs_base")
_BLOCK_SIZE = 128  # a stub's frame is about that; a power of two, so that no block crosses a page

# By thread and user rsp, where the boundary frame continues.
_user_rips: dict[tuple[int, int], int] = {}


@dataclass(frozen=True)
class _FrameId:
    """What GDB takes as a frame's identity: `sp` and `pc`."""

    sp: gdb.Value
    pc: gdb.Value


class _SelectedMemory:
    """The address space of the CPU whose stack GDB walks. Implements `exogdb.x86.memory.ReadableMemory`."""

    def read(self, address: int, size: int) -> bytes:
        try:
            return read_selected(address, size)
        except (gdb.error, OverflowError) as error:
            raise MemoryFault(address, size) from error


class _NearbyMemory:
    """The same, for words that lie together: what is around a word is read with it, and kept.

    For one look at a stopped guest. Implements `exogdb.x86.memory.ReadableMemory`.
    """

    def __init__(self) -> None:
        self._memory = _SelectedMemory()
        self._blocks: dict[int, bytes] = {}

    def read(self, address: int, size: int) -> bytes:
        start = address - address % _BLOCK_SIZE
        if address + size > start + _BLOCK_SIZE:
            return self._memory.read(address, size)
        if start not in self._blocks:
            self._blocks[start] = self._memory.read(start, _BLOCK_SIZE)
        return self._blocks[start][address - start : address - start + size]


def find_stub_state(pc: int) -> tuple[EntryPath, StubState] | None:
    """The analysed path with an instruction at `pc`, if the guest still has that instruction there."""
    for path in analysed_paths():
        state = path.state_at(pc)
        if state is not None and _is_current(state):
            return path, state
    return None


def _is_current(state: StubState) -> bool:
    try:
        return _SelectedMemory().read(state.address, len(state.code)) == state.code
    except MemoryFault:
        return False


def unwind(pending_frame: gdb.PendingFrame) -> gdb.UnwindInfo | None:
    """The caller of a frame of these kinds; None for any other frame. Only reads.

    :raise gdb.error: the frame lacks the registers; ValueError as well.
    """
    if is_reading_registers():
        return None
    pc = _read(pending_frame, "rip")
    if pc == BOUNDARY_PC:
        return _unwind_boundary(pending_frame)
    found = find_stub_state(pc)
    if found is not None:
        return _unwind_stub(pending_frame, *found)
    return _unwind_unknown(pending_frame) if pc >> 63 and not has_frame_tables(pc) else None


def _unwind_stub(frame: gdb.PendingFrame, path: EntryPath, state: StubState) -> gdb.UnwindInfo | None:
    gs_base = _read(frame, "gs_base" if state.gs is Gs.KERNEL else "k_gs_base")
    try:
        memory = _NearbyMemory()
        saved = _read_user_registers(frame, path, state, gs_base, memory)
        identity = _identify(frame, path, state, gs_base, memory)
    except (UnavailableError, gdb.error):
        return None
    if "rip" not in saved or "rsp" not in saved:
        return None
    _user_rips[_thread_number(), saved["rsp"]] = saved["rip"]
    return _make_info(frame, identity, path.entry, saved | {"rip": BOUNDARY_PC})


def _unwind_boundary(frame: gdb.PendingFrame) -> gdb.UnwindInfo | None:
    rsp = _read(frame, "rsp")
    rip = _user_rips.get((_thread_number(), rsp))
    if rip is None:
        return None
    saved: dict[str, int] = {}
    for name in (*_REGISTERS, "eflags"):
        value = frame.read_register(name)
        if not value.is_optimized_out:
            saved[name] = _to_int(value)
    return _make_info(frame, rsp, BOUNDARY_PC, saved | {"rip": rip})


def _unwind_unknown(frame: gdb.PendingFrame) -> gdb.UnwindInfo | None:
    """From kernel code without debug info straight to the stub, if a call in progress shows on the kernel stack.

    GDB has no way to find the frames between and would make them up.
    """
    memory = _NearbyMemory()
    rsp = _read(frame, "rsp")
    for path in analysed_paths():
        try:
            top = find_call_top(path, rsp, _kernel_gs_base(frame), memory)
        except UnavailableError:
            continue
        slot = find_return_slot(path, top) if top is not None else None
        if top is not None and slot is not None and path.dispatcher is not None:
            if not holds_call(path, top, memory) or not _leads_to(rsp, top, slot, memory):
                continue
            back = path.dispatcher.return_address
            bases = {name: _read(frame, name) for name in _BASES}
            return _make_info(frame, slot, back, {"rip": back, "rsp": slot + 8, **bases})
    return None


def _leads_to(rsp: int, top: int, slot: int, memory: ReadableMemory) -> bool:
    """Whether `rsp` is on the call's stack, or on one that points back to it: an interrupt's."""
    if is_on_stack(rsp, top, memory):
        return rsp <= slot
    return find_link(rsp, top, slot, memory) is not None


def _kernel_gs_base(frame: gdb.PendingFrame) -> int:
    """The GS base in the upper half, where kernels live; the active one if both are."""
    active = _read(frame, "gs_base")
    return active if active >> 63 else _read(frame, "k_gs_base")


def _read(frame: gdb.PendingFrame, name: str) -> int:
    return _to_int(frame.read_register(name))


def _to_int(value: gdb.Value) -> int:
    return int(value) & MASK_64


def _thread_number() -> int:
    thread = gdb.selected_thread()
    return thread.global_num if thread is not None else 0


def _read_user_registers(
    frame: gdb.PendingFrame, path: EntryPath, state: StubState, gs_base: int, memory: ReadableMemory
) -> dict[str, int]:
    """The user's registers, under GDB's names, without those that the stub lost."""
    registers = _FrameRegisters(frame)
    saved: dict[str, int] = {}
    for name, held in state.registers.items():
        if isinstance(held, InRegister) and not _is_kept(frame, path, state, held.name):
            continue
        if not isinstance(held, Lost):
            saved["eflags" if name == "rflags" else name] = read_held(held, registers, gs_base, memory)
    if _is_calling(frame, path, state) and state.depth is not None:
        number = read_saved_number(path, registers["rsp"] + state.depth, memory)
        if number is not None:  # what comes back in that register is for the dispatcher to decide yet
            saved[NUMBER_REGISTER] = number.number
    return saved


def _is_calling(frame: gdb.PendingFrame, path: EntryPath, state: StubState) -> bool:
    """Whether the stub has called the dispatcher, which has not returned."""
    returns_here = path.dispatcher is not None and state.address == path.dispatcher.return_address
    return returns_here and frame.level() > 0


def _is_kept(frame: gdb.PendingFrame, path: EntryPath, state: StubState, register: str) -> bool:
    """Whether `register` in `frame` is what the stub has in it, and not what a function that it called left there.

    GDB takes a register that debug info says nothing of as unchanged, which those of the caller never are.
    """
    called = _is_calling(frame, path, state)
    return not (called and register in CALLER_SAVED) and not frame.read_register(register).is_optimized_out


def _identify(
    frame: gdb.PendingFrame, path: EntryPath, state: StubState, gs_base: int, memory: ReadableMemory
) -> int:
    """An address that stays the same for as long as the stub runs: the kernel stack's top.

    While the user's page tables are loaded the top may not be readable. Then the GS base is as good, until the
    stub has switched them.
    """
    if state.depth is not None:
        return _read(frame, "rsp") + state.depth & MASK_64
    try:
        return read_stack_top(path, gs_base, memory)
    except UnavailableError:
        return gs_base


def _make_info(frame: gdb.PendingFrame, sp: int, pc: int, saved: Mapping[str, int]) -> gdb.UnwindInfo:
    pointer = frame.read_register("rsp").type
    info = frame.create_unwind_info(_FrameId(_make_value(sp, pointer), _make_value(pc, pointer)))
    for name, value in saved.items():
        info.add_saved_register(name, _make_value(value, frame.read_register(name).type))
    return info


def _make_value(bits: int, kind: gdb.Type) -> gdb.Value:
    # Bytes and a type work for every register type; eflags, a set of flags, cannot be cast to.
    size = kind.sizeof
    return gdb.Value((bits & (1 << 8 * size) - 1).to_bytes(size, "little"), kind)


class _FrameRegisters(Mapping[str, int]):
    """Register name -> value in `frame`, read when asked for."""

    def __init__(self, frame: gdb.PendingFrame) -> None:
        self._frame = frame

    def __getitem__(self, name: str) -> int:
        return _read(self._frame, name)

    def __iter__(self) -> Iterator[str]:
        return iter(_REGISTERS)

    def __len__(self) -> int:
        return len(_REGISTERS)
