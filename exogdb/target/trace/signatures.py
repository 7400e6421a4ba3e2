"""Handlers' parameters and the kernel's error names, from GDB's debug info. Nothing is read from the guest.

Rust's debug info does not tell `*const` from `*mut`, nor `-> !` from `-> ()`. Where the source is at hand, the
line that debug info names says so.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from pathlib import Path

import gdb

from exogdb.abi.numbers import NumberTable
from exogdb.target.symbols import find_address, find_addresses
from exogdb.trace.signature import CType, Signature, parse_flag_constants, to_signature

__all__ = ["read_error_names", "read_signatures"]

_ERROR_ENUM = re.compile(r"(?:^|::)(?:Errno|Error|SyscallError)$")
_SOURCES = (".rs", ".h")
_LARGEST_FILE = 1 << 20
_LONGEST_HEAD = 12
_MOST_ENTRIES = 200


def read_signatures(numbers: NumberTable) -> dict[int, Signature]:
    """Number to signature, for every handler that has debug info."""
    found = {}
    addresses = find_addresses(entry.handler for entry in numbers)
    flags_near = cache(_flag_constants)  # handlers share their files, and those around them are many
    for entry in numbers:
        address = addresses.get(entry.handler)
        signature = None if address is None else _read_signature(address, entry.name, flags_near)
        if signature is not None:
            found[entry.number] = signature
    return found


def read_error_names(handler: str) -> dict[int, str]:
    """Error number to name, from the enumeration `Errno` (or `Error`) of the program that `handler` belongs to."""
    address = find_address(handler)
    symtab = None if address is None else gdb.find_pc_line(address).symtab
    if symtab is None:
        return {}
    for block in (symtab.static_block(), symtab.global_block()):
        for symbol in block:
            if symbol.addr_class == gdb.SYMBOL_LOC_TYPEDEF and _ERROR_ENUM.search(symbol.name):
                names = _enumerators(symbol.type)
                if names:
                    return names
    return {}


def _enumerators(kind: gdb.Type | None) -> dict[int, str]:
    if kind is None or kind.strip_typedefs().code != gdb.TYPE_CODE_ENUM:
        return {}
    fields = kind.strip_typedefs().fields()
    return {abs(field.enumval): field.name.rsplit("::", 1)[-1] for field in fields if field.name and field.enumval}


def _read_signature(address: int, call: str, flags_near: Callable[[Path], Mapping[str, int]]) -> Signature | None:
    block = gdb.block_for_pc(address)
    if block is None or block.function is None or block.function.symtab is None:
        return None
    source = Path(block.function.symtab.fullname())
    head = _read_head(source, block.function.line)
    arguments = [symbol for symbol in block if symbol.is_argument]
    parameters = [(symbol.name, _to_ctype(symbol, head)) for symbol in arguments]
    returns = not re.search(r"->\s*!", head)
    return to_signature(parameters, flags_near(source), call, returns=returns)


def _read_head(source: Path, line: int) -> str:
    """The function's source from its name to its opening brace; empty if the source is not at hand."""
    try:
        lines = source.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return " ".join(lines[line - 1 : line - 1 + _LONGEST_HEAD]).partition("{")[0]


def _to_ctype(symbol: gdb.Symbol, head: str) -> CType:
    kind = symbol.type
    if kind is None:
        return CType(64)
    plain = kind.strip_typedefs()
    if plain.code != gdb.TYPE_CODE_PTR:
        is_signed = plain.code == gdb.TYPE_CODE_INT and plain.is_signed
        return CType(plain.sizeof * 8, is_signed=is_signed)
    target = plain.target()
    is_constant = "const" in str(kind) or re.search(rf"\b{re.escape(symbol.name)}\s*:\s*\*const\b", head)
    return CType(
        64,
        is_pointer=True,
        points_to_bytes=target.strip_typedefs().sizeof == 1,
        points_to_texts=_points_to_bytes(target.strip_typedefs()),
        is_writable=not is_constant and bool(head),
    )


def _points_to_bytes(kind: gdb.Type) -> bool:
    return kind.code == gdb.TYPE_CODE_PTR and kind.target().strip_typedefs().sizeof == 1


def _flag_constants(source: Path) -> Mapping[str, int]:
    """Constants from the handler's own file first, then from those around it."""
    found: dict[str, int] = {}
    above = source.parent.parent
    beside = sorted(path for path in _entries(above) if path.is_dir() and path != source.parent)
    for directory in (source.parent, above, *beside):
        for path in _sources(directory):
            for name, value in _constants_in(path, path.stat().st_mtime_ns).items():
                found.setdefault(name, value)
    return found


def _sources(directory: Path) -> list[Path]:
    files = (path for path in _entries(directory) if path.suffix in _SOURCES and path.is_file())
    return sorted(path for path in files if path.stat().st_size <= _LARGEST_FILE)


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())[:_MOST_ENTRIES]
    except OSError:
        return []


@lru_cache(maxsize=512)
def _constants_in(path: Path, _modified_ns: int) -> Mapping[str, int]:
    try:
        return parse_flag_constants(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}
