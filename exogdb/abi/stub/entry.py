"""Understand a kernel's system-call entry stub from its code alone.

`find_entry_path` starts with the machine as SYSCALL leaves it at LSTAR's target, follows the code to the call of
the dispatcher, and from there to every return to user space. Nothing about a particular kernel is assumed; what
is: SYSCALL's own effects (Intel SDM), the System V calling convention at the dispatcher's call, and that the
number is in rax and the arguments in rdi, rsi, rdx, r10, r8, r9 when user space executes SYSCALL.
"""

from collections.abc import Mapping

from exogdb.abi.stub.disassembly import Disassembler, Instruction
from exogdb.abi.stub.dispatcher import derive_dispatcher, find_dispatcher_call, find_rivals
from exogdb.abi.stub.doubts import find_doubts
from exogdb.abi.stub.entry_path import EntryPath, KernelStack
from exogdb.abi.stub.events import (
    find_comparisons,
    find_cr3_switches,
    find_gs_accesses,
    find_swapgs,
    find_user_stack_uses,
)
from exogdb.abi.stub.exits import derive_exits, find_exits_ahead, find_return_values
from exogdb.abi.stub.follow import Call, Walk, follow, make_state_at_call
from exogdb.abi.stub.interpret import apply_call, make_syscall_state
from exogdb.abi.stub.layout import derive_layout
from exogdb.abi.stub.on_demand import OnDemand
from exogdb.abi.stub.stub_state import Finder, Held, StubState
from exogdb.abi.stub.symbolic import Constant, Loaded, MachineState, Unknown, UserValue, Value, find_origin, split
from exogdb.errors import AnalysisError
from exogdb.x86.memory import ReadableMemory

__all__ = ["USER_REGISTERS", "find_entry_path"]

USER_REGISTERS = (
    "rip", "rflags", "rsp", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip


def find_entry_path(memory: ReadableMemory, entry: int, call_address: int | None = None) -> EntryPath:
    """Analyse the stub at `entry` (virtual address, LSTAR's value). Reads code only; changes nothing.

    `call_address` is the call instruction that reaches the dispatcher, for stubs where the analysis takes another.
    :raise AnalysisError: there is no code at `entry`.
    """
    disassembler = Disassembler(memory)
    survey = follow(entry, make_syscall_state(), memory, disassembler)
    if entry not in survey.instructions:
        raise AnalysisError(f"no code can be read at LSTAR's target {entry:#x}", entry)
    call = survey.calls.get(call_address) if call_address is not None else find_dispatcher_call(survey)
    before, after = _follow_both_ways(entry, call, memory, disassembler)
    rivals = find_rivals(survey, call) if call is not None and call_address is None else []
    return _assemble(entry, call, before, after, rivals)


def _follow_both_ways(
    entry: int, call: Call | None, memory: ReadableMemory, disassembler: Disassembler
) -> tuple[Walk, Walk]:
    """The walk from the entry to the dispatcher's call, and the one from its return to user space."""
    address = call.instruction.address if call is not None else None
    before = follow(
        entry, make_syscall_state(), memory, disassembler, lambda met: met.instruction.address == address
    )
    if call is None:
        return before, Walk()
    state = make_state_at_call(call, before.states[call.instruction.address])
    state.forget_memory()
    apply_call(call.instruction, state)
    return before, follow(call.returns_to, state, memory, disassembler)


def _assemble(entry: int, call: Call | None, before: Walk, after: Walk, rivals: list[Call]) -> EntryPath:
    at_call = make_state_at_call(call, before.states[call.instruction.address]) if call is not None else None
    layout = derive_layout(before, after, at_call)
    exits = derive_exits(before, after, layout, at_call)
    return EntryPath(
        entry=entry,
        swapgs=find_swapgs(before, after),
        gs_accesses=find_gs_accesses(before, after),
        cr3_switches=find_cr3_switches(before, after),
        comparisons=find_comparisons(before, after),
        user_stack_uses=find_user_stack_uses(before, after, _find_saved(at_call, "rsp")),
        user_rsp_slot=_find_user_rsp_slot(before, at_call),
        stack=_find_kernel_stack(before, at_call),
        frame=layout,
        dispatcher=derive_dispatcher(call, at_call, layout) if call is not None and at_call is not None else None,
        exits=exits,
        states=_derive_states(before, after, at_call),
        doubts=find_doubts(call, before, after, exits, rivals),
        gs_saved=_find_gs_saved(at_call),
        flow_in=before.edges,
        flow_out=after.edges,
    )


def _find_user_rsp_slot(before: Walk, at_call: MachineState | None) -> int | None:
    state = at_call or max(before.states.items())[1]
    for cell, value in state.memory.items():
        if cell.space == "gs" and cell.base is None and value == UserValue("rsp"):
            return cell.offset
    return None


def _find_gs_saved(at_call: MachineState | None) -> dict[int, str | None]:
    cells = at_call.memory.items() if at_call is not None else ()
    origins = {cell.offset: find_origin(value) for cell, value in cells if (cell.space, cell.base) == ("gs", None)}
    return {
        offset: origin.register if isinstance(origin, UserValue) else None
        for offset, origin in origins.items()
        if isinstance(origin, UserValue | Constant)
    }


def _find_kernel_stack(before: Walk, at_call: MachineState | None) -> KernelStack | None:
    if at_call is None:
        return None
    top, _ = split(at_call.registers["rsp"])
    if isinstance(top, Unknown):
        return None
    slot = (
        top.cell.offset if isinstance(top, Loaded) and top.cell.space == "gs" and top.cell.base is None else None
    )
    loaded_at = None
    for address, instruction in before.instructions.items():
        following = before.states.get(instruction.next)
        changes = split(before.states[address].registers["rsp"])[0] != top
        if following is not None and changes and split(following.registers["rsp"])[0] == top:
            loaded_at = address
            break
    is_kept = not isinstance(top, Loaded) or at_call.load(top.cell) == top
    return KernelStack(top, slot, loaded_at, is_kept)


def _derive_states(before: Walk, after: Walk, at_call: MachineState | None) -> dict[int, StubState]:
    top = split(at_call.registers["rsp"])[0] if at_call is not None else None
    asked: dict[str, tuple[Value, ...]] = {name: (UserValue(name),) for name in USER_REGISTERS}
    asked |= {"rcx": (UserValue("rip"),), "r11": (UserValue("rflags"),)}  # SYSCALL overwrote the user's own
    states = {
        address: _derive_state(instruction, before.states[address], asked, top, False)
        for address, instruction in before.instructions.items()
    }
    # The slots in which a register was saved, should no exit tell better.
    saved = {name: values[-1:] for name in USER_REGISTERS if (values := _find_saved(at_call, name))}
    ahead = find_exits_ahead(after)
    returned = {exits: saved | find_return_values(after, exits) for exits in set(ahead.values())}
    for address, instruction in after.instructions.items():
        wanted = returned[ahead[address]]
        states[address] = _derive_state(instruction, after.states[address], wanted, top, True)
    return states


def _find_saved(at_call: MachineState | None, register: str) -> tuple[Value, ...]:
    """What every slot holds in which the stub saved the user's `register`, as the code behind the call sees it."""
    cells = at_call.memory.items() if at_call is not None else ()
    return tuple(
        Loaded(cell, is_late=True)
        for cell, value in cells
        if value == UserValue(register) and cell.space in ("gs", "memory")
    )


def _derive_state(
    instruction: Instruction,
    state: MachineState,
    wanted: Mapping[str, tuple[Value, ...]],
    top: Value | None,
    after_dispatch: bool,
) -> StubState:
    stack, depth = _classify_stack(state.registers["rsp"], top, wanted)
    finder = Finder(state)
    return StubState(
        address=instruction.address,
        code=instruction.code,
        text=instruction.text,
        after_dispatch=after_dispatch,
        gs=state.gs,
        stack=stack,
        depth=depth,
        registers=OnDemand(USER_REGISTERS, lambda name: finder.find_held(wanted.get(name, ()), name)),
        copies=OnDemand(USER_REGISTERS, lambda name: _find_copies(wanted.get(name, ()), state, finder)),
        words=OnDemand(USER_REGISTERS, lambda name: _find_words(wanted.get(name, ()), finder)),
        flags=dict(state.flags),
    )


def _find_words(wanted: tuple[Value, ...], finder: Finder) -> tuple[Held, ...]:
    values = (value for value in wanted if not isinstance(value, Constant))
    return tuple(dict.fromkeys(held for value in values for held in finder.find_words(value)))


def _find_copies(wanted: tuple[Value, ...], state: MachineState, finder: Finder) -> tuple[str, ...]:
    # What holds the same number by chance is no copy.
    values = (value for value in wanted if not isinstance(value, Constant))
    found = {name for value in values for name in finder.find_registers(value)}
    return tuple(name for name in state.registers if name in found)


def _classify_stack(
    rsp: Value, top: Value | None, wanted: Mapping[str, tuple[Value, ...]]
) -> tuple[str, int | None]:
    base, offset = split(rsp)
    if rsp in wanted.get("rsp", ()):
        return "user", None
    if isinstance(base, Unknown):
        return "unknown", None
    return ("kernel", -offset) if base == top else ("other", None)
