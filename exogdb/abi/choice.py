"""Choosing system calls, in the words that strace's users know.

===================  =========================================================================
`101`  `0x65`        a number of the table
`ipc_send`           a name, also `SYS_IPC_SEND`, `sys_ipc_send`, `__NR_ipc_send`, in any case
`100-103`            the numbers of the table in that range
`%ipc`               a group: a heading of the number table, or one from the profile
`/^ipc_/`            the names that a regular expression matches (`re.search`)
`all`                every number, also those that the table lacks
`unknown`            the numbers that the table lacks
`a,b`                a or b
`!a,b`               every number but a and b
`%ipc,!ipc_recv`     the group without one of its members
===================  =========================================================================

With no number table at all (a kernel without sources) every number may be named by its value.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from exogdb.abi.numbers import NumberTable, plain_name
from exogdb.errors import UsageError
from exogdb.x86.word import MASK_64

__all__ = ["Choice", "complete_choice", "parse_choice"]

_NUMBER = re.compile(r"^(0[xX][0-9a-fA-F]+|\d+)$")
_RANGE = re.compile(r"^(0[xX][0-9a-fA-F]+|\d+)-(0[xX][0-9a-fA-F]+|\d+)$")
# Comma-separated, where a regular expression between slashes may hold commas (and `\/`) itself.
_ITEM = re.compile(r"(!?\s*(?:/(?:\\.|[^/\\])*/|[^,]*))(?:,|$)")


@dataclass(frozen=True)
class Choice:
    """A set of system-call numbers: some that were named, and perhaps all that the table lacks.

    `text` is what the user wrote; `known` are the numbers of the table (or named by value when there is none).
    """

    text: str
    numbers: frozenset[int]
    unknown: bool
    known: frozenset[int]

    def __contains__(self, number: int) -> bool:
        return number in self.numbers or (self.unknown and number not in self.known)

    @property
    def single(self) -> int | None:
        """The number, if the choice is exactly one."""
        return next(iter(self.numbers)) if len(self.numbers) == 1 and not self.unknown else None


@dataclass(frozen=True)
class _Part:
    """What one item stands for, before the list is put together."""

    numbers: frozenset[int]
    unknown: bool = False


def parse_choice(text: str, table: NumberTable) -> Choice:
    """The choice that `text` spells.

    >>> from exogdb.abi.numbers import parse_numbers
    >>> table = parse_numbers("const SYS_A: u64 = 1; \\nconst SYS_B: u64 = 2;")
    >>> sorted(parse_choice("!a", table).numbers), 77 in parse_choice("!a", table)
    ([2], True)

    :raise UsageError: an unknown name, number or group, a bad expression, or a choice that holds nothing.
    """
    return _Grammar(table).parse(text)


def complete_choice(token: str, table: NumberTable) -> list[str]:
    """Every continuation of `token`, the whole comma list each time, so that GDB can offer the last item.

    >>> from exogdb.abi.numbers import parse_numbers
    >>> complete_choice("b,!re", parse_numbers("const SYS_READ: u64 = 1;"))
    ['b,!read']
    """
    head, comma, last = token.rpartition(",")
    negation = "!" if last.startswith("!") else ""
    typed = last[len(negation) :]
    groups = [f"%{name}" for name in (*table.groups, *table.extra_groups)]
    constants = [entry.constant for entry in table if typed[:1].isupper() or typed.startswith("_")]
    words = [*(entry.name for entry in table), *constants, *groups, "all", "unknown"]
    return [f"{head}{comma}{negation}{word}" for word in sorted(set(words)) if word.startswith(typed)]


class _Grammar:
    def __init__(self, table: NumberTable, open_groups: tuple[str, ...] = ()) -> None:
        self._table = table
        self._open_groups = open_groups

    def parse(self, text: str) -> Choice:
        items = list(_split(text))
        if not all(items) or not items:
            raise UsageError(f"'{text}' is not a list of system calls: write for example 101,ipc_recv,%file")
        everything = frozenset(entry.number for entry in self._table)
        # As in strace, a `!` in front of the list turns all of it round.
        is_negated = items[0].startswith("!")
        numbers, unknown = (everything, True) if is_negated else (frozenset[int](), False)
        named: frozenset[int] = frozenset()
        for item in items:
            part = self._parse_item(item.removeprefix("!").strip())
            named |= part.numbers
            if is_negated or item.startswith("!"):
                numbers, unknown = numbers - part.numbers, unknown and not part.unknown
            else:
                numbers, unknown = numbers | part.numbers, unknown or part.unknown
        if not numbers and not unknown:
            raise UsageError(f"'{text}' chooses no system call: every number in it is taken out again")
        return Choice(text, numbers, unknown, everything | named)

    def _parse_item(self, item: str) -> _Part:
        if item == "all":
            return _Part(frozenset(entry.number for entry in self._table), unknown=True)
        if item == "unknown":
            return _Part(frozenset(), unknown=True)
        if item.startswith("%"):
            return self._parse_group(item[1:])
        if len(item) > 1 and item.startswith("/") and item.endswith("/"):
            return self._parse_expression(item[1:-1])
        if _NUMBER.match(item):
            return self._parse_number(_to_int(item))
        if bounds := _RANGE.match(item):
            return self._parse_range(_to_int(bounds[1]), _to_int(bounds[2]), item)
        if item.startswith("/"):
            raise UsageError(f"'{item}' is not a system call: a regular expression is written /PATTERN/")
        return self._parse_name(item)

    def _parse_number(self, number: int) -> _Part:
        if len(self._table) and number not in self._table:
            raise UsageError(
                f"no system call has number {number}{self._in_source()}; "
                f"`unknown` chooses the numbers that the table lacks, `--if '$nr == {number}'` one of them"
            )
        return _Part(frozenset({number}))

    def _parse_range(self, low: int, high: int, item: str) -> _Part:
        if low > high:
            raise UsageError(f"the range {item} is empty: write the smaller number first")
        if not len(self._table):
            if high - low > 4096:
                raise UsageError(f"the range {item} is too long for a kernel without a number table")
            return _Part(frozenset(range(low, high + 1)))
        numbers = frozenset(entry.number for entry in self._table if low <= entry.number <= high)
        if not numbers:
            raise UsageError(f"no system call has a number from {low} to {high}{self._in_source()}")
        return _Part(numbers)

    def _parse_name(self, item: str) -> _Part:
        entry = self._table.by_name.get(plain_name(item)) or self._table.by_name.get(item.lower())
        if entry is None:
            raise UsageError(f"no system call is called '{item}'{self._in_source()}{self._suggest_name(item)}")
        return _Part(frozenset({entry.number}))

    def _parse_group(self, name: str) -> _Part:
        if name in self._table.extra_groups:
            if name in self._open_groups:
                raise UsageError(f"the group %{name} of the profile contains itself")
            inner = _Grammar(self._table, (*self._open_groups, name))
            choice = inner.parse(self._table.extra_groups[name])
            return _Part(choice.numbers, choice.unknown)
        numbers = self._table.groups.get(name.lower()) or self._table.groups.get(name.lower().removesuffix("s"))
        if numbers is None:
            groups = [*self._table.groups, *self._table.extra_groups]
            known = ", ".join(f"%{group}" for group in groups) or "none"
            raise UsageError(f"there is no group %{name}; the groups are {known}")
        return _Part(numbers)

    def _parse_expression(self, pattern: str) -> _Part:
        try:
            expression = re.compile(pattern.replace("\\/", "/"))
        except re.error as error:
            raise UsageError(f"/{pattern}/ is not a regular expression: {error}") from error
        matching = (entry for name, entry in self._table.by_name.items() if expression.search(name))
        numbers = frozenset(entry.number for entry in matching)
        if not numbers:
            raise UsageError(f"no system call's name matches /{pattern}/{self._in_source()}")
        return _Part(numbers)

    def _in_source(self) -> str:
        if not len(self._table):
            return ": no number table was found, so use numbers or `set exo syscalls FILE`"
        return f" in {self._table.source}" if self._table.source else " in the number table"

    def _suggest_name(self, item: str) -> str:
        close = get_close_matches(plain_name(item), list(self._table.by_name), n=3, cutoff=0.6)
        return f"; did you mean {' or '.join(close)}?" if close else ""


def _split(text: str) -> Iterator[str]:
    at = 0
    while at <= len(text):
        item = _ITEM.match(text, at)
        assert item is not None  # the expression matches an empty item, too
        yield item[1].strip()
        at = item.end() if text[item.end() - 1 : item.end()] == "," and item.end() > item.end(1) else len(text) + 1


def _to_int(text: str) -> int:
    # Decimal may have leading zeros, which int(text, 0) refuses.
    number = int(text, 16) if text[:2] in ("0x", "0X") else int(text)
    if number > MASK_64:
        raise UsageError(f"{text} does not fit into the 64 bits of a system-call number")
    return number
