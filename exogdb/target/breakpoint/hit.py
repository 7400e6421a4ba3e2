"""What a CPU that stands at a place of the plan tells: which number, with which arguments, going back where.

Nothing here resumes the guest or changes anything in it. It runs at every hit, whether the user will see it or
not, so it asks for little: a memory read is a round trip to QEMU, and a `gdb.Frame` has GDB find its caller, too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import gdb

from exogdb.abi.dispatch.place import Place
from exogdb.abi.frame_base import find_call_slot, read_saved_word
from exogdb.abi.stub.entry_path import EntryPath
from exogdb.abi.stub.location import Location, read_location
from exogdb.errors import MemoryFault, TargetLostError, UnavailableError
from exogdb.target.connection import is_broken
from exogdb.target.cpus import Cpu
from exogdb.target.memory import VirtualMemory
from exogdb.x86.word import MASK_64, to_signed

__all__ = ["Hit", "StopRegisters", "find_slot", "read_arguments_at", "read_hit", "set_convenience"]

_LOW_HALF = (1 << 32) - 1


class StopRegisters(dict[str, int]):
    """The registers of the CPU whose stop GDB is deciding about, unsigned, read when asked for.

    GDB has selected that CPU's innermost frame then. Only for that moment.

    :raise UnavailableError: on access, a register that cannot be read.
    """

    def __missing__(self, name: str) -> int:
        try:
            value = int(gdb.parse_and_eval(f"${name}")) & MASK_64
        except gdb.error as error:
            kind = TargetLostError if is_broken(error) else UnavailableError
            raise kind(f"register {name}: {error}") from error
        self[name] = value
        return value


@dataclass(frozen=True)
class Hit:
    """One system call that reached its place on `cpu`.

    `arguments` are None where the code keeps one nowhere any more. `return_slot` is the address of the stack slot
    that the dispatcher returns through, None if the stack does not tell. `result` is set when the call has
    returned. `other` is the call's number, if the kernel takes it for `number`, which the place is for.
    """

    cpu: Cpu
    number: int
    arguments: tuple[int | None, ...]
    return_slot: int | None
    result: int | None = None
    other: int | None = None


def read_hit(cpu: Cpu, registers: StopRegisters, place: Place, path: EntryPath) -> Hit | None:
    """The call of `cpu` standing at `place.address`; None if this is no system call of `place.numbers`.

    `path` is the one that the place was planned for. A function that was called from anywhere but the dispatcher
    (`place.callers`) is no system call.

    :raise UnavailableError: the stack or a register cannot be read.
    """
    memory = VirtualMemory(cpu)
    if not _is_called_by_dispatcher(place, memory, registers["rsp"], path):
        return None
    number = place.number if place.number_at is None else read_location(place.number_at, registers, memory)
    arguments = read_arguments_at(place.arguments, registers, memory)
    slot = find_slot(cpu, registers, place, path)
    other = _find_other_number(place, number, registers, memory, path, slot)
    return Hit(cpu, number, arguments, slot, other=other)


def _find_other_number(
    place: Place, number: int, registers: StopRegisters, memory: VirtualMemory, path: EntryPath, slot: int | None
) -> int | None:
    """The call's number, if it is not `number` that user space asked for; None also where nothing tells."""
    if place.held_at is not None:
        held = read_location(place.held_at, registers, memory)
        return held if held != number else None
    if not place.is_number_saved or slot is None:
        return None
    saved = read_saved_word(path, slot, registers["gs_base"], memory)
    # Linux, for one, looks at half of rax.
    return saved if saved is not None and (saved ^ number) & _LOW_HALF else None


def find_slot(cpu: Cpu, registers: StopRegisters, place: Place, path: EntryPath) -> int | None:
    """The address of the slot that the call of `cpu`, standing at `place.address`, returns through.

    :raise UnavailableError: the stack or the per-CPU block cannot be read.
    """
    rsp = registers["rsp"]
    if place.return_slot is not None:
        return rsp + place.return_slot
    return find_call_slot(path, rsp, registers["gs_base"], VirtualMemory(cpu))


def read_arguments_at(
    places: Sequence[Location | None], registers: StopRegisters, memory: VirtualMemory
) -> tuple[int | None, ...]:
    """The arguments that are at `places` now; None for what is gone or cannot be read."""
    return tuple(_read_or_none(where, registers, memory) for where in places)


def _is_called_by_dispatcher(place: Place, memory: VirtualMemory, rsp: int, path: EntryPath) -> bool:
    if place.caller_slot is None or path.dispatcher is None:
        return True
    caller = int.from_bytes(memory.read(rsp + place.caller_slot, 8), "little")
    return caller in {path.dispatcher.return_address if each is None else each for each in place.callers}


def _read_or_none(location: Location | None, registers: StopRegisters, memory: VirtualMemory) -> int | None:
    if location is None:
        return None
    try:
        return read_location(location, registers, memory)
    except (MemoryFault, UnavailableError):
        return None


def set_convenience(hit: Hit, arguments: Iterable[int] = range(6)) -> None:
    """Set `$nr`, `$arg1` to `$arg6` and `$ret` for the user's expressions; void where nothing is known.

    `arguments` are those that the expression is over, `$arg1` as 0: each costs a moment.
    """
    gdb.set_convenience_variable("nr", _to_value(hit.number if hit.other is None else hit.other))
    for index in arguments:
        value = hit.arguments[index] if index < len(hit.arguments) else None
        gdb.set_convenience_variable(f"arg{index + 1}", _to_value(value))
    gdb.set_convenience_variable("ret", _to_value(hit.result, signed=True))


def _to_value(value: int | None, *, signed: bool = False) -> gdb.Value | None:
    if value is None:
        return None
    kind = gdb.selected_inferior().architecture().integer_type(64, signed)
    return gdb.Value(to_signed(value) if signed else value).cast(kind)
