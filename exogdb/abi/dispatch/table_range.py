"""Adjacent entries of a jump or handler table that one watchpoint watches together.

QEMU goes through the list of its watchpoints at every access to a page that one of them is in, so twelve entries
cost the calls that are not wanted more than one range of twelve does. A watchpoint says that something in its
range was read, not what: which number it was is told by the CPU, which stands right behind the load then::

    jmp  [table + 8*rdi]      stands at the arm, which is one number's own
    mov  rax, [table + 8*rdi] stands at the next instruction, as every number does; the number is still in rdi
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from exogdb.abi.dispatch.scene import Scenes, first_of
from exogdb.abi.dispatch.trace import TableRead
from exogdb.abi.stub.location import Location

__all__ = ["TableRange", "TableRanges"]

_MOST_BYTES = 1024  # GDB reads all of them at each stop there


@dataclass(frozen=True)
class TableRange:
    """`size` bytes at `address`: the entries of `numbers`, in the order of their addresses.

    `told` has for each address right behind a load the number that is read there, or where it is then. A range of
    one entry has none: there the read tells the number.
    """

    address: int
    size: int
    numbers: tuple[int, ...]
    told: tuple[tuple[int, int | Location], ...] = ()

    def tell(self, address: int) -> int | Location | None:
        """The number whose entry was read by a CPU at `address`, or where it is; None if no call reads there."""
        return self.numbers[0] if not self.told else dict(self.told).get(address)


class TableRanges:
    """The ranges of one plan's table entries. What was found out about an entry is kept."""

    def __init__(self, scenes: Scenes) -> None:
        self._scenes = scenes
        self._ranges: dict[frozenset[tuple[int, TableRead]], tuple[TableRange, ...]] = {}

    def join(self, entries: Mapping[int, TableRead]) -> tuple[TableRange, ...]:
        """As few ranges as there can be for `entries`, by number. What is asked for first is emulated."""
        key = frozenset(entries.items())
        if key not in self._ranges:
            self._ranges[key] = tuple(self._join(entries))
        return self._ranges[key]

    def _join(self, entries: Mapping[int, TableRead]) -> Iterator[TableRange]:
        for run in _adjacent(sorted(entries.items(), key=lambda item: item[1])):
            told = self._tell_apart(run) if len(run) > 1 else None
            if told is not None:
                first, last = run[0][1], run[-1][1]
                yield TableRange(first.address, last.end - first.address, tuple(n for n, _ in run), told)
            else:
                yield from (TableRange(read.address, read.size, (number,)) for number, read in run)

    def _tell_apart(self, run: list[tuple[int, TableRead]]) -> tuple[tuple[int, int | Location], ...] | None:
        """For each address behind a load the number, or where it is; None if that does not tell all of them."""
        behind: dict[int, dict[int, set[Location]]] = {}
        for number, read in run:
            found = self._scenes.behind(number, read)
            if found is None:
                return None
            address, held = found
            behind.setdefault(address, {})[number] = held
        told = {address: _tell(numbers) for address, numbers in behind.items()}
        known = tuple((address, tells) for address, tells in sorted(told.items()) if tells is not None)
        return known if len(known) == len(told) else None


def _adjacent(entries: Iterable[tuple[int, TableRead]]) -> Iterator[list[tuple[int, TableRead]]]:
    """Runs of `entries`, which are sorted by address, without a gap between them."""
    run: list[tuple[int, TableRead]] = []
    for number, read in entries:
        if run and (run[-1][1].end != read.address or read.end - run[0][1].address > _MOST_BYTES):
            yield run
            run = []
        run.append((number, read))
    if run:
        yield run


def _tell(held: Mapping[int, set[Location]]) -> int | Location | None:
    """The only number of `held`, or the place that all of them are in."""
    return next(iter(held)) if len(held) == 1 else first_of(set.intersection(*held.values()))
