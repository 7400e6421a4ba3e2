"""Processes that do not run: where the kernel parked their stacks, by the names in its debug info.

A pointer field of the per-CPU block whose name begins with `current` names the type of a process. The static array
of that type is the table; in each entry `pid` (or `tgid`, `id`) is the number and `saved_rsp` (or a similar name)
the parked stack pointer. A kernel without these names does not say where its processes are.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import gdb

from exogdb.errors import UnavailableError, UsageError
from exogdb.reading import Reading, Unavailable, Value
from exogdb.target.cpus import Cpu
from exogdb.target.memory import VirtualMemory
from exogdb.target.percpu import read_percpu

__all__ = ["ParkedProcess", "find_process", "list_numbers"]

_NUMBERS = ("pid", "tgid", "id")
_STACK_POINTERS = ("saved_rsp", "kernel_rsp", "saved_sp", "kernel_sp", "rsp", "sp")
_USER_STACK_POINTERS = ("user_rsp", "user_sp")
_POINTER = re.compile(r"^\*(?:mut|const) (?P<rust>.+)$|^(?:struct )?(?P<c>.+?)\s*\*$")
_DEEPEST = 6  # structures within structures, to the table


@dataclass(frozen=True)
class ParkedProcess:
    """A process's own record. `rsp` is its parked kernel stack pointer; `user_rsp` the user's, if kept there."""

    number: int
    rsp: int
    user_rsp: Value | None


def find_process(cpu: Cpu, gs_base: int, code: int, number: int) -> ParkedProcess:
    """The process called `number`. `gs_base` is the kernel's, `code` an address in the kernel's own source.

    :raise UnavailableError: the kernel's debug info has no such table.
    :raise UsageError: no process in the table has that number.
    """
    memory = VirtualMemory(cpu)
    kind = _find_process_type(memory, gs_base)
    entries = _read_table(memory, kind, code)
    if number not in entries:
        known = ", ".join(map(str, sorted(entries))) or "none"
        raise UsageError(f"there is no process {number}: the kernel's table has {known}")
    fields = _fields(kind)
    rsp = _read_field(memory, entries[number], fields, _STACK_POINTERS)
    if rsp is None:
        raise UnavailableError(f"{kind.name} has no field for a parked stack pointer")
    user = _read_field(memory, entries[number], fields, _USER_STACK_POINTERS)
    return ParkedProcess(number, rsp, Reading(user, "memory") if user is not None else None)


def list_numbers(cpu: Cpu, gs_base: int, code: int) -> list[int]:
    """The numbers of all processes in the kernel's table, ascending. Parameters and errors are `find_process`'s.

    :raise UnavailableError: the kernel's debug info has no such table.
    """
    memory = VirtualMemory(cpu)
    return sorted(_read_table(memory, _find_process_type(memory, gs_base), code))


def _read_table(memory: VirtualMemory, kind: gdb.Type, code: int) -> dict[int, int]:
    """Where each process is, by its number; an entry numbered 0 is free."""
    entries = list(_for_each_entry(kind, code))
    if not entries:
        raise UnavailableError(
            f"no static array of {kind.name} is in the debug info; `--stack ADDRESS` needs none"
        )
    numbered = [(_read_field(memory, address, _fields(kind), _NUMBERS), address) for address in entries]
    # Of two with one number the first counts.
    return {number: address for number, address in reversed(numbered) if number}


def _fields(kind: gdb.Type) -> dict[str | None, gdb.Field]:
    return {field.name: field for field in kind.fields()}


def _find_process_type(memory: VirtualMemory, gs_base: int) -> gdb.Type:
    block = read_percpu(memory, gs_base, None)
    fields = [] if isinstance(block, Unavailable) else block.fields
    for field in fields:
        found = _POINTER.match(field.type) if field.name.startswith("current") else None
        if found is not None:
            try:
                return gdb.lookup_type(found["rust"] or found["c"])
            except gdb.error:
                continue
    raise UnavailableError(
        "the per-CPU block names no current process in debug info; `--stack ADDRESS` needs none"
    )


def _for_each_entry(kind: gdb.Type, code: int) -> Iterator[int]:
    symtab = gdb.find_pc_line(code).symtab
    blocks = (symtab.static_block(), symtab.global_block()) if symtab is not None else ()
    for block in blocks:
        for symbol in block:
            if symbol.is_variable and symbol.type is not None:
                for offset, count in _find_arrays(symbol.type, kind, _DEEPEST):
                    start = symbol.value().address
                    if start is not None:
                        yield from (int(start) + offset + place * kind.sizeof for place in range(count))


def _find_arrays(inside: gdb.Type, kind: gdb.Type, depth: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of every array of `kind` that lies in a variable of type `inside`."""
    inside = inside.strip_typedefs()
    if inside.code == gdb.TYPE_CODE_ARRAY and inside.target().name == kind.name:
        yield 0, inside.sizeof // kind.sizeof
    elif inside.code == gdb.TYPE_CODE_STRUCT and depth:
        for field in inside.fields():
            if field.type is not None and hasattr(field, "bitpos") and field.type.sizeof >= kind.sizeof:
                for offset, count in _find_arrays(field.type, kind, depth - 1):
                    yield (field.bitpos or 0) // 8 + offset, count


def _read_field(
    memory: VirtualMemory, address: int, fields: dict[str | None, gdb.Field], names: tuple[str, ...]
) -> int | None:
    field = next((fields[name] for name in names if name in fields), None)
    if field is None or field.type is None:
        return None
    return int.from_bytes(memory.read(address + (field.bitpos or 0) // 8, field.type.sizeof), "little")
