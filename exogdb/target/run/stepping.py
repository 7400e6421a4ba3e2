"""Going from one end of a system call to the other: entry, handler, and the instruction behind SYSCALL.

A call is followed by what no other call has while it lasts: the kernel stack that its frame lies on. A process
that sleeps in a call keeps its stack, on whatever CPU it wakes up. A program in user mode is followed by its page
tables (CR3) and its FS base, which tells threads apart.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from exogdb.abi.choice import Choice
from exogdb.abi.dispatch.place import PlaceKind
from exogdb.abi.frame_base import find_frame_base, find_return_slot
from exogdb.abi.stub.disassembly import GENERAL_REGISTERS
from exogdb.abi.stub.entry_path import ARGUMENT_REGISTERS, NUMBER_REGISTER, Dispatcher, EntryPath
from exogdb.abi.stub.stub_state import read_held
from exogdb.errors import AnalysisError
from exogdb.target.breakpoint.planning import read_place
from exogdb.target.call.call_arguments import find_handler_name
from exogdb.target.call.current_call import find_stack_in_call
from exogdb.target.cpus import Cpu
from exogdb.target.gs import find_entries, read_gs
from exogdb.target.memory import VirtualMemory
from exogdb.target.numbers import read_number_table
from exogdb.target.path import read_entry_path
from exogdb.target.registers import read_cpl, read_register
from exogdb.target.run.waypoint import Arrival, Place, run_to
from exogdb.target.symbols import find_address, find_symbol

__all__ = [
    "CallInProgress",
    "Entered",
    "find_call",
    "find_dispatcher",
    "find_handler",
    "read_entered",
    "run_to_entry",
    "run_to_handler",
    "run_to_own_entry",
    "run_to_own_stack",
    "run_to_return",
]

# The lower bits of CR3 are a context number, which a kernel may give anew (Intel SDM Vol. 3A, PCIDs).
_PAGE_TABLES = ~0x1FFF  # without the process-context identifier, and the bit that page-table isolation switches
_LARGEST_STACK = 0x10000


@dataclass(frozen=True)
class CallInProgress:
    """A system call that is in the kernel on `cpu`.

    `top` is the top of its kernel stack (a virtual address), None in the stub while rsp is not on it.
    `is_leaving`: the dispatcher has returned.
    """

    cpu: Cpu
    path: EntryPath
    top: int | None
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

    :raise UnavailableError: the entry path cannot be read.
    """
    if read_cpl(cpu) == 3:
        return None
    path = read_entry_path(cpu)
    rsp = read_register(cpu, "rsp")
    state = path.state_at(read_register(cpu, "rip"))
    if state is not None:
        on_stack = state.stack == "kernel" and state.depth is not None
        top = (rsp + state.depth) % (1 << 64) if on_stack and state.depth is not None else None
        return CallInProgress(cpu, path, top, state.after_dispatch)
    top = find_stack_in_call(cpu, path)
    return None if top is None else CallInProgress(cpu, path, top, is_leaving=False)


def _find_kernel_gs(cpu: Cpu) -> int | None:
    return read_gs(cpu, find_entries([cpu]).get(cpu.index)).report.kernel


def run_to_entry(cpu: Cpu, choice: Choice | None, *, any_cpu: bool) -> Arrival:
    """Run until the next SYSCALL whose number is in `choice` (None: any) has brought a CPU to its entry stub."""

    def is_wanted(at: Cpu) -> bool:
        return choice is None or read_register(at, NUMBER_REGISTER) in choice

    entry = read_entry_path(cpu).entry
    return run_to([Place(entry, is_wanted, None if any_cpu else cpu)])


def run_to_own_entry(cpu: Cpu) -> Arrival:
    """Run until the program that `cpu` executes in user mode makes a system call, wherever it is by then."""
    return run_to([Place(read_entry_path(cpu).entry, _is_same_program(cpu))])


def _is_same_program(cpu: Cpu) -> Callable[[Cpu], bool]:
    """Whether a CPU in user mode, or at the stub's entry, runs the program that `cpu` runs in user mode now."""

    def identity(of: Cpu) -> tuple[int, int]:
        return read_register(of, "cr3") & _PAGE_TABLES, read_register(of, "fs_base")

    program = identity(cpu)
    return lambda at: identity(at) == program


def run_to_handler(call: CallInProgress, handler: int) -> Arrival:
    """Run `call`, which is on its kernel stack, to `handler` (a virtual address).

    Or to the dispatcher's return, if the call does not come by there.
    """
    top = call.top

    def is_below(at: Cpu) -> bool:
        return top is not None and 0 < top - read_register(at, "rsp") <= _LARGEST_STACK

    return run_to([Place(handler, is_below), _dispatcher_return(call)])


def run_to_return(call: CallInProgress) -> Arrival:
    """Run `call` to the instruction that user code goes on with. A call that does not return runs on.

    If it does not go back to where it came from, the run ends where the dispatcher returns, with a report.
    """
    cpu = call.cpu
    if not call.is_leaving:
        settled = run_to_own_stack(call)
        if isinstance(settled, Arrival):
            return settled
        came_from = _read_saved_rip(settled, settled.cpu)
        arrival = run_to([_dispatcher_return(settled)])
        if arrival.place is None:
            return arrival
        goes_to = _read_saved_rip(settled, arrival.cpu)
        if goes_to != came_from:
            return replace(arrival, place=None, report=_say_elsewhere(came_from, goes_to))
        cpu = arrival.cpu
    return _run_to_user(cpu, call.path)


def _say_elsewhere(came_from: int, goes_to: int) -> str:
    return (
        f"on the call's kernel stack the way back leads to {goes_to:#x}, not to {came_from:#x} where it came from:"
        " exec has replaced the program, a signal handler runs first, or the process has ended and another one has"
        " its stack"
    )


def run_to_own_stack(call: CallInProgress) -> CallInProgress | Arrival:
    """The same call on its kernel stack, or an `Arrival` if something else stops the guest before.

    With the user's page tables loaded the stub's slots cannot be read, so it runs to the dispatcher's call first.
    """
    if call.top is not None:
        return call
    dispatcher = find_dispatcher(call.path)
    user = _read_user_place(call.cpu, call.path)
    is_own = Place(dispatcher.call_address, lambda at: _read_user_place(at, call.path) == user, call.cpu)
    arrival = run_to([is_own])
    if arrival.place is None:
        return arrival
    settled = find_call(arrival.cpu)
    if settled is None or settled.top is None:
        raise AnalysisError("the kernel stack at the dispatcher's call is not known", dispatcher.call_address)
    return settled


def find_dispatcher(path: EntryPath) -> Dispatcher:
    """The dispatcher.

    :raise AnalysisError: the stub's code does not tell.
    """
    if path.dispatcher is None:
        raise AnalysisError(f"the stub at {path.entry:#x} calls no dispatcher that its code tells", path.entry)
    return path.dispatcher


def _dispatcher_return(call: CallInProgress) -> Place:
    """Where the dispatcher has returned on the call's stack.

    A call that ends its process never comes here, but the next process may get its stack: the saved rip tells.
    """
    slot = find_return_slot(call.path, call.top) if call.top is not None else None
    if slot is None:
        raise AnalysisError(f"where the dispatcher of the stub at {call.path.entry:#x} returns to is not known")
    rsp = (slot + 8) % (1 << 64)
    return Place(find_dispatcher(call.path).return_address, lambda at: read_register(at, "rsp") == rsp)


def _read_saved_rip(call: CallInProgress, cpu: Cpu) -> int:
    """Where user space will go on, by the frame on the call's stack now, with `cpu`'s page tables."""
    slot = call.path.frame.find_slot("rip")
    if slot is None or call.top is None:
        raise AnalysisError(f"the stub at {call.path.entry:#x} does not save the user's rip where it can be found")
    saved_at = find_frame_base(call.path, call.top) + slot.offset
    return int.from_bytes(VirtualMemory(cpu).read(saved_at, 8), "little")


def _run_to_user(cpu: Cpu, path: EntryPath) -> Arrival:
    """Run `cpu`, which is on the way out, to where its program goes on.

    Interrupts are off up to the return instruction, so it is this CPU that gets there. One that is due strikes
    behind it, before the program's next instruction: another process, a new child of this one, may come by at the
    same addresses first, and the program may go on elsewhere.
    """
    user_rip, user_rsp = _read_user_place(cpu, path)
    exits = {each.address for each in path.exits if each.after_dispatch}
    if exits and read_register(cpu, "rip") not in exits:
        arrival = run_to([Place(address, lambda _at: True, cpu) for address in sorted(exits)])
        if arrival.place is None:
            return arrival
    is_same = _is_same_program(cpu)

    def is_back(at: Cpu) -> bool:
        return read_cpl(at) == 3 and read_register(at, "rsp") == user_rsp and is_same(at)

    return run_to([Place(user_rip, is_back)])


def _read_user_place(cpu: Cpu, path: EntryPath) -> tuple[int, int]:
    """The user's rip and rsp, wherever the stub has them at the instruction where `cpu` stands."""
    rip = read_register(cpu, "rip")
    state = path.state_at(rip)
    if state is None:
        raise AnalysisError(f"{rip:#x} is not in the entry stub: where user space goes on is not known", rip)
    registers = {name: read_register(cpu, name) for name in GENERAL_REGISTERS}
    memory, gs_base = VirtualMemory(cpu), _find_kernel_gs(cpu)
    user_rip, user_rsp = (read_held(state.registers[name], registers, gs_base, memory) for name in ("rip", "rsp"))
    return user_rip, user_rsp


def find_handler(cpu: Cpu, number: int) -> int | None:
    """An address that only calls of `number` run through, its handler if there is one; None if it has none.

    Found by emulating the dispatcher on a copy of memory: no symbol is needed, and nothing in the guest changes.
    Where the number table's function of that name exists and is behind a wrapper, it is that.

    The kernel's page tables must be loaded, as they are when a call is on its own stack.

    :raise AnalysisError: the dispatcher cannot be followed.
    """
    place = read_place(cpu, number)
    entry = read_number_table().find(number)
    named = find_address(find_handler_name(entry.name)) if entry is not None else None
    if place.kind is PlaceKind.DISPATCHER:
        return named
    symbol = find_symbol(place.address)
    is_function = symbol is not None and symbol.offset == 0
    # A function of its own on the way (a closure, a wrapper) is not the one the table means. Inside the dispatcher
    # it is different: there the handler was inlined, and a function of its name is a copy that nobody calls.
    return named if named is not None and is_function else place.address
