"""Which calls run through which page of code: what they would pay for a breakpoint in it."""

from collections.abc import Iterable, Mapping

from exogdb.abi.dispatch.place import Cost
from exogdb.abi.dispatch.route import UNKNOWN, Routes
from exogdb.abi.dispatch.trace import Block, DispatcherEntry

__all__ = ["PAGE", "PageUse"]

PAGE = 4096


class PageUse:
    """The pages of the entry path, which every call runs through, and the numbers that run through each other one.

    `hot` are addresses that every call runs through beside the dispatcher; `handlers` are those of the functions
    that are named after a number's call, for numbers whose run ends before it gets there.
    """

    def __init__(
        self, routes: Routes, entry: DispatcherEntry, hot: Iterable[int], handlers: Mapping[int, int]
    ) -> None:
        self._of_every_call = {address & -PAGE for address in (*hot, entry.address)}
        self._users: dict[int, set[int]] = {}
        numbers: dict[Block, list[int]] = {}
        for number, route in routes.items():
            for block in route.blocks:
                numbers.setdefault(block, []).append(number)
        for block, users in numbers.items():
            pages = range(block.start & -PAGE, block.end, PAGE)
            if len(routes.keys_at(block.start)) > 1:
                self._of_every_call.update(pages)
            for page in pages:
                self._users.setdefault(page, set()).update(users)
        for number, route in routes.items():
            for function in (route.callee, handlers.get(number)):
                if function is not None:
                    self._users.setdefault(function & -PAGE, set()).add(number)

    def cost_of(self, number: int, address: int) -> Cost:
        """What a breakpoint for `number` at `address` costs if its page then runs one instruction at a time."""
        if address & -PAGE in self._of_every_call:
            return Cost.SHARED_PAGE
        return Cost.SHARED_WITH_CALLS if self._others(number, address) else Cost.FREE

    def describe_others(self, number: int, address: int) -> str:
        """The other numbers that run through the page of `address`, as text."""
        others = sorted(self._others(number, address))
        return ", ".join("unknown numbers" if other == UNKNOWN else str(other) for other in others)

    def _others(self, number: int, address: int) -> set[int]:
        return self._users.get(address & -PAGE, set()) - {number}
