"""Which locations of a row are enabled: those that exogdb needs now, without those that the user has disabled.

GDB has one switch for both. Of `disable N.M` it tells Python that something about row N has changed; it tells the
same when it has made the row's locations anew, as it does whenever a symbol file comes or goes. Those that were
disabled stay so then if they are in a function of the same name as before.
"""

from collections.abc import Container
from dataclasses import dataclass, replace

import gdb

from exogdb.x86.word import MASK_64

__all__ = ["Locations"]


@dataclass(frozen=True)
class _Left:
    """One location as exogdb has left it, or the user since."""

    location: gdb.BreakpointLocation
    is_enabled: bool
    function: str | None

    def is_users_doing(self, now: gdb.BreakpointLocation) -> bool:
        """Whether the user has switched it, as it is `now` at this address; else GDB has made it anew."""
        try:
            return self.location.enabled != self.is_enabled
        except RuntimeError:  # it was made anew before, and GDB did not say so: it was as it had been
            return self.is_enabled or (self.function is not None and self.function == now.function)


class Locations:
    """The locations of one row."""

    def __init__(self) -> None:
        self._left: dict[int, _Left] = {}
        """By address. Empty while all are shown, or while that changes: nothing is the user's doing then."""
        self._disabled: set[int] = set()

    def show_all(self, row: gdb.Breakpoint) -> None:
        """Enable every one until `show`, also what the user has disabled."""
        self._left = {}
        for location in row.locations:
            location.enabled = True

    def show(self, row: gdb.Breakpoint, addresses: Container[int]) -> None:
        """Enable what is at `addresses`, nothing else, and nothing that the user has disabled."""
        self._left, left = {}, {}
        for location in row.locations:
            address = location.address & MASK_64
            wanted = address in addresses and address not in self._disabled
            if location.enabled != wanted:
                location.enabled = wanted
            left[address] = _Left(location, wanted, location.function)
        self._left = left

    def follow(self, row: gdb.Breakpoint) -> bool:
        """The row has changed: take note of what the user has switched.

        Says whether GDB has enabled a location on its own: `show` is due.
        """
        is_due = False
        for location in row.locations if self._left else ():
            address, is_enabled = location.address & MASK_64, location.enabled
            left = self._left.get(address)
            if left is None or left.is_enabled == is_enabled:
                continue
            if not left.is_users_doing(location):
                is_due = True
                continue
            self._left[address] = replace(left, is_enabled=is_enabled)
            remember = self._disabled.discard if is_enabled else self._disabled.add
            remember(address)
        return is_due
