"""The function that a stub calls, and how the system-call number and arguments reach it."""

from exogdb.abi.stub.entry_path import ARGUMENT_REGISTERS, NUMBER_REGISTER, Dispatcher, FrameLayout, Parameter
from exogdb.abi.stub.follow import Call, Walk
from exogdb.abi.stub.layout import ARGUMENT_PASSING
from exogdb.abi.stub.location import InFrame, InRegister, Location, OnStack
from exogdb.abi.stub.symbolic import MachineState, Sum, Unknown, UserValue, find_origin, split

__all__ = ["derive_dispatcher", "find_dispatcher_call", "find_rivals"]


def find_dispatcher_call(survey: Walk) -> Call | None:
    """The call that is given most of the system call; the first of several alike, the first at all if none is."""
    calls = [call for call in survey.calls.values() if not call.is_leaf]
    fits = {call: _rate(survey.states[call.instruction.address]) for call in calls}
    return max(calls, key=fits.__getitem__, default=next(iter(survey.calls.values()), None))


def find_rivals(survey: Walk, chosen: Call) -> list[Call]:
    """The other calls that are given no less of the system call than `chosen`."""
    fit = _rate(survey.states[chosen.instruction.address])
    others = (call for call in survey.calls.values() if call is not chosen and not call.is_leaf)
    return [call for call in others if 0 < fit <= _rate(survey.states[call.instruction.address])]


def _rate(state: MachineState) -> int:
    """What a call is given: 3 the number or a pointer to what was saved, as an argument; 2 argument 4 in its place
    for C; 1 the number still in its own register, as it is at any call that comes early; 0 nothing.
    """
    top, _ = split(state.registers["rsp"])
    passed = [state.registers[name] for name in ARGUMENT_PASSING]
    if any(find_origin(value) == UserValue(NUMBER_REGISTER) for value in passed):
        return 3
    if not isinstance(top, Unknown) and any(split(value)[0] == top for value in passed):
        return 3
    if find_origin(state.registers[NUMBER_REGISTER]) != UserValue(NUMBER_REGISTER):
        return 0
    return 2 if state.registers["rcx"] == UserValue("r10") else 1


def derive_dispatcher(call: Call, state: MachineState, layout: FrameLayout) -> Dispatcher:
    """The dispatcher called at `call`, which finds the machine in `state` (`make_state_at_call`)."""
    rsp = state.registers["rsp"]
    top, depth = split(rsp)
    parameters = tuple(_derive_parameter(name, state, layout) for name in ARGUMENT_PASSING)
    number, *arguments = (
        _find_location(register, state, parameters, layout) for register in (NUMBER_REGISTER, *ARGUMENT_REGISTERS)
    )
    return Dispatcher(
        address=call.target,
        target=call.written_target,
        call_address=call.instruction.address,
        return_address=call.returns_to,
        rsp_below_top=None if isinstance(top, Unknown) else -depth,
        realigned=isinstance(rsp, Sum) and not rsp.exact and not isinstance(top, Unknown),
        parameters=parameters,
        number=number,
        arguments=tuple(arguments),
    )


def _derive_parameter(name: str, state: MachineState, layout: FrameLayout) -> Parameter:
    value = state.registers[name]
    origin = find_origin(value)
    base, offset = split(value)
    top, _ = split(state.registers["rsp"])
    is_stack = base == top and not isinstance(top, Unknown)
    points_inside = is_stack and 0 <= offset + layout.base_below_top <= layout.size
    return Parameter(
        register=name,
        value=str(value),
        user=origin.register if isinstance(origin, UserValue) else None,
        frame_offset=offset + layout.base_below_top if points_inside else None,
    )


def _find_location(
    register: str, state: MachineState, parameters: tuple[Parameter, ...], layout: FrameLayout
) -> Location | None:
    """Where the user's `register` is at the dispatcher's first instruction."""
    pointer = next((each for each in parameters if each.frame_offset is not None), None)
    slot = layout.find_slot(register)
    for parameter in parameters:
        left_over = pointer is not None and slot is not None and parameter.register == register
        if parameter.user == register and not left_over:
            return InRegister(parameter.register)
    if pointer is not None and pointer.frame_offset is not None and slot is not None:
        return InFrame(pointer.register, slot.offset - pointer.frame_offset)
    return _find_on_stack(register, state) or _find_elsewhere(register, state)


def _find_on_stack(register: str, state: MachineState) -> OnStack | None:
    top, depth = split(state.registers["rsp"])
    above = (cell for cell, value in state.memory.items() if value == UserValue(register) and cell.base == top)
    offsets = sorted(cell.offset - depth for cell in above if cell.space == "memory" and cell.offset >= depth)
    return OnStack(offsets[0] + 8) if offsets else None  # the call pushes eight bytes


def _find_elsewhere(register: str, state: MachineState) -> InRegister | None:
    holders = [name for name, value in state.registers.items() if find_origin(value) == UserValue(register)]
    return InRegister(register if register in holders else holders[0]) if holders else None
