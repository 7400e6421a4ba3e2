"""The system call that a CPU, or a kernel stack, is in the middle of: its frame, number, handler and arguments.

Nothing here resumes the guest or changes anything in it; LSTAR is never read by RDMSR.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import gdb

from exogdb.abi.frame import Moment, SavedFrame, decode_saved_frame, decode_stub_frame
from exogdb.abi.frame_base import (
    find_call_top,
    find_frame_base,
    find_link,
    find_return_slot,
    find_top_above,
    holds_call,
    is_on_stack,
    read_stack_top,
)
from exogdb.abi.numbers import NumberTable
from exogdb.abi.signature import Argument, decode_arguments
from exogdb.abi.stub.entry_path import ARGUMENT_REGISTERS, EntryPath
from exogdb.abi.stub.stub_state import StubState
from exogdb.errors import MemoryFault, UnavailableError
from exogdb.reading import Reading, Unavailable, Value
from exogdb.target.call.call_arguments import find_argument_values, find_handler_name, find_parameters
from exogdb.target.call.call_number import (
    FoundNumber,
    confirm_number,
    find_number,
    guess_number,
    read_saved_number,
)
from exogdb.target.call.frame_registers import FrameRegisters
from exogdb.target.call.process_stack import find_process, list_numbers
from exogdb.target.call.stub_frames import find_stub_state
from exogdb.target.cpus import Cpu, all_cpus, cpu_selected
from exogdb.target.current_process import find_process_id
from exogdb.target.kernel_memory import KernelMemory, find_kernel_gs_base
from exogdb.target.memory import VirtualMemory
from exogdb.target.numbers import read_number_table
from exogdb.target.path import read_entry_path
from exogdb.target.registers import read_cpl, read_register
from exogdb.target.tables import read_cpu_dump, read_tss
from exogdb.x86.memory import ReadableMemory
from exogdb.x86.word import MASK_64

__all__ = [
    "Call",
    "find_stack_in_call",
    "find_state",
    "list_processes",
    "read_blocked_call",
    "read_call",
    "read_process_call",
]

_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp")
_REGISTERS = (*_GENERAL, *(f"r{number}" for number in range(8, 16)))
_SYSCALL = b"\x0f\x05"


@dataclass(frozen=True)
class Call:
    """A system call in progress, or what is left of the last one (`moment` is `USER`).

    `number` comes with its source, `handler` is a symbol's name, `doubts` are sentences for the user.
    """

    cpu: int | None
    moment: Moment
    frame: SavedFrame
    number: Value
    name: str
    handler: str
    arguments: tuple[Argument, ...]
    doubts: tuple[str, ...] = ()


def read_call(cpu: Cpu) -> Call:
    """The call that `cpu` is in the middle of. The guest must be stopped.

    :raise AnalysisError: there is no entry stub that could be analysed.
    :raise UnavailableError: the kernel stack cannot be found.
    """
    path = read_entry_path(cpu)
    memory = VirtualMemory(cpu)
    cpl, rip = read_cpl(cpu), read_register(cpu, "rip")
    with cpu_selected(cpu):
        found = find_stub_state(rip) if cpl == 0 else None
    state = found[1] if found is not None else None
    if found is not None:
        path = found[0]
    gs_base = find_kernel_gs_base(cpu, state, cpl)
    if state is not None:
        return _read_in_stub(cpu, path, state, gs_base)
    if cpl == 3:
        return _read_stale(cpu, path, gs_base)
    found_call = _find_in_call(cpu, path, gs_base, memory)
    if isinstance(found_call, str):
        interrupted = _read_interrupted_stub(cpu, path, gs_base, memory)
        if interrupted is not None:
            return interrupted
        nothing = SavedFrame(None, ())
        return Call(cpu.index, Moment.NO_CALL, nothing, Unavailable(found_call), "", "", (), path.doubts)
    frame = decode_saved_frame(path, found_call.top, None, gs_base, memory)
    call = _name_call(cpu, path, Moment.IN_CALL, frame, memory)
    return replace(call, doubts=(*found_call.doubts, *call.doubts))


def _read_stale(cpu: Cpu, path: EntryPath, gs_base: int) -> Call:
    """In user mode: what is left of the last call, if an interrupt has not used the stack since."""
    memory = KernelMemory(cpu, path, gs_base)
    try:
        top = read_stack_top(path, gs_base, memory)
    except UnavailableError as error:
        hidden = f"no system call is in progress, and the last one's stack cannot be read from user mode: {error}"
        return Call(cpu.index, Moment.USER, SavedFrame(None, ()), Unavailable(hidden), "", "", (), path.doubts)
    taken_back = path.stack is not None and not path.stack.is_kept
    rsp = Unavailable("the stub has taken it back from the per-CPU slot") if taken_back else None
    frame = decode_saved_frame(path, top, rsp, gs_base, memory)
    why = "no system call is in progress"
    if not holds_call(path, top, memory) or not _is_behind_syscall(frame, memory):
        why += ", and something else has used the kernel stack since the last one"
        frame = SavedFrame(None, ())
    return Call(cpu.index, Moment.USER, frame, Unavailable(why), "", "", (), path.doubts)


def _is_behind_syscall(frame: SavedFrame, memory: ReadableMemory) -> bool:
    """Whether the saved rip is right behind a SYSCALL instruction."""
    rip = frame.find("rip")
    if rip is None or isinstance(rip.value, Unavailable):
        return False
    try:
        return memory.read(rip.value.value - len(_SYSCALL) & MASK_64, len(_SYSCALL)) == _SYSCALL
    except MemoryFault:
        return False


def find_stack_in_call(cpu: Cpu, path: EntryPath) -> int | None:
    """The top of the kernel stack of the call that `cpu` works on, outside the stub; None if it works on none.

    On its own stack, or in an interrupt on top of it. The guest must be stopped; nothing in it changes.
    """
    found = _find_in_call(cpu, path, find_kernel_gs_base(cpu, None, read_cpl(cpu)), VirtualMemory(cpu))
    return found.top if isinstance(found, _InCall) else None


def read_blocked_call(cpu: Cpu, address: int, user_rsp: Value | None) -> Call:
    """The call in progress on the kernel stack that `address` lies in, which need not be any CPU's.

    `user_rsp` is the process's, if the kernel keeps it with the process; `cpu` only lends its address space.
    :raise UnavailableError: no call is in progress on that stack.
    """
    path = read_entry_path(cpu)
    memory = VirtualMemory(cpu)
    memory.read(address, 8)
    top = find_top_above(path, address, memory)
    slot = find_return_slot(path, top) if top is not None else None
    if top is None or slot is None:
        raise UnavailableError(
            f"no system call is in progress on the stack at {address:#x}: the return address into the entry stub"
            " is nowhere above it"
        )
    frame = decode_saved_frame(path, top, user_rsp, None, memory)
    table = read_number_table([path.entry])
    number = read_saved_number(path, top, memory)
    if number is None or number.doubt:
        number = confirm_number(number, guess_number(address, slot, memory, table))
    values = find_argument_values(path, frame, None, None, memory)
    return _make_call(None, Moment.BLOCKED, frame, number, values, table, memory, path.doubts)


def read_process_call(cpu: Cpu, process: int) -> Call:
    """The call that the process numbered `process` is in, by the kernel's own table. See `find_process`.

    If a CPU runs the process, what is parked of it is old, and the answer is that CPU's call.

    :raise UnavailableError: it is in no call, or the kernel's debug info does not say where its stack is.
    :raise UsageError: there is no such process.
    """
    gs_base, code = _find_kernel(cpu)
    for each in all_cpus():
        if find_process_id(each, find_kernel_gs_base(each, find_state(each), read_cpl(each))) == process:
            return read_call(each)
    parked = find_process(cpu, gs_base, code, process)
    return read_blocked_call(cpu, parked.rsp, parked.user_rsp)


def list_processes(cpu: Cpu) -> list[int]:
    """The numbers of all processes in the kernel's own table, ascending. The guest must be stopped.

    :raise AnalysisError: there is no entry stub that could be analysed.
    :raise UnavailableError: the kernel's debug info has no such table.
    """
    return list_numbers(cpu, *_find_kernel(cpu))


def _find_kernel(cpu: Cpu) -> tuple[int, int]:
    """The kernel's GS base on `cpu`, and an address in its own source: the dispatcher's, else the entry's."""
    path = read_entry_path(cpu)
    gs_base = find_kernel_gs_base(cpu, find_state(cpu), read_cpl(cpu))
    code = path.dispatcher.address if path.dispatcher is not None else None
    return gs_base, code or path.entry


def find_state(cpu: Cpu) -> StubState | None:
    """The stub's state at `cpu`'s rip, None outside the stub. The guest must be stopped."""
    if read_cpl(cpu) == 3:
        return None
    with cpu_selected(cpu):
        found = find_stub_state(read_register(cpu, "rip"))
    return found[1] if found is not None else None


@dataclass(frozen=True)
class _InCall:
    """The top of the kernel stack that a call is in progress on, and what is not sure about that."""

    top: int
    doubts: tuple[str, ...] = ()


def _find_in_call(cpu: Cpu, path: EntryPath, gs_base: int, memory: VirtualMemory) -> _InCall | str:
    """The call that the kernel, outside the stub, works on; or why it works on none."""
    rsp = read_register(cpu, "rsp")
    at_rsp = _find_call_around(path, rsp, gs_base, memory)
    if isinstance(at_rsp, _InCall):
        return at_rsp
    try:
        interrupted = _find_interrupted(cpu, rsp, memory)
    except UnavailableError as error:
        return f"rsp is not on the process's kernel stack, and {error.reason}"
    if interrupted is None:
        return _find_linked(path, rsp, gs_base, memory) or at_rsp
    if interrupted.cs & 3:
        return "the CPU handles an interrupt that arrived in user mode"
    at_interrupt = _find_call_around(path, interrupted.rsp, gs_base, memory)
    if isinstance(at_interrupt, _InCall):
        return at_interrupt
    return f"the CPU handles an interrupt that arrived at {interrupted.rip:#x}, outside a call"


def _find_call_around(path: EntryPath, rsp: int, gs_base: int, memory: VirtualMemory) -> _InCall | str:
    """The call in progress on the stack that `rsp` is on; else why there is none."""
    try:
        top = find_call_top(path, rsp, gs_base, memory)
    except UnavailableError as error:
        # An interrupt from ring 3 under page-table isolation, before the kernel's page tables are loaded.
        return f"the page tables that are loaded do not show the process's kernel stack: {error}"
    if top is None:
        return f"the stub's return address is nowhere above rsp, {rsp:#x}"
    slot = find_return_slot(path, top)
    if slot is None:
        return "the analysis of the entry stub does not tell where a call would be"
    if not holds_call(path, top, memory):
        return f"the stub's return address is not at {slot:#x}, where a call in progress has it"
    if is_on_stack(rsp, top, memory) and rsp <= slot:
        return _InCall(top)
    return "the CPU runs on a stack that belongs to no process"


def _find_linked(path: EntryPath, rsp: int, gs_base: int, memory: VirtualMemory) -> _InCall | None:
    """The call that an interrupt with a stack of its own has interrupted, if that stack points back."""
    if path.stack is None or not path.stack.is_kept:
        return None
    try:
        top = read_stack_top(path, gs_base, memory)
    except UnavailableError:
        return None
    slot = find_return_slot(path, top)
    if slot is None or not holds_call(path, top, memory):
        return None
    link = find_link(rsp, top, slot, memory)
    if link is None:
        return None
    guess = f"rsp is on another stack, and {link:#x} on it points back to the call's: taken for an interrupt's"
    return _InCall(top, (guess,))


@dataclass(frozen=True)
class _Interrupted:
    """What the CPU pushed when it took an interrupt (Intel SDM Vol. 3A, 64-Bit Mode Stack Frame)."""

    rip: int
    cs: int
    rsp: int


def _find_interrupted(cpu: Cpu, rsp: int, memory: VirtualMemory) -> _Interrupted | None:
    """What an interrupt interrupted that runs on a stack of the interrupt stack table; None on other stacks."""
    tss = read_tss(memory, read_cpu_dump(cpu)).tss
    for top in tss.ist:
        if top and is_on_stack(rsp, top, memory):
            rip, cs, _, at, _ = (int.from_bytes(memory.read(top - 40 + 8 * n, 8), "little") for n in range(5))
            return _Interrupted(rip, cs, at)
    return None


def _read_in_stub(cpu: Cpu, path: EntryPath, state: StubState, gs_base: int) -> Call:
    memory = KernelMemory(cpu, path, gs_base)
    registers = {name: read_register(cpu, name) for name in _REGISTERS}
    base = None
    if state.depth is not None and (state.depth >= path.frame.base_below_top or state.after_dispatch):
        base = find_frame_base(path, registers["rsp"] + state.depth)
    frame = decode_stub_frame(state, base, registers, gs_base, memory)
    return _name_call(cpu, path, Moment.IN_STUB, frame, memory, state)


def _read_interrupted_stub(cpu: Cpu, path: EntryPath, gs_base: int, memory: VirtualMemory) -> Call | None:
    """The call whose stub an interrupt interrupted, if GDB's frames lead there."""
    with cpu_selected(cpu):
        stub, state = _find_stub_frame()
        if stub is None or state is None or stub.level() == 0:
            return None
        registers = FrameRegisters(stub)
        base = None
        if state.depth is not None and (state.depth >= path.frame.base_below_top or state.after_dispatch):
            base = find_frame_base(path, registers["rsp"] + state.depth)
        frame = decode_stub_frame(state, base, registers, gs_base, memory)
    return _name_call(cpu, path, Moment.IN_STUB, frame, memory, state)


def _name_call(
    cpu: Cpu,
    path: EntryPath,
    moment: Moment,
    frame: SavedFrame,
    memory: ReadableMemory,
    state: StubState | None = None,
) -> Call:
    """Number, handler and arguments, with what GDB's frames tell."""
    dispatcher = path.dispatcher.address if path.dispatcher is not None else None
    table = read_number_table([address for address in (dispatcher, path.entry) if address is not None])
    with cpu_selected(cpu):
        stub, stub_state = _find_stub_frame()
        number: FoundNumber | Unavailable | None = None
        if stub is not None and stub_state is not None:
            number = find_number(path, stub_state, stub, memory, table)
        elif frame.base is not None and state is None:
            number = read_saved_number(path, frame.base + path.frame.base_below_top, memory)
        values = find_argument_values(path, frame, stub, state, memory)
        return _make_call(cpu.index, moment, frame, number, values, table, memory, path.doubts)


def _make_call(
    cpu: int | None,
    moment: Moment,
    frame: SavedFrame,
    number: FoundNumber | Unavailable | None,
    values: list[tuple[Value, str]],
    table: NumberTable,
    memory: ReadableMemory,
    doubts: tuple[str, ...],
) -> Call:
    named = table.find(number.number) if isinstance(number, FoundNumber) else None
    handler = find_handler_name(named.name) if named is not None else ""
    rows = [(register, *value) for register, value in zip(ARGUMENT_REGISTERS, values, strict=True)]
    value: Value = number if isinstance(number, Unavailable) else Unavailable("nothing on the way keeps it")
    if isinstance(number, FoundNumber):
        value = Reading(number.number, number.source)
        doubts += (number.doubt,) if number.doubt else ()
    return Call(
        cpu=cpu,
        moment=moment,
        frame=frame,
        number=value,
        name=named.name if named is not None else "",
        handler=handler,
        arguments=decode_arguments(rows, find_parameters(handler), memory),
        doubts=doubts,
    )


def _for_each_frame() -> Iterator[gdb.Frame]:
    frame: gdb.Frame | None = gdb.newest_frame()
    while frame is not None:
        yield frame
        frame = frame.older()


def _find_stub_frame() -> tuple[gdb.Frame | None, StubState | None]:
    try:
        for frame in _for_each_frame():
            found = find_stub_state(frame.pc())
            if found is not None:
                return frame, found[1]
    except (gdb.error, MemoryFault):
        pass  # frames that GDB cannot walk tell nothing; the caller says so
    return None, None
