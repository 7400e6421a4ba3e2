"""What a CPU that stands at a place of the plan tells: which number, with which arguments, going back where.

Nothing here resumes the guest or changes anything in it.
"""

from dataclasses import dataclass

import gdb

from exogdb.abi.dispatch.place import Place, PlaceKind
from exogdb.abi.stub.location import InFrame, InRegister, Location, OnStack, read_location
from exogdb.errors import MemoryFault, UnavailableError
from exogdb.target.cpus import Cpu
from exogdb.target.memory import VirtualMemory
from exogdb.target.registers import read_register

__all__ = ["Hit", "read_hit"]


@dataclass(frozen=True)
class Hit:
    """One system call that reached its place on `cpu`.

    `arguments` are None where the code keeps one nowhere any more. `return_slot` is the address of the stack slot
    that the dispatcher returns through. `result` is set when the call has returned.
    """

    cpu: Cpu
    number: int
    arguments: tuple[int | None, ...]
    return_slot: int
    process: int | None = None
    result: int | None = None


def read_hit(cpu: Cpu, place: Place, return_address: int, told: int | None) -> Hit | None:
    """The call of `cpu` standing at `place.address`; None if this is no system call of `place.numbers`.

    `told` is the number that a table entry's watchpoint saw, for places that have one. A function that was called
    from anywhere but the dispatcher (`place.callers`) is no system call.

    :raise UnavailableError: the stack or a register cannot be read.
    """
    rsp = read_register(cpu, "rsp")
    memory = VirtualMemory(cpu)
    if not _is_called_by_dispatcher(place, memory, rsp, return_address):
        return None
    number = _read_number(cpu, place, memory, told)
    if number is None:
        return None
    arguments = tuple(_read_or_none(cpu, where, memory) for where in place.arguments)
    return Hit(cpu, number, arguments, rsp + place.return_slot)


def _read_number(cpu: Cpu, place: Place, memory: VirtualMemory, told: int | None) -> int | None:
    if place.kind is PlaceKind.TABLE_ENTRY:
        return told
    if place.number_at is None:
        return place.number
    return _read(cpu, place.number_at, memory)


def _is_called_by_dispatcher(place: Place, memory: VirtualMemory, rsp: int, return_address: int) -> bool:
    if place.caller_slot is None:
        return True
    caller = int.from_bytes(memory.read(rsp + place.caller_slot, 8), "little")
    expected = {return_address if address is None else address for address in place.callers}
    return caller in expected


def _read(cpu: Cpu, location: Location, memory: VirtualMemory) -> int:
    match location:
        case InRegister(name) | InFrame(name, _):
            needed = name
        case OnStack():
            needed = "rsp"
    return read_location(location, {needed: read_register(cpu, needed)}, memory)


def _read_or_none(cpu: Cpu, location: Location | None, memory: VirtualMemory) -> int | None:
    if location is None:
        return None
    try:
        return _read(cpu, location, memory)
    except (MemoryFault, UnavailableError):
        return None


def set_convenience(hit: Hit) -> None:
    """Set `$nr`, `$arg1` to `$arg6` and `$ret` for the user's expressions; void where nothing is known."""
    gdb.set_convenience_variable("nr", _to_value(hit.number))
    for index in range(6):
        value = hit.arguments[index] if index < len(hit.arguments) else None
        gdb.set_convenience_variable(f"arg{index + 1}", _to_value(value))
    gdb.set_convenience_variable("ret", _to_value(hit.result, signed=True))


def _to_value(value: int | None, *, signed: bool = False) -> gdb.Value | None:
    if value is None:
        return None
    kind = gdb.selected_inferior().architecture().integer_type(64, signed)
    shown = value - (1 << 64) if signed and value >> 63 else value
    return gdb.Value(shown).cast(kind)
