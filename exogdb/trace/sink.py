"""Between an engine and whatever is made of a trace: pairing, choosing, counting.

An engine calls `feed` for every event that it sees, of every system call: pairing needs them all. Only the chosen
ones reach `write`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from exogdb.trace.call import Call, CallState
from exogdb.trace.event import Event
from exogdb.trace.exits import HeldExits
from exogdb.trace.notice import Notice
from exogdb.trace.pairing import Pairing
from exogdb.x86.memory import ReadableMemory

__all__ = ["Numbers", "Observer", "Sink", "StoppedCpu"]


class Numbers(Protocol):
    """A set of system-call numbers, such as `exogdb.abi.choice.Choice`."""

    def __contains__(self, number: int, /) -> bool: ...


class StoppedCpu(ReadableMemory, Protocol):
    """A CPU that an engine has stopped at a call's entry or return: its memory and registers."""

    def registers(self) -> Mapping[str, int]:
        """By GDB's names, unsigned."""
        ...


class Observer(Protocol):
    """Looks at the guest while it is stopped for a call that was chosen, before anything is written about it."""

    def at_entry(self, call: Call, cpu: StoppedCpu) -> None:
        """The call has just been entered."""
        ...

    def at_return(self, call: Call, cpu: StoppedCpu) -> None:
        """The call is about to return."""
        ...


@dataclass
class Sink:
    """Passes on the notices about calls whose number is in `choice`, until `most` of them have been entered.

    `most` None is without limit; how the last ones end is still told. Calls whose number is not known (entered
    before the trace) are passed on only if everything is chosen (`choice` None).

    `observers` are told of entries and returns only by an engine that stops the guest; it sets `cpu`. `flush` is
    called when the engine has nothing more at hand. `is_told_before`: an event tells what its CPU is about to do,
    as QEMU's log does.
    """

    write: Callable[[Notice], None]
    choice: Numbers | None = None
    most: int | None = None
    pairing: Pairing = field(default_factory=Pairing)
    observers: Sequence[Observer] = ()
    cpu: StoppedCpu | None = None
    flush: Callable[[], None] = lambda: None
    is_told_before: bool = False
    shown: int = 0
    _last: int = 0
    _admitted: set[int] = field(default_factory=set)
    _exits: HeldExits = field(default_factory=HeldExits)

    def feed(self, event: Event) -> None:
        """Take one event, in the order in which they happened."""
        entered = self.pairing.entries
        certain, news = self._exits.release_before(event), [*self.pairing.feed(event)]
        newest = self.pairing.newest
        if newest is not None and self.pairing.entries != entered:
            self._admit(newest)
            self._show_entry(newest)  # an exit is among the news already
            if self.is_told_before and newest.state is CallState.NEVER_RETURNED:
                self._exits.hold(event.cpu, news.pop())
        certain += self._exits.release_of(self.pairing.lineage.take_reaped())
        for notice in (*certain, *news):
            self._pass_on(notice)

    def finish(self) -> None:
        """The end of the trace: tell of the calls that are still in progress."""
        for notice in (*self._exits.release_all(), *self.pairing.finish()):
            self._pass_on(notice)
        self.flush()

    def retract(self, cpu: int, space: int, user_rsp: int) -> None:
        """The call that `cpu` entered last has not begun: the CPU still stands in front of it."""
        call = self._retract_exit(cpu, space, user_rsp) or self.pairing.retract(cpu, space, user_rsp)
        if call is not None and call.sequence in self._admitted:
            self._admitted.remove(call.sequence)
            self.shown -= 1

    def _retract_exit(self, cpu: int, space: int, user_rsp: int) -> Call | None:
        notice = self._exits.take_back(cpu, space, user_rsp)
        if notice is None:
            return None
        self.pairing.entries -= 1
        return notice.call

    def still_open(self) -> list[Call]:
        """The admitted calls that have not returned, oldest first."""
        return [call for call in self.pairing.still_open() if call.sequence in self._admitted]

    @property
    def is_full(self) -> bool:
        """Whether `most` calls have been entered, so that the engine may stop."""
        return self.most is not None and self.shown >= self.most

    def _admit(self, call: Call) -> None:
        """Decide about a call when it is seen first."""
        if call.sequence <= self._last:
            return
        self._last = call.sequence
        if self._is_chosen(call) and not self.is_full:
            self.shown += 1
            self._admitted.add(call.sequence)

    def _show_entry(self, call: Call) -> None:
        if self.cpu is not None and call.sequence in self._admitted:
            for observer in self.observers:
                observer.at_entry(call, self.cpu)

    def _is_chosen(self, call: Call) -> bool:
        return self.choice is None or (call.number is not None and call.number in self.choice)

    def _pass_on(self, notice: Notice) -> None:
        call = notice.call
        is_unseen = call.sequence == 0 and not self.is_full and self._is_chosen(call)
        if call.sequence not in self._admitted and not is_unseen:
            return
        if call.state is not CallState.IN_PROGRESS:
            self._admitted.discard(call.sequence)
        if self.cpu is not None and call.state is CallState.RETURNED:
            for observer in self.observers:
                observer.at_return(call, self.cpu)
        self.write(notice)
