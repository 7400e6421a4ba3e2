"""Choosing system calls, in the words that strace's users know.

===================  =========================================================================
`101`  `0x65`        a number of the table
`ipc_send`           a name, also `SYS_IPC_SEND`, `sys_ipc_send`, `__NR_ipc_send`, in any case
`100-103`            the numbers of the table in that range
`%ipc`               a group: a heading of the number table, or one from the profile
`/^ipc_/`            the names that a regular expression matches (`re.search`, in any case)
`all`                every number, also those that the table lacks
`unknown`            the numbers that the table lacks
`a,b`                a or b
`!a,b`               every number but a and b
`%ipc,!ipc_recv`     the group without one of its members
===================  =========================================================================

Blanks separate like commas; between slashes both belong to the expression, and `\\/` is a slash. A group of the
profile counts before a heading of the same name, which it may name itself to extend it. A call that is named as a
keyword is chosen with its prefix: `SYS_all`.

With no number table at all (a kernel without sources) every number may be named by its value.
"""

import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from exogdb.abi.numbers import NumberTable, plain_name
from exogdb.errors import UsageError
from exogdb.x86.word import MASK_64

__all__ = ["Choice", "complete_choice", "parse_choice", "spell_number"]

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|\d+", re.ASCII)
_RANGE = re.compile(rf"({_NUMBER.pattern})-({_NUMBER.pattern})", re.ASCII)
# A regular expression between slashes may hold commas and blanks (and `\/`) itself.
_ITEM = re.compile(r"(?P<negation>!?)\s*(?P<word>/(?:\\.|[^/\\])*/(?=[\s,]|$)|[^\s,!][^\s,]*)")
_KEYWORDS = ("all", "unknown")
_MOST_DIGITS = len(str(MASK_64))
_SEPARATOR = re.compile(r"\s*,\s*|\s+")


@dataclass(frozen=True)
class Choice:
    """A set of system-call numbers: some that were named, and perhaps all that the table lacks.

    `text` is what the user wrote, with commas and no blanks between the items; `known` are the numbers of the
    table (or named by value when there is none).
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
class _Item:
    """One entry of the list: `word` without its `!`."""

    word: str
    is_negated: bool

    def __str__(self) -> str:
        return f"{'!' if self.is_negated else ''}{self.word}"


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


def spell_number(number: int, table: NumberTable) -> str:
    """The name of `number` if that chooses this number, else its digits: what can be parsed again.

    >>> from exogdb.abi.numbers import parse_numbers
    >>> table = parse_numbers("const SYS_READ: u64 = 1; \\nconst SYS_ALL: u64 = 2;")
    >>> spell_number(1, table), spell_number(2, table)
    ('read', '2')
    """
    name = table.name_of(number)
    return name if _is_choice_of(number, name, table) else str(number)


def complete_choice(token: str, table: NumberTable) -> list[str]:
    """Every continuation of `token`, the whole comma list each time, so that GDB can offer the last item.

    >>> from exogdb.abi.numbers import parse_numbers
    >>> complete_choice("b,!re", parse_numbers("const SYS_READ: u64 = 1;"))
    ['b,!read']
    """
    head = _finished_items(token)
    if head is None:
        return []
    negation = "!" if token[len(head) :].startswith("!") else ""
    typed = token[len(head) + len(negation) :]
    groups = [f"%{name}" for name in (*table.groups, *table.extra_groups)]
    names = [(entry.name, entry.number) for entry in table]
    if typed[:1].isupper() or typed.startswith("_"):
        names += [(entry.constant, entry.number) for entry in table]
    calls = [name for name, number in names if name.startswith(typed) and _is_choice_of(number, name, table)]
    others = [word for word in (*groups, *_KEYWORDS) if word.startswith(typed)]
    return [f"{head}{negation}{word}" for word in sorted({*calls, *others})]


class _Grammar:
    def __init__(self, table: NumberTable, open_groups: tuple[str, ...] = ()) -> None:
        self._table = table
        self._open_groups = open_groups

    def parse(self, text: str) -> Choice:
        items = list(_split(text))
        everything = self._table.numbers
        # As in strace, a `!` in front of the list turns all of it round.
        is_negated = items[0].is_negated
        numbers, unknown = (everything, True) if is_negated else (frozenset[int](), False)
        named: frozenset[int] = frozenset()
        for item in items:
            part = self._parse_word(item.word)
            named |= part.numbers
            if is_negated or item.is_negated:
                numbers, unknown = numbers - part.numbers, unknown and not part.unknown
            else:
                numbers, unknown = numbers | part.numbers, unknown or part.unknown
        if not numbers and not unknown:
            raise UsageError(f"'{text}' chooses no system call: every number in it is taken out again")
        return Choice(",".join(map(str, items)), numbers, unknown, everything | named)

    def _parse_word(self, word: str) -> _Part:
        if word == "all":
            return _Part(self._table.numbers, unknown=True)
        if word == "unknown":
            return _Part(frozenset(), unknown=True)
        if word.startswith("%"):
            return self._parse_group(word[1:])
        if _is_expression(word):
            return self._parse_expression(word[1:-1])
        if _NUMBER.fullmatch(word):
            return self._parse_number(_to_int(word))
        if bounds := _RANGE.fullmatch(word):
            return self._parse_range(_to_int(bounds[1]), _to_int(bounds[2]), word)
        return self._parse_name(word)

    def _parse_number(self, number: int) -> _Part:
        if len(self._table) and number not in self._table:
            raise UsageError(
                f"no system call has number {number}{self._in_source()}; "
                f"`unknown` chooses the numbers that the table lacks, `--if '$nr == {number}'` one of them"
            )
        return _Part(frozenset({number}))

    def _parse_range(self, low: int, high: int, word: str) -> _Part:
        if low > high:
            raise UsageError(f"the range {word} is empty: write the smaller number first")
        if not len(self._table):
            if high - low > 4096:
                raise UsageError(f"the range {word} is too long for a kernel without a number table")
            return _Part(frozenset(range(low, high + 1)))
        numbers = frozenset(entry.number for entry in self._table if low <= entry.number <= high)
        if not numbers:
            raise UsageError(f"no system call has a number from {low} to {high}{self._in_source()}")
        return _Part(numbers)

    def _parse_name(self, word: str) -> _Part:
        entry = self._table.by_name.get(plain_name(word)) or self._table.by_name.get(word.lower())
        if entry is not None:
            return _Part(frozenset({entry.number}))
        if word.startswith("/"):
            raise UsageError(f"'{word}' is not a system call: a regular expression is written /PATTERN/")
        if word[0] in "+-0123456789":
            raise UsageError(f"'{word}' is no number and no range: write for example 101, 0x65 or 100-103")
        raise UsageError(f"no system call is called '{word}'{self._in_source()}{self._suggest_name(word)}")

    def _parse_group(self, name: str) -> _Part:
        own, heading = _find_key(self._table.extra_groups, name), _find_key(self._table.groups, name)
        if own is not None and own not in self._open_groups:
            inner = _Grammar(self._table, (*self._open_groups, own))
            try:
                choice = inner.parse(self._table.extra_groups[own])
            except UsageError as error:
                raise UsageError(f"the group %{own} of the profile: {error}") from error
            return _Part(choice.numbers, choice.unknown)
        if heading is not None:
            return _Part(self._table.groups[heading])
        if own is not None:
            raise UsageError(f"%{own} contains itself")
        groups = dict.fromkeys([*self._table.groups, *self._table.extra_groups])
        known = ", ".join(f"%{group}" for group in groups) or "none"
        raise UsageError(f"there is no group %{name}; the groups are {known}")

    def _parse_expression(self, pattern: str) -> _Part:
        try:
            expression = _compile(pattern.replace("\\/", "/"))
        except (re.error, OverflowError, RecursionError) as error:
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


def _is_choice_of(number: int, word: str, table: NumberTable) -> bool:
    """A name may be a keyword, look like a number, or be another number's, too."""
    try:
        return parse_choice(word, table).single == number
    except UsageError:
        return False


def _split(text: str) -> Iterator[_Item]:
    at = 0
    text = text.strip()
    while at < len(text) or not at:
        item = _ITEM.match(text, at)
        separator = _SEPARATOR.match(text, item.end()) if item is not None else None
        if item is None or (separator is not None and separator.end() == len(text)):
            raise UsageError(f"'{text}' is not a list of system calls: write for example 101,ipc_recv,%file")
        word = item["word"]
        yield _Item(word.lower() if word.lower() in _KEYWORDS else word, bool(item["negation"]))
        at = separator.end() if separator is not None else len(text)


def _finished_items(token: str) -> str | None:
    """The items in front of the one that is being typed, with their commas; None within a regular expression."""
    end = 0
    while (item := _ITEM.match(token, end)) is not None and token[item.end() : item.end() + 1] == ",":
        if item["word"].startswith("/") and not _is_expression(item["word"]):
            return None
        end = item.end() + 1
    return token[:end]


def _find_key(groups: Iterable[str], name: str) -> str | None:
    """The group that `name` means: as it is written, else in another case, else in the singular."""
    forms = {group.lower(): group for group in groups}
    return name if name in groups else forms.get(name.lower()) or forms.get(name.lower().removesuffix("s"))


def _is_expression(word: str) -> bool:
    return len(word) > 1 and word.startswith("/") and word.endswith("/")


def _compile(pattern: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a later Python may read in another way
        return re.compile(pattern, re.IGNORECASE)


def _to_int(text: str) -> int:
    # Decimal may have leading zeros, which int(text, 0) refuses.
    base, digits = (16, text[2:]) if text[:2] in ("0x", "0X") else (10, text)
    digits = digits.lstrip("0") or "0"
    number = int(digits, base) if len(digits) <= _MOST_DIGITS else MASK_64 + 1
    if number > MASK_64:
        raise UsageError(f"{text} does not fit into the 64 bits of a system-call number")
    return number
