"""The rule that stub and dispatcher agree: what the one leaves in registers is what the other takes from there."""

from collections.abc import Iterator, Sequence

from exogdb.abi.check.facts import EntryFacts, Facts, SignatureParameter, known
from exogdb.abi.check.rule import Finding, Outcome, Rule, Severity, each_entry
from exogdb.abi.check.stub import find_dispatcher
from exogdb.abi.stub.disassembly import GENERAL_REGISTERS
from exogdb.abi.stub.entry_path import ARGUMENT_REGISTERS, NUMBER_REGISTER, Dispatcher, FrameLayout
from exogdb.abi.stub.location import InRegister, Location, OnStack, describe_location
from exogdb.errors import UnavailableError

__all__ = ["SIGNATURE_RULES", "find_disagreements", "find_number_parameter"]

PASSING = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")  # System V ABI AMD64, Parameter Passing
NUMBER_NAMES = frozenset(
    {"num", "nr", "number", "no", "n", "id", "sysno", "sys_no", "scno", "syscall", "syscall_id", "syscall_no"}
    | {"syscall_nr", "syscall_num", "syscall_number", "sys_nr", "sys_num", "unr", "sysnr", "call", "code"}
)
# SYSCALL itself puts the user's rip and rflags into these (Intel SDM Vol. 2B, SYSCALL).
SYSCALL_PUTS = {"rcx": "rip", "r11": "rflags"}
WHOLE_CALL = 1 + len(ARGUMENT_REGISTERS)


def find_number_parameter(parameters: Sequence[SignatureParameter]) -> int | None:
    """The position of the parameter that takes the system-call number: by its name, else the first of seven.

    >>> find_number_parameter([SignatureParameter("regs", 8, True), SignatureParameter("nr", 4, False)])
    1
    """
    for position, parameter in enumerate(parameters):
        if parameter.name.lstrip("_").lower() in NUMBER_NAMES and not parameter.is_pointer:
            return position
    if len(parameters) == WHOLE_CALL and not any(parameter.is_pointer for parameter in parameters):
        return 0
    return None


def _place(position: int) -> Location:
    """Where the calling convention puts an integer parameter, at the callee's first instruction."""
    if position < len(PASSING):
        return InRegister(PASSING[position])
    return OnStack(8 * (position - len(PASSING) + 1))


def _find_source(dispatcher: Dispatcher, wanted: str) -> Location | None:
    """Where the user's register `wanted` is when the dispatcher starts."""
    places = (dispatcher.number, *dispatcher.arguments)
    return dict(zip((NUMBER_REGISTER, *ARGUMENT_REGISTERS), places, strict=True))[wanted]


def _holds(dispatcher: Dispatcher, place: Location, wanted: str) -> bool:
    """Whether the stub leaves the user's register `wanted` in `place`."""
    if isinstance(place, InRegister):
        return any(each.register == place.name and each.user == wanted for each in dispatcher.parameters)
    return _find_source(dispatcher, wanted) == place


def _whereabouts(dispatcher: Dispatcher, wanted: str) -> str:
    found = _find_source(dispatcher, wanted)
    return "is lost" if found is None else f"is in {describe_location(found)}"


def _check_scalars(dispatcher: Dispatcher, parameters: Sequence[SignatureParameter], number: int) -> Iterator[str]:
    users = iter(ARGUMENT_REGISTERS)
    for position, parameter in enumerate(parameters):
        wanted = NUMBER_REGISTER if position == number else next(users, None)
        place = _place(position)
        if wanted is not None and not _holds(dispatcher, place, wanted):
            meaning = "the number" if position == number else f"user {wanted}"
            where = _whereabouts(dispatcher, wanted)
            yield f"{parameter.name} is taken from {describe_location(place)}, but {meaning} {where}"


def _check_with_frame(
    dispatcher: Dispatcher, parameters: Sequence[SignatureParameter], frame: FrameLayout
) -> Iterator[str]:
    for position, parameter in enumerate(parameters):
        given = next(
            (each for each in dispatcher.parameters if InRegister(each.register) == _place(position)), None
        )
        if given is None:
            continue
        if parameter.is_pointer and given.frame_offset is None:
            yield f"{parameter.name} is a pointer taken from {given.register}, which holds {given.value}"
        elif parameter.is_pointer and given.frame_offset is not None:
            yield from _check_fields(parameter, given.frame_offset, frame)
        elif position == find_number_parameter(parameters) and given.user != NUMBER_REGISTER:
            yield f"{parameter.name} is taken from {given.register}, which holds {given.value}, not the number"


def _check_fields(parameter: SignatureParameter, frame_offset: int, frame: FrameLayout) -> Iterator[str]:
    """Fields that are named like one register and lie where the stub saves another."""
    saved = {slot.offset: slot.holds for slot in frame.slots}
    for name, offset in parameter.fields:
        register = _register_of(name)
        holds = saved.get(frame_offset + offset)
        if register is not None and holds is not None and holds not in (register, SYSCALL_PUTS.get(register)):
            yield f"{parameter.name}.{name} lies where the stub saves {holds}"


def _register_of(field: str) -> str | None:
    """The register that a field of a saved frame is named after.

    >>> [_register_of(name) for name in ("r15", "ax", "orig_ax", "user_rip", "eflags", "padding")]
    ['r15', 'rax', 'rax', 'rip', 'rflags', None]
    """
    word = field.lower().removeprefix("user_").removeprefix("orig_")
    if word in ("flags", "eflags", "rflags"):
        return "rflags"
    wide = word if word.startswith("r") else f"r{word}"
    return wide if wide in (*GENERAL_REGISTERS, "rip") else None


def find_disagreements(
    dispatcher: Dispatcher, parameters: Sequence[SignatureParameter], frame: FrameLayout
) -> list[str]:
    """Where the dispatcher's parameters are not what the stub leaves for them, one clause each.

    A structure that the dispatcher gets a pointer to is compared with `frame`, field by field.

    :raise UnavailableError: which parameter is the number cannot be told.
    """
    number = find_number_parameter(parameters)
    if any(parameter.is_pointer for parameter in parameters):
        return list(_check_with_frame(dispatcher, parameters, frame))
    if number is not None:
        return list(_check_scalars(dispatcher, parameters, number))
    names = ", ".join(parameter.name for parameter in parameters)
    raise UnavailableError(f"which of the dispatcher's parameters ({names}) is the number cannot be told")


def _check_agreement(entry: EntryFacts, facts: Facts) -> Iterator[Outcome]:
    path = known(entry.path)
    dispatcher = find_dispatcher(path)
    problems = find_disagreements(dispatcher, known(entry.signature), path.frame)
    if problems:
        yield Finding(
            f"{_name(dispatcher, facts)}: " + "; ".join(problems),
            "each parameter where the C calling convention takes it from",
            "the dispatcher's call",
            dispatcher.call_address,
        )


def _name(dispatcher: Dispatcher, facts: Facts) -> str:
    return dispatcher.target if dispatcher.address is None else facts.name(dispatcher.address)


SIGNATURE_RULES = (
    Rule(
        "EXO033",
        Severity.ERROR,
        "Stub and dispatcher agree on registers",
        "SYSCALL programs pass the number in rax and the fourth argument in r10; a C function takes its first "
        "parameter from rdi and its fourth from rcx, its seventh from the stack. A stub that does not move "
        "them, or a frame structure out of step with the pushes, makes the dispatcher take one value for "
        "another.",
        "System V ABI AMD64, Parameter Passing; Linux Conventions, Calling Conventions",
        "Move every register before the call, in an order that overwrites none too early; push the seventh. "
        "Keep the structure of a saved frame in the order of the pushes, the last one first.",
        each_entry(_check_agreement),
    ),
)
