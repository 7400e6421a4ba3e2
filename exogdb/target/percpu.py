"""The per-CPU block of the running kernel, by its debug-info type, or by the offsets that the entry stub uses."""

import re
from collections.abc import Iterable, Iterator

import gdb

from exogdb.abi.percpu import Aggregate, PerCpuBlock, PerCpuField, read_by_offsets
from exogdb.abi.stub.entry import find_entry_path
from exogdb.errors import AnalysisError, MemoryFault, UnavailableError
from exogdb.reading import Reading, Unavailable, Value
from exogdb.target.gdb_command import ask_gdb
from exogdb.target.memory import VirtualMemory
from exogdb.target.symbols import find_symbol
from exogdb.target.with_setting import with_setting
from exogdb.x86.memory import ReadableMemory
from exogdb.x86.word import MASK_64

__all__ = ["read_percpu"]

_SCALARS = {
    gdb.TYPE_CODE_INT,
    gdb.TYPE_CODE_PTR,
    gdb.TYPE_CODE_BOOL,
    gdb.TYPE_CODE_ENUM,
    gdb.TYPE_CODE_CHAR,
}


def read_percpu(memory: VirtualMemory, base: int, entry: int | None) -> PerCpuBlock | Unavailable:
    """The block at the kernel's GS base `base`. Only memory is read; the guest must be stopped.

    `entry` is where SYSCALL goes, for a kernel without debug info; None if that is not known.
    """
    kind = _find_type(base)
    if kind is not None:
        return PerCpuBlock(base, f"type {kind.name or kind}", tuple(_fields(memory, base, kind)))
    if entry is None:
        return Unavailable("no variable with debug info is there, and the system-call entry is not known")
    try:
        block = read_by_offsets(memory, base, find_entry_path(memory, entry).gs_accesses)
    except (AnalysisError, MemoryFault) as error:
        return Unavailable(f"no variable with debug info is there, and the entry stub is not understood: {error}")
    if not block.fields:
        return Unavailable("no variable with debug info is there, and the entry stub uses no slot of it")
    return block


def _find_type(base: int) -> gdb.Type | None:
    """The structure that starts at `base` inside the variable that covers it."""
    symbol = find_symbol(base)
    if symbol is None:
        return None
    start = base - symbol.offset
    known = _paths.get(symbol.name, [])
    kind = _type_at(start, symbol.offset, known)
    if kind is None and (paths := _find_paths(symbol.name)) != known:
        _paths[symbol.name] = paths
        kind = _type_at(start, symbol.offset, paths)
    return kind


# The full names of variables by their linkage names, as last seen: finding them takes longer than all the rest.
_paths: dict[str, list[str]] = {}


def _type_at(start: int, offset: int, paths: Iterable[str]) -> gdb.Type | None:
    """The structure `offset` bytes into that variable among `paths` which lies at `start`."""
    for variable in _variables(paths):
        try:
            value = variable.value()
        except (gdb.error, TypeError):
            continue
        if value.address is not None and int(value.address) & MASK_64 == start:
            return _struct_at(value.type, offset)
    return None


def _find_paths(name: str) -> list[str]:
    """Names of variables whose linkage name is `name`. Rust's debug info has them under their full path.

    Only `info variables` finds that path; what it prints counts only if the symbol lies where `name` does.
    """
    with with_setting("language", "c"):
        listing = ask_gdb(f"info variables -q {re.escape(name)}$")
    return [name, *re.findall(rf"[\w:]+::{re.escape(name)}\b", listing)]


def _variables(paths: Iterable[str]) -> Iterator[gdb.Symbol]:
    for path in paths:
        for symbol in (gdb.lookup_global_symbol(path), gdb.lookup_static_symbol(path)):
            if symbol is not None and symbol.is_variable:
                yield symbol


def _struct_at(kind: gdb.Type, offset: int) -> gdb.Type | None:
    """The structure that begins `offset` bytes into `kind`: an element of an array, a wrapped field, or itself."""
    kind = kind.strip_typedefs()
    if kind.code == gdb.TYPE_CODE_ARRAY:
        element = kind.target()
        return _struct_at(element, offset % element.sizeof) if element.sizeof else None
    if kind.code != gdb.TYPE_CODE_STRUCT:
        return None
    fields = kind.fields()
    if len(fields) == 1 and fields[0].type is not None:
        return _struct_at(fields[0].type, offset)
    return kind if offset == 0 else None


def _fields(memory: ReadableMemory, base: int, kind: gdb.Type) -> Iterator[PerCpuField]:
    for field in sorted(kind.fields(), key=lambda field: field.bitpos or 0):
        if field.type is None or field.name is None:
            continue
        offset, size = (field.bitpos or 0) // 8, field.type.sizeof
        scalar = field.type.strip_typedefs().code in _SCALARS and size in (1, 2, 4, 8)
        value = _read(memory, base + offset, size) if scalar else Aggregate(base + offset)
        yield PerCpuField(field.name, offset, size, str(field.type), value)


def _read(memory: ReadableMemory, address: int, size: int) -> Value:
    try:
        return Reading(int.from_bytes(memory.read(address, size), "little"), "memory")
    except UnavailableError as error:
        return Unavailable(error.reason)
