"""Finding the kernel's own table of system-call numbers.

A file named by `set exo syscalls FILE` wins. Otherwise the kernel's debug info says which source file the entry
stub or the dispatcher was compiled from; constants leave nothing in debug info themselves, so the files around
that one are searched for `SYS_*` or `__NR_*` definitions.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import gdb

from exogdb.abi.numbers import NumberTable, parse_numbers
from exogdb.errors import FormatError, UsageError
from exogdb.home import expand_home
from exogdb.target import settings
from exogdb.target.profile import find_profile, read_profile
from exogdb.target.symbols import find_addresses

__all__ = ["read_number_table", "with_users_groups"]

_SUFFIXES = (".rs", ".h")
# A number table has many definitions; a lone SYS_ constant in a driver is none.
_FEWEST_NUMBERS = 4
# Kernels keep numbers beside the dispatcher, or one or two directories above it.
_PARENTS = 2
_LARGEST_FILE = 1 << 20


def read_number_table(code: Iterable[int] = ()) -> NumberTable:
    """The number table with the profile's groups, empty if none can be found. Nothing is read from the guest.

    `code` are addresses of functions to start from, such as the dispatcher's; the usual names are tried as well.

    :raise UsageError: the file of `set exo syscalls` or `set exo profile` cannot be read, or is no such file.
    """
    return with_users_groups(_find_table(code))


def with_users_groups(table: NumberTable) -> NumberTable:
    """`table` with the groups that the profile has now.

    :raise UsageError: the profile cannot be read, or is none.
    """
    profile = find_profile()
    return replace(table, extra_groups=read_profile(profile).groups if profile is not None else {})


def _find_table(code: Iterable[int]) -> NumberTable:
    named = settings.syscall_table_file()
    if named:
        return _read_named(expand_home(Path(named)))
    for source in _source_files(code):
        table = _best_table_near(source)
        if table is not None:
            return table
    return NumberTable()


def _read_named(path: Path) -> NumberTable:
    try:
        return _parse(path, path.stat().st_mtime_ns)
    except (OSError, UnicodeDecodeError, FormatError) as error:
        raise UsageError(f"`set exo syscalls {path}`: {error}") from error


def _usual_functions() -> Iterable[int]:
    names = ("syscall_dispatch", "syscall_entry", "syscall_rust_handler", "do_syscall_64")
    return find_addresses(names).values()


def _source_files(code: Iterable[int]) -> list[Path]:
    # The names anew each time: `set substitute-path` changes them.
    symtabs = _find_symtabs(tuple(gdb.objfiles()), tuple(code))
    return list(dict.fromkeys(Path(symtab.fullname()) for symtab in symtabs))


@lru_cache(maxsize=16)
def _find_symtabs(_objfiles: tuple[gdb.Objfile, ...], code: tuple[int, ...]) -> tuple[gdb.Symtab, ...]:
    """What the functions were compiled from, the given ones first, as long as the same symbols are loaded.

    A file that has changed and is read anew is another `gdb.Objfile` (GDB 13 and 16).
    """
    symtabs = (gdb.find_pc_line(address).symtab for address in (*code, *_usual_functions()))
    return tuple(symtab for symtab in symtabs if symtab is not None)


def _best_table_near(source: Path) -> NumberTable | None:
    for directory in list(source.parents)[: _PARENTS + 1]:
        found = (_parse_if_table(path, modified) for path, modified in _candidates(directory))
        tables = [table for table in found if table is not None]
        if tables:
            return max(tables, key=len)
    return None


def _candidates(directory: Path) -> Iterator[tuple[str, int]]:
    """The files that may be a table, in order, and when each was modified: looked at by every backtrace."""
    try:
        with os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.endswith(_SUFFIXES) and entry.is_file() and entry.stat().st_size <= _LARGEST_FILE:
                    yield entry.path, entry.stat().st_mtime_ns
    except OSError:
        return


@lru_cache(maxsize=256)
def _parse_if_table(path: str, modified_ns: int) -> NumberTable | None:
    # A file that merely stands beside the stub and cannot be read is no table: that is an answer, not an error.
    try:
        table = _parse(Path(path), modified_ns)
    except (OSError, UnicodeDecodeError, FormatError):
        return None
    return table if len(table) >= _FEWEST_NUMBERS else None


@lru_cache(maxsize=64)
def _parse(path: Path, _modified_ns: int) -> NumberTable:
    return parse_numbers(path.read_text(encoding="utf-8"), str(path))
