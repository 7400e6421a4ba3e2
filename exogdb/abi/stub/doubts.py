"""What the analysis of an entry stub is not sure of, one sentence each."""

from collections.abc import Iterator

from exogdb.abi.stub.disassembly import Instruction
from exogdb.abi.stub.entry_path import Exit
from exogdb.abi.stub.events import find_gs_accesses, find_gs_changes
from exogdb.abi.stub.follow import Call, Walk
from exogdb.abi.stub.symbolic import Gs, Unknown

__all__ = ["find_doubts"]

_USES_STACK = ("push", "pop", "call", "ret", "pushfq", "popfq", "iretq")


def find_doubts(
    call: Call | None, before: Walk, after: Walk, exits: tuple[Exit, ...], rivals: list[Call]
) -> tuple[str, ...]:
    """Everything that the screens call "not sure".

    `call` is the dispatcher's, `rivals` are other calls that could as well be it.
    """
    found = [*before.doubts.values(), *after.doubts.values(), *_doubt_dispatcher(call, before, rivals)]
    if not exits:
        found.append("no way back to user space was found")
    found += [*_doubt_stack(before, after), *_doubt_gs(before, after)]
    return tuple(dict.fromkeys(found))


def _doubt_dispatcher(call: Call | None, before: Walk, rivals: list[Call]) -> Iterator[str]:
    if call is None:
        yield "no call of a dispatcher was found"
        return
    taken = f"the dispatcher is taken to be the one called at {call.instruction.address:#x}"
    if call.target is None:
        yield f"the dispatcher is called through `{call.written_target}`, whose value the code does not tell"
    earlier = [each for each in before.calls.values() if each.instruction != call.instruction and not each.is_leaf]
    for other in earlier:
        yield f"{_name(other)} is another call on the way in; {taken}"
    for other in rivals:
        if other.instruction.address not in {each.instruction.address for each in earlier}:
            yield f"{_name(other)} is given as much of the system call; {taken}"


def _name(call: Call) -> str:
    return f"`{call.instruction.text}` at {call.instruction.address:#x}"


def _doubt_stack(before: Walk, after: Walk) -> Iterator[str]:
    """Where rsp is lost and the stack used all the same; elsewhere it may be a scratch register."""
    for walk in (before, after):
        lost = [
            address
            for address, state in walk.states.items()
            if isinstance(state.registers["rsp"], Unknown) and _uses_stack(walk.instructions.get(address))
        ]
        if lost:
            yield f"rsp is not known at {min(lost):#x}" + (f" and {len(lost) - 1} more" if lost[1:] else "")


def _uses_stack(instruction: Instruction | None) -> bool:
    return instruction is not None and instruction.mnemonic in _USES_STACK


def _doubt_gs(before: Walk, after: Walk) -> Iterator[str]:
    for address in find_gs_changes(before, after):
        yield f"the GS base is set at {address:#x}; whose it is from there on the code does not tell"
    unsure = [access.address for access in find_gs_accesses(before, after) if access.active is Gs.UNKNOWN]
    if unsure:
        yield f"whose GS base is active at {min(unsure):#x} depends on the way that leads there"
