"""How each way back to user space gives the registers back."""

from collections.abc import Set

from exogdb.abi.stub.disassembly import GENERAL_REGISTERS
from exogdb.abi.stub.entry_path import Exit, FrameLayout, RegisterReturn
from exogdb.abi.stub.follow import RETURNS_TO_USER, Walk
from exogdb.abi.stub.graph import find_reachable, reverse_edges
from exogdb.abi.stub.symbolic import (
    Cell,
    Constant,
    Loaded,
    MachineState,
    Returned,
    Unknown,
    UserValue,
    Value,
    find_origin,
    split,
)

__all__ = ["derive_exits", "find_exit_values", "find_exits_ahead", "find_return_values"]

IRET_FRAME = ("rip", "cs", "rflags", "rsp", "ss")  # Intel SDM, IRETQ: from rsp upwards


def find_exit_values(kind: str, state: MachineState) -> dict[str, Value]:
    """What the user will find in each register when the return instruction executes in `state`."""
    values = {name: state.registers[name] for name in GENERAL_REGISTERS}
    if kind == "iret":
        base, offset = split(state.registers["rsp"])
        cells = [Cell("memory", base, offset + 8 * place) for place in range(len(IRET_FRAME))]
        return values | {name: state.load(cell) for name, cell in zip(IRET_FRAME, cells, strict=True)}
    if kind == "sysexit":
        return values | {"rip": values["rdx"], "rsp": values["rcx"]}
    return values | {"rip": values["rcx"], "rflags": values["r11"]}


def _for_each_exit(walk: Walk) -> list[tuple[int, str, MachineState]]:
    return [
        (address, RETURNS_TO_USER[instruction.mnemonic], walk.states[address])
        for address, instruction in sorted(walk.instructions.items())
        if instruction.mnemonic in RETURNS_TO_USER
    ]


def find_exits_ahead(after: Walk) -> dict[int, frozenset[int]]:
    """The exits that the code at each address leads to; all of them where none is found."""
    exits = frozenset(address for address, _kind, _state in _for_each_exit(after))
    sources = reverse_edges(after.edges)
    ahead: dict[int, set[int]] = {address: set() for address in after.instructions}
    for found in exits:
        for address in find_reachable([found], sources):
            ahead[address].add(found)
    return {address: frozenset(found) or exits for address, found in ahead.items()}


def find_return_values(after: Walk, ahead: Set[int] | None = None) -> dict[str, tuple[Value, ...]]:
    """For each user register the values that the exits put there, IRETQ's (the complete ones) first.

    `ahead` are the exits that are meant, all of them if it is not given. Behind each value is the one that it is
    made from by masks, for instructions in front of these. What was not followed is a value, too: where the code
    has made it, it is that, and nowhere before.
    """
    exits = sorted(_for_each_exit(after), key=lambda found: found[1] != "iret")
    values: dict[str, list[Value]] = {}
    for _, kind, state in (each for each in exits if ahead is None or each[0] in ahead):
        for name, value in find_exit_values(kind, state).items():
            if not isinstance(value, Unknown) or value.address:
                values.setdefault(name, []).extend((value, find_origin(value)))
    return {name: tuple(dict.fromkeys(found)) for name, found in values.items()}


def derive_exits(before: Walk, after: Walk, layout: FrameLayout, at_call: MachineState | None) -> tuple[Exit, ...]:
    """Every return to user space, those that skip the dispatcher first."""
    top = split(at_call.registers["rsp"])[0] if at_call is not None else None
    exits = []
    for walk, after_dispatch in ((before, False), (after, True)):
        for address, kind, state in _for_each_exit(walk):
            registers = {
                name: _classify(name, value, top, layout) for name, value in find_exit_values(kind, state).items()
            }
            exits.append(Exit(address, kind, state.gs, after_dispatch, registers))
    return tuple(exits)


def _classify(name: str, value: Value, top: Value | None, layout: FrameLayout) -> RegisterReturn:
    origin = find_origin(value)
    text = str(value)
    match origin:
        case Loaded(Cell(space="gs", base=None, offset=slot)):
            return RegisterReturn("restored", text, gs_slot=slot)
        case Loaded(Cell(space="memory", base=base, offset=offset)) if base is not None:
            inside = offset + layout.base_below_top if base == top else None
            return RegisterReturn("restored", text, frame_offset=inside)
        case Constant():
            return RegisterReturn("constant", text)
        case UserValue(register):
            architectural = {"rcx": "rip", "r11": "rflags"}.get(name)
            return RegisterReturn("untouched" if register in (name, architectural) else "user", text)
        case Returned(register) if register == name == "rax":
            return RegisterReturn("result", text)
        case Unknown():
            return RegisterReturn("unknown", text)
    return RegisterReturn("leaked", text)
