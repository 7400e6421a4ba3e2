"""Exits that a log has told of before they happened.

QEMU logs a block of code before it runs it. A call that returns is told of then; an exit would be told of at once,
and again by the next trace if this one ends while the CPU still stands in front of it.
"""

from exogdb.trace.event import Entry, Event
from exogdb.trace.notice import Notice

__all__ = ["HeldExits"]

_NO_CPU = -1


class HeldExits:
    """Keeps each CPU's last exit until something shows that it has begun."""

    def __init__(self) -> None:
        self._held: dict[int | None, Notice] = {}

    def hold(self, cpu: int | None, notice: Notice) -> None:
        """`notice` tells of an exit that `cpu` is about to make."""
        self._held[cpu] = notice

    def release_before(self, event: Event) -> list[Notice]:
        """What is certain by `event`: its CPU has gone on. One that was logged twice is no news."""
        if not self._held or (isinstance(event, Entry) and event.repeats):
            return []
        notice = self._held.pop(event.cpu, None)
        return [] if notice is None else [notice]

    def release_of(self, process: int | None) -> list[Notice]:
        """The exit of `process`, by the trace's number: a wait has returned for it, which is told of next."""
        cpu = next((cpu for cpu, notice in self._held.items() if notice.call.process == process), _NO_CPU)
        return [] if cpu == _NO_CPU else [self._held.pop(cpu)]

    def release_all(self) -> list[Notice]:
        """All of them, the oldest first."""
        released = sorted(self._held.values(), key=lambda notice: notice.call.sequence)
        self._held.clear()
        return released

    def take_back(self, cpu: int, space: int, user_rsp: int) -> Notice | None:
        """The exit that `cpu`, which its entry may not have told, still stands in front of; it is forgotten."""
        for key in (cpu, None):
            notice = self._held.get(key)
            if notice is not None and (notice.call.space, notice.call.user_rsp) == (space, user_rsp):
                return self._held.pop(key)
        return None
