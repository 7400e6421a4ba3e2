"""Names for addresses and addresses for names, from GDB's symbol tables.

Nothing here touches the guest except where GDB itself needs a register to evaluate a name; a stripped kernel
gives `None`, never an error.
"""

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import gdb

from exogdb.errors import UsageError
from exogdb.target.with_setting import with_setting
from exogdb.x86.word import MASK_64

__all__ = [
    "SourceLine",
    "Symbol",
    "evaluate_address",
    "find_address",
    "find_addresses",
    "find_source_line",
    "find_symbol",
    "find_symbol_below",
    "find_symbols",
]

# What rustc's legacy mangling adds to tell monomorphic copies apart; it changes with every build.
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
_SYMBOL_IN_POINTER = re.compile(r"<(?P<name>.+?)(?:\+(?P<offset>\d+))?>$")


@dataclass(frozen=True)
class Symbol:
    """`name+offset`, the symbol that covers an address; `offset` is in bytes.

    >>> str(Symbol("syscall_entry", 3))
    'syscall_entry+3'
    """

    name: str
    offset: int

    def __str__(self) -> str:
        return f"{self.name}+{self.offset}" if self.offset else self.name


@dataclass(frozen=True)
class SourceLine:
    """A line of source; `line` counts from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def find_symbol(address: int) -> Symbol | None:
    """The symbol that GDB prints for `address`, minimal symbols included."""
    return find_symbols([address]).get(address)


def find_symbols(addresses: Iterable[int]) -> dict[int, Symbol]:
    """The symbols of `addresses`, without those that have none. GDB's settings change once for all of them."""
    found = {}
    with _in_c(), with_setting("max-value-size", None):
        for address in addresses:
            pointer = gdb.Value(address & MASK_64).cast(_code_pointer())
            printed = _SYMBOL_IN_POINTER.search(pointer.format_string(symbols=True, raw=True, styling=False))
            if printed is not None:
                name = _RUST_HASH.sub("", printed["name"])
                found[address] = Symbol(name, int(printed["offset"] or 0))
    return found


def find_symbol_below(address: int) -> Symbol | None:
    """`address` counted from the symbol that covers the byte below it: the top of a stack belongs to that stack.

    At the address itself the next object may begin, and that is what `find_symbol` finds.
    """
    below = find_symbol(address - 1)
    return None if below is None else Symbol(below.name, below.offset + 1)


def find_address(name: str) -> int | None:
    """The address of the function or object called `name`; minimal symbols are enough."""
    return find_addresses([name]).get(name)


def find_addresses(names: Iterable[str]) -> dict[str, int]:
    """Those of `names` that GDB knows, in their order, with their addresses; see `find_symbols`."""
    found = {}
    with _in_c():
        for name in names:
            address = _evaluate_name(name)
            if address is not None:
                found[name] = address
    return found


def _evaluate_name(name: str) -> int | None:
    if not re.fullmatch(r"[A-Za-z_.$][\w.$]*", name):
        return None
    # Not by a command such as `info address`: one that fails while GDB decides about a stop wakes GDB's prompt:
    # `continue` comes back with the guest running. Only a quoted name is looked for among source files, too.
    written = f"'{name}'" if re.search(r"[.$]", name) else name
    try:
        return int(gdb.parse_and_eval(f"(unsigned long long)&{written}")) & MASK_64
    except gdb.error:
        return None


def evaluate_address(expression: str) -> int:
    """An address that the user wrote: a number, a symbol, a register or an expression in GDB's C.

    :raise UsageError: GDB cannot evaluate it.
    """
    with _in_c():
        try:
            return int(gdb.parse_and_eval(f"(unsigned long long)({expression})")) & MASK_64
        except gdb.error as error:
            raise UsageError(f"{expression}: {error}") from error


def find_source_line(address: int) -> SourceLine | None:
    """The source line that debug info gives for `address`."""
    line = gdb.find_pc_line(address)
    if line.symtab is None or line.line == 0:
        return None
    return SourceLine(line.symtab.filename, line.line)


def _in_c() -> AbstractContextManager[None]:
    return with_setting("language", "c")


def _code_pointer() -> gdb.Type:
    architecture = gdb.selected_inferior().architecture()
    return architecture.integer_type(8, False).pointer()
