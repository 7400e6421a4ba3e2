"""A system call in progress, with what its return is recognised by."""

from dataclasses import dataclass

from exogdb.trace.call import Call
from exogdb.trace.event import Entry

__all__ = ["OpenCall"]


@dataclass(slots=True)
class OpenCall:
    """`thread` is address space and FS base at the entry, `forks_before` how many forks had returned by then."""

    call: Call
    thread: tuple[int, int]
    preserved: object
    kernel_stack_top: int | None
    forks_before: int = 0
    is_announced: bool = False

    def is_entered_by(self, entry: Entry) -> bool:
        """Whether `entry` shows all that the call's own showed, but for the CPU."""
        call = self.call
        return (self.thread, self.preserved, call.number, call.arguments, call.user_rip, call.user_rsp) == (
            (entry.space, entry.fs_base),
            entry.preserved,
            entry.number,
            entry.arguments,
            entry.user_rip,
            entry.user_rsp,
        )
