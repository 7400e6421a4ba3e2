"""The function that a stub calls, and how the system-call number and arguments reach it."""

from exogdb.abi.entry_path import ARGUMENT_REGISTERS, NUMBER_REGISTER, Dispatcher, FrameLayout, Parameter
from exogdb.abi.follow import Call, Walk
from exogdb.abi.layout import ARGUMENT_PASSING
from exogdb.abi.location import InFrame, InRegister, Location, OnStack
from exogdb.abi.symbolic import MachineState, Sum, UserValue, find_origin, split

__all__ = ["derive_dispatcher", "find_dispatcher_call"]


def find_dispatcher_call(survey: Walk) -> Call | None:
    """The first call that receives the number or a pointer to what was saved; else the first at all."""
    calls = [call for call in survey.calls.values() if not call.is_leaf]
    fitting = [call for call in calls if _receives_call(survey.states[call.instruction.address])]
    return next(iter(fitting or calls or survey.calls.values()), None)


def _receives_call(state: MachineState) -> bool:
    top, _ = split(state.registers["rsp"])
    passed = [state.registers[name] for name in (*ARGUMENT_PASSING, NUMBER_REGISTER)]
    if any(find_origin(value) == UserValue(NUMBER_REGISTER) for value in passed):
        return True
    return any(isinstance(value, Sum) and value.base == top for value in passed)


def derive_dispatcher(call: Call, state: MachineState, layout: FrameLayout) -> Dispatcher:
    """The dispatcher called at `call`, where the machine is in `state`."""
    rsp = state.registers["rsp"]
    top, depth = split(rsp)
    parameters = tuple(_derive_parameter(name, state, layout) for name in ARGUMENT_PASSING)
    number, *arguments = (
        _find_location(register, state, parameters, layout) for register in (NUMBER_REGISTER, *ARGUMENT_REGISTERS)
    )
    return Dispatcher(
        address=call.target,
        target=call.instruction.text.removeprefix("call").strip(),
        call_address=call.instruction.address,
        return_address=call.instruction.next,
        rsp_below_top=-depth if top != rsp or depth == 0 else None,
        realigned=isinstance(rsp, Sum) and not rsp.exact,
        parameters=parameters,
        number=number,
        arguments=tuple(arguments),
    )


def _derive_parameter(name: str, state: MachineState, layout: FrameLayout) -> Parameter:
    value = state.registers[name]
    origin = find_origin(value)
    base, offset = split(value)
    points_inside = base == split(state.registers["rsp"])[0] and 0 <= offset + layout.base_below_top <= layout.size
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
