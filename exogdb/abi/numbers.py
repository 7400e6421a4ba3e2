"""The system-call numbers of a kernel, read from its own sources.

Two notations are understood::

    // IPC (Exo-OS specific)                         /* Files */
    pub const SYS_IPC_SEND: u64 = 101;               #define __NR_read 0
                                                     #define SYS_read __NR_read

A comment line that stands after a blank line (or opens the file) is a heading: its first word, lower-case and
singular, names the group of the constants below it. A comment right under a constant is a note, not a heading.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from exogdb.errors import FormatError
from exogdb.x86.word import MASK_64

__all__ = ["NumberTable", "SyscallNumber", "parse_numbers", "plain_name"]

_RUST_CONST = re.compile(
    r"^\s*(?:pub(?:\([\w\s:]+\))?\s+)?const\s+(\w+)\s*:\s*[ui](?:8|16|32|64|size)\s*=\s*([^;]+);"
)
_C_DEFINE = re.compile(r"^\s*#\s*define\s+(\w+)\s+(.+?)\s*(?:/[/*].*)?$")
_COMMENT = re.compile(r"^\s*(?://(?![/!])|/\*+|\*)(.*?)(?:\*/)?\s*$")
_PREFIXED = re.compile(r"^(?:SYS_|__NR_)(\w+)$", re.IGNORECASE)
_TERM = re.compile(
    r"^(?P<literal>0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|\d[\d_]*)(?:[ui](?:8|16|32|64|size)|[uUlL]+)?$"
)
# Not calls but the length of Linux's table (include/uapi/asm-generic/unistd.h).
_NOT_CALLS = frozenset({"__NR_syscalls", "__NR_SYSCALL_BASE", "__NR_syscall_max"})


@dataclass(frozen=True)
class SyscallNumber:
    """One system call: `name` is plain (`ipc_send`), `constant` as the source spells it (`SYS_IPC_SEND`)."""

    number: int
    name: str
    constant: str
    handler: str
    group: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class NumberTable:
    """All numbers of one kernel, in order. `source` says where they were read from, empty if nowhere.

    `extra_groups` are the user's own: a group's name without `%` to the calls in it (`abi.choice`).
    """

    entries: tuple[SyscallNumber, ...] = ()
    source: str = ""
    extra_groups: Mapping[str, str] = field(default_factory=dict, compare=False)
    _by_number: dict[int, SyscallNumber] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_number", {entry.number: entry for entry in self.entries})

    def __iter__(self) -> Iterator[SyscallNumber]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, number: int) -> bool:
        return number in self._by_number

    def find(self, number: int) -> SyscallNumber | None:
        """The entry of `number`, or None if the table lacks it."""
        return self._by_number.get(number)

    def name_of(self, number: int) -> str:
        """`ipc_send` for 101; the number itself in decimal where there is no name.

        >>> NumberTable().name_of(101)
        '101'
        """
        entry = self.find(number)
        return entry.name if entry is not None else str(number)

    @cached_property
    def numbers(self) -> frozenset[int]:
        """Every number that the table has."""
        return frozenset(self._by_number)

    @cached_property
    def by_name(self) -> Mapping[str, SyscallNumber]:
        """Every plain name and alias, lower-case, to its entry."""
        names: dict[str, SyscallNumber] = {}
        for entry in self.entries:
            for name in (entry.name, *entry.aliases):
                names.setdefault(name.lower(), entry)
        return names

    @cached_property
    def groups(self) -> Mapping[str, frozenset[int]]:
        """Group name without `%` to its numbers, in the order of the source."""
        numbers: dict[str, set[int]] = {}
        for entry in self.entries:
            if entry.group:
                numbers.setdefault(entry.group, set()).add(entry.number)
        return {group: frozenset(members) for group, members in numbers.items()}


def plain_name(constant: str) -> str:
    """The name without `SYS_`, `sys_` or `__NR_`, lower-case.

    >>> [plain_name(text) for text in ("SYS_IPC_SEND", "sys_ipc_send", "__NR_read", "ipc_send")]
    ['ipc_send', 'ipc_send', 'read', 'ipc_send']
    """
    found = _PREFIXED.match(constant)
    return (found[1] if found else constant).lower()


def parse_numbers(text: str, source: str = "") -> NumberTable:
    """The table that a Rust source or a C header defines; `source` is its name, for messages.

    Of two constants with one value the first gives the name, the other becomes an alias.

    >>> table = parse_numbers("// Files\\npub const SYS_READ: u64 = 302;")
    >>> table.find(302)
    SyscallNumber(number=302, name='read', constant='SYS_READ', handler='sys_read', group='file', aliases=())

    :raise FormatError: `text` defines no system-call number at all.
    """
    entries: dict[int, SyscallNumber] = {}
    for constant, number, group in _for_each_constant(text.splitlines()):
        name = plain_name(constant)
        known = entries.get(number)
        if known is None:
            entries[number] = SyscallNumber(number, name, constant, f"sys_{name}", group)
        elif name != known.name and name not in known.aliases:
            entries[number] = replace(known, aliases=(*known.aliases, name))
    if not entries:
        raise FormatError(f"{source or 'the text'} defines no SYS_* or __NR_* constant")
    return NumberTable(tuple(entries[number] for number in sorted(entries)), source)


def _for_each_constant(lines: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    """(constant, value, group) of every definition, headings applied."""
    values: dict[str, int] = {}
    group, after_gap, in_heading = "", True, False
    for line in lines:
        in_c = _C_DEFINE.match(line)
        definition = in_c or _RUST_CONST.match(line)
        if definition is not None:
            constant = definition[1]
            value = _evaluate(definition[2], values, leading_zero=8 if in_c is not None else 10)
            if value is not None and 0 <= value <= MASK_64:
                values[constant] = value
                if _PREFIXED.match(constant) and constant not in _NOT_CALLS:
                    yield constant, value, group
            after_gap = in_heading = False
            continue
        comment = _COMMENT.match(line)
        if comment is None:
            after_gap, in_heading = True, False
        elif after_gap and not in_heading:
            name = _to_group(comment[1])
            # A rule such as `// =====` has no word: the heading is the line after it.
            group, in_heading = (name, True) if name else (group, False)


def _evaluate(expression: str, known: Mapping[str, int], *, leading_zero: int) -> int | None:
    """The value of a sum of literals and constants seen before; None for anything else.

    `leading_zero` is the base of a literal that begins with 0 and a digit: octal in C, decimal in Rust.
    """
    total = 0
    for term in expression.strip().strip("()").split("+"):
        word = term.strip().strip("()")
        literal = _TERM.match(word)
        if literal is not None:
            digits = literal["literal"].replace("_", "")
            try:
                total += int(digits, leading_zero if digits.isdecimal() and digits.startswith("0") else 0)
            except ValueError:  # 08 in C, or more digits than any number has
                return None
        elif word in known:
            total += known[word]
        else:
            return None
    return total


def _to_group(heading: str) -> str:
    words = re.findall(r"[A-Za-z][A-Za-z0-9]*", heading)
    if not words:
        return ""
    word: str = words[0].lower()
    is_plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "fs", "os"))
    return word[:-1] if is_plural else word
