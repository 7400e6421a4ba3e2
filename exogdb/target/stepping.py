"""Going from one end of a system call to the other: entry, handler, and the instruction behind SYSCALL.

A call is followed by what no other call has while it lasts: the kernel stack that its frame lies on. A process
that sleeps in a call keeps its stack, on whatever CPU it wakes up. A program in user mode is followed by its page
tables (CR3) and its FS base, which tells threads apart.
"""

from dataclasses import dataclass

from exogdb.abi.choice import Choice
from exogdb.abi.disassembly import GENERAL_REGISTERS
from exogdb.abi.entry_path import ARGUMENT_REGISTERS, NUMBER_REGISTER, EntryPath
from exogdb.abi.frame_base import find_return_slot, find_top_above, read_stack_top
from exogdb.abi.numbers import NumberTable
from exogdb.abi.stub_state import read_held
from exogdb.errors import AnalysisError, UnavailableError
from exogdb.target.cpus import Cpu
from exogdb.target.gs import find_entries, read_gs
from exogdb.target.memory import VirtualMemory
from exogdb.target.path import read_entry_path
from exogdb.target.registers import read_cpl, read_register
from exogdb.target.symbols import find_address
from exogdb.target.waypoint import Arrival, Place, run_to

__all__ = [
    "CallInProgress",
    "Entered",
    "find_call",
    "find_handler",
    "read_entered",
    "run_to_entry",
    "run_to_handler",
    "run_to_own_entry",
    "run_to_return",
]

# Kernels keep page tables of kernel and user side by side (bit 12), and a context number in bits 0 to 11.
_SAME_PROCESS = ~0x1FFF
_LARGEST_STACK = 0x10000


@dataclass(frozen=True)
class CallInProgress:
    """A system call that is in the kernel. `top` is the top of its kernel stack (a virtual address).

    `return_slot` is where the dispatcher's return address is, or will be. `is_leaving`: the dispatcher has
    returned.
    """

    cpu: Cpu
    path: EntryPath
    top: int
    return_slot: int
    is_leaving: bool


@dataclass(frozen=True)
class Entered:
    """What a program asked for, at the first instruction of the entry stub."""

    cpu: Cpu
    number: int
    arguments: tuple[int, ...]


def read_entered(cpu: Cpu) -> Entered:
    """Number and arguments where `cpu` stands at the stub's first instruction."""
    arguments = tuple(read_register(cpu, name) for name in ARGUMENT_REGISTERS)
    return Entered(cpu, read_register(cpu, NUMBER_REGISTER), arguments)


def find_call(cpu: Cpu) -> CallInProgress | None:
    """The system call that `cpu` executes; None in user mode and in the kernel outside a call. Changes nothing.

    :raise UnavailableError: the entry path or the stack cannot be read.
    :raise AnalysisError: the entry path's code does not tell where the dispatcher returns to.
    """
    if read_cpl(cpu) == 3:
        return None
    path = read_entry_path(cpu)
    top = _find_top(cpu, path)
    return None if top is None else _call_on(cpu, path, top)


def _call_on(cpu: Cpu, path: EntryPath, top: int) -> CallInProgress:
    slot = find_return_slot(path, top)
    if slot is None:
        raise AnalysisError(
            f"where the dispatcher of the stub at {path.entry:#x} returns to is not known", path.entry
        )
    state = path.state_at(read_register(cpu, "rip"))
    return CallInProgress(cpu, path, top, slot, is_leaving=state is not None and state.after_dispatch)


def _find_top(cpu: Cpu, path: EntryPath) -> int | None:
    memory, rsp = VirtualMemory(cpu), read_register(cpu, "rsp")
    state = path.state_at(read_register(cpu, "rip"))
    if state is None:
        return find_top_above(path, rsp, memory)
    if state.stack == "kernel" and state.depth is not None:
        return (rsp + state.depth) % (1 << 64)
    return read_stack_top(path, _kernel_gs(cpu), memory)


def _kernel_gs(cpu: Cpu) -> int:
    report = read_gs(cpu, find_entries([cpu]).get(cpu.index)).report
    if report.kernel is None:
        raise UnavailableError(f"the kernel's GS base of CPU {cpu.index} is not known: {report.why}")
    return report.kernel


def run_to_entry(cpu: Cpu, choice: Choice | None, *, any_cpu: bool) -> Arrival:
    """Run until the next SYSCALL whose number is in `choice` (None: any) has brought a CPU to its entry stub."""

    def is_wanted(at: Cpu) -> bool:
        return choice is None or read_register(at, NUMBER_REGISTER) in choice

    entry = read_entry_path(cpu).entry
    return run_to([Place(entry, is_wanted, None if any_cpu else cpu)])


def run_to_own_entry(cpu: Cpu) -> Arrival:
    """Run until the program that `cpu` executes in user mode makes a system call, wherever it is by then."""
    own_tables, own_fs = read_register(cpu, "cr3"), read_register(cpu, "fs_base")

    def is_own(at: Cpu) -> bool:
        tables = read_register(at, "cr3")
        return not (tables ^ own_tables) & _SAME_PROCESS and read_register(at, "fs_base") == own_fs

    return run_to([Place(read_entry_path(cpu).entry, is_own)])


def run_to_handler(call: CallInProgress, handler: int | None) -> Arrival:
    """Run `call` to `handler` (a virtual address), or to the dispatcher's return if it does not come by there."""

    def is_below(at: Cpu) -> bool:
        return 0 < call.top - read_register(at, "rsp") <= _LARGEST_STACK

    places = [_dispatcher_return(call)]
    if handler is not None:
        places.insert(0, Place(handler, is_below))
    return run_to(places)


def _dispatcher_return(call: CallInProgress) -> Place:
    dispatcher = call.path.dispatcher
    assert dispatcher is not None, "a call in progress has a return slot, so there is a dispatcher"
    return Place(dispatcher.return_address, lambda at: read_register(at, "rsp") == call.return_slot + 8)


def run_to_return(call: CallInProgress) -> Arrival:
    """Run `call` to the instruction that user code goes on with. A call that does not return runs on."""
    cpu = call.cpu
    if not call.is_leaving:
        arrival = run_to([_dispatcher_return(call)])
        if arrival.place is None:
            return arrival
        cpu = arrival.cpu
    return run_to([_user_return(cpu, call.path)])


def _user_return(cpu: Cpu, path: EntryPath) -> Place:
    """Where user space goes on, as the stub will find it: interrupts are off by now, so on the same CPU."""
    rip = read_register(cpu, "rip")
    state = path.state_at(rip)
    if state is None:
        raise AnalysisError(f"{rip:#x} is not in the entry stub: how the call returns is not known", rip)
    memory, gs_base = VirtualMemory(cpu), _kernel_gs(cpu)
    registers = {name: read_register(cpu, name) for name in GENERAL_REGISTERS}
    user_rip = read_held(state.registers["rip"], registers, gs_base, memory)
    user_rsp = read_held(state.registers["rsp"], registers, gs_base, memory)

    def is_back(at: Cpu) -> bool:
        return read_cpl(at) == 3 and read_register(at, "rsp") == user_rsp

    return Place(user_rip, is_back, cpu)


def find_handler(number: int, table: NumberTable) -> int | None:
    """The address of the function that the number table names for `number`; None if there is no such symbol."""
    entry = table.find(number)
    return None if entry is None else find_address(entry.handler)
